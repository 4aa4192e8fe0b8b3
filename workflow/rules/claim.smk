# Runs what the verdict on one claim needs, then judges it. The rule has no outputs, so it always
# runs.
rule claim:
    input:
        claimed,
    log:
        f"{RESULTS}/logs/claim.log",
    conda:
        ENVIRONMENT
    threads: 1
    params:
        lft=LFT,
        options=OPTIONS,
        claim=config.get("claim", ""),
    shell:
        "{params.lft} claims {params.claim:q} {params.options} 2>&1 | tee {log:q}"
