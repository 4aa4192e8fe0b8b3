"""Several measurements of one statement of the theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lft.report.statistics.testing import two_sided_p


class Finding(NamedTuple):
    """What a measurement says about a statement of the theory.

    Attributes:
        ours: our number, as text.
        effects: (seeds,) positive where the statement holds; empty for an exact check.
        smallest: smallest effect of interest, in the unit of ``effects``.
        equal: whether 0 itself is on the statement's side ("not slower than"), so that it is judged
            by non-inferiority within ``smallest``.
        unit: what ``effects`` are.
        readings: how many experiments were looked at; ``effects`` are those that speak most
            against the statement (:func:`against`).
        holds: of an exact check only: whether the inequality or identity held throughout.
        note: what else should be known.
    """

    ours: str
    effects: tuple[float, ...] = ()
    smallest: float = np.nan
    equal: bool = False
    unit: str = ""
    readings: int = 1
    holds: bool | None = None
    note: str = ""


def against(effects: Mapping[str, ArrayLike]) -> str:
    """Of several readings of one statement, the one that speaks most against it.

    Where all means are positive it is the one with the largest p, so that its test is that of
    "the statement holds in every reading" (intersection-union); otherwise it is the negative one
    with the smallest p, whose p must be multiplied by the number of readings.
    """
    means = {
        name: float(np.mean(np.asarray(values, dtype=float))) for name, values in effects.items()
    }
    p = {name: np.nan_to_num(two_sided_p(values), nan=1.0) for name, values in effects.items()}
    negative = [name for name, mean in means.items() if not mean > 0]
    if negative:
        return min(negative, key=lambda name: (p[name], means[name]))
    return max(p, key=lambda name: (p[name], -means[name]))
