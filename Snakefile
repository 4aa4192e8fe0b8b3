# Entry of the workflow: one profile in, a report out.
#
#   snakemake --cores 2 reproduce all                        # profile quick
#   snakemake --cores 2 reproduce --config profile=paper     # workflow/config/paper.yaml
#   snakemake --cores 2 reproduce --config profile=my.yaml   # a profile of your own
#   snakemake report                                         # from what has been measured
#   snakemake --profile workflow/profiles/slurm reproduce all
import sys
from pathlib import Path

from snakemake.utils import min_version

from lft.config import digest, load_profile
from lft.errors import UsageError

min_version("9.0")

PROFILE_FILE = config.get("profile", "quick")
if not PROFILE_FILE.endswith(".yaml"):
    PROFILE_FILE = f"workflow/config/{PROFILE_FILE}.yaml"
try:
    PROFILE = load_profile(PROFILE_FILE)
except UsageError as error:
    raise WorkflowError(str(error)) from None

RESULTS = f"results/{PROFILE.name}"
OPTIONS = f"--profile {PROFILE_FILE} --results {RESULTS}"
GPU = int(PROFILE.device.startswith("cuda"))

# The commands of the rules are those of the Python that runs Snakemake.
shell.prefix(f"export PATH={Path(sys.executable).parent}:$PATH; ")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/theory.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    reproduce,
    report,


rule reproduce:
    default_target: True
    input:
        f"{RESULTS}/report.html",


rule all:
    input:
        f"{RESULTS}/report.html",
        f"{RESULTS}/tables",
        f"{RESULTS}/figures",
        EVALUATIONS,
        THEORY,
