"""Commands that read a result folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lft.commands.options import QUICK, ProfileFile, Results, load, profile_of
from lft.errors import UsageError

app = typer.Typer()


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
    """Turn an evaluated run into a trained fine-tuner for lft.load.

    For example: lft export results/quick attack mnist+cifar10 lft
    """
    from lft.config import Run
    from lft.pretrained.export import from_run

    if output is None and name is not None and Path(name).name != name:
        raise UsageError(f"--name {name!r} is not a file name; give the file with --output")
    run = Run(experiment, trained_on, method, order, seed)
    tuner = from_run(results, run, name=name, licence=licence, note=note)
    path = output or Path(f"{tuner.card.name}.safetensors")
    tuner.save(path)
    typer.echo(path)


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

    settings = profile_of(results, profile)
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
    """Compare the measurements of two result folders and say whether they agree."""
    from lft.report.compare import as_table, sources_note, terminal
    from lft.report.compare import compare as compared
    from lft.results.digests import check
    from lft.storage.csv import write_rows

    for folder in (a, b):
        if not (folder / "summary.csv").is_file():
            raise UsageError(f"{folder} has no summary.csv; lft report makes it")
        check(folder, ["summary.csv"])
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
        str | None,
        typer.Argument(help="Id of a claim to judge alone; lists all by default."),
    ] = None,
    profile: ProfileFile = QUICK,
    results: Results = None,
) -> None:
    """List the paper's claims with verdicts and costs, or judge one by what has been measured."""
    from lft.commands import claims as listed
    from lft.report.compare import terminal

    settings, folder = load(profile, results)
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
        bool, typer.Option("--watch", help="Refresh until every job is done.")
    ] = False,
) -> None:
    """Show which jobs are done, running, failed or waiting, and how long the rest may take."""
    from lft.commands import status as shown

    settings, folder = load(profile, results)
    if watch:
        shown.watch(settings, folder)
    else:
        typer.echo("\n".join(shown.lines(settings, folder)))


@app.command()
def summary(profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Show verdict counts, and whether the run agrees with the one kept in git."""
    from lft.commands.summary import lines

    for line in lines(*load(profile, results)):
        typer.echo(line)


@app.command("open")
def open_report(profile: ProfileFile = QUICK, results: Results = None) -> None:
    """Open report.html in a browser, or print its path if there is no browser."""
    import webbrowser

    report = load(profile, results)[1] / "report.html"
    if not report.is_file():
        raise UsageError(f"{report} is missing; run snakemake reproduce first")
    if not webbrowser.open(report.absolute().as_uri()):
        typer.echo(report)


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
    """Show core- and GPU-hours by rule, measured in a run and predicted for other profiles."""
    from rich.console import Console

    from lft.config import load_profile
    from lft.results import cost as costs

    settings = profile_of(results, profile)
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
