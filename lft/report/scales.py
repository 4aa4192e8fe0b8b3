"""The scales on which metrics are judged, and the first step with an ASR of 100 %."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from lft.config import Settings
from lft.report.statistics import UNBOUNDED, Floats

FULL = 0.995
"""Smallest mean ASR that rounds to the paper's 100 %."""
ARRIVAL = "first_full"
"""First step with ASR 100 %: of a task, or of a seed's mean curve."""


def first_full(means: Floats, steps: Sequence[int]) -> Floats:
    """Return the first step at which a mean ASR rounds to 100 %; infinite if it never does.

    Args:
        means: (…, steps); NaN counts as not reached.
        steps: the measured steps, ascending.
    """
    full = means >= FULL
    return np.where(full.any(-1), np.array(steps, dtype=float)[full.argmax(-1)], np.inf)


def first_full_by_seed(curves: pd.DataFrame) -> pd.Series[float]:
    """Return each seed's first step at which its mean ASR rounds to 100 %.

    Args:
        curves: one cell's rows of the ASR in summary.csv.
    """
    of_seed = curves.pivot(index="seed", columns="step", values="mean")
    return pd.Series(
        first_full(of_seed.to_numpy(), sorted(set(curves["step"]))), index=of_seed.index
    )


class Scale(Settings):
    """The primary scale on which a metric is judged, fixed before the runs.

    Points are differences. Ratios are tested as logarithms of ratios of means over test tasks,
    because the paper's tables and figures show these means.
    """

    scale: Literal["points", "ratio"]
    better: Literal["higher", "lower"]
    smallest: float  #: smallest effect of interest: a difference, or a ratio above 1
    #: where a fine-tuner is that has learned nothing. ``start`` is the start's value on the same
    #: tasks, ``chance`` the same but at least 1/ways, ``never`` one step more than the last,
    #: ``asr`` the ASR's floor
    floor: Literal["start", "chance", "never", "asr"]

    @property
    def sign(self) -> float:
        """1 if higher is better, otherwise −1."""
        return 1.0 if self.better == "higher" else -1.0

    @property
    def margin(self) -> float:
        """The smallest effect of interest on the tested scale."""
        return self.smallest if self.scale == "points" else float(np.log(self.smallest))

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and largest possible effect."""
        return (-1.0, 1.0) if self.scale == "points" else UNBOUNDED

    def lead(self, a: Floats, b: Floats) -> Floats:
        """Return how far means ``a`` are ahead of means ``b``; positive where a is better.

        Args:
            a: means, of any shape.
            b: means of the same shape.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = a - b if self.scale == "points" else np.log(a / b)
        return np.asarray(self.sign * difference)

    def centre(self, means: Floats) -> float:
        """Average seeds on this scale, so that two averages make the effect.

        Args:
            means: (seeds,) means; NaN for a missing seed, which is left out.

        Returns:
            The arithmetic mean for points, the geometric mean for ratios.
        """
        known = means[np.isfinite(means)]
        if not len(known):
            return np.nan
        return float(known.mean() if self.scale == "points" else np.exp(np.log(known).mean()))

    def raw(self, lead: float) -> float:
        """Convert a lead to the difference a − b or the ratio a / b."""
        return self.sign * lead if self.scale == "points" else float(np.exp(self.sign * lead))
