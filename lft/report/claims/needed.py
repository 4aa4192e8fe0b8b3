"""The runs and theory measurements that the verdict on one claim needs."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.paths import theory_path
from lft.report.claims.model import CellClaim, TheoryClaim, load_claims
from lft.results.jobs import files
from lft.results.schema import EVALUATED


class Needed(NamedTuple):
    """What a verdict is computed from.

    Attributes:
        runs: runs that must be measured, of all seeds.
        theory: experiments whose theory must be measured, for all seeds.
        folder_files: the files of both, relative to a result folder; those of runs that were
            measured elsewhere are left out.
    """

    runs: tuple[Run, ...]
    theory: tuple[str, ...]
    folder_files: tuple[str, ...]


def find_claim(name: str) -> CellClaim | TheoryClaim:
    """Return a registered claim by its id.

    Raises:
        UsageError: there is none; the message suggests the nearest id.
    """
    known = {claim.id: claim for claim in load_claims().claims}
    if name in known:
        return known[name]
    nearest = get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else "lft claims lists them"
    raise UsageError(f"unknown claim {name!r}; {hint}")


def needed(profile: Profile, name: str) -> Needed:
    """Return what the verdict on a claim needs of a profile.

    A claim about cells needs the runs of both cells. A statement of the theory needs the
    measurements of all theory experiments of the profile, because its test uses all of them.

    Args:
        profile: settings.
        name: id of the claim.

    Raises:
        UsageError: there is no such claim, or the profile lacks its subject.
    """
    claim = find_claim(name)
    if isinstance(claim, TheoryClaim):
        theory = tuple(profile.theory_experiments)
        if not theory:
            raise UsageError(f"claim {name!r}: profile {profile.name!r} measures no theory")
        tables = (
            theory_path(Path(), experiment, seed).as_posix()
            for experiment in theory
            for seed in profile.seeds
        )
        return Needed((), theory, tuple(tables))
    runs = tuple(dict.fromkeys(_runs(profile, claim)))
    own = set(profile.own_runs(claim.experiment))
    return Needed(
        runs, (), tuple(files((run for run in runs if run in own), (*EVALUATED, "run.json")))
    )


def _runs(profile: Profile, claim: CellClaim) -> Iterator[Run]:
    planned = {
        (run.experiment, run.trained_on, tested_on, run.method, run.order): refusal
        for run, tested_on, refusal in profile.cells()
    }
    for trained_on, tested_on, method, order in (claim.a, claim.b):
        words = f"{claim.experiment}: {method} ({trained_on} to {tested_on}, {order} order)"
        refusal = planned.get(
            (claim.experiment, trained_on, tested_on, method, order),
            f"profile {profile.name!r} does not have {words}",
        )
        if refusal:
            raise UsageError(f"claim {claim.id!r} cannot be judged: {refusal}")
        for seed in profile.seeds:
            yield Run(claim.experiment, trained_on, method, order, seed)
