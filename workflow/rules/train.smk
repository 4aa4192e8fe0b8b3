CELL = "{experiment}/{trained_on}/{method}-{order}"
JOB = f"{CELL}/seed{{seed}}" if ONE_SEED else CELL


# Other jobs on the profile's device differ only in the keys that they override.
rule train:
    input:
        lambda w: prepared(w.experiment, w.trained_on.split("+"), seeds_of(w)),
    output:
        below(
            jobs.files(
                [WILD._replace(seed=seed) for seed in JOB_SEEDS], schema.TRAINED
            )
        ),
    log:
        f"{RESULTS}/logs/train/{JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{JOB}.tsv"
    priority: EARLY
    conda:
        ENVIRONMENT
    threads: PROFILE.threads
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 240 * attempt * len(JOB_SEEDS),
        gpu=GPU,
    params:
        lft=LFT,
        options=OPTIONS,
        job=lambda w: jobs.arguments("train", runs_of(w)),
        settings=lambda w: jobs.planned(PROFILE, "train", runs=runs_of(w)),
        code=code("train", *PLUGINS),
    shell:
        "exec {params.lft} {params.job} {params.options} --settings {params.settings}"
        " > {log:q} 2>&1"


# Was a meta-training long enough? It runs again, three times as long. Not a part of `all`.
ONE_RUN = f"runs/{CELL}/seed{{seed}}"
LONG_RUN = f"longer/{ONE_RUN}"


use rule train as trained with:
    input:
        below(f"{ONE_RUN}/{name}" for name in schema.TRAINED),
        lambda w: prepared(w.experiment, w.trained_on.split("+"), [w.seed]),
    output:
        f"{RESULTS}/{ONE_RUN}/trained.json",
        below(f"{LONG_RUN}/{name}" for name in schema.TRAINED),
    log:
        f"{RESULTS}/logs/trained/{CELL}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/trained/{CELL}/seed{{seed}}.tsv"
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 720 * attempt,
        gpu=GPU,
    params:
        lft=LFT,
        options=OPTIONS,
        job=lambda w: (
            f"trained {w.experiment} {w.trained_on} {w.method}"
            f" --order {w.order} --seed {w.seed}"
        ),
        settings=lambda w: jobs.planned(PROFILE, "train", runs=runs_of(w)),
        code=code("train", *PLUGINS),


rule check_trained:
    input:
        checks,
    localrule: True


# A victim per seed, or one for all; see `victim.per_seed` in lft/config.
VICTIM_SEED = None if None in PROFILE.victim_seeds else "{seed}"
VICTIM = victim_path(Path(RESULTS), "{source}", VICTIM_SEED)
VICTIM_JOB = "{source}/seed{seed}" if VICTIM_SEED else "{source}"


use rule train as victim with:
    input:
        str(data_path(Path(RESULTS), "{source}")),
    output:
        str(VICTIM),
        str(VICTIM.with_suffix(".json")),
    log:
        f"{RESULTS}/logs/victim/{VICTIM_JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/victim/{VICTIM_JOB}.tsv"
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
        gpu=GPU,
    params:
        lft=LFT,
        options=OPTIONS,
        job=lambda w: (
            f"victim {w.source} --seed {w.seed}"
            if VICTIM_SEED
            else f"victim {w.source}"
        ),
        settings=lambda w: jobs.planned(PROFILE, "victim", w.source),
        code=code("victim"),


# A search meta-trains every combination and evaluates none, so it never sees test tasks.
use rule train as search with:
    input:
        [name for name in TRAININGS if name.endswith("run.json")],
    output:
        f"{RESULTS}/search.csv",
    log:
        f"{RESULTS}/logs/search.log",
    benchmark:
        f"{RESULTS}/benchmarks/search.tsv"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 15 * attempt,
    params:
        lft=LFT,
        options=OPTIONS,
        job="search",
        settings=jobs.planned(PROFILE, "search"),
        code=code("search"),
