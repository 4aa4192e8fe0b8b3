"""Combine several measurements of one statement of the theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lft.report.statistics.testing import two_sided_p


class Finding(NamedTuple):
    """Result of a statement of the theory.

    Attributes:
        ours: our number, as text.
        effects: (seeds,) positive where the statement holds; empty for an exact check.
        smallest: smallest effect of interest, in the unit of ``effects``.
        equal: whether 0 itself is on the statement's side ("not slower than"); it is then judged by
            non-inferiority within ``smallest``.
        unit: unit of ``effects``.
        readings: number of experiments; ``effects`` are from the one that speaks most against the
            statement (:func:`against`).
        holds: for an exact check only: whether the inequality or identity held throughout.
        note: further remarks.
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
    """Return the reading of a statement that speaks most against it.

    If all means are positive, it is the reading with the largest p; its test is then that of "the
    statement holds in every reading" (intersection-union). Otherwise it is the one with the
    smallest p among those that are not positive, and its p must be multiplied by the number of
    readings.

    Args:
        effects: reading -> (seeds,) effects, positive where the statement holds.
    """
    means = {
        name: float(np.mean(np.asarray(values, dtype=float))) for name, values in effects.items()
    }
    p = {name: np.nan_to_num(two_sided_p(values), nan=1.0) for name, values in effects.items()}
    negative = [name for name, mean in means.items() if not mean > 0]
    if negative:
        return min(negative, key=lambda name: (p[name], means[name]))
    return max(p, key=lambda name: (p[name], -means[name]))
