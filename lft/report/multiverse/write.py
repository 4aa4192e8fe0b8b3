"""Write the files of the multiverse's report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lft.config import Profile
from lft.report.figures import write_drawings
from lft.report.multiverse.analysis import Reading
from lft.report.multiverse.curves import curves
from lft.report.multiverse.page import write_page
from lft.report.multiverse.shares import Share
from lft.storage.csv import write_frame, write_rows

DECIDES = ("experiment", "what", "subject", "fork", "level", "value", "low", "high")
"""Columns of decides.csv. ``what`` is ``share``: change of the share of readings in which the claim
``subject`` holds, in readings with the level; ``diverged``: the same for readings in which the
method ``subject`` diverges; ``importance``: of a fork in a forest that predicts held-out readings;
``interaction``: of two levels, replicated in held-out readings."""


def write_multiverse(profile: Profile, results: Path) -> None:
    """Write shares.csv, decides.csv, outcomes.csv, distances.csv, curves/ and multiverse.html.

    Args:
        profile: settings with a section ``universes``.
        results: the profile's result folder.

    Raises:
        UsageError: no universe has been run, or a file is damaged or was made under other forks.
    """
    reading = Reading(profile, results)
    found = list(decides(reading))
    write_rows(results / "shares.csv", Share._fields, reading.shares)
    write_rows(results / "decides.csv", DECIDES, found)
    write_frame(results / "outcomes.csv", reading.table())
    far = (
        (name, number, distance)
        for name in reading.experiments
        for number, distance in reading.distances(name).items()
    )
    write_rows(results / "distances.csv", ("experiment", "universe", "distance"), far)
    drawn = ((f"{curves.__module__}.{curves.__qualname__}", one) for one in curves(reading))
    write_drawings(drawn, results / "curves")
    write_page(reading, found)


def decides(reading: Reading) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of decides.csv."""
    for name in reading.experiments:
        for claim in reading.explored(name):
            for (fork, level), found in reading.main_effects(claim).items():
                yield (name, "share", claim.id, fork, level, *found)
            for fork, value in reading.forest(claim).importance.items():
                yield (name, "importance", claim.id, fork, "", value, math.nan, math.nan)
            for pair in reading.interactions(claim):
                both = (" × ".join(parts) for parts in zip(pair.first, pair.second, strict=True))
                yield (name, "interaction", claim.id, *both, pair.effect, math.nan, math.nan)
        for method, diverged in reading.diverged(name).items():
            if any(diverged):
                for (fork, level), found in reading.makes_diverge(name, method).items():
                    yield (name, "diverged", method, fork, level, *found)
