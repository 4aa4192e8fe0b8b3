"""Command line: parse arguments, call one function. Every workflow rule is one of these calls."""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lft.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from lft.config import Profile, Run

app = typer.Typer(
    help="Reference reproduction of Learned Fine-Tuner for Incongruous Few-Shot Learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ProfileFile = Annotated[
    Path, typer.Option("--profile", "-p", help="Profile: smoke, quick, paper or a YAML file.")
]
Results = Annotated[
    Path | None,
    typer.Option("--results", "-r", help="Result folder; results/<profile> by default."),
]
QUICK = Path("quick")
SEEDS = [0]


def _load(profile: Path, results: Path | None) -> tuple[Profile, Path]:
    from lft.config import load_profile

    settings = load_profile(profile)
    return settings, results or Path("results") / settings.name


def _run(
    settings: Profile, experiment: str, trained_on: str, method: str, order: str, seed: int
) -> Run:
    """A run of the profile, or one line that says what is not in it."""
    from lft.errors import suggestion

    found = settings.experiment(experiment)
    choices = (
        ("trained on", trained_on, found.train_on),
        ("method", method, (*found.methods, *found.variants)),
        ("order", order, found.orders),
        ("seed", str(seed), [str(known) for known in settings.seeds]),
    )
    for what, value, known in choices:
        if value not in known:
            raise UsageError(f"{what} {value!r} is not in {experiment}{suggestion(value, known)}")
    wanted = (experiment, trained_on, method, order, seed)
    return next(run for run in settings.runs(experiment, applicable_only=False) if run == wanted)


@app.command()
def data(source: str, profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Prepare an image source: obtain, check, write one array file."""
    from lft.data import prepare
    from lft.errors import suggestion
    from lft.paths import data_path

    settings, folder = _load(profile, results)
    if source not in settings.sources:
        raise UsageError(f"unknown source {source!r}{suggestion(source, settings.sources)}")
    prepare(settings.sources[source], data_path(folder, source))


@app.command()
def victim(source: str, profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Train the LeNet-5 victim of an image source."""
    from lft.tasks.build import make_victim

    settings, folder = _load(profile, results)
    make_victim(settings, source, folder)


@app.command()
def train(
    experiment: str,
    trained_on: str,
    method: str,
    order: str = "first",
    seed: Annotated[list[int], typer.Option(help="Repeatable: one after the other.")] = SEEDS,
    profile: ProfileFile = QUICK,
    results: Results = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard: outer loss, meta-validation.")
    ] = None,
) -> None:
    """Meta-train a method on a mixture of families, e.g. lft train attack mnist+cifar10 lft."""
    from lft.meta.train import train_seeds

    settings, folder = _load(profile, results)
    runs = [_run(settings, experiment, trained_on, method, order, number) for number in seed]
    train_seeds(settings, runs, folder, tensorboard)


@app.command()
def evaluate(
    experiment: str,
    trained_on: str,
    method: Annotated[str, typer.Argument(help="A method, or all of the mixture.")] = "all",
    order: str = "first",
    profile: ProfileFile = QUICK,
    results: Results = None,
) -> None:
    """Measure trained methods, all seeds, on the test tasks of every mixture."""
    from lft.config import ALL
    from lft.meta.evaluate import evaluate as measure

    settings, folder = _load(profile, results)
    known = settings.experiment(experiment).methods[0] if method == ALL else method
    run = _run(settings, experiment, trained_on, known, order, settings.seeds[0])
    runs = [run]
    if method == ALL:
        methods = settings.evaluated(run._replace(method=ALL))
        runs = list(dict.fromkeys(map(settings.evaluation, methods)))
    for each in runs:
        measure(settings, each, folder)


