"""The commands that do the jobs of the workflow, and ``report``, which does several.

Each rule is one call. Each function imports the modules that do its job, because
:mod:`lft.results.sources` finds a job's code by these imports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lft.commands.options import (
    QUICK,
    Planned,
    ProfileFile,
    Results,
    Seeds,
    check_plan,
    load,
    run_of,
)
from lft.errors import UsageError

app = typer.Typer()
universe = typer.Typer(
    help="Readings of the paper: show one as a profile, run it, report on all of them.",
    no_args_is_help=True,
)
app.add_typer(universe, name="universe")
MULTIVERSE = Path("multiverse")
Number = Annotated[int, typer.Argument(help="Counted from 1.")]


@app.command()
def data(
    source: str,
    profile: ProfileFile = QUICK,
    results: Results = None,
    planned: Planned = None,
) -> None:
    """Prepare an image source: obtain and check the images, and write one array file."""
    from lft.data import prepare
    from lft.errors import suggestion
    from lft.paths import data_path

    settings, folder = load(profile, results)
    if source not in settings.sources:
        raise UsageError(f"unknown source {source!r}{suggestion(source, settings.sources)}")
    check_plan(planned, settings, "data", source)
    prepare(settings.sources[source], data_path(folder, source))


@app.command()
def victim(
    source: str,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the victim, where every seed has its own.")
    ] = None,
    profile: ProfileFile = QUICK,
    results: Results = None,
    planned: Planned = None,
) -> None:
    """Train the LeNet-5 victim of an image source."""
    from lft.errors import suggestion
    from lft.tasks.build import make_victim

    settings, folder = load(profile, results)
    if source not in settings.sources:
        raise UsageError(f"unknown source {source!r}{suggestion(source, settings.sources)}")
    if seed not in settings.victim_seeds:
        known = ", ".join("none" if n is None else str(n) for n in settings.victim_seeds)
        raise UsageError(f"--seed of a victim must be one of: {known} (key victim.per_seed)")
    check_plan(planned, settings, "victim", source)
    make_victim(settings, source, folder, seed)


@app.command()
def train(
    experiment: str,
    trained_on: str,
    method: str,
    order: str = "first",
    seed: Annotated[
        list[int] | None, typer.Option(help="Repeatable; the profile's first by default.")
    ] = None,
    profile: ProfileFile = QUICK,
    results: Results = None,
    planned: Planned = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard: outer loss, meta-validation.")
    ] = None,
) -> None:
    """Meta-train a method on a mixture of families, e.g. lft train attack mnist+cifar10 lft."""
    from lft.meta.train import train_seeds

    settings, folder = load(profile, results)
    seeds = settings.seeds[:1] if seed is None else seed
    runs = [run_of(settings, experiment, trained_on, method, order, number) for number in seeds]
    check_plan(planned, settings, "train", runs=runs)
    train_seeds(settings, runs, folder, tensorboard)


@app.command()
def trained(
    experiment: str,
    trained_on: str,
    method: str,
    order: str = "first",
    seed: int = 0,
    profile: ProfileFile = QUICK,
    results: Results = None,
    planned: Planned = None,
) -> None:
    """Check whether a meta-training was long enough, by training it again three times as long."""
    from lft.meta.trained import write_checks

    settings, folder = load(profile, results)
    run = run_of(settings, experiment, trained_on, method, order, seed)
    check_plan(planned, settings, "train", runs=[run])
    write_checks(settings, run, folder)


@app.command()
def evaluate(
    experiment: str,
    trained_on: str,
    method: Annotated[str, typer.Argument(help="A method, or all of the mixture.")] = "all",
    order: str = "first",
    seed: Seeds = None,
    profile: ProfileFile = QUICK,
    results: Results = None,
    planned: Planned = None,
) -> None:
    """Measure trained methods on the test tasks of every mixture."""
    from lft.config import ALL
    from lft.meta.evaluate import evaluate_runs

    settings, folder = load(profile, results)
    seeds = settings.seeds if seed is None else seed
    methods = [*settings.experiment(experiment).methods, *settings.experiment(experiment).variants]
    known = methods[0] if method == ALL else method
    runs = [run_of(settings, experiment, trained_on, known, order, number) for number in seeds]
    if method == ALL:
        wanted = {run._replace(method=ALL) for run in runs}
        applicable = settings.own_runs(experiment)
        runs = [run for run in applicable if run._replace(method=ALL) in wanted]
    check_plan(planned, settings, "evaluate", runs=runs)
    evaluate_runs(settings, runs, folder)


@app.command()
def theory(
    experiment: str,
    seed: Seeds = None,
    profile: ProfileFile = QUICK,
    results: Results = None,
    planned: Planned = None,
) -> None:
    """Measure Theorem 1's gradient gap and bound, and meta-gradient norms, in an experiment."""
    from lft.theory import measure

    settings, folder = load(profile, results)
    settings.experiment(experiment)
    check_plan(planned, settings, "theory", experiment)
    for number in settings.seeds if seed is None else seed:
        if number not in settings.seeds:
            raise UsageError(f"seed {number} is not in profile {settings.name!r}")
        measure(settings, experiment, number, folder)


