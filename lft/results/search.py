"""Hyper-parameter search: rank combinations by their meta-validation score."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lft.config import Profile
from lft.errors import UsageError
from lft.results.folder import Results
from lft.results.schema import SEARCH_COLUMNS
from lft.storage.csv import write_rows


def write_search(profile: Profile, results: Path) -> None:
    """Write search.csv from the manifests of all variants of a profile.

    Raises:
        UsageError: the profile has no variants, or one has not been trained or was trained under
            other settings.
    """
    folder, rows = Results(profile, results), []
    for name, experiment in profile.experiments.items():
        for run in profile.runs(name):
            if run.method not in experiment.variants:
                continue
            manifest = folder.trained(run)
            rows.append(
                {
                    "experiment": name,
                    "trained_on": run.trained_on,
                    "method": experiment.variants[run.method].method,
                    "order": run.order,
                    "settings": experiment.label(run.method),
                    "score": manifest.validation_score,
                    "seeds": run.seed,
                    "diverged": manifest.status == "diverged",
                    "seconds": manifest.seconds,
                }
            )
    if not rows:
        raise UsageError(f"profile {profile.name!r} searches nothing; give it the key 'search'")
    frame = combinations(pd.DataFrame(rows))
    write_rows(results / "search.csv", SEARCH_COLUMNS, frame.itertuples(index=False))


def combinations(runs: pd.DataFrame) -> pd.DataFrame:
    """Reduce one row per combination and seed to one row per combination.

    A combination cannot be chosen if one of its seeds never had a finite score.

    Args:
        runs: a row per combination and seed; ``seeds`` is the seed, ``diverged`` whether it
            diverged.

    Returns:
        Rows of SEARCH_COLUMNS.
    """
    place = ["experiment", "trained_on", "method", "order"]
    runs = runs.assign(score=runs["score"].astype(float))
    groups = runs.groupby([*place, "settings"], sort=False)
    frame = groups.agg(
        score=("score", lambda scores: scores.mean(skipna=False)),
        seeds=("seeds", "nunique"),
        diverged=("diverged", "sum"),
        seconds=("seconds", "mean"),
    ).reset_index()
    best = frame.groupby(place, sort=False)["score"].transform("min")
    frame["chosen"] = frame["score"] == best
    return frame[list(SEARCH_COLUMNS)]
