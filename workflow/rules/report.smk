REFERENCE = [
    str(path.relative_to(workflow.basedir))
    for path in sorted(Path(workflow.basedir, "workflow/reference").glob("*"))
]
TEMPLATES = [
    str(path.relative_to(workflow.basedir))
    for path in sorted(Path(workflow.basedir, "report_templates").glob("*"))
]
CODE_REPORT = code("report/*.py", "records.py", "methods.py")
SUMMARY = [f"{RESULTS}/{name}.csv" for name in ("measurements", "cells", "theory")]


rule aggregate:
    output:
        SUMMARY,
    input:
        code("report/aggregate.py", "records.py"),
        EVALUATIONS,
        THEORY,
    params:
        options=OPTIONS,
        cells=digest({"cells": [str(cell) for cell in PROFILE.cells()]}),
    log:
        f"{RESULTS}/logs/aggregate.log",
    benchmark:
        f"{RESULTS}/benchmarks/aggregate.tsv"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 15 * attempt,
    conda:
        "../envs/lft.yaml"
    shell:
        "lft aggregate {params.options} > {log} 2>&1"


rule tables:
    output:
        directory(f"{RESULTS}/tables"),
        f"{RESULTS}/claims.csv",
    input:
        SUMMARY,
        CODE_REPORT,
        REFERENCE,
    params:
        options=OPTIONS,
        profile=digest(PROFILE.model_dump(mode="json")),
    log:
        f"{RESULTS}/logs/tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables.tsv"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 15 * attempt,
    conda:
        "../envs/lft.yaml"
    shell:
        "lft tables {params.options} > {log} 2>&1"


rule figures:
    output:
        directory(f"{RESULTS}/figures"),
    input:
        SUMMARY,
        CODE_REPORT,
        REFERENCE,
    params:
        options=OPTIONS,
        profile=digest(PROFILE.model_dump(mode="json")),
    log:
        f"{RESULTS}/logs/figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures.tsv"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 15 * attempt,
    conda:
        "../envs/lft.yaml"
    shell:
        "lft figures {params.options} > {log} 2>&1"


rule page:
    output:
        f"{RESULTS}/report.html",
    input:
        SUMMARY,
        CODE_REPORT,
        REFERENCE,
        TEMPLATES,
        f"{RESULTS}/tables",
        f"{RESULTS}/figures",
        f"{RESULTS}/claims.csv",
    params:
        options=OPTIONS,
    log:
        f"{RESULTS}/logs/page.log",
    benchmark:
        f"{RESULTS}/benchmarks/page.tsv"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 15 * attempt,
    conda:
        "../envs/lft.yaml"
    shell:
        "lft page {params.options} > {log} 2>&1"


# Rebuilds the report from what has been measured, without asking for any run: it has no inputs,
# so it never trains anything, and it always does its work.
rule report:
    params:
        options=OPTIONS,
    log:
        f"{RESULTS}/logs/report.log",
    threads: 1
    conda:
        "../envs/lft.yaml"
    shell:
        "lft report {params.options} 2>&1 | tee {log}"
