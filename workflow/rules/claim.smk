# One claim alone: what its verdict rests on, then the verdict. It has no outputs, so that it always
# does its work.
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
