"""Controls from meta-training to verdict, on tasks whose best fine-tuner is known.

A task is a mean c ~ N(0, 1) that two noisy points tell of; f(θ; D) = ½ |θ − x|², averaged over the
points x of D. K steps of gradient descent with step size α leave θ = (1 − r) x̄ + r θ⁽⁰⁾ with
r = (1 − α)ᴷ, so that eq. 4 with w_K alone has its minimum in closed form:
r* = (σ²/n) / (σ²/n + 1). L2O, which judges θ by the points that it has seen, has its own at r = 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from lft.config import FAMILIES, FINETUNERS, FamilySettings, LearnedTuner, Positive, Profile
from lft.meta.evaluate import evaluate
from lft.meta.train import train
from lft.methods import METHODS, Method
from lft.metrics import MSE
from lft.report.claims import CellClaim, Verdict, judge, load_claims
from lft.results.aggregate import aggregate
from lft.results.folder import Results
from lft.shapes import Shapes
from lft.tasks.base import Phase, TaskFamily
from lft.types import Batch, Params, TaskBatch

NOISE, POINTS, STEPS, SIZE = 2.0, 2, 3, 10
"""σ, n, K and coordinates of θ."""
VARIANCE = NOISE**2 / POINTS
BEST = (VARIANCE / (VARIANCE + 1)) ** (1 / STEPS)
"""1 − α*."""


def expected(alpha: float) -> float:
    """Mean squared error on query points after K steps, θ⁽⁰⁾ = 0."""
    r = (1 - alpha) ** STEPS
    return NOISE**2 + (1 - r) ** 2 * VARIANCE + r**2


class QuadraticSettings(FamilySettings):
    """Means of normal variables."""

    metrics = (MSE,)
    kind: Literal["quadratic"] = "quadratic"
    support: Positive
    query: Positive

    def shapes(self, source: object) -> Shapes:
        return {"theta": (SIZE,)}

    def build(self, context: object) -> TaskFamily:
        return Quadratic(self)


class Quadratic(TaskFamily):
    def __init__(self, settings: QuadraticSettings) -> None:
        self.settings: QuadraticSettings = settings

    def sample(self, n_tasks: int, generator: Generator, phase: Phase) -> TaskBatch:
        truth = self._normal(n_tasks, 1, generator=generator)

        def points(n: int) -> Batch:
            x = truth + NOISE * self._normal(n_tasks, n, generator=generator)
            return Batch(x, x)

        return TaskBatch(points(self.settings.support), points(self.settings.query))

    def init(self, n_tasks: int, generator: Generator) -> Params:
        return {"theta": torch.zeros(n_tasks, SIZE, dtype=self.dtype)}

    def loss(self, params: Params, batch: Batch) -> Tensor:
        return 0.5 * (params["theta"][:, None] - batch.x).square().mean(1).sum(1)

    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        return {"mse": 2 * self.loss(params, batch) / SIZE}

    def _normal(self, n_tasks: int, n: int, *, generator: Generator) -> Tensor:
        return torch.randn(n_tasks, n, SIZE, generator=generator, dtype=self.dtype)


class StepSettings(LearnedTuner):
    """Gradient descent whose only weight is the logarithm of its step size."""

    kind: Literal["one-step-size"] = "one-step-size"

    def initial(self, generator: Generator) -> Params:
        return {"log": torch.tensor(-1.0)}

    def build(self, weights: Params, kernel: object = "auto") -> Step:  # type: ignore[override]
        return Step(weights)


class Step:
    def __init__(self, weights: Params) -> None:
        self.weights = weights

    def start(self, params: Params) -> Params:
        return {}

    def step(self, state: Params, params: Params, grads: Params) -> tuple[Params, Params]:
        rate = self.weights["log"].exp()
        return state, {name: leaf - rate * grads[name] for name, leaf in params.items()}


ROWS = (
    Method("one-lft", "LFT of one weight", "#D55E00", "finetuner", "one-step-size"),
    Method("one-l2o", "L2O of one weight", "#E69F00", "finetuner", "one-step-size", "joint"),
)

AGAIN = "one-lft-again"
CELL = ("means", "means")


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    """The family, the fine-tuner and the methods, for as long as this module runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "quadratic", QuadraticSettings)
        patch.setitem(FINETUNERS, "one-step-size", StepSettings)
        for row in ROWS:
            patch.setitem(METHODS, row.name, row)
        yield


