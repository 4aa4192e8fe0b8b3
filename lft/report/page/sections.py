"""Section of the paper and experiment of each claim."""

from __future__ import annotations

from typing import NamedTuple

from lft.errors import UsageError
from lft.report.claims import CellClaim, TheoryClaim, Verdict, load_claims

SECTIONS = {
    "attack": "Section 4: universal attacks",
    "classification": "Section 5: few-shot classification and regression",
    "sine": "Section 5: few-shot classification and regression",
    "theory": "Section 3: theory",
}
"""Section of the paper with each experiment."""


class Judged(NamedTuple):
    """A registered claim and its verdict.

    Attributes:
        experiment: the claim's; ``theory`` for a statement of the theory.
    """

    claim: CellClaim | TheoryClaim
    row: Verdict
    experiment: str

    @property
    def section(self) -> str:
        """Section of the paper."""
        return SECTIONS.get(self.experiment, "Elsewhere")

    @property
    def word(self) -> str:
        """The verdict, or why there is none."""
        return self.row.verdict or self.row.check or self.row.status

    @property
    def slug(self) -> str:
        """The word as a CSS class."""
        return self.word.replace(" ", "-")


def judged(rows: list[Verdict]) -> list[Judged]:
    """Pair verdicts with their claims.

    Raises:
        UsageError: a claim is no longer registered.
    """
    known = {claim.id: claim for claim in load_claims().claims}
    found = []
    for row in rows:
        if row.claim not in known:
            raise UsageError(
                f"claims.json judges {row.claim!r}, which claims.yaml does not have; run lft "
                "tables again"
            )
        claim = known[row.claim]
        experiment = claim.experiment if isinstance(claim, CellClaim) else "theory"
        found.append(Judged(claim, row, experiment))
    return found
