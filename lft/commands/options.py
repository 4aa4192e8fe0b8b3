"""Options shared by several commands: a profile, a result folder, a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lft.errors import UsageError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lft.config import Profile, Run

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


def load(profile: Path, results: Path | None) -> tuple[Profile, Path]:
    """Load a profile and choose its result folder.

    Args:
        profile: name or file.
        results: result folder; results/<profile> by default.


    Raises:
        UsageError: the profile is invalid, or part of the checkout is missing.
    """
    from lft.config import load_profile
    from lft.paths import check_complete

    check_complete()
    settings = load_profile(profile)
    return settings, results or Path("results") / settings.name


def profile_of(results: Path, profile: Path | None) -> Profile:
    """Load the profile of a result folder.

    Args:
        results: the folder.
        profile: name or file; the folder's name by default.

    Raises:
        UsageError: the folder or the profile does not exist.
    """
    from lft.config import load_profile

    if profile is not None:
        return load_profile(profile)
    if not results.is_dir():
        raise UsageError(f"there is no folder {results}; name a result folder, like results/quick")
    name = results.absolute().name or results.resolve().name
    try:
        return load_profile(name)
    except UsageError as error:
        raise UsageError(f"{error}; name that of {results} with --profile") from None


def check_plan(
    planned: str | None, settings: Profile, rule: str, what: str = "", runs: Iterable[Run] = ()
) -> None:
    """Refuse a job of the workflow if the profile has changed since it was planned.

    Args:
        planned: digest of the settings at that time; None outside the workflow.
        settings: the profile now.
        rule: rule of the job.
        what: see :func:`lft.results.jobs.planned`.
        runs: see :func:`lft.results.jobs.planned`.

    Raises:
        UsageError: the digests differ.
    """
    from lft.results.jobs import planned as digest

    if planned is not None and planned != digest(settings, rule, what, runs):
        raise UsageError(
            f"profile {settings.name!r} was changed after this job was planned; restore it, or "
            "start the workflow again"
        )


def run_of(
    settings: Profile, experiment: str, trained_on: str, method: str, order: str, seed: int
) -> Run:
    """Return a run of the profile.

    Raises:
        UsageError: the experiment lacks the mixture, method, order or seed.
    """
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
