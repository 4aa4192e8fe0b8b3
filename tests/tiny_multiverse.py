"""A multiverse so small that a universe takes a second."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import changed, profile_values

from lft.config import Profile, Question
from lft.report.multiverse import analysis, page
from lft.results import universes

RATES = {"training.learning_rate": [0.003, 0.03]}
MAML = {"maml.learning_rate": [0.003, 0.03]}


def level(value: Any, **more: Any) -> dict[str, Any]:
    return {"value": value, "reason": "a test", **more}


def question(number: int, *forks: dict[str, Any]) -> Question:
    return Question.model_validate(
        {"id": f"O{number}", "gap": f"gap {number}", "choice": "", "note": "", "forks": forks}
    )


QUESTIONS = (
    question(1, {"name": "unroll", "experiments": ["sine", "attack"], "sets": ["training.steps"],
                 "levels": [level(2), level(4)]}),
    question(2, {"name": "l2o-data", "experiments": ["sine", "attack"], "sets": ["methods.l2o"],
                 "levels": [level("l2o", label="joined"), level("l2o-support")]}),
    question(3, {"name": "lambda", "experiments": ["attack"],
                 "sets": ["families.mnist.distortion_weight"],
                 "range": {"low": 0.1, "high": 10, "log": True, "reason": "a test"}}),
    question(4, {"name": "measured-on", "experiments": ["attack"], "sets": ["judged.set"],
                 "levels": [level("query"), level("support")]},
                {"name": "victim", "experiments": ["attack"], "sets": ["profile.victim.epochs"],
                 "levels": [level(2), level(3)]}),
)  # fmt: skip


def multiverse(**changes: Any) -> Profile:
    """Three universes of sine, and two of attacks on grey pictures."""
    values = profile_values()
    sine, attack = values["experiments"]["sine"], values["experiments"]["attack"]
    for experiment in (sine, attack):
        experiment |= {"methods": ["maml", "l2o", "lft"], "step_sizes": {}, "orders": ["first"]}
        experiment["training"] |= {"tasks": 4, "validation": {"tasks": 2, "rounds": 1}}
        experiment["testing"] = {"tasks": 4, "steps": 4}
    grey = attack["families"]["grey"]
    attack |= {"families": {"mnist": grey}, "train_on": ["mnist"], "test_on": ["mnist"]}
    del values["sources"]["colour"], values["theory"]
    values |= {
        "experiments": {"sine": sine, "attack": attack},
        "universes": {
            "experiments": {"sine": 3, "attack": 2},
            "block": 3,
            "twice": 1,
            "tuning": {
                "draws": 2,
                "ranges": {
                    name: {"maml": MAML, "l2o": RATES, "lft": RATES} for name in ("sine", "attack")
                },
            },
        },
    }
    return Profile.model_validate(changed(values, **changes))


def use(monkeypatch: pytest.MonkeyPatch, questions: tuple[Question, ...] = QUESTIONS) -> None:
    """Let the tiny questions be all that the paper leaves open."""
    for module in (universes, analysis, page):
        monkeypatch.setattr(module, "load_questions", lambda: questions)
