REFERENCE = [
    os.path.relpath(path)
    for path in sorted(Path(CHECKOUT, "workflow/reference").glob("*"))
]
TEMPLATES = [
    os.path.relpath(path)
    for path in sorted(Path(CHECKOUT, "report_templates").glob("*"))
]
CODE_REPORT = code(
    "report/*.py", "report/figures/*.py", "results/records.py", "methods.py"
) + plugin_code("figures")
SUMMARY = [
    f"{RESULTS}/{name}.csv" for name in ("measurements", "summary", "cells", "theory")
]

# What profiles that were run beside this one found of choices that the paper leaves open.
KEPT_ALTERNATIVES = [
    str(path)
    for name, path in kept_alternatives(Path(RESULTS)).items()
    if name != PROFILE.name
]


rule aggregate:
    input:
        code("results/aggregate.py", "results/records.py"),
        EVALUATIONS,
        THEORY,
    output:
        SUMMARY,
    log:
        f"{RESULTS}/logs/aggregate.log",
    benchmark:
        f"{RESULTS}/benchmarks/aggregate.tsv"
    conda:
        "../envs/lft.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 15 * attempt,
    params:
        options=OPTIONS,
        cells=digest({"cells": [str(cell) for cell in PROFILE.cells()]}),
    shell:
        "lft aggregate {params.options} > {log} 2>&1"


rule tables:
    input:
        SUMMARY,
        CODE_REPORT,
        REFERENCE,
        TEMPLATES,
    output:
        directory(f"{RESULTS}/tables"),
        f"{RESULTS}/claims.csv",
        f"{RESULTS}/alternatives.csv",
    log:
        f"{RESULTS}/logs/tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables.tsv"
    conda:
        "../envs/lft.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 15 * attempt,
    params:
        options=OPTIONS,
        profile=digest(PROFILE.model_dump(mode="json")),
    shell:
        "lft tables {params.options} > {log} 2>&1"


rule figures:
    input:
        SUMMARY,
        CODE_REPORT,
        REFERENCE,
    output:
        directory(f"{RESULTS}/figures"),
    log:
        f"{RESULTS}/logs/figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures.tsv"
    conda:
        "../envs/lft.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 15 * attempt,
    params:
        options=OPTIONS,
        profile=digest(PROFILE.model_dump(mode="json")),
    shell:
        "lft figures {params.options} > {log} 2>&1"


rule page:
    input:
        SUMMARY,
        CODE_REPORT,
        REFERENCE,
        TEMPLATES,
        f"{RESULTS}/tables",
        f"{RESULTS}/figures",
        f"{RESULTS}/claims.csv",
        f"{RESULTS}/alternatives.csv",
        KEPT_ALTERNATIVES,
    output:
        f"{RESULTS}/report.html",
        f"{RESULTS}/verdicts.md",
    log:
        f"{RESULTS}/logs/page.log",
    benchmark:
        f"{RESULTS}/benchmarks/page.tsv"
    conda:
        "../envs/lft.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 15 * attempt,
    params:
        options=OPTIONS,
    shell:
        "lft page {params.options} > {log} 2>&1"


# Rebuilds the report from what has been measured, without asking for any run: it has no inputs,
# so it never trains anything, and it always does its work.
rule report:
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../envs/lft.yaml"
    threads: 1
    params:
        options=OPTIONS,
    shell:
        "lft report {params.options} 2>&1 | tee {log}"
