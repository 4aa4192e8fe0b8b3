"""The paper's claims as tests on measurements, and the verdict on each."""

from lft.report.claims.judge import effects_over_steps, judge
from lft.report.claims.model import CellClaim, Claims, TheoryClaim, load_claims, load_paper
from lft.report.claims.verdict import Verdict, Verdicts
from lft.report.claims.write import read_verdicts, write_claims
from lft.results.registered import REFERENCE

__all__ = [
    "REFERENCE", "CellClaim", "Claims", "TheoryClaim", "Verdict", "Verdicts", "effects_over_steps",
    "judge", "load_claims", "load_paper", "read_verdicts", "write_claims",
]  # fmt: skip
