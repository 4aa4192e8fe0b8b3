"""What the paper leaves open, as data: what is refused, and how levels are taken."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from lft.config import Fork, load_questions
from lft.errors import UsageError

FORK = {
    "name": "steps",
    "experiments": ["sine"],
    "sets": ["training.steps"],
    "levels": [{"value": 2, "reason": "few"}, {"value": 4, "reason": "more", "weight": 3}],
}
QUESTION = {"id": "O1", "gap": "steps", "choice": "training.steps", "note": "", "forks": [FORK]}
RANGE = {"low": 0.01, "high": 1, "log": True, "reason": "wide"}


def changed(**changes: Any) -> list[dict[str, Any]]:
    """A question, whose fork has other keys."""
    question = copy.deepcopy(QUESTION)
    question["forks"][0] |= changes  # type: ignore[index]
    return [question]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([QUESTION, QUESTION], "questions: 'O1' is listed twice"),
        ([QUESTION, {**QUESTION, "id": "O2"}], "forks of sine: 'steps' is listed twice"),
        ([{**QUESTION, "forks": []}], "question O1 needs either 'forks' or 'fixed'"),
        ([{**QUESTION, "fixed": "so be it"}], "question O1 needs either 'forks' or 'fixed'"),
        ([{**QUESTION, "forbid": "much"}], "did you mean 'forbids'"),
        (changed(levels=FORK["levels"][:1]), "fork 'steps' needs two or more levels, or a range"),
        (changed(range=RANGE), "fork 'steps' needs two or more levels, or a range"),
        (changed(levels=[{"value": 2}, {"value": 4}]), "reason' is missing"),
        (changed(sets=[]), "without 'sets' a value is a mapping of dotted keys"),
        (changed(levels=[], range={**RANGE, "low": 2}), "low 2.0 and high 1.0 are not a range"),
        ({"O1": QUESTION}, "expected a list of questions"),
    ],
)
def test_what_is_wrong_with_a_question_is_one_line(
    entries: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "questions.yaml"
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(UsageError) as refused:
        load_questions(path)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_levels_are_taken_by_their_weights() -> None:
    fork = Fork.model_validate(FORK)
    taken = Counter(fork.at(quantile / 100)[0] for quantile in range(100))
    assert taken == {"2": 25, "4": 75}
    assert fork.at(0.9) == ("4", {"training.steps": 4})
    assert fork.groups == {"2": 0.25, "4": 0.75}


def test_a_range_is_taken_in_its_logarithm_and_told_by_halves() -> None:
    fork = Fork.model_validate({**FORK, "levels": [], "range": RANGE})
    assert fork.at(0.0) == ("0.01", {"training.steps": 0.01})
    assert fork.at(0.5) == ("0.1", {"training.steps": 0.1})
    assert fork.group("0.099") == "< 0.1"
    assert fork.group("0.1") == "≥ 0.1"
    assert list(fork.groups) == ["< 0.1", "≥ 0.1"]
