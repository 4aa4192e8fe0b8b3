"""The task family on which the theory is measured."""

from __future__ import annotations

from pathlib import Path

from lft.config import Profile
from lft.tasks.base import TaskFamily
from lft.tasks.build import build_families


def measured_family(
    profile: Profile, experiment: str, seed: int, results: Path
) -> tuple[str, TaskFamily]:
    """Build the first family of an experiment's first training mixture.

    Args:
        profile: settings.
        experiment: name of the experiment.
        seed: seed of the trained runs, whose victims the family attacks.
        results: the profile's result folder.

    Returns:
        The family's name, and the family.

    Raises:
        UsageError: prepared files are missing or damaged, or a class has too few images.
    """
    name = profile.theory_families(experiment)[0]
    planned = profile.experiment(experiment)
    return name, build_families(profile, planned, [name], results, seed=seed)[name]
