"""The contract tests pass what the package has, and say what is wrong with what breaks them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import tiny_images
from torch import Tensor

from lft.config import AttackFamily, ClassificationFamily, LSTMSettings, SineFamily
from lft.finetuners.lstm import CoordinateLSTM
from lft.methods import METHODS
from lft.tasks.attack import Attack
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.tasks.sine import Sine
from lft.tasks.victim import LeNet5
from lft.testing import check_fine_tuner, check_task_family
from lft.types import Batch, Params, TaskBatch

SETTINGS = SineFamily(support=3, query=4, hidden=(4,))


def test_what_the_package_has_passes() -> None:
    images = tiny_images()
    pools = Pools(images, "disjoint", 0.2)
    check_fine_tuner(METHODS["lft"])
    check_fine_tuner(CoordinateLSTM)
    check_task_family(Sine(SETTINGS))
    few = ClassificationFamily(source="grey", net="mlp", widths=(4,), support=2, query=2)
    check_task_family(Classification(few, images, pools))
    victim = LeNet5((1, 28, 28), 3)
    victim.initialise(0)
    attack = AttackFamily(source="grey", margin="logit")
    check_task_family(Attack(attack, victim.requires_grad_(False), pools))


class Rule:
    """A correct fine-tuner, to be broken."""

    def __init__(self, weights: Params, settings: LSTMSettings) -> None:
        self.weights = weights

    @staticmethod
    def initial(settings: LSTMSettings, generator: torch.Generator) -> Params:
        return {"rate": torch.rand((), generator=generator)}

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
    "no dict": ({"initial": staticmethod(lambda s, g: [1.0])}, "initial must give a dict"),
    "integers": (
        {"initial": staticmethod(lambda s, g: {"rate": torch.tensor(1)})},
        "'rate' is torch.int64 of shape",
    ),
    "global draw": (
        {"initial": staticmethod(lambda s, g: {"rate": torch.rand(())})},
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
}


@pytest.mark.parametrize("case", sorted(BROKEN_RULES))
def test_a_broken_fine_tuner_is_told_why(case: str) -> None:
    change, message = BROKEN_RULES[case]
    check_fine_tuner(Rule)
    with pytest.raises(AssertionError, match=message):
        check_fine_tuner(type("Broken", (Rule,), change))


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
    "pair": ({"sample": sampled(lambda t: (t.support, t.query))}, "support is no Batch"),
    "too few": (
        {"sample": sampled(lambda t: TaskBatch(t.support, Batch(*(x[:2] for x in t.query))))},
        "query is no Batch of all tasks",
    ),
    "unseeded": (
        {"init": lambda self, n, g: {"w": torch.rand(n, 2)}},
        "init draws from torch's global generator",
    ),
    "no task axis": (
        {"init": lambda self, n, g: {"w": torch.zeros(2)}},
        "every tensor starts with the tasks",
    ),
    "mean": ({"loss": lossy(torch.mean)}, r"one finite number per task, \(3,\), not"),
    "nan": ({"loss": lossy(lambda x: x * torch.nan)}, "one finite number per task"),
    "mixed": ({"loss": lossy(lambda x: x + x.mean())}, "tasks are not independent"),
    "detached": ({"loss": lossy(torch.Tensor.detach)}, "cannot be differentiated"),
    "flat": ({"loss": lossy(lambda x: x * 0)}, "gradient of the loss is zero"),
    "metric": ({"metrics": lambda self, p, b: {"mse": torch.zeros(())}}, "metric 'mse' must be"),
    "primary": ({"primary": "accuracy"}, "primary is 'accuracy', but metrics gives mse"),
}


@pytest.mark.parametrize("case", sorted(BROKEN_FAMILIES))
def test_a_broken_family_is_told_why(case: str) -> None:
    change, message = BROKEN_FAMILIES[case]
    with pytest.raises(AssertionError, match=message):
        check_task_family(type("Broken", (Sine,), change)(SETTINGS))


def test_a_forgotten_parameter_is_named() -> None:
    def with_spare(self: Sine, n_tasks: int, generator: Any) -> Params:
        return Sine.init(self, n_tasks, generator) | {"spare": torch.zeros(n_tasks)}

    with pytest.raises(AssertionError, match="no finite gradient in the parameter 'spare'"):
        check_task_family(type("Broken", (Sine,), {"init": with_spare})(SETTINGS))


def test_the_state_may_be_nothing() -> None:
    stateless = {
        "start": lambda self, p: None,
        "step": lambda self, s, p, g: (None, {k: p[k] - self.weights["rate"] * g[k] for k in p}),
    }
    check_fine_tuner(type("Stateless", (Rule,), stateless))
