"""Command line: parse arguments, call one function. Every workflow rule is one of these calls."""

from __future__ import annotations

import gc
import io
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lft.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lft.config import Profile, Run

app = typer.Typer(
    help="Reference reproduction of Learned Fine-Tuner for Incongruous Few-Shot Learning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

universe = typer.Typer(
    help="Readings of the paper: show one as a profile, run it, report on all of them.",
    no_args_is_help=True,
)
app.add_typer(universe, name="universe")

ProfileFile = Annotated[
    Path, typer.Option("--profile", "-p", help="Profile: smoke, quick, paper or a YAML file.")
]
Results = Annotated[
    Path | None,
    typer.Option("--results", "-r", help="Result folder; results/<profile> by default."),
]
Seeds = Annotated[list[int] | None, typer.Option(help="Repeatable; all seeds by default.")]
Planned = Annotated[
    str | None,
    typer.Option("--settings", hidden=True, help="Digest of the settings that a job expects."),
]
QUICK = Path("quick")
MULTIVERSE = Path("multiverse")
Number = Annotated[int, typer.Argument(help="Counted from 1.")]


def _load(profile: Path, results: Path | None) -> tuple[Profile, Path]:
    from lft.config import load_profile

    settings = load_profile(profile)
    return settings, results or Path("results") / settings.name


def _profile_of(results: Path, profile: Path | None) -> Profile:
    """The profile of a result folder: the one given, or that of the folder's name."""
    from lft.config import load_profile

    if profile is not None:
        return load_profile(profile)
    name = results.absolute().name or results.resolve().name
    try:
        return load_profile(name)
    except UsageError as error:
        raise UsageError(f"{error}; name that of {results} with --profile") from None


def _check_plan(
    planned: str | None, settings: Profile, rule: str, what: str = "", runs: Iterable[Run] = ()
) -> None:
    """Refuse a job of the workflow whose settings are no more those that it was planned with."""
    from lft.results.jobs import planned as digest

    if planned is not None and planned != digest(settings, rule, what, runs):
        raise UsageError(
            f"profile {settings.name!r} was changed after this job was planned; restore it, or "
            "start the workflow again"
        )


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
def data(
    source: str,
    profile: ProfileFile = QUICK,
    results: Results = None,
    planned: Planned = None,
) -> None:
    """Prepare an image source: obtain, check, write one array file."""
    from lft.data import prepare
    from lft.errors import suggestion
    from lft.paths import data_path

    settings, folder = _load(profile, results)
    if source not in settings.sources:
        raise UsageError(f"unknown source {source!r}{suggestion(source, settings.sources)}")
    _check_plan(planned, settings, "data", source)
    prepare(settings.sources[source], data_path(folder, source))


@app.command()
def victim(
    source: str,
    seed: Annotated[
        int | None, typer.Option(help="Whose victim, where every seed has its own.")
    ] = None,
    profile: ProfileFile = QUICK,
    results: Results = None,
    planned: Planned = None,
) -> None:
    """Train the LeNet-5 victim of an image source."""
    from lft.errors import suggestion
    from lft.tasks.build import make_victim

    settings, folder = _load(profile, results)
    if source not in settings.sources:
        raise UsageError(f"unknown source {source!r}{suggestion(source, settings.sources)}")
    if seed not in settings.victim_seeds:
        known = ", ".join("none" if n is None else str(n) for n in settings.victim_seeds)
        raise UsageError(f"--seed of a victim must be one of: {known} (key victim.per_seed)")
    _check_plan(planned, settings, "victim", source)
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

    settings, folder = _load(profile, results)
    seeds = settings.seeds[:1] if seed is None else seed
    runs = [_run(settings, experiment, trained_on, method, order, number) for number in seeds]
    _check_plan(planned, settings, "train", runs=runs)
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
    """Check whether a meta-training came to its end; trains it again, three times as long."""
    from lft.meta.trained import write_checks

    settings, folder = _load(profile, results)
    run = _run(settings, experiment, trained_on, method, order, seed)
    _check_plan(planned, settings, "train", runs=[run])
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

    settings, folder = _load(profile, results)
    seeds = settings.seeds if seed is None else seed
    methods = [*settings.experiment(experiment).methods, *settings.experiment(experiment).variants]
    known = methods[0] if method == ALL else method
    runs = [_run(settings, experiment, trained_on, known, order, number) for number in seeds]
    if method == ALL:
        wanted = {run._replace(method=ALL) for run in runs}
        applicable = settings.runs(experiment)
        runs = [run for run in applicable if run._replace(method=ALL) in wanted]
    _check_plan(planned, settings, "evaluate", runs=runs)
    evaluate_runs(settings, runs, folder)


@app.command()
def theory(
    experiment: str,
    seed: Seeds = None,
    profile: ProfileFile = QUICK,
    results: Results = None,
    planned: Planned = None,
) -> None:
    """Measure Theorem 1's gradient gap, its bound and the meta-gradient norms of an experiment."""
    from lft.theory import measure

    settings, folder = _load(profile, results)
    settings.experiment(experiment)
    _check_plan(planned, settings, "theory", experiment)
    for number in settings.seeds if seed is None else seed:
        if number not in settings.seeds:
            raise UsageError(f"seed {number} is not in profile {settings.name!r}")
        measure(settings, experiment, number, folder)


@app.command()
def search(profile: ProfileFile = QUICK, results: Results = None, planned: Planned = None) -> None:
    """Write search.csv: which hyper-parameters did best on meta-validation tasks."""
    from lft.results.search import write_search

    settings, folder = _load(profile, results)
    _check_plan(planned, settings, "search")
    write_search(settings, folder)


@universe.command("show")
def universe_show(
    experiment: str, number: Number, profile: ProfileFile = MULTIVERSE, results: Results = None
) -> None:
    """Print a universe as a profile that snakemake and lft take, e.g. lft universe show attack 17.

    Where it has been run, each method has the settings that it chose; else all draws are variants.
    """
    from lft.results import universes

    settings, folder = _load(profile, results)
    wanted = universes.universe(settings, experiment, number)
    chosen = universes.chosen(folder, wanted)
    typer.echo(universes.as_yaml(settings, wanted, chosen).rstrip())


@universe.command("run")
def universe_run(
    experiment: str,
    number: Annotated[list[int], typer.Argument(help="Counted from 1; one or more.")],
    profile: ProfileFile = MULTIVERSE,
    results: Results = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the trained weights.")] = False,
    planned: Planned = None,
) -> None:
    """Compute universes: tune, train and measure every method, in one process."""
    from lft.meta.universe import run_universe
    from lft.results.universes import universe

    settings, folder = _load(profile, results)
    wanted = [universe(settings, experiment, one) for one in number]
    _check_plan(planned, settings, "universe", experiment)
    for one in wanted:
        run_universe(settings, one, folder, keep=keep)


@universe.command("report")
def universe_report(
    profile: ProfileFile = MULTIVERSE, results: Results = None, planned: Planned = None
) -> None:
    """Report on all universes that have been run: in what share of them each claim holds, and what
    decides."""
    from lft.report.multiverse.write import write_multiverse

    settings, folder = _load(profile, results)
    _check_plan(planned, settings, "multiverse")
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
    """Write the universe that is nearest to the paper's printed numbers as a profile. Its settings
    are fitted to them: it gives no verdicts."""
    from lft.report.multiverse.nearest import write_nearest

    path = output or Path(f"nearest-{experiment}.yaml")
    number = write_nearest(*_load(profile, results), experiment, path)
    typer.echo(f"{path}: universe {number}")


@app.command()
def aggregate(
    profile: ProfileFile = QUICK, results: Results = None, planned: Planned = None
) -> None:
    """Join all measurements: measurements.csv, cells.csv and theory.csv."""
    from lft.results.aggregate import aggregate as join

    settings, folder = _load(profile, results)
    _check_plan(planned, settings, "aggregate")
    join(settings, folder)


@app.command()
def tables(profile: ProfileFile = QUICK, results: Results = None, planned: Planned = None) -> None:
    """Write the tables, claims.json, claims.csv and alternatives.csv."""
    from lft.report.alternatives import write_alternatives
    from lft.report.claims import write_claims
    from lft.report.tables import write_tables

    settings, folder = _load(profile, results)
    _check_plan(planned, settings, "tables")
    write_tables(settings, folder)
    write_claims(settings, folder)
    write_alternatives(settings, folder)


@app.command()
def figures(profile: ProfileFile = QUICK, results: Results = None, planned: Planned = None) -> None:
    """Draw the figures."""
    from lft.report.figures import draw_figures

    settings, folder = _load(profile, results)
    _check_plan(planned, settings, "figures")
    draw_figures(settings, folder)


@app.command()
def page(profile: ProfileFile = QUICK, results: Results = None, planned: Planned = None) -> None:
    """Write report.html from tables, figures and claims."""
    from lft.report.page import write_page

    settings, folder = _load(profile, results)
    _check_plan(planned, settings, "page")
    write_page(settings, folder)


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
    from lft.results.crate import write_crate

    settings = _profile_of(results, profile)
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
    from lft.report.compare import as_table, sources_note, terminal
    from lft.report.compare import compare as compared
    from lft.storage.csv import write_rows

    frame = compared(a, b)
    if output:
        write_rows(output, list(frame.columns), frame.itertuples(index=False))
    table = as_table(frame)
    terminal(table).print(table)
    if note := sources_note(frame):
        typer.echo(f"other data: {note}")


@app.command()
def claims(
    claim: Annotated[
        str | None, typer.Argument(help="Id of a claim to judge alone; without, list all.")
    ] = None,
    profile: ProfileFile = QUICK,
    results: Results = None,
) -> None:
    """List the paper's claims with verdicts and costs, or judge one by what has been measured."""
    from lft.commands import claims as listed
    from lft.report.compare import terminal

    settings, folder = _load(profile, results)
    if claim is None:
        table = listed.as_table(settings, folder)
        terminal(table).print(table)
    else:
        typer.echo("\n".join(listed.as_text(listed.verdict(settings, folder, claim))))


@app.command()
def status(
    profile: ProfileFile = QUICK,
    results: Results = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again until all is done.")
    ] = False,
) -> None:
    """Which jobs are done, running, failed and waiting, and how long the rest may take."""
    from lft.commands import status as shown

    settings, folder = _load(profile, results)
    if watch:
        shown.watch(settings, folder)
    else:
        typer.echo("\n".join(shown.lines(settings, folder)))


