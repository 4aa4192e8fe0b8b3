"""Which part of the paper, and which experiment, a claim belongs to."""

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
"""Where the paper has each experiment."""


class Judged(NamedTuple):
    """A claim as it is registered, and its verdict.

    Attributes:
        experiment: of the claim; ``theory`` for a statement of the theory.
    """

    claim: CellClaim | TheoryClaim
    row: Verdict
    experiment: str

    @property
    def section(self) -> str:
        """The paper's."""
        return SECTIONS.get(self.experiment, "Elsewhere")

    @property
    def word(self) -> str:
        """The verdict, or why there is none."""
        return self.row.verdict or self.row.check or self.row.status

    @property
    def slug(self) -> str:
        """The same as a class of the page."""
        return self.word.replace(" ", "-")


def judged(rows: list[Verdict]) -> list[Judged]:
    """Verdicts with the claims that they are about.

    Raises:
        UsageError: a claim is not registered any more.
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
