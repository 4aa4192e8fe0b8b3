"""A random forest from forks to effects (Breiman, 2001): which forks decide together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from lft.report.multiverse.statistics import LEVEL, Floats

FOLDS = 5
"""Folds of the cross-validation."""


class Forest(NamedTuple):
    """Result of a random forest.

    Attributes:
        explained: share of the held-out universes' variance; at most 0 if their mean does better.
        p: one-sided p that it predicts them no better than the mean of the others does.
        importance: fork -> increase of the held-out squared error when the fork is permuted,
            relative to the error of the mean; empty unless the forest predicts.
    """

    explained: float
    p: float
    importance: dict[str, float]


def forest(
    effects: Floats, features: Mapping[str, Floats], random: np.random.Generator, trees: int = 100
) -> Forest:
    """Compute the permutation importance of forks, if a forest predicts held-out universes at all.

    The forest counts as predicting if its squared errors are smaller than those of the mean in a t
    test over universes (p < 0.05). If no fork decides anything, that happens in less than 5 %.

    Args:
        effects: (n,) effect in each universe.
        features: column -> (n,) numbers; the part of a name before ``=`` is the fork, whose columns
            are permuted together.
        random: source of randomness.
        trees: number of trees.
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
    """Encode forks as numbers: a column for each level; ranges as given."""
    found = {fork: np.asarray(values, dtype=float) for fork, values in ranges.items()}
    for fork, taken in levels.items():
        if fork not in ranges:
            for name in dict.fromkeys(taken):
                found[f"{fork}={name}"] = np.array([level == name for level in taken], dtype=float)
    return found
