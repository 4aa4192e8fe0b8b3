"""In how many readings each claim holds, for the multiverse's and other reports."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, get_type_hints

from lft.errors import UsageError
from lft.paths import kept_shares
from lft.storage.csv import read_rows


class Share(NamedTuple):
    """In how many readings a claim holds.

    Attributes:
        universes: number of finished universes.
        judged: number of these that are neither vacuous nor diverged.
        for_it: share of the judged universes that support the claim; ``against`` and ``within``
            (the smallest effect of interest) are the other shares.
        low: lower end of the 95 % bootstrap interval of ``for_it`` over universes; ``high`` is the
            upper end.
        vacuous: number of vacuous universes.
        diverged: number of diverged universes.
        of_seed: share of the variance of one run that comes from the seed and not from the reading.
        reference: verdict of the reference run; ``–`` if there is none.
        agrees: whether that agrees with the majority of readings: ``yes``, ``no`` or ``–``.
    """

    claim: str
    experiment: str
    universes: int
    judged: int
    for_it: float
    against: float
    within: float
    low: float
    high: float
    vacuous: int
    diverged: int
    of_seed: float
    reference: str
    agrees: str


def shares(results: Path) -> dict[str, Share]:
    """Read in how many readings each claim holds, from the multiverse beside a result folder.

    Args:
        results: any result folder, e.g. results/reference.

    Returns:
        Shares by the claim's id; without claims that are not explored. Empty if there is no
        multiverse.

    Raises:
        UsageError: shares.csv is damaged.
    """
    path = kept_shares(results.resolve())
    if not path.is_file():
        return {}
    kinds = get_type_hints(Share).values()
    try:
        rows = read_rows(path, Share._fields).astype(str).itertuples(index=False, name=None)
        found = [
            Share(*(kind(text) for kind, text in zip(kinds, row, strict=True))) for row in rows
        ]
    except ValueError:
        raise UsageError(f"{path} is damaged; run lft universe report again") from None
    return {row.claim: row for row in found}


def in_short(share: Share | None) -> str:
    """Format a share for a cell of a table; None means that the claim is not explored."""
    if share is None:
        return "not explored"
    if not share.judged:
        return "no reading decides it"
    text = f"{share.for_it:.0%} [{share.low:.0%}, {share.high:.0%}] of {share.judged}"
    return f"{text}; their majority disagrees" if share.agrees == "no" else text
