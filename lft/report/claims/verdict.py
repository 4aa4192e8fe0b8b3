"""A verdict as it is written to claims.json and claims.csv, and the schema of these files."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from lft.config import Settings

Word = Literal[
    "supported", "contradicted", "negligible", "no difference", "inconclusive", "vacuous"
]
Status = Literal["judged", "not in this profile", "not applicable", "not measured"]
Change = Literal["", "added", "changed", "unregistered"]


class Verdict(Settings):
    """One claim with its verdict. Effects are differences a − b in the metric's unit (shares as
    fractions), or ratios a / b; what is not known is null."""

    claim: str
    text: str
    place: str
    hypothesis: str
    figure: str
    kind: str
    metric: str  #: or the test of a statement of the theory
    unit: str  #: points, ratio, or what the effect of a statement of the theory is
    status: Status
    verdict: Word | None = None
    check: Literal["holds", "fails"] | None = None  #: of a proven statement, in place of a verdict
    reason: str  #: what is missing, and what else should be known
    paper: str
    ours: str
    effect: float | None = None
    low: float | None = None  #: 95 % t interval over seeds
    high: float | None = None
    interval: str = ""
    cut: bool = False  #: the interval was cut at the end of what the effect can be
    margin: float | None = None  #: smallest effect of interest
    n_seeds: int
    n_for: int | None = None  #: seeds on the claim's side
    p: float | None = None  #: Holm-adjusted over all empirical claims of the profile
    p_equivalence: float | None = None  #: of "no difference", Holm-adjusted among themselves
    g: float | None = None  #: Hedges' g over seeds, positive on the claim's side
    skew_p: float | None = None  #: that the seeds' effects are skewed, not adjusted
    improvement: float | None = None  #: P(a better than b) over test tasks
    bootstrap_low: float | None = None  #: hierarchical bootstrap, a diagnostic
    bootstrap_high: float | None = None
    seeds_needed: int | None = None  #: for 80 % power to find the margin, if inconclusive
    detectable: float | None = None  #: smallest effect that these seeds find with 80 % power
    a_at_floor: bool | None = None
    b_at_floor: bool | None = None
    a_diverged: int | None = None  #: seeds
    b_diverged: int | None = None
    a_untrained: int | None = None
    b_untrained: int | None = None
    behind: str = ""  #: hand-designed rules that either method has been shown to be worse than
    without_failures: Word | None = None  #: the verdict without seeds in which a run failed
    change: Change = ""  #: against the version that the runs were registered under
    seconds: float  #: of the meta-trainings or theory measurements that it rests on

    @classmethod
    def from_numbers(cls, **values: Any) -> Verdict:
        """A verdict whose numbers have seven significant digits, as the last of sixteen depend on
        the processor; those that are not finite become null."""
        return cls.model_validate({name: _known(value) for name, value in values.items()})


class Verdicts(Settings):
    """Content of claims.json."""

    profile: str
    version: int  #: of claims.yaml, as judged
    date: str
    digest: str
    registered: tuple[str, ...]  #: versions that the runs were made under; empty if none says
    removed: tuple[str, ...]  #: claims of those versions that are not judged any more
    family: tuple[str, ...]  #: claims that count in Holm's adjustment
    claims: tuple[Verdict, ...]


def _known(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, float):
        return value
    return float(f"{value:.7g}") if np.isfinite(value) else None
