# The workflow catalog asks for workflow/Snakefile; this lets `snakemake` find it from the top.
include: "workflow/Snakefile"


# An included file's default target is not the default of the file that includes it.
rule default:
    default_target: True
    input:
        rules.reproduce.input,
    localrule: True
