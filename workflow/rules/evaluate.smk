rule evaluate:
    input:
        CODE_RUN,
        code("evaluate.py"),
        lambda w: prepared(w.experiment, PROFILE.tested_families(run_of(w))),
        weights=[
            f"{RESULTS}/runs/{{experiment}}/{{trained_on}}/{{method}}-{{order}}/seed{seed}/weights.safetensors"
            for seed in PROFILE.seeds
        ],
    output:
        multiext(
            f"{RESULTS}/runs/{{experiment}}/{{trained_on}}/{{method}}-{{order}}/",
            measurements="measurements.csv",
            examples="examples.safetensors",
        ),
    log:
        f"{RESULTS}/logs/evaluate/{{experiment}}/{{trained_on}}/{{method}}-{{order}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate/{{experiment}}/{{trained_on}}/{{method}}-{{order}}.tsv"
    conda:
        "../envs/lft.yaml"
    threads: PROFILE.threads
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=GPU,
    params:
        options=OPTIONS,
        settings=lambda w: digest(PROFILE.evaluation_inputs(run_of(w))),
    shell:
        "lft evaluate {wildcards.experiment} {wildcards.trained_on} {wildcards.method}"
        " --order {wildcards.order} {params.options} > {log} 2>&1"
