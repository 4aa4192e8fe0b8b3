rule data:
    output:
        f"{RESULTS}/data/{{source}}.safetensors",
    input:
        CODE_DATA,
    params:
        options=OPTIONS,
        settings=lambda w: digest(PROFILE.sources[w.source].model_dump(mode="json")),
    log:
        f"{RESULTS}/logs/data/{{source}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/{{source}}.tsv"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
    conda:
        "../envs/lft.yaml"
    shell:
        "lft data {wildcards.source} {params.options} > {log} 2>&1"


rule victim:
    output:
        weights=f"{RESULTS}/victims/{{source}}.safetensors",
        accuracy=f"{RESULTS}/victims/{{source}}.json",
    input:
        CODE_VICTIM,
        images=f"{RESULTS}/data/{{source}}.safetensors",
    params:
        options=OPTIONS,
        settings=lambda w: digest(PROFILE.victim_inputs(w.source)),
    log:
        f"{RESULTS}/logs/victim/{{source}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/victim/{{source}}.tsv"
    threads: PROFILE.threads
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
        gpu=GPU,
    conda:
        "../envs/lft.yaml"
    shell:
        "lft victim {wildcards.source} {params.options} > {log} 2>&1"
