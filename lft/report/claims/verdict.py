"""A verdict as written to claims.json and claims.csv, and the schema of these files."""

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
    """One claim with its verdict.

    Effects are differences a − b in the metric's unit (shares as fractions), or ratios a / b.
    Unknown values are null.
    """

    claim: str
    text: str
    place: str
    hypothesis: str
    figure: str
    kind: str
    metric: str  #: for a statement of the theory, its test
    unit: str  #: points, ratio, or the unit of a statement of the theory
    status: Status
    verdict: Word | None = None
    check: Literal["holds", "fails"] | None = None  #: for a proven statement instead of a verdict
    reason: str  #: what is missing, and further remarks
    paper: str
    ours: str
    effect: float | None = None
    low: float | None = None  #: 95 % t interval over seeds
    high: float | None = None
    interval: str = ""
    cut: bool = False  #: whether the interval was cut at the end of the possible range
    margin: float | None = None  #: smallest effect of interest
    n_seeds: int
    n_for: int | None = None  #: number of seeds on the claim's side
    p: float | None = None  #: Holm-adjusted over all empirical claims of the profile
    p_equivalence: float | None = None  #: of "no difference", Holm-adjusted separately
    g: float | None = None  #: Hedges' g over seeds, positive on the claim's side
    skew_p: float | None = None  #: of a test for skewed effects of the seeds, not adjusted
    improvement: float | None = None  #: P(a better than b) over test tasks
    bootstrap_low: float | None = None  #: hierarchical bootstrap, a diagnostic
    bootstrap_high: float | None = None
    seeds_needed: int | None = None  #: for 80 % power to find the margin, if inconclusive
    detectable: float | None = None  #: smallest effect that these seeds find with 80 % power
    a_at_floor: bool | None = None
    b_at_floor: bool | None = None
    a_diverged: int | None = None  #: number of seeds
    b_diverged: int | None = None
    a_untrained: int | None = None
    b_untrained: int | None = None
    behind: str = ""  #: hand-designed rules shown to be better than either method
    without_failures: Word | None = None  #: the verdict without seeds in which a run failed
    change: Change = ""  #: since the version that the runs were registered under
    seconds: float  #: of the meta-trainings or theory measurements behind it

    @classmethod
    def from_numbers(cls, **values: Any) -> Verdict:
        """Create a verdict with numbers rounded to seven significant digits.

        The last of sixteen digits depend on the processor. Numbers that are not finite become null.
        """
        return cls.model_validate({name: _known(value) for name, value in values.items()})


class Verdicts(Settings):
    """Content of claims.json."""

    profile: str
    version: int  #: of claims.yaml, as judged
    date: str
    digest: str
    registered: tuple[str, ...]  #: versions that the runs were made under; empty if unknown
    removed: tuple[str, ...]  #: claims of those versions that are no longer judged
    family: tuple[str, ...]  #: claims that count in Holm's adjustment
    claims: tuple[Verdict, ...]


def _known(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, float):
        return value
    return float(f"{value:.7g}") if np.isfinite(value) else None
