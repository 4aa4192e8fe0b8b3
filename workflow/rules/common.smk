# Shared by the rules: the command, what a job depends on, and the files of a profile.
from lft import plugins
from lft.config import Run
from lft.paths import (
    data_path,
    kept_alternatives,
    kept_benchmarks,
    kept_shares,
    theory_path,
    universe_path,
    victim_path,
)
from lft.results import jobs, schema, universes
from lft.results.sources import Sources
from lft.results.trained import checked

# Priority of long jobs; the short evaluations fill the cores at the end.
EARLY = 1
WILD = Run("{experiment}", "{trained_on}", "{method}", "{order}", "{seed}")
# The seeds of one job; see `seeds_per_job` in lft/config.
ONE_SEED = PROFILE.seeds_per_job == "one"
JOB_SEEDS = ["{seed}"] if ONE_SEED else PROFILE.seeds
SOURCES = Sources()
# Snakemake would read braces in this path as wildcards.
ENVIRONMENT = (
    str(CHECKOUT / "workflow/envs/lft.yaml").replace("{", "{{").replace("}", "}}")
)


wildcard_constraints:
    source="|".join(PROFILE.sources),
    experiment="|".join(PROFILE.experiments),
    trained_on="|".join(
        sorted(
            {
                m.replace("+", r"\+")
                for e in PROFILE.experiments.values()
                for m in e.train_on
            }
        )
    ),
    method="|".join(
        sorted(
            {
                m
                for e in PROFILE.experiments.values()
                for m in (*e.methods, *e.variants)
            }
        )
    ),
    order="first|zeroth",
    seed="|".join(map(str, PROFILE.seeds)),
    number=r"\d+",


class Spelling:
    """A part of a command that is not a setting: changing it does not rerun a job."""

    def __init__(self, *words):
        self.text = shlex.join(map(str, words))

    def __str__(self):
        return self.text


# Runs `lft` in Snakemake's own Python, or in the environment that Snakemake creates.
LFT = Spelling(
    *(
        ["lft"]
        if workflow.deployment_settings.deployment_method
        else [sys.executable, "-m", "lft"]
    )
)
OPTIONS = Spelling("--profile", PROFILE_FILE, "--results", RESULTS)


def code(command, *groups):
    """Return a digest of the sources of a command and of the profile's plug-ins."""
    files = [
        path
        for group in groups
        for reference in getattr(PROFILE.plugins, group)
        for path in plugins.source_files(reference)
    ]
    return SOURCES.digest(command, files)


PLUGINS = ("finetuners", "methods", "tasks")


def below(names):
    """Return paths in the result folder."""
    return [f"{RESULTS}/{name}" for name in names]


def seeds_of(wildcards):
    """Return the seeds of a job: that of its wildcards, or all."""
    return [int(wildcards.seed)] if hasattr(wildcards, "seed") else PROFILE.seeds


def runs_of(wildcards, cells=(WILD,)):
    """Return the runs of a job in some cells; the cells may contain wildcards."""
    return [
        Run(*(str(part).format(**dict(wildcards.items())) for part in cell[:4]), seed)
        for cell in cells
        for seed in seeds_of(wildcards)
    ]


def prepared(experiment, names, seeds):
    """Return the image files and victims that task families need."""
    families = [PROFILE.experiments[experiment].families[name] for name in names]
    sources = {family.image_source for family in families} - {None}
    attacked = {family.victim_source for family in families} - {None}
    whose = {PROFILE.victim_seed(seed) for seed in seeds} if attacked else set()
    files = {data_path(Path(RESULTS), source) for source in sources}
    files |= {
        victim_path(Path(RESULTS), source, seed)
        for source in attacked
        for seed in whose
    }
    return sorted(map(str, files))


def claimed(wildcards):
    """Return the files that the named claim needs."""
    if NEEDED is None:
        raise WorkflowError(
            "name a claim: --config claim=ID; lft claims lists the claims"
        )
    return below(NEEDED.folder_files)


def checks(wildcards):
    """Return the checks of every meta-trained method, with the profile's first seed."""
    try:
        return below(
            f"{run.folder.as_posix()}/trained.json" for run in checked(PROFILE)
        )
    except UsageError as error:
        raise WorkflowError(str(error)) from None


def universes_of(**which):
    """Return the measurements of universes."""
    return [
        str(universe_path(Path(RESULTS), experiment, number))
        for experiment, number in universes.names(PROFILE, **which)
    ]


UNIVERSE = universe_path(Path(RESULTS), "{experiment}", "{number}")
EVERY = list(jobs.jobs(PROFILE))
TRAININGS = below(
    name
    for job in EVERY
    if job.rule == "train"
    for name in jobs.files(job.runs, schema.TRAINED)
)
EVALUATIONS = below(
    name
    for job in EVERY
    if job.rule == "evaluate"
    for name in jobs.files(job.runs, schema.EVALUATED)
)
# Measurements made elsewhere.
GIVEN = sorted(
    {
        str(path)
        for experiment in PROFILE.experiments.values()
        for path in experiment.measurements.values()
    }
)
THEORY = [
    str(theory_path(Path(RESULTS), name, seed).with_suffix(suffix))
    for name in PROFILE.theory_experiments
    for seed in PROFILE.seeds
    for suffix in (".csv", ".json")
]
PREPARED = sorted(
    {
        path
        for name, experiment in PROFILE.experiments.items()
        for mixture in (*experiment.train_on, *experiment.test_on)
        for path in prepared(name, mixture.split("+"), PROFILE.seeds)
    }
)
