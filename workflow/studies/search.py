"""Random search for hyper-parameters, as a study that trials.py runs.

    python workflow/studies/search.py draw build/search.yaml
    python workflow/studies/trials.py build/search.yaml --results build/search --rows build/search/rows
    python workflow/studies/search.py again build/best.yaml --rows build/search/rows
    python workflow/studies/trials.py build/best.yaml --results build/search --rows build/search/rows
    python workflow/studies/search.py judge build/search.csv --rows build/search/rows

``draw`` writes the trials of search.yaml with the first seed, and ``again`` the best of them with all
seeds. ``judge`` writes a row for each method: the best settings, the expected best score of fewer trials,
and whether the edges of each range are worse.
"""  # noqa: E501

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from lft.config.base import Positive, Settings
from lft.config.problems import explain
from lft.config.reading import read_yaml
from lft.errors import UsageError
from lft.results.tuning import edges_are_worse, expected_best, random_trials
from lft.seeding import generator
from lft.storage.atomic import write_text
from lft.storage.csv import write_rows
from lft.storage.json import read_json

Bounds = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Ranges(Settings):
    """Ranges and fixed settings of a method's search."""

    set: dict[str, Any] = Field(default={})  #: fixed settings: dotted key -> value
    ranges: dict[str, Bounds]


class Experiment(Settings):
    """The searches of one experiment."""

    trained_on: str
    methods: dict[str, Ranges]


class Search(Settings):
    """Content of search.yaml."""

    profile: str
    trials: Positive
    best: Positive
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    tasks: Positive
    steps: tuple[int, ...]
    common: dict[str, dict[str, Any]]
    experiments: dict[str, Experiment]


def load_search(path: Path) -> Search:
    """Read the ranges.

    Raises:
        UsageError: the file does not hold them; the message names the key.
    """
    try:
        return Search.model_validate(read_yaml(path, "search"))
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error)}") from None


def trials(search: Search) -> dict[str, dict[str, Any]]:
    """Draw every trial; the entries have the form of a study's."""
    found = {}
    for experiment, part in search.experiments.items():
        for method, own in part.methods.items():
            random = generator("search", experiment, method)
            drawn = random_trials(own.ranges, search.trials, random)
            for number, settings in enumerate(drawn, start=1):
                found[f"{experiment}-{method}-{number}"] = {
                    "experiment": experiment,
                    "trained_on": part.trained_on,
                    "method": method,
                    "set": own.set | settings,
                    "suspect": "hyper-parameters",
                    "prediction": "none; drawn at random",
                    "excludes": "nothing",
                }
    return found


def study(search: Search, chosen: dict[str, dict[str, Any]], seeds: tuple[int, ...]) -> str:
    """Format a study of these trials as YAML.

    Args:
        search: common settings.
        chosen: trials by name.
        seeds: seeds to run.
    """
    shared = search.model_dump(include={"profile", "common"}) | {
        "tasks": search.tasks,
        "steps": list(search.steps),
    }
    return yaml.safe_dump({**shared, "seeds": list(seeds), "trials": chosen}, sort_keys=False)


def outcome(rows: Path, name: str, seed: int) -> tuple[float, float]:
    """Read the best meta-validation score and its standard error; infinity for a diverged trial.

    Raises:
        UsageError: the trial has not been run.
    """
    row = read_json(rows / f"{name}-seed{seed}.json", status=str, training=dict)
    scores = [(score, error) for step, score, error, _ in row["training"]["validations"] if step]
    if row["status"] != "ok" or not scores:
        return math.inf, math.nan
    return min(scores)


def groups(search: Search) -> dict[tuple[str, str], list[str]]:
    """Return the names of the trials of each experiment and method."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, trial in trials(search).items():
        found.setdefault((trial["experiment"], trial["method"]), []).append(name)
    return found


def best(search: Search, rows: Path) -> dict[str, dict[str, Any]]:
    """Return the best trials of each experiment and method, by their first seed."""
    every, seed = trials(search), search.seeds[0]
    return {
        name: every[name]
        for names in groups(search).values()
        for name in sorted(names, key=lambda n: outcome(rows, n, seed))[: search.best]
    }


COLUMNS = ("experiment", "method", "settings", "score", "seeds", "expected_best", "edges")
"""Columns of the output of ``judge``."""


def judged(search: Search, rows: Path) -> list[tuple[Any, ...]]:
    """Return a row of COLUMNS for each experiment and method."""
    every, (first, *_) = trials(search), search.seeds
    result = []
    for (experiment, method), names in groups(search).items():
        finalists = [name for name in best(search, rows) if name in names]
        means = {
            name: sum(outcome(rows, name, s)[0] for s in search.seeds) / len(search.seeds)
            for name in finalists
        }
        chosen = min(means, key=lambda name: means[name])
        scores, errors = zip(*(outcome(rows, name, first) for name in names), strict=True)
        edges = {
            key: edges_are_worse([every[n]["set"][key] for n in names], scores, errors, *bounds)
            for key, bounds in search.experiments[experiment].methods[method].ranges.items()
        }
        curve = [float(f"{expected_best(scores, n):.4g}") for n in range(1, len(names) + 1)]
        settings, seeds = every[chosen]["set"], len(search.seeds)
        result.append((experiment, method, settings, means[chosen], seeds, curve, edges))
    return result


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("draw", "again", "judge"))
    parser.add_argument("output", type=Path)
    parser.add_argument("--search", type=Path, default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument(
        "--rows", type=Path, help="folder with the rows of the trials; needed by again and judge"
    )
    options = parser.parse_args()
    search = load_search(options.search)
    if options.what == "draw":
        write_text(options.output, study(search, trials(search), search.seeds[:1]))
        return
    if options.rows is None:
        raise UsageError(f"{options.what} needs the rows of the trials; name them with --rows")
    if options.what == "again":
        write_text(options.output, study(search, best(search, options.rows), search.seeds))
    else:
        write_rows(options.output, COLUMNS, judged(search, options.rows))


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        raise SystemExit(f"error: {error}") from None
