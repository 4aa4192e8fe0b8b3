# A method, or `all` methods of a mixture: see `methods_per_job` in lft/config.
rule evaluate:
    input:
        CODE_RUN,
        code("meta/evaluate.py"),
        lambda w: [
            path
            for run in PROFILE.evaluated(run_of(w))
            for path in prepared(w.experiment, PROFILE.tested_families(run))
        ],
        lambda w: [
            f"{RESULTS}/{run.evaluation_folder}/seed{seed}/weights.safetensors"
            for run in PROFILE.evaluated(run_of(w))
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
        runtime=lambda w, attempt: 120 * attempt * len(PROFILE.evaluated(run_of(w))),
        gpu=GPU,
    params:
        options=OPTIONS,
        settings=lambda w: digest(PROFILE.evaluation_inputs(run_of(w))),
    shell:
        "lft evaluate {wildcards.experiment} {wildcards.trained_on} {wildcards.method}"
        " --order {wildcards.order} {params.options} > {log} 2>&1"
