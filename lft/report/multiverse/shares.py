"""Shares of readings, and what other reports ask of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, get_type_hints

from lft.errors import UsageError
from lft.paths import kept_shares
from lft.storage.csv import read_rows


class Share(NamedTuple):
    """In how many readings a claim holds.

    Attributes:
        universes: that were run.
        judged: of them, neither vacuous nor diverged; ``for_it``, ``against`` and ``within`` the
            smallest effect of interest are weighted shares of these.
        low, high: 95 % bootstrap interval of ``for_it`` over universes.
        vacuous, diverged: numbers of universes.
        of_seed: share of the variance of one run that is the seed's and not the reading's.
        reference: verdict of the reference run; ``–`` where there is none.
        agrees: whether that and the majority of readings agree, ``yes``, ``no`` or ``–``.
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
    """In how many readings each claim holds, of the multiverse that was run beside a result folder.

    Args:
        results: any result folder, e.g. results/reference.

    Returns:
        By the claim's id; a claim that is not in it is not explored. Empty where there is no
        multiverse.

    Raises:
        UsageError: its shares.csv is damaged.
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
    """A share in a cell of a table; None is a claim that is not explored."""
    if share is None:
        return "not explored"
    if not share.judged:
        return "no reading decides it"
    text = f"{share.for_it:.0%} [{share.low:.0%}, {share.high:.0%}] of {share.judged}"
    return f"{text}; their majority disagrees" if share.agrees == "no" else text
