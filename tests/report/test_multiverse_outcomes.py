"""Claims judged in universes whose measurements are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_multiverse import QUESTIONS, multiverse

from lft.report.claims import CellClaim, Claims, load_claims
from lft.report.claims.decision import is_vacuous
from lft.report.multiverse.outcomes import Judge, Measured, outcomes
from lft.report.scales import ARRIVAL, first_full
from lft.results import universes

PROFILE = multiverse()
CLAIMS = load_claims()
START, LAST = 0, 4
METHODS = ("lft", "l2o", "maml")
SINE = universes.universe(PROFILE, "sine", 1, QUESTIONS)  # of two seeds
ATTACK = universes.universe(PROFILE, "attack", 1, QUESTIONS)


def universe(ends: dict[str, float], start: float = 1.0, **changes: str) -> Measured:
    """A universe of sine in which every method comes from ``start`` to its MSE after the last step;
    ``changes`` are statuses, and methods without an end have no measurements."""
    means, status = dict[tuple[Any, ...], dict[int, float]](), dict[tuple[Any, ...], str]()
    for seed in SINE.seeds:
        for method in METHODS:
            cell = (seed, method, "first", "sine", "sine")
            if method in ends or method in changes:
                status[cell] = changes.get(method, "ok")
            if method in ends:
                means[*cell, "mse"] = {START: start, LAST: ends[method]}
    return Measured(SINE, means, status, {})


def sine_claim(kind: str = "better") -> CellClaim:
    a, b = (("sine", "sine", method, "first") for method in ("lft", "l2o"))
    return CellClaim.model_validate({
        "id": "test", "claim": "A sentence", "place": "Sec. 0", "hypothesis": "h",
        "figure": "figure-4", "kind": kind, "experiment": "sine", "metric": "mse",
        "a": a, "b": b, "step": LAST,
    })  # fmt: skip


def judged(found: Measured, *claims: CellClaim) -> list[str]:
    these = Claims.model_validate({
        **CLAIMS.model_dump(), "hypotheses": {"h": "A hypothesis"}, "claims": claims,
    })  # fmt: skip
    return [outcome.word for outcome in outcomes(PROFILE, [found], these)]


def test_a_claim_is_judged_by_its_two_cells() -> None:
    assert judged(universe({"lft": 0.1, "l2o": 0.5}), sine_claim()) == ["for"]
    assert judged(universe({"lft": 0.5, "l2o": 0.1}), sine_claim()) == ["against"]


@pytest.mark.parametrize("ends", [{"lft": 0.1}, {"l2o": 0.1}, {"maml": 0.1}])
def test_a_cell_that_was_not_measured_is_no_outcome(ends: dict[str, float]) -> None:
    """Whatever became of the methods that the claim is not about."""
    assert judged(universe(ends), sine_claim()) == []
    assert judged(universe(ends | {"maml": 0.1}, maml="diverged"), sine_claim()) == []


def test_a_metric_that_was_not_measured_is_no_outcome() -> None:
    found = universe({"lft": 0.1, "l2o": 0.5})
    del found.means[SINE.seeds[0], "lft", "first", "sine", "sine", "mse"]
    assert judged(found, sine_claim()) == []


def test_a_method_or_a_task_that_diverged_is_an_outcome() -> None:
    assert judged(universe({"l2o": 0.5}, lft="diverged"), sine_claim()) == ["diverged"]
    assert judged(universe({"lft": np.nan, "l2o": 0.5}), sine_claim()) == ["diverged"]


def test_levels_that_contradict_each_other_are_an_outcome() -> None:
    nothing = Measured(SINE, {}, {(0, "–", "–", "–", "–"): "not applicable"}, {})
    assert judged(nothing, sine_claim()) == ["not applicable"]


@pytest.mark.parametrize(
    ("kind", "ends", "word"),
    [
        ("better", {"lft": 0.1, "l2o": 1.0}, "for"),  # one has learned
        ("better", {"lft": 1.0, "l2o": 0.1}, "against"),
        ("better", {"lft": 0.99, "l2o": 1.0}, "vacuous"),  # less than a factor of 1.1
        ("not-worse", {"lft": 0.1, "l2o": 1.0}, "vacuous"),  # as good as nothing says nothing
        ("not-worse", {"lft": 0.1, "l2o": 0.1}, "for"),
        ("equivalent", {"lft": 1.0, "l2o": 0.5}, "vacuous"),
    ],
)
def test_the_floor_rule_is_that_of_the_claims(kind: str, ends: dict[str, float], word: str) -> None:
    assert judged(universe(ends), sine_claim(kind)) == [word]


@pytest.mark.parametrize(
    ("kind", "metric", "at_floor", "vacuous"),
    [
        ("better", "mse", (True, True), True),
        ("better", "mse", (True, False), False),
        ("better", "mse", (True, None), False),
        ("wider", "accuracy", (False, True), False),
        ("equivalent", "mse", (True, False), True),
        ("not-worse", "accuracy", (False, True), True),
        ("better", "distortion", (False, True), True),
        ("better", "distortion", (False, None), False),
    ],
)
def test_both_cells_must_be_at_the_floor_except_of_equality_and_distortion(
    kind: str, metric: str, at_floor: tuple[bool | None, bool | None], vacuous: bool
) -> None:
    assert is_vacuous(kind, CLAIMS.metrics[metric], at_floor) == vacuous


@pytest.mark.parametrize(
    ("lft", "l2o", "word"), [(1.0, 0.9, "for"), (0.9, 0.9, "vacuous"), (0.9, 1.0, "against")]
)
def test_first_steps_are_vacuous_where_no_method_arrives(lft: float, l2o: float, word: str) -> None:
    cells = [("mnist", "mnist", method, "first") for method in ("lft", "l2o")]
    metric = "asr" + "_support" * (ATTACK.judged_set == "support")
    means = {
        (seed, method, order, trained_on, tested_on, metric): {0: 0.1, 2: end, 4: end}
        for (trained_on, tested_on, method, order), end in zip(cells, (lft, l2o), strict=True)
        for seed in ATTACK.seeds
    }
    found = Measured(ATTACK, means, {key[:5]: "ok" for key in means}, {})
    changes = {"metric": ARRIVAL, "experiment": "attack", "a": cells[0], "b": cells[1]}
    claim = sine_claim().model_copy(update=changes)
    outcome = Judge(PROFILE, found, CLAIMS).outcome(claim)
    assert outcome is not None
    assert outcome.word == word
    never = PROFILE.experiments["attack"].testing.steps + 1
    lead = {"for": np.log(never / 2), "vacuous": 0.0, "against": -np.log(never / 2)}[word]
    assert outcome.effect == pytest.approx(lead)


def test_the_first_step_with_full_success_is_the_first_that_rounds_to_100_per_cent() -> None:
    curves = np.array([[0.2, 0.996, 0.9], [0.2, 0.994, 0.994], [np.nan, np.nan, 1.0]])
    assert first_full(curves, (0, 5, 10)).tolist() == [5, np.inf, 10]
