"""Contract tests for fine-tuners and task families of one's own.

A plug-in's test calls one of these; what is wrong is said in one sentence, as an
:class:`AssertionError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from lft.config import LSTMSettings
from lft.finetuners.registry import LearnedTuner, learned_tuner
from lft.methods import Method
from lft.seeding import generator
from lft.tasks.base import TaskFamily
from lft.types import Batch, Params

SHAPES: dict[str, tuple[int, ...]] = {"matrix": (3, 2), "vector": (4,), "scalar": ()}


def check_fine_tuner(tuner: type[LearnedTuner] | Method) -> None:
    """Check a learned fine-tuner against :class:`lft.finetuners.registry.LearnedTuner`.

    Args:
        tuner: the class, or the row of the method table that names it.

    Raises:
        AssertionError: it breaks the contract; the message says how.
    """
    rule = learned_tuner(tuner) if isinstance(tuner, Method) else tuner
    settings = LSTMSettings(hidden=3)
    weights = _drawn("initial", lambda g: rule.initial(settings, g))
    _named_floats("initial", weights)
    made = rule(weights, settings)
    params, grads = (_params(3, name) for name in ("params", "grads"))
    before = _copied((params, grads))
    state, moved = _stepped(made, params, grads)
    if not _equal(before, (params, grads)):
        _fail("step changes its arguments in place; it must return new tensors")
    for name, leaf in params.items():
        if name not in moved or moved[name].shape != leaf.shape:
            _fail(
                f"step must return every parameter in its shape, but {name!r} is {_of(moved, name)}"
            )
    if not all(leaf.isfinite().all() for leaf in moved.values()):
        _fail("step returns numbers that are not finite for ordinary gradients")
    kept = _copied(state)
    made.step(state, moved, grads)
    if not _equal(kept, state):
        _fail("step changes the state in place; it must return a new one")
    _, still = _stepped(made, params, {name: torch.zeros_like(g) for name, g in grads.items()})
    if not all(leaf.isfinite().all() for leaf in still.values()):
        _fail("step returns numbers that are not finite for a gradient of zeros")
    _, alone = _stepped(made, *({k: v[1:2] for k, v in p.items()} for p in (params, grads)))
    if not _close(alone, {name: leaf[1:2] for name, leaf in moved.items()}):
        _fail("tasks are not independent: a task moves otherwise beside others than alone")
    in_double = rule({k: v.double() for k, v in weights.items()}, settings)
    _, moved = _stepped(
        in_double, *({k: v.double() for k, v in p.items()} for p in (params, grads))
    )
    if any(leaf.dtype != torch.float64 for leaf in moved.values()):
        _fail("float64 weights and parameters must give float64 parameters")
    _differentiable(rule, settings, weights, params, grads)


def check_task_family(family: TaskFamily) -> None:
    """Check a task family against :class:`lft.tasks.base.TaskFamily`.

    Raises:
        AssertionError: it breaks the contract; the message says how.
    """
    for phase in ("train", "validation", "test"):
        tasks = _drawn(f"sample({phase!r})", lambda g, p=phase: family.sample(3, g, p))  # type: ignore[misc]
        for part in ("support", "query"):
            batch = getattr(tasks, part, None)
            if not isinstance(batch, Batch) or any(len(leaf) != 3 for leaf in batch):
                _fail(f"sample must give a TaskBatch; its {part} is no Batch of all tasks")
    params = _drawn("init", lambda g: family.init(3, g))
    _named_floats("init", params)
    if any(leaf.ndim == 0 or len(leaf) != 3 for leaf in params.values()):
        _fail("init must give parameters (B, …): every tensor starts with the tasks")
    losses = family.loss(params, tasks.query)
    if losses.shape != (3,) or not losses.isfinite().all():
        _fail(f"loss must be one finite number per task, (3,), not {_described(losses)}")
    second = {name: leaf[1:2] for name, leaf in params.items()}
    alone = family.loss(second, Batch(*(leaf[1:2] for leaf in tasks.query)))
    if not _close({"loss": alone}, {"loss": losses[1:2]}):
        _fail("tasks are not independent: the loss of a task is another beside others than alone")
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    total = family.loss(leaves, tasks.support).sum()
    if not total.requires_grad:
        _fail("loss cannot be differentiated in the parameters")
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    for name, grad in zip(leaves, grads, strict=True):
        if grad is None or not grad.isfinite().all():
            _fail(f"the loss has no finite gradient in the parameter {name!r}")
    if not any(grad.any() for grad in grads):
        _fail("the gradient of the loss is zero at the start, so that nothing can be learned")
    with torch.no_grad():
        metrics = family.metrics(params, tasks.query)
    for name, values in metrics.items():
        if values.shape != (3,):
            _fail(f"metric {name!r} must be one number per task, (3,), not {_described(values)}")
    if family.primary not in metrics:
        _fail(f"primary is {family.primary!r}, but metrics gives {', '.join(metrics)}")


def _differentiable(
    rule: type[LearnedTuner], settings: LSTMSettings, weights: Params, params: Params, grads: Params
) -> None:
    """Two steps can be differentiated in φ, in the parameters and in the gradients."""
    phi, theta, g = (
        {name: leaf.clone().requires_grad_() for name, leaf in part.items()}
        for part in (weights, params, grads)
    )
    made = rule(phi, settings)
    state, moved = made.step(made.start(theta), theta, g)
    _, moved = made.step(state, moved, g)
    total = sum((leaf.square().sum() for leaf in moved.values()), torch.zeros(()))
    for what, part in (("its weights", phi), ("the parameters", theta), ("the gradients", g)):
        found = total.requires_grad and torch.autograd.grad(
            total, list(part.values()), allow_unused=True, retain_graph=True
        )
        if not found or all(grad is None for grad in found):
            _fail(f"step cannot be differentiated in {what}; meta-training needs that")


def _stepped(made: Any, params: Params, grads: Params) -> tuple[Any, Params]:
    with torch.no_grad():
        state = made.start(params)
        if any(not isinstance(leaf, Tensor) for leaf in tree_leaves(state) if leaf is not None):
            _fail("the state must be made of tensors in dicts, lists or tuples, or be None")
        result = made.step(state, params, grads)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        _fail("step must return the pair (state, parameters)")
    return result


def _drawn(what: str, draw: Callable[[Generator], Any]) -> Any:
    """What a function draws; it must come from its generator alone."""
    before = torch.random.get_rng_state()
    first, second = draw(generator("contract")), draw(generator("contract"))
    if not torch.equal(before, torch.random.get_rng_state()):
        _fail(f"{what} draws from torch's global generator; it must use the one it is given")
    if not _equal(first, second):
        _fail(f"{what} gives other values when called again with an equal generator")
    return first


def _named_floats(what: str, tensors: Any) -> None:
    if not isinstance(tensors, dict) or not tensors:
        _fail(f"{what} must give a dict of tensors by name")
    for name, leaf in tensors.items():
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            _fail(f"{what} must give floating-point tensors, but {name!r} is {_described(leaf)}")


def _params(n_tasks: int, name: str) -> Params:
    random = generator("contract", name)
    return {key: torch.randn((n_tasks, *shape), generator=random) for key, shape in SHAPES.items()}


def _copied(tree: Any) -> Any:
    return tree_map_only(Tensor, torch.Tensor.clone, tree)


def _equal(one: Any, other: Any) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor))


def _close(one: Params, other: Params) -> bool:
    return all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-6) for name in other)


def _of(moved: Params, name: str) -> str:
    return _described(moved[name]) if name in moved else "missing"


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{value.dtype} of shape {tuple(value.shape)}"


def _fail(sentence: str) -> NoReturn:
    raise AssertionError(sentence)
