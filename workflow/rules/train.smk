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
        "exec lft train {wildcards.experiment} {wildcards.trained_on} {wildcards.method}"
        " --order {wildcards.order} --seed {wildcards.seed} {params.options} > {log} 2>&1"


# A search meta-trains every combination and evaluates none: test tasks have no part in it.
rule search:
    input:
        code("report/search.py"),
        [f"{RESULTS}/{run.folder}/run.json" for run in RUNS],
    output:
        f"{RESULTS}/search.csv",
    log:
        f"{RESULTS}/logs/search.log",
    conda:
        "../envs/lft.yaml"
    threads: 1
    params:
        options=OPTIONS,
    shell:
        "lft search {params.options} > {log} 2>&1"