@app.command()
def summary(profile: ProfileFile = QUICK, results: Results = None) -> None:
    """How a run ended: verdict counts, and whether it agrees with the run of it kept in git."""
    from lft.commands.summary import lines

    for line in lines(*_load(profile, results)):
        typer.echo(line)


@app.command("open")
def open_report(profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Open report.html in a browser; without one, print where it is."""
    import webbrowser

    report = _load(profile, results)[1] / "report.html"
    if not report.is_file():
        raise UsageError(f"{report} is missing; run snakemake reproduce first")
    if not webbrowser.open(report.absolute().as_uri()):
        typer.echo(report)


@app.command()
def doctor() -> None:
    """Look at all that the suite needs, test the kernels; exit status 1 if something is broken."""
    from lft.commands.doctor import examine

    broken = []
    for finding in examine():
        typer.echo(finding)
        broken += [finding.name] * (finding.state == "BROKEN")
    if broken:
        typer.echo(f"Broken: {', '.join(broken)}")
        raise typer.Exit(1)
    typer.echo("All that the suite needs is there.")


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

    settings = _profile_of(results, profile)
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal cannot show becomes a ?
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        app(prog_name="lft")
    except UsageError as error:
        sys.exit(_fail(f"lft: {error}", 2))
    except ModuleNotFoundError as error:
        sys.exit(_fail(f"lft: this needs {error.name}; pip install 'lft[report]'", 2))
    except Interrupted as stop:
        sys.exit(_fail(f"lft: {stop}", 128 + stop.signal))
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
