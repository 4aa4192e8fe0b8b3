rule train:
    output:
        multiext(
            f"{RESULTS}/runs/{{experiment}}/{{trained_on}}/{{method}}-{{order}}/seed{{seed}}/",
            weights="weights.safetensors",
            history="history.csv",
            manifest="run.json",
        ),
    input:
        CODE_TRAIN,
        lambda w: prepared(w.experiment, w.trained_on.split("+")),
    params:
        options=OPTIONS,
        settings=lambda w: digest(PROFILE.training_inputs(run_of(w))),
    log:
        f"{RESULTS}/logs/train/{{experiment}}/{{trained_on}}/{{method}}-{{order}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{experiment}}/{{trained_on}}/{{method}}-{{order}}/seed{{seed}}.tsv"
    threads: PROFILE.threads
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 240 * attempt,
        gpu=GPU,
    conda:
        "../envs/lft.yaml"
    shell:
        "lft train {wildcards.experiment} {wildcards.trained_on} {wildcards.method}"
        " --order {wildcards.order} --seed {wildcards.seed} {params.options} > {log} 2>&1"
