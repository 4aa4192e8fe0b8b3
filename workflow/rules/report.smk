REFERENCE, TEMPLATES = (
    [os.path.relpath(path) for path in sorted(CHECKOUT.joinpath(folder).iterdir())]
    for folder in ("workflow/reference", "report_templates")
)
SUMMARY = below(
    f"{name}.csv" for name in ("measurements", "summary", "cells", "theory")
)

# Effects of open choices, measured by other profiles beside this one.
KEPT_ALTERNATIVES = [
    str(path)
    for name, path in kept_alternatives(Path(RESULTS)).items()
    if name != PROFILE.name
]

# In how many readings of the paper claims hold, if a multiverse was run beside this one.
KEPT_SHARES = [
    str(path)
    for path in [kept_shares(Path(RESULTS))]
    if path.is_file() and PROFILE.universes is None
]
# Speed measured beside this run.
KEPT_BENCHMARKS = [str(path) for path in kept_benchmarks(Path(RESULTS))]


# The other steps of the report differ only in the keys that they override.
rule aggregate:
    input:
        [name for name in EVALUATIONS if name.endswith(".csv")],
        [name for name in TRAININGS if name.endswith("run.json")],
        [name for name in THEORY if name.endswith(".csv")],
        GIVEN,
    output:
        SUMMARY,
    log:
        f"{RESULTS}/logs/aggregate.log",
    benchmark:
        f"{RESULTS}/benchmarks/aggregate.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 15 * attempt,
    params:
        lft=LFT,
        options=OPTIONS,
        job="aggregate",
        settings=jobs.planned(PROFILE, "aggregate"),
        code=code("aggregate"),
    shell:
        "exec {params.lft} {params.job} {params.options} --settings {params.settings}"
        " > {log:q} 2>&1"


use rule aggregate as tables with:
    input:
        SUMMARY,
        REFERENCE,
        TEMPLATES,
    output:
        directory(f"{RESULTS}/tables"),
        f"{RESULTS}/claims.json",
        f"{RESULTS}/claims.csv",
        f"{RESULTS}/alternatives.csv",
    log:
        f"{RESULTS}/logs/tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables.tsv"
    params:
        lft=LFT,
        options=OPTIONS,
        job="tables",
        settings=jobs.planned(PROFILE, "tables"),
        code=code("tables"),


use rule aggregate as figures with:
    input:
        SUMMARY,
        REFERENCE,
    output:
        directory(f"{RESULTS}/figures"),
    log:
        f"{RESULTS}/logs/figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures.tsv"
    params:
        lft=LFT,
        options=OPTIONS,
        job="figures",
        settings=jobs.planned(PROFILE, "figures"),
        code=code("figures", "figures"),


use rule aggregate as page with:
    input:
        SUMMARY,
        REFERENCE,
        TEMPLATES,
        rules.tables.output,
        rules.figures.output,
        KEPT_ALTERNATIVES,
        KEPT_BENCHMARKS,
        KEPT_SHARES,
    output:
        f"{RESULTS}/report.html",
        f"{RESULTS}/verdicts.md",
        f"{RESULTS}/numbers.md",
    log:
        f"{RESULTS}/logs/page.log",
    benchmark:
        f"{RESULTS}/benchmarks/page.tsv"
    params:
        lft=LFT,
        options=OPTIONS,
        job="page",
        settings=jobs.planned(PROFILE, "page"),
        code=code("page"),


# Rebuilds the report from existing measurements. The rule has no inputs, so it never trains anything,
# and no outputs, so it always runs.
rule report:
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        ENVIRONMENT
    threads: 1
    params:
        lft=LFT,
        options=OPTIONS,
    shell:
        "{params.lft} report {params.options} 2>&1 | tee {log:q}"
