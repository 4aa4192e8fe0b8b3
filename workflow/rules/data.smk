rule data:
    input:
        CODE_DATA,
    output:
        f"{RESULTS}/data/{{source}}.safetensors",
    log:
        f"{RESULTS}/logs/data/{{source}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/{{source}}.tsv"
    priority: EARLY
    conda:
        "../envs/lft.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
    params:
        options=OPTIONS,
        settings=lambda w: digest(PROFILE.sources[w.source].model_dump(mode="json")),
    shell:
        "lft data {wildcards.source} {params.options} > {log} 2>&1"


rule victim:
    input:
        CODE_VICTIM,
        images=f"{RESULTS}/data/{{source}}.safetensors",
    output:
        weights=f"{RESULTS}/victims/{{source}}.safetensors",
        accuracy=f"{RESULTS}/victims/{{source}}.json",
    log:
        f"{RESULTS}/logs/victim/{{source}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/victim/{{source}}.tsv"
    priority: EARLY
    conda:
        "../envs/lft.yaml"
    threads: PROFILE.threads
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
        gpu=GPU,
    params:
        options=OPTIONS,
        settings=lambda w: digest(PROFILE.victim_inputs(w.source)),
    shell:
        "lft victim {wildcards.source} {params.options} > {log} 2>&1"