@pytest.fixture(scope="module")
def profile(registered: None) -> Profile:
    return Profile.model_validate(
        {
            "name": "controls", "title": "Controls", "seeds": list(range(5)), "kernel": "torch",
            "experiments": {
                "control": {
                    "title": "Means",
                    "families": {"means": {"kind": "quadratic", "support": POINTS, "query": 20}},
                    "train_on": ["means"], "test_on": ["means"],
                    "methods": ["one-lft", "one-l2o", "sgd"],
                    "variants": {AGAIN: {"method": "one-lft", "label": "Again", "set": {}}},
                    "finetuner": {"kind": "one-step-size"},
                    "step_sizes": {"sgd": [0.02, round(1 - BEST, 3), 0.6]},
                    "training": {
                        "tasks": 1000, "meta_batch": 25, "steps": STEPS, "segment": STEPS,
                        "step_weights": "final", "estimator": "exact", "learning_rate": 0.15,
                        "validation": {"tasks": 200, "rounds": 4},
                    },
                    "testing": {"tasks": 100, "steps": STEPS},
                }
            },
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controls")
    for run in profile.runs("control"):
        train(profile, run, folder)
        evaluate(profile, run, folder)
    aggregate(profile, folder)
    return folder


@pytest.fixture(scope="module")
def verdicts(profile: Profile, results: Path) -> dict[str, Verdict]:
    """LFT beside L2O, beside itself under another name, and beside SGD of the best step size."""

    def claim(name: str, other: str) -> CellClaim:
        return CellClaim(
            id=name, claim=name, place="–", hypothesis="h", figure="–", kind="better",
            experiment="control", metric="mse", a=(*CELL, "one-lft", "first"),
            b=(*CELL, other, "first"), step=STEPS,
        )  # fmt: skip

    claims = (claim("planted", "one-l2o"), claim("nothing", AGAIN), claim("brute force", "sgd"))
    asked = load_claims().model_copy(update={"claims": claims, "hypotheses": {"h": "H"}})
    return {row.claim: row for row in judge(profile, results, asked)}


def test_the_closed_form_is_what_brute_force_finds() -> None:
    grid = np.linspace(0.001, 1, 1000)
    assert grid[np.argmin([expected(a) for a in grid])] == pytest.approx(1 - BEST, abs=0.001)


def test_meta_training_finds_the_best_fine_tuners(profile: Profile, results: Path) -> None:
    folder = Results(profile, results)
    found: dict[str, list[float]] = {}
    for run in profile.runs("control"):
        if run.method != "sgd":
            weights = folder.weights(run)
            (name,) = [key for key in weights if key.startswith("best/")]
            found.setdefault(run.method, []).append(float(weights[name].exp()))
    # 1000 tasks of 10 coordinates and 200 for validation leave about 3 % in r, a tenth in α.
    assert found["one-lft"] == pytest.approx([1 - BEST] * 5, rel=0.25)
    assert found["one-l2o"] == pytest.approx([1.0] * 5, abs=0.25)


def test_a_planted_effect_of_known_size_is_found(verdicts: dict[str, Verdict]) -> None:
    """The positive control."""
    row = verdicts["planted"]
    assert row.verdict == "supported"
    assert row.effect == pytest.approx(expected(1 - BEST) / expected(1.0), abs=0.02)


def test_the_same_method_twice_is_no_difference(verdicts: dict[str, Verdict]) -> None:
    """The negative control: trained from other draws, under another name."""
    assert verdicts["nothing"].verdict in ("no difference", "inconclusive")
    assert verdicts["nothing"].effect == pytest.approx(1, abs=0.01)


def test_learning_is_as_good_as_the_best_of_a_grid(verdicts: dict[str, Verdict]) -> None:
    assert verdicts["brute force"].verdict in ("no difference", "negligible")