@app.command()
def theory(experiment: str, profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Measure Theorem 1's gradient gap, its bound and the meta-gradient norms of an experiment."""
    from lft.theory import measure

    settings, folder = _load(profile, results)
    measure(settings, experiment, folder)


@app.command()
def search(profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Write search.csv: which hyper-parameters did best on meta-validation tasks."""
    from lft.results.search import write_search

    write_search(*_load(profile, results))


@app.command()
def aggregate(profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Join all measurements: measurements.csv, cells.csv and theory.csv."""
    from lft.results.aggregate import aggregate as join

    join(*_load(profile, results))


@app.command()
def tables(profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Write the tables, claims.csv and alternatives.csv."""
    from lft.report.alternatives import write_alternatives
    from lft.report.claims import write_claims
    from lft.report.tables import write_tables

    settings, folder = _load(profile, results)
    write_tables(settings, folder)
    write_claims(settings, folder)
    write_alternatives(settings, folder)


@app.command()
def figures(profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Draw the figures."""
    from lft.report.figures import draw_figures

    draw_figures(*_load(profile, results))


@app.command()
def page(profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Write report.html from tables, figures and claims."""
    from lft.report.page import write_page

    write_page(*_load(profile, results))


@app.command()
def report(profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Build measurements.csv, tables, figures and report.html from what has been measured."""
    _, folder = _load(profile, results)
    for step in (aggregate, tables, figures, page):
        step(profile, folder)
    typer.echo(folder / "report.html")


@app.command()
def export(
    results: Annotated[Path, typer.Argument(help="Result folder, e.g. results/quick.")],
    experiment: str,
    trained_on: str,
    method: str,
    order: Literal["first", "zeroth"] = "first",
    seed: int = 0,
    name: Annotated[
        str | None, typer.Option(help="Name on the card; <method>-<image sources> by default.")
    ] = None,
    licence: Annotated[str, typer.Option(help="SPDX identifier of the weights' licence.")] = "MIT",
    note: Annotated[
        str | None, typer.Option(help="What users should know, e.g. how images were obtained.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; <name>.safetensors by default.")
    ] = None,
) -> None:
    """Turn an evaluated run into a trained fine-tuner for lft.load, e.g. lft export results/quick
    attack mnist+cifar10 lft."""
    from lft.config import Run
    from lft.pretrained import save
    from lft.pretrained.export import from_run

    run = Run(experiment, trained_on, method, order, seed)
    tuner = from_run(results, run, name=name, licence=licence, note=note)
    path = output or Path(f"{tuner.card.name}.safetensors")
    save(path, tuner)
    typer.echo(path)


@app.command()
def card(
    name: Annotated[
        str | None, typer.Argument(help="Name or file of a fine-tuner; without, list the names.")
    ] = None,
) -> None:
    """Show where a trained fine-tuner comes from and how good it is."""
    import yaml

    from lft.pretrained import available, load

    if name is None:
        typer.echo("\n".join(available()))
    else:
        values = load(name).card.model_dump(mode="json", exclude_none=True)
        typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())


@app.command()
def workflow() -> None:
    """Print where the Snakefile is: snakemake --snakefile "$(lft workflow)" --cores 2 reproduce."""
    from lft.paths import shipped

    typer.echo(shipped("workflow", "Snakefile"))


@app.command()
def new(
    kind: Literal["method", "task", "figure"],
    name: Annotated[str, typer.Argument(help="Small letters, digits and hyphens.")],
) -> None:
    """Write a working, tested plug-in into a new folder, e.g. lft new method momentum."""
    from lft.scaffold import create

    folder = create(kind, name, Path())
    typer.echo(f"{folder}: try pytest {folder}, then the commands at the top of its profile.yaml")


@app.command()
def crate(
    results: Annotated[Path, typer.Argument(help="Result folder, e.g. results/quick.")],
    profile: Annotated[
        Path | None,
        typer.Option("--profile", "-p", help="Its profile; that of the folder's name by default."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; <results>.crate.zip by default.")
    ] = None,
) -> None:
    """Pack a finished run with its provenance as a Workflow Run RO-Crate."""
    from lft.config import load_profile
    from lft.results.crate import write_crate

    settings = load_profile(profile or Path(results.resolve().name))
    path = output or results.resolve().with_name(f"{results.resolve().name}.crate.zip")
    write_crate(settings, results, path)
    typer.echo(path)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Result folder, e.g. results/reference.")],
    b: Annotated[Path, typer.Argument(help="Result folder, e.g. results/quick.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV file for the comparison.")
    ] = None,
) -> None:
    """Put the measurements of two result folders side by side and say whether they agree."""
    from rich.console import Console

    from lft.report.compare import as_table
    from lft.report.compare import compare as compared
    from lft.results.records import write_rows

    frame = compared(a, b)
    if output:
        write_rows(output, list(frame.columns), frame.itertuples(index=False))
    Console().print(as_table(frame))


@app.command()
def cost(
    results: Annotated[Path, typer.Argument(help="Result folder that has been run.")] = Path(
        "results/quick"
    ),
    profile: Annotated[
        Path | None,
        typer.Option("--profile", "-p", help="Its profile; that of the folder's name by default."),
    ] = None,
    expect: Annotated[
        list[Path] | None,
        typer.Option("--expect", help="Profile to predict from what was measured; repeatable."),
    ] = None,
) -> None:
    """Core- and GPU-hours by rule: of a run, and what other profiles are expected to take."""
    from rich.console import Console

    from lft.config import load_profile
    from lft.results import cost as costs

    settings = load_profile(profile or Path(results.name))
    base = costs.measured(settings, results)
    missing = [job for job in costs.jobs(settings) if job not in base]
    Console().print(costs.as_table(f"{settings.name}, measured", base, missing))
    for other in map(load_profile, expect or ()):
        if other.device != settings.device:
            raise UsageError(
                f"profile {other.name} has device: {other.device}, but {results} was measured on "
                f"{settings.device}; measure on the same"
            )
        title = f"{other.name}, expected from {settings.name}"
        Console().print(costs.as_table(title, *costs.expected(other, base)))


def main() -> None:
    """Entry point: errors that a user can cause end in one line and exit status 2."""
    # Importing torch leaves 200,000 objects, which garbage collections would go through again and
    # again: a tenth of the start-up, a twentieth of a meta-training.
    gc.set_threshold(500_000)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        app()
    except UsageError as error:
        sys.exit(_fail(f"lft: {error}", 2))
    except ModuleNotFoundError as error:
        sys.exit(_fail(f"lft: this needs {error.name}; pip install 'lft[report]'", 2))
    except Interrupted as stop:
        sys.exit(_fail(f"lft: {stop}", 143))
    except RuntimeError as error:
        line = _memory_problem(error)
        if line is None:
            raise
        sys.exit(_fail(f"lft: {line}", 2))


def _memory_problem(error: RuntimeError) -> str | None:
    from lft.runtime.device import memory_problem

    return memory_problem(error)


def _fail(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    return status
