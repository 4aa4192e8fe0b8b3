# What the rules share: the jobs of a profile, and the sources and settings that each depends on.
from lft import plugins
from lft.config import AttackFamily, Run
from lft.paths import PACKAGE, kept_alternatives

RUNS = [run for name in PROFILE.experiments for run in PROFILE.runs(name)]
EVALUATIONS = sorted(
    {
        f"{RESULTS}/{PROFILE.evaluation(run).evaluation_folder}/measurements.csv"
        for run in RUNS
    }
)
# Priority of long jobs: evaluations, which are short, fill the cores at the end.
EARLY = 1
THEORY = [f"{RESULTS}/theory/{name}.csv" for name in PROFILE.theory_experiments]


wildcard_constraints:
    source="|".join(PROFILE.sources),
    experiment="|".join(PROFILE.experiments),
    trained_on=r"[a-z0-9+-]+",
    method=r"[a-z0-9-]+",
    order="first|zeroth",
    seed=r"\d+",


def code(*parts):
    """Source files that a job's outcome depends on; Snakemake does not see edits in a package."""
    files = [path for part in parts for path in PACKAGE.glob(part)]
    return [os.path.relpath(path) for path in sorted(files)]


def plugin_code(*groups):
    """Source files of the plug-ins that the profile names."""
    references = [name for group in groups for name in getattr(PROFILE.plugins, group)]
    return [
        os.path.relpath(path)
        for name in references
        for path in plugins.source_files(name)
    ]


CODE_DATA = code("data/*.py")
CODE_VICTIM = code("tasks/victim.py", "tasks/build.py")
CODE_RUN = code("tasks/*.py", "finetuners/*.py", "kernels/*.py", "kernels/csrc/*") + code(
    "meta/adapt.py",
    "runtime/device.py",
    "meta/gradients.py",
    "meta/learner.py",
    "methods.py",
    "seeding.py",
    "types.py",
)
CODE_RUN += plugin_code("methods", "tasks")
CODE_TRAIN = CODE_RUN + code("meta/train.py", "meta/estimators/*.py")


def run_of(wildcards):
    """The run that a job's wildcards name."""
    seed = int(getattr(wildcards, "seed", PROFILE.seeds[0]))
    w = wildcards
    return Run(w.experiment, w.trained_on, w.method, w.order, seed)


def prepared(experiment, names):
    """Image files and victims that task families need."""
    families = [PROFILE.experiments[experiment].families[name] for name in names]
    sources = [family.image_source for family in families if family.image_source]
    files = [f"{RESULTS}/data/{source}.safetensors" for source in sources]
    files += [
        f"{RESULTS}/victims/{family.source}.safetensors"
        for family in families
        if isinstance(family, AttackFamily)
    ]
    return sorted(set(files))
