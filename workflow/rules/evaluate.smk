# One rule for all cells. If a job measures all methods of a mixture, there is a rule for each mixture,
# because the mixtures have different methods; see `methods_per_job` in lft/config.
if PROFILE.methods_per_job == "one":
    MEASURED = {"evaluate": [WILD]}
else:
    MEASURED = {}
    for job in jobs.evaluations(PROFILE):
        cells = list(dict.fromkeys(run._replace(seed="{seed}") for run in job.runs))
        name = re.sub(r"\W", "_", "_".join(["evaluate", *cells[0][:2], cells[0].order]))
        MEASURED[name] = cells


def needed(cells):
    """Return the inputs of the evaluation of some cells."""

    def paths(wildcards):
        found = []
        for run in runs_of(wildcards, cells):
            found += prepared(run.experiment, PROFILE.tested_families(run), [run.seed])
            found += below(jobs.files([run], ["weights.safetensors"]))
        return sorted(set(found))

    return paths


for name, cells in MEASURED.items():
    whole = cells[0] if name == "evaluate" else cells[0]._replace(method="all")
    place = (
        (whole.folder if ONE_SEED else whole.evaluation_folder)
        .relative_to("runs")
        .as_posix()
    )

    rule:
        name:
            name
        input:
            needed(cells),
        output:
            below(
                jobs.files(
                    [cell._replace(seed=seed) for cell in cells for seed in JOB_SEEDS],
                    schema.EVALUATED,
                )
            ),
        log:
            f"{RESULTS}/logs/evaluate/{place}.log",
        benchmark:
            f"{RESULTS}/benchmarks/evaluate/{place}.tsv"
        conda:
            ENVIRONMENT
        threads: PROFILE.threads
        resources:
            mem_mb=lambda w, attempt: 4000 * attempt,
            runtime=lambda w, attempt, n=len(cells): 60 * attempt * n * len(JOB_SEEDS),
            gpu=GPU,
        params:
            lft=LFT,
            options=OPTIONS,
            job=lambda w, cells=cells: jobs.arguments("evaluate", runs_of(w, cells)),
            settings=lambda w, cells=cells: jobs.planned(
                PROFILE, "evaluate", runs=runs_of(w, cells)
            ),
            code=code("evaluate", *PLUGINS),
        shell:
            "exec {params.lft} {params.job} {params.options} --settings {params.settings}"
            " > {log:q} 2>&1"
