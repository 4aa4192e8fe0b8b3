"""Open questions of the paper, and our differences from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lft.config import Experiment, Profile
from lft.report.alternatives import effects, found_alternatives
from lft.report.claims import REFERENCE

PAPER = {"tasks": 1000, "attack": 100, "classification": 500, "sine": 500}
"""The paper's training tasks, and test tasks of each experiment."""


def open_questions(profile: Profile, results: Path) -> Iterator[dict[str, Any]]:
    """Yield each question with our choice and the effects of other choices.

    Args:
        profile: settings.
        results: the profile's result folder; alternatives may have been run beside it.
    """
    entries = yaml.safe_load((REFERENCE / "open-questions.yaml").read_text(encoding="utf-8"))
    found = found_alternatives(profile, results)
    for entry in entries:
        choices = {}
        for name, experiment in profile.experiments.items():
            value = _lookup(experiment, entry["choice"])
            if value is not None:
                choices[name] = "".join([value, *_exceptions(experiment, entry["choice"])])
        methods = entry.get("methods", [])
        tried = {
            name: list(effects(rows, entry["choice"], methods)) for name, rows in found.items()
        }
        yield {
            "id": entry["id"],
            "gap": entry["gap"],
            "choice": _agreed(choices),
            "note": entry["note"],
            "figures": _figures_named(entry.get("figures"), profile, results),
            "tried": [
                (_report_of(name, profile, results), name, t) for name, t in tried.items() if t
            ],
        }


def _figures_named(prefix: str | None, profile: Profile, results: Path) -> list[tuple[str, str]]:
    """Return figures of the page that answer a question, by id and experiment."""
    return [
        (id, experiment.title)
        for name, experiment in profile.experiments.items()
        if prefix and (results / "figures" / f"{(id := f'{prefix}-{name}')}.svg").is_file()
    ]


def _report_of(name: str, profile: Profile, results: Path) -> str | None:
    """Return a link to the report of a run beside this one; None if it is not there."""
    there = name != profile.name and (results.parent / name / "report.html").is_file()
    return f"../{name}/report.html" if there else None


def _exceptions(experiment: Experiment, choice: str) -> Iterator[str]:
    """Yield the methods that deviate from a choice."""
    for method, changes in experiment.overrides.items():
        if choice in changes:
            yield f" ({experiment.label(method)}: {changes[choice]})"


def _agreed(choices: dict[str, str]) -> str:
    """Return the value that all experiments share, or a value per experiment."""
    if len(set(choices.values())) == 1:
        return next(iter(choices.values()))
    return "; ".join(f"{name}: {value}" for name, value in choices.items()) or "–"


def _lookup(experiment: Experiment, dotted: str) -> str | None:
    value: Any = experiment.model_dump(mode="json")
    for key in dotted.split("."):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def differences(profile: Profile) -> list[str]:
    """Return sentences about the profile's data and sizes, then those for every profile."""
    found = [
        f"{source.label} stands in for {source.stands_in_for}."
        for source in profile.sources.values()
        if source.stands_in_for
    ]
    found += [source.remarks + "." for source in profile.sources.values() if source.remarks]
    if profile.partition == "disjoint":
        found.append(
            "Meta-training, meta-validation and meta-test tasks draw from disjoint images. The "
            "paper draws support sets from the training and query sets from the test images in "
            "every phase (partition: paper)."
        )
    for name, experiment in profile.experiments.items():
        if name not in PAPER:
            continue
        training, testing = experiment.training, experiment.testing
        if training.tasks != PAPER["tasks"] or testing.tasks != PAPER[name]:
            found.append(
                f"{name}: {training.tasks} training tasks, shared by the sources of a mixture, and "
                f"{testing.tasks} test tasks, where the paper has {PAPER['tasks']} and "
                f"{PAPER[name]}."
            )
    general = yaml.safe_load((REFERENCE / "differences.yaml").read_text(encoding="utf-8"))
    return found + list(general)
