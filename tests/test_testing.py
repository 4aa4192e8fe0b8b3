"""The contract tests say what is wrong with what breaks them; tests/contract holds what passes."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from lft.config import LearnedTuner, SineFamily, Source
from lft.finetuners.base import FineTuner
from lft.kernels.build import Kernel
from lft.methods import Method
from lft.shapes import Shapes
from lft.tasks.sine import Sine
from lft.testing import check_fine_tuner, check_method, check_task_family
from lft.types import Batch, Params, TaskBatch

SETTINGS = SineFamily(support=3, query=4, hidden=(4,))


class Rule:
    """A correct fine-tuner, to be broken."""

    def __init__(self, weights: Params) -> None:
        self.weights = weights

    @staticmethod
    def initial(generator: torch.Generator) -> Params:
        return {"rate": torch.rand((), generator=generator, dtype=torch.float32, device="cpu")}

    def start(self, params: Params) -> Any:
        return {name: torch.zeros_like(leaf) for name, leaf in params.items()}

    def step(self, state: Any, params: Params, grads: Params) -> Any:
        state = {name: 0.5 * state[name] + grads[name] for name in params}
        return state, {k: params[k] - self.weights["rate"] * state[k] for k in params}


def moved(change: Any) -> Any:
    """A step whose parameters are changed afterwards."""

    def step(self: Rule, state: Any, params: Params, grads: Params) -> Any:
        state, params = Rule.step(self, state, params, grads)
        return state, {name: change(leaf) for name, leaf in params.items()}

    return step


def in_place(self: Rule, state: Any, params: Params, grads: Params) -> Any:
    for name, leaf in params.items():
        leaf -= grads[name]
    return state, params


def state_in_place(self: Rule, state: Any, params: Params, grads: Params) -> Any:
    for name, leaf in state.items():
        leaf += grads[name]
    return state, {k: params[k] - self.weights["rate"] * state[k] for k in params}


def normalised(self: Rule, state: Any, params: Params, grads: Params) -> Any:
    return state, {k: params[k] - self.weights["rate"] * grads[k].sign().log() for k in params}


def beside(self: Rule, state: Any, params: Params, grads: Params) -> Any:
    return state, {k: params[k] - self.weights["rate"] * grads[k].mean(0) for k in params}


def by_zero(self: Rule, state: Any, params: Params, grads: Params) -> Any:
    rate = self.weights["rate"]
    return state, {k: params[k] - rate * grads[k] / grads[k].norm() for k in params}


BROKEN_RULES = {
    "no dict": ({"initial": staticmethod(lambda g: [1.0])}, "initial must give a dict"),
    "integers": (
        {"initial": staticmethod(lambda g: {"rate": torch.tensor(1, device="cpu")})},
        "'rate' is torch.int64 of shape",
    ),
    "global draw": (
        {"initial": staticmethod(lambda g: {"rate": torch.rand(())})},
        "draws from torch's global generator",
    ),
    "no pair": ({"step": lambda self, s, p, g: p}, r"pair \(state, parameters\)"),
    "in place": ({"step": in_place}, "changes its arguments in place"),
    "state in place": ({"step": state_in_place}, "changes the state in place"),
    "shape": ({"step": moved(torch.Tensor.flatten)}, "'matrix' is torch.float32 of shape"),
    "not finite": ({"step": normalised}, "not finite for ordinary gradients"),
    "zeros": ({"step": by_zero}, "not finite for a gradient of zeros"),
    "tasks": ({"step": beside}, "tasks are not independent"),
    "dtype": ({"step": moved(torch.Tensor.float)}, "must give float64"),
    "detached": ({"step": moved(torch.Tensor.detach)}, "cannot be differentiated in its weights"),
    "state": ({"start": lambda self, p: {"count": 0}}, "must be made of tensors"),
    "tuple": ({"start": lambda self, p: (torch.ones(1),)}, "in plain dicts and lists"),
    "default dtype": (
        {"initial": staticmethod(lambda g: {"rate": torch.rand((), generator=g)})},
        "initial depends on torch's default device or dtype",
    ),
}


def tuner(rule: type[Rule]) -> LearnedTuner:
    """Settings of a fine-tuner that build a rule."""

    class Settings(LearnedTuner):
        kind: Literal["broken"] = "broken"

        def initial(self, generator: torch.Generator) -> Params:
            return rule.initial(generator)

        def build(self, weights: Params, kernel: Kernel = "auto") -> FineTuner:
            return rule(weights)

    return Settings()


@pytest.mark.parametrize("case", sorted(BROKEN_RULES))
def test_a_broken_fine_tuner_is_told_why(case: str) -> None:
    change, message = BROKEN_RULES[case]
    check_fine_tuner(tuner(Rule))
    with pytest.raises(AssertionError, match=message):
        check_fine_tuner(tuner(type("Broken", (Rule,), change)))


def sampled(change: Any) -> Any:
    def sample(self: Sine, n_tasks: int, generator: Any, phase: Any) -> Any:
        return change(Sine.sample(self, n_tasks, generator, phase))

    return sample


def lossy(change: Any) -> Any:
    def loss(self: Sine, params: Params, batch: Batch) -> Tensor:
        found: Tensor = change(Sine.loss(self, params, batch))
        return found

    return loss


BROKEN_FAMILIES = {
    "pair": ({"sample": sampled(lambda t: (t.support, t.query))}, "support is not a Batch"),
    "too few": (
        {"sample": sampled(lambda t: TaskBatch(t.support, Batch(*(x[:2] for x in t.query))))},
        "query is not a Batch of all tasks",
    ),
    "unseeded": (
        {"init": lambda self, n, g: {"w": torch.rand(n, 2)}},
        "init draws from torch's global generator",
    ),
    "no task axis": (
        {"init": lambda self, n, g: {"w": torch.zeros(2, dtype=torch.float32, device="cpu")}},
        "the first axis of every tensor is the task",
    ),
    "mean": ({"loss": lossy(torch.mean)}, r"one finite number per task, \(3,\), not"),
    "nan": ({"loss": lossy(lambda x: x * torch.nan)}, "one finite number per task"),
    "mixed": ({"loss": lossy(lambda x: x + x.mean())}, "tasks are not independent"),
    "detached": ({"loss": lossy(torch.Tensor.detach)}, "cannot be differentiated"),
    "flat": ({"loss": lossy(lambda x: x * 0)}, "gradient of the loss is zero"),
    "metric": ({"metrics": lambda self, p, b: {"mse": torch.zeros(())}}, "metric 'mse' must be"),
    "other metrics": (
        {"metrics": lambda self, p, b: {"mae": torch.zeros(3)}},
        "the settings promise the metrics mse, not mae",
    ),
    "score": ({"score": lambda self, p, b: torch.zeros(())}, "metric 'score' must be"),
    "sizes": ({"resized": lambda self, support, query: self}, "resized must change"),
    "double": ({"double": lambda self: self}, "whose parameters are float64"),
    "default dtype": (
        {"init": lambda self, n, g: {"w": torch.rand(n, 2, generator=g)}},
        "init depends on torch's default device or dtype",
    ),
    "shapes": (
        {"init": lambda self, n, g: {"w": torch.zeros(n, 2, dtype=torch.float32, device="cpu")}},
        r"init gives the shapes {'w': \(2,\)}, but the settings promise",
    ),
}


@pytest.mark.parametrize("case", sorted(BROKEN_FAMILIES))
def test_a_broken_family_is_told_why(case: str) -> None:
    change, message = BROKEN_FAMILIES[case]
    with pytest.raises(AssertionError, match=message):
        check_task_family(type("Broken", (Sine,), change)(SETTINGS))


def test_a_forgotten_parameter_is_named() -> None:
    def with_spare(self: Sine, n_tasks: int, generator: Any) -> Params:
        spare = torch.zeros(n_tasks, dtype=self.dtype, device="cpu")
        return Sine.init(self, n_tasks, generator) | {"spare": spare}

    class Spare(SineFamily):
        def shapes(self, source: Source | None) -> Shapes:
            return super().shapes(source) | {"spare": ()}

    settings = Spare(**SETTINGS.model_dump())
    with pytest.raises(AssertionError, match="no finite gradient in the parameter 'spare'"):
        check_task_family(type("Broken", (Sine,), {"init": with_spare})(settings))


def test_tasks_that_are_drawn_like_their_start_are_not_solved_by_it() -> None:
    """Targets come from a network that is drawn as θ⁽⁰⁾ is."""

    def sample(self: Sine, n_tasks: int, generator: Any, phase: Any) -> TaskBatch:
        teacher = self.init(n_tasks, generator)
        sets = Sine.sample(self, n_tasks, generator, phase)
        return TaskBatch(*(Batch(x, self.network(teacher, x)) for x, _ in sets))

    check_task_family(type("Taught", (Sine,), {"sample": sample})(SETTINGS))


def test_settings_and_metrics_must_fit_the_registries() -> None:
    class Chance(SineFamily):
        @property
        def chance(self) -> float:
            return 0.5

    with pytest.raises(AssertionError, match="chance must be a number if and only if"):
        check_task_family(Sine(Chance(**SETTINGS.model_dump())))
    with pytest.raises(AssertionError, match="unknown fine-tuner 'none'"):
        check_method(Method("mine", "Mine", "#000001", "finetuner", "none"))
    with pytest.raises(AssertionError, match=r"must inherit from lft\.tasks\.base\.TaskFamily"):
        check_task_family(object())  # type: ignore[arg-type]


def test_the_state_may_be_nothing() -> None:
    stateless = {
        "start": lambda self, p: None,
        "step": lambda self, s, p, g: (None, {k: p[k] - self.weights["rate"] * g[k] for k in p}),
    }
    check_fine_tuner(tuner(type("Stateless", (Rule,), stateless)))
