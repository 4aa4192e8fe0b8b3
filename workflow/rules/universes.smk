# Readings of the paper, for a profile with the section `universes`. One job computes one reading, from
# tuning to measurements.
use rule train as universe with:
    input:
        lambda w: [
            str(data_path(Path(RESULTS), source))
            for source in sorted(
                {
                    family.image_source
                    for family in PROFILE.experiments[w.experiment].families.values()
                }
                - {None}
            )
        ],
    output:
        str(UNIVERSE),
        str(UNIVERSE.with_suffix(".json")),
    log:
        f"{RESULTS}/logs/universe/{{experiment}}/{{number}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/universe/{{experiment}}/{{number}}.tsv"
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
        gpu=GPU,
    params:
        lft=LFT,
        options=OPTIONS,
        job=lambda w: f"universe run {w.experiment} {w.number}",
        settings=lambda w: (
            jobs.planned(PROFILE, "universe", w.experiment)
            if PROFILE.universes
            else ""
        ),
        code=code("universe_run", *PLUGINS),


# Universes that diverged or have contradictory levels still have rows.
use rule aggregate as multiverse with:
    input:
        universes_of(),
        REFERENCE,
        TEMPLATES,
    output:
        f"{RESULTS}/{jobs.MULTIVERSE}",
        f"{RESULTS}/shares.csv",
        f"{RESULTS}/decides.csv",
        f"{RESULTS}/outcomes.csv",
        f"{RESULTS}/distances.csv",
        directory(f"{RESULTS}/curves"),
    log:
        f"{RESULTS}/logs/multiverse.log",
    benchmark:
        f"{RESULTS}/benchmarks/multiverse.tsv"
    params:
        lft=LFT,
        options=OPTIONS,
        job="universe report",
        settings=jobs.planned(PROFILE, "multiverse"),
        code=code("universe_report"),


# The first block of every experiment.
rule pilot:
    input:
        universes_of(pilot=True),
    localrule: True


rule universes:
    input:
        universes_of(),
    localrule: True
