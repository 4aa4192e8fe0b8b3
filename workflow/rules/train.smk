rule train:
    input:
        CODE_TRAIN,
        lambda w: prepared(w.experiment, w.trained_on.split("+")),
    output:
        multiext(
            f"{RESULTS}/runs/{{experiment}}/{{trained_on}}/{{method}}-{{order}}/seed{{seed}}/",
            weights="weights.safetensors",
            history="history.csv",
            manifest="run.json",
        ),
    log:
        f"{RESULTS}/logs/train/{{experiment}}/{{trained_on}}/{{method}}-{{order}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{experiment}}/{{trained_on}}/{{method}}-{{order}}/seed{{seed}}.tsv"
    conda:
        "../envs/lft.yaml"
    threads: PROFILE.threads
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 240 * attempt,
        gpu=GPU,
    params:
        options=OPTIONS,
        settings=lambda w: digest(PROFILE.training_inputs(run_of(w))),
    shell:
        "lft train {wildcards.experiment} {wildcards.trained_on} {wildcards.method}"
        " --order {wildcards.order} --seed {wildcards.seed} {params.options} > {log} 2>&1"
