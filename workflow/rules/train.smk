CELL = "{experiment}/{trained_on}/{method}-{order}"
# The seeds of one job, and its name: see `seeds_per_job` in lft/config.
if PROFILE.seeds_per_job == "one":
    JOB_SEEDS, JOB = ["{seed}"], f"{CELL}/seed{{seed}}"
else:
    JOB_SEEDS, JOB = PROFILE.seeds, CELL


rule train:
    input:
        CODE_TRAIN,
        lambda w: prepared(w.experiment, w.trained_on.split("+")),
    output:
        [
            f"{RESULTS}/runs/{CELL}/seed{seed}/{name}"
            for seed in JOB_SEEDS
            for name in ("weights.safetensors", "history.csv", "run.json")
        ],
    log:
        f"{RESULTS}/logs/train/{JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{JOB}.tsv"
    priority: EARLY
    conda:
        "../envs/lft.yaml"
    threads: PROFILE.threads
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 240 * attempt * len(JOB_SEEDS),
        gpu=GPU,
    params:
        options=OPTIONS,
        seeds=[f"--seed {seed}" for seed in JOB_SEEDS],
        settings=lambda w: digest(PROFILE.training_inputs(run_of(w))),
    shell:
        "exec lft train {wildcards.experiment} {wildcards.trained_on} {wildcards.method}"
        " --order {wildcards.order} {params.seeds} {params.options} > {log} 2>&1"


# A search meta-trains every combination and evaluates none: test tasks have no part in it.
rule search:
    input:
        code("results/search.py"),
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
