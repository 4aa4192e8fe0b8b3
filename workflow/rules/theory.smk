MEASURED_THEORY = [
    theory_path(Path(RESULTS), "{experiment}", seed) for seed in JOB_SEEDS
]
THEORY_JOB = "{experiment}/seed{seed}" if ONE_SEED else "{experiment}"


use rule train as theory with:
    input:
        lambda w: prepared(
            w.experiment, PROFILE.theory_families(w.experiment), seeds_of(w)
        ),
        lambda w: below(
            jobs.files(
                [
                    run
                    for run in PROFILE.theory_runs(w.experiment)
                    if run.seed in seeds_of(w)
                ],
                ["weights.safetensors"],
            )
        ),
    output:
        [
            str(path.with_suffix(end))
            for path in MEASURED_THEORY
            for end in (".csv", ".json")
        ],
    log:
        f"{RESULTS}/logs/theory/{THEORY_JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/theory/{THEORY_JOB}.tsv"
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 60 * attempt * len(JOB_SEEDS),
        gpu=GPU,
    params:
        lft=LFT,
        options=OPTIONS,
        job=lambda w: " ".join(
            ["theory", w.experiment, *(f"--seed {seed}" for seed in seeds_of(w))]
        ),
        settings=lambda w: jobs.planned(PROFILE, "theory", w.experiment),
        code=code("theory", *PLUGINS),
