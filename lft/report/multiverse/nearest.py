"""Write the reading that is nearest to the paper's printed numbers as a profile."""

from __future__ import annotations

from pathlib import Path

import yaml

from lft.config import Profile
from lft.errors import UsageError
from lft.report.multiverse.analysis import Reading
from lft.results import universes
from lft.storage.atomic import write_text

SEEDS = 3
"""Seeds of the profile."""
HEAD = """\
# Universe {number} of {experiment}: of {n} readings the nearest to the paper's printed numbers.
# Fitted to these numbers: agreement with them says nothing, and claims get no verdict.
"""


def write_nearest(profile: Profile, results: Path, experiment: str, path: Path) -> int:
    """Write the nearest universe of an experiment, with the settings that its methods chose.

    Args:
        profile: settings with a section ``universes``.
        results: the profile's result folder.
        experiment: name of the experiment.
        path: file to write.

    Returns:
        Number of the universe.

    Raises:
        UsageError: no universe has been run, or none computes a number that the paper prints.
    """
    reading = Reading(profile, results)
    far = reading.distances(experiment) if experiment in reading.experiments else {}
    if not far:
        raise UsageError(
            f"no universe of {experiment!r} has been run that computes a number of the paper's "
            "tables; attack and classification can"
        )
    number = next(iter(far))
    nearest = universes.universe(profile, experiment, number)
    content = universes.values(profile, nearest, universes.chosen(results, nearest))
    content |= {
        "name": f"nearest-{experiment}",
        "title": f"{content['title']}: fitted to the paper's numbers",
        "seeds": list(profile.seeds[:SEEDS]),
        "fitted": "the paper's printed numbers",
    }
    head = HEAD.format(number=number, experiment=experiment, n=len(far))
    write_text(path, head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))
    return number
