"""Commands that need no result folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer()


@app.command()
def card(
    name: Annotated[
        str | None, typer.Argument(help="Name or file of a fine-tuner; lists the names by default.")
    ] = None,
) -> None:
    """Show the origin and the scores of a trained fine-tuner."""
    import yaml

    from lft.pretrained import available, load

    if name is None:
        typer.echo("\n".join(available()))
    else:
        values = load(name).card.model_dump(mode="json", exclude_none=True)
        typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())


@app.command()
def workflow() -> None:
    """Print the Snakefile's path: snakemake --snakefile "$(lft workflow)" --cores 2 reproduce."""
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
def doctor() -> None:
    """Check everything that the suite needs, and test the kernels; exit status 1 if broken."""
    from lft.commands.doctor import examine

    broken = []
    for finding in examine():
        typer.echo(finding)
        broken += [finding.name] * (finding.state == "BROKEN")
    if broken:
        typer.echo(f"Broken: {', '.join(broken)}")
        raise typer.Exit(1)
    typer.echo("Everything that the suite needs is there.")
