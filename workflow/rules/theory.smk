rule theory:
    input:
        CODE_TRAIN,
        code("theory/*.py"),
        lambda w: prepared(w.experiment, PROFILE.theory_families(w.experiment)),
        lambda w: [
            f"{RESULTS}/{run.folder}/weights.safetensors"
            for run in PROFILE.theory_runs(w.experiment, int(w.seed))
        ],
    output:
        measurements=f"{RESULTS}/theory/{{experiment}}-seed{{seed}}.csv",
        manifest=f"{RESULTS}/theory/{{experiment}}-seed{{seed}}.json",
    log:
        f"{RESULTS}/logs/theory/{{experiment}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/theory/{{experiment}}/seed{{seed}}.tsv"
    priority: EARLY
    conda:
        "../envs/lft.yaml"
    threads: PROFILE.threads
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=GPU,
    params:
        options=OPTIONS,
        settings=lambda w: digest(PROFILE.theory_inputs(w.experiment)),
    shell:
        "lft theory {wildcards.experiment} --seed {wildcards.seed} {params.options} > {log} 2>&1"
