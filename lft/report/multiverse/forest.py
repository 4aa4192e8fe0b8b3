"""Which forks decide, together: a random forest from forks to effects (Breiman, 2001)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from lft.report.multiverse.statistics import LEVEL, Floats

FOLDS = 5


class Forest(NamedTuple):
    """What a random forest makes of the forks.

    Attributes:
        explained: share of the held-out universes' variance; at most 0 if their mean does better.
        p: one-sided, that it predicts them no better than the mean of the others does.
        importance: fork -> increase of the held-out squared error when it is permuted, relative to
            that of the mean; empty unless the forest predicts.
    """

    explained: float
    p: float
    importance: dict[str, float]


def forest(
    effects: Floats, features: Mapping[str, Floats], random: np.random.Generator, trees: int = 100
) -> Forest:
    """Permutation importance of forks, where a forest predicts held-out universes at all.

    It counts as predicting where a t test over universes says that its squared errors are smaller
    than those of the mean (p < 0.05); for forks that decide nothing that happens in less than 5 %.

    Args:
        effects: (n,) of each universe.
        features: column -> (n,) numbers; the part of a name before ``=`` is the fork, whose columns
            are permuted together.
    """
    from sklearn.ensemble import RandomForestRegressor

    n = len(effects)
    if n < 2 * FOLDS or np.ptp(effects) == 0:
        return Forest(np.nan, np.nan, {})
    x = np.column_stack([*features.values()])
    parts = np.array_split(random.permutation(n), FOLDS)
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(features):
        groups.setdefault(name.partition("=")[0], []).append(column)
    of_mean, of_forest = np.empty(n), np.empty(n)
    permuted = {fork: np.empty(n) for fork in groups}
    for part in parts:
        rest = np.setdiff1d(np.arange(n), part)
        fitted = RandomForestRegressor(
            trees, min_samples_leaf=3, random_state=int(random.integers(2**32))
        )
        fitted.fit(x[rest], effects[rest])
        of_mean[part] = (effects[part] - effects[rest].mean()) ** 2
        of_forest[part] = (effects[part] - fitted.predict(x[part])) ** 2
        for fork, columns in groups.items():
            other = x[part].copy()
            other[:, columns] = other[random.permutation(len(part))][:, columns]
            permuted[fork][part] = (effects[part] - fitted.predict(other)) ** 2
    explained = 1 - float(of_forest.sum() / of_mean.sum())
    p = float(stats.ttest_1samp(of_mean - of_forest, 0, alternative="greater").pvalue)
    if not p < 1 - LEVEL:
        return Forest(explained, p, {})
    importance = {
        fork: float((errors - of_forest).mean() / of_mean.mean())
        for fork, errors in permuted.items()
    }
    return Forest(explained, p, dict(sorted(importance.items(), key=lambda item: -item[1])))


def features(
    levels: Mapping[str, Sequence[str]], ranges: Mapping[str, Floats]
) -> dict[str, Floats]:
    """Forks as numbers: a column for each level, and ranges as they are (or their logarithms)."""
    found = {fork: np.asarray(values, dtype=float) for fork, values in ranges.items()}
    for fork, taken in levels.items():
        if fork not in ranges:
            for name in dict.fromkeys(taken):
                found[f"{fork}={name}"] = np.array([level == name for level in taken], dtype=float)
    return found
