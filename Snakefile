# The workflow catalog asks for workflow/Snakefile; this lets `snakemake` find it from the top.
include: "workflow/Snakefile"