@app.command()
def search(profile: ProfileFile = QUICK, results: Results = None, planned: Planned = None) -> None:
    """Write search.csv: the score of every combination of hyper-parameters on meta-validation."""
    from lft.results.search import write_search

    settings, folder = load(profile, results)
    check_plan(planned, settings, "search")
    write_search(settings, folder)


@universe.command("show")
def universe_show(
    experiment: str, number: Number, profile: ProfileFile = MULTIVERSE, results: Results = None
) -> None:
    """Print a universe as a profile for snakemake and lft, e.g. lft universe show attack 17.

    If it has been run, each method has the settings that it chose; if not, all draws are variants.
    """
    from lft.results import universes

    settings, folder = load(profile, results)
    wanted = universes.universe(settings, experiment, number)
    chosen = universes.chosen(folder, wanted)
    typer.echo(universes.as_yaml(settings, wanted, chosen).rstrip())


@universe.command("run")
def universe_run(
    experiment: str,
    number: Annotated[list[int], typer.Argument(help="Counted from 1; one or more.")],
    profile: ProfileFile = MULTIVERSE,
    results: Results = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the trained weights.")] = False,
    planned: Planned = None,
) -> None:
    """Compute universes: tune, train and measure every method, in one process."""
    from lft.meta.universe import run_universe
    from lft.results.universes import universe

    settings, folder = load(profile, results)
    wanted = [universe(settings, experiment, one) for one in number]
    check_plan(planned, settings, "universe", experiment)
    for one in wanted:
        run_universe(settings, one, folder, keep=keep)


@universe.command("report")
def universe_report(
    profile: ProfileFile = MULTIVERSE, results: Results = None, planned: Planned = None
) -> None:
    """Report on all finished universes: how often each claim holds, and which choices decide."""
    from lft.report.multiverse.write import write_multiverse

    settings, folder = load(profile, results)
    check_plan(planned, settings, "multiverse")
    write_multiverse(settings, folder)
    typer.echo(folder / "multiverse.html")


@universe.command("nearest")
def universe_nearest(
    experiment: str,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File; nearest-<experiment>.yaml by default."),
    ] = None,
    profile: ProfileFile = MULTIVERSE,
    results: Results = None,
) -> None:
    """Write the universe nearest to the paper's printed numbers as a profile.

    Its settings are fitted to these numbers, so it gives no verdicts.
    """
    from lft.report.multiverse.nearest import write_nearest

    path = output or Path(f"nearest-{experiment}.yaml")
    number = write_nearest(*load(profile, results), experiment, path)
    typer.echo(f"{path}: universe {number}")


@app.command()
def aggregate(
    profile: ProfileFile = QUICK, results: Results = None, planned: Planned = None
) -> None:
    """Join all measurements: measurements.csv, summary.csv, cells.csv and theory.csv."""
    from lft.results.aggregate import aggregate as join

    settings, folder = load(profile, results)
    check_plan(planned, settings, "aggregate")
    join(settings, folder)


def _need_summary(folder: Path, *others: str) -> None:
    """Refuse to go on without the joined tables, or with some that were changed by hand."""
    from lft.results.digests import JOINED, check

    path = folder / "summary.csv"
    if not path.is_file():
        raise UsageError(f"{path} is missing; lft report makes it from what has been measured")
    check(folder, (*JOINED, *others))


@app.command()
def tables(profile: ProfileFile = QUICK, results: Results = None, planned: Planned = None) -> None:
    """Write the tables, claims.json, claims.csv and alternatives.csv."""
    from lft.report.alternatives import write_alternatives
    from lft.report.claims import write_claims
    from lft.report.tables import write_tables

    settings, folder = load(profile, results)
    check_plan(planned, settings, "tables")
    _need_summary(folder)
    write_tables(settings, folder)
    write_claims(settings, folder)
    write_alternatives(settings, folder)


@app.command()
def figures(profile: ProfileFile = QUICK, results: Results = None, planned: Planned = None) -> None:
    """Draw the figures."""
    from lft.report.figures import draw_figures

    settings, folder = load(profile, results)
    check_plan(planned, settings, "figures")
    _need_summary(folder)
    draw_figures(settings, folder)


@app.command()
def page(profile: ProfileFile = QUICK, results: Results = None, planned: Planned = None) -> None:
    """Write report.html from tables, figures and claims."""
    from lft.paths import kept_alternatives
    from lft.report.page import write_page
    from lft.results.digests import JUDGED, check

    settings, folder = load(profile, results)
    check_plan(planned, settings, "page")
    _need_summary(folder, *JUDGED)
    for path in kept_alternatives(folder).values():
        check(path.parent, [path.name])
    write_page(settings, folder)


@app.command()
def report(profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Build measurements.csv, tables, figures and report.html from what has been measured."""
    _, folder = load(profile, results)
    for step in (aggregate, tables, figures, page):
        step(profile, folder)
    typer.echo(folder / "report.html")
