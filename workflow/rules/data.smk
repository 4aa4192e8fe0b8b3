rule data:
    output:
        str(data_path(Path(RESULTS), "{source}")),
    log:
        f"{RESULTS}/logs/data/{{source}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/{{source}}.tsv"
    priority: EARLY
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
    params:
        lft=LFT,
        options=OPTIONS,
        job=lambda w: f"data {w.source}",
        settings=lambda w: jobs.planned(PROFILE, "data", w.source),
        code=code("data"),
    shell:
        "exec {params.lft} {params.job} {params.options} --settings {params.settings}"
        " > {log:q} 2>&1"
