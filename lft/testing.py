"""Contract tests for fine-tuners, task families and methods, built-in or custom.

Call one of these functions in a test. It raises an :class:`AssertionError` that says in one
sentence what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from lft.config import (
    FAMILIES,
    FINETUNERS,
    FamilySettings,
    HandDesignedTuner,
    LearnedTuner,
    Settings,
    Source,
    TunerSettings,
    tuner_class,
)
from lft.config.kinds import Kinds
from lft.errors import UsageError
from lft.finetuners.base import FineTuner
from lft.methods import Method
from lft.metrics import METRICS
from lft.seeding import generator
from lft.tasks.base import Phase, TaskFamily
from lft.types import Batch, Params, TaskBatch

SHAPES: dict[str, tuple[int, ...]] = {"matrix": (3, 2), "vector": (4,), "scalar": ()}
"""Parameters that fine-tuners are tried on, without the task axis."""

PHASES: tuple[Phase, ...] = ("train", "validation", "test")


def check_method(method: Method) -> None:
    """Check a row of the method table and its fine-tuner under default settings.

    Raises:
        AssertionError: the method breaks the contract; the message says how.
    """
    try:
        settings = tuner_class(method).model_validate({})
    except (UsageError, ValueError) as error:
        _fail(" ".join(str(error).split()))
    check_fine_tuner(settings)


def check_fine_tuner(settings: TunerSettings) -> None:
    """Check a fine-tuner against :class:`lft.finetuners.base.FineTuner`.

    Args:
        settings: settings of a learned or a hand-designed kind.

    Raises:
        AssertionError: the fine-tuner breaks the contract; the message says how.
    """
    _registrable(FINETUNERS, type(settings))
    if isinstance(settings, LearnedTuner):
        weights = _drawn("initial", settings.initial)
        _named_floats("initial", weights)
        _check_rule(settings.build(weights))
        _check_double(settings.build(_doubled(weights)))
        _differentiable(settings, weights)
    elif isinstance(settings, HandDesignedTuner):
        _check_rule(settings.build(0.01))
        _check_double(settings.build(0.01))
    else:
        _fail("a fine-tuner's settings must be a LearnedTuner or a HandDesignedTuner")


def check_task_family(family: TaskFamily, source: Source | None = None) -> None:
    """Check a task family against :class:`lft.tasks.base.TaskFamily` and its settings.

    Args:
        family: the family to check.
        source: settings of the images that the family was built from; None if it has none.

    Raises:
        AssertionError: the family breaks the contract; the message says how.
    """
    if not isinstance(family, TaskFamily):
        _fail("a task family must inherit from lft.tasks.base.TaskFamily")
    _check_settings(family.settings)
    for phase in PHASES:
        tasks = _sampled(family, phase)
    params = _drawn("init", lambda g: family.init(3, g))
    _named_floats("init", params)
    if any(leaf.ndim == 0 or len(leaf) != 3 for leaf in params.values()):
        _fail("init must give parameters (B, …): the first axis of every tensor is the task")
    found = {name: tuple(leaf.shape[1:]) for name, leaf in params.items()}
    if (promised := family.settings.shapes(source)) != found:
        _fail(f"init gives the shapes {found}, but the settings promise {promised}")
    _check_loss(family, params, tasks)
    _check_metrics(family, params, tasks)
    _check_resized(family)
    in_double = family.double()
    leaves = in_double.init(3, generator("contract")).values()
    if any(leaf.dtype != torch.float64 for leaf in leaves):
        _fail("double must give a family whose parameters are float64")


def _check_settings(settings: FamilySettings) -> None:
    _registrable(FAMILIES, type(settings))
    if not settings.metrics:
        _fail("the settings name no metrics; tasks are judged by the first")
    others = [m.name for m in settings.metrics if METRICS.get(m.name, m) != m]
    if others:
        _fail(f"the table already has different metrics with the name {', '.join(others)}")
    if settings.metrics[0].chance != (settings.chance is not None):
        _fail("settings.chance must be a number if and only if the first metric has chance=True")


def _registrable(kinds: Kinds[Any], settings: type[Settings]) -> None:
    try:
        kinds.check(settings)
    except UsageError as error:
        _fail(str(error))


def _sampled(family: TaskFamily, phase: Phase) -> TaskBatch:
    tasks = _drawn(f"sample({phase!r})", lambda g: family.sample(3, g, phase))
    for part in ("support", "query"):
        batch = getattr(tasks, part, None)
        if not isinstance(batch, Batch) or any(len(leaf) != 3 for leaf in batch):
            _fail(f"sample must give a TaskBatch; its {part} is not a Batch of all tasks")
    found: TaskBatch = tasks
    return found


def _check_loss(family: TaskFamily, params: Params, tasks: TaskBatch) -> None:
    losses = family.loss(params, tasks.query)
    if losses.shape != (3,) or not losses.isfinite().all():
        _fail(f"loss must be one finite number per task, (3,), not {_described(losses)}")
    second = {name: leaf[1:2] for name, leaf in params.items()}
    alone = family.loss(second, Batch(*(leaf[1:2] for leaf in tasks.query)))
    if not _close({"loss": alone}, {"loss": losses[1:2]}):
        _fail("tasks are not independent: a task's loss changes when other tasks are in the batch")
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    total = family.loss(leaves, tasks.support).sum()
    if not total.requires_grad:
        _fail("loss cannot be differentiated in the parameters")
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    for name, grad in zip(leaves, grads, strict=True):
        if grad is None or not grad.isfinite().all():
            _fail(f"the loss has no finite gradient in the parameter {name!r}")
    if not any(grad.any() for grad in grads):
        _fail("the gradient of the loss is zero at the start, so nothing can be learned")


def _check_metrics(family: TaskFamily, params: Params, tasks: TaskBatch) -> None:
    with torch.no_grad():
        found = family.metrics(params, tasks.query) | {"score": family.score(params, tasks.query)}
    for name, values in found.items():
        if values.shape != (3,):
            _fail(f"metric {name!r} must be one number per task, (3,), not {_described(values)}")
    promised = {metric.name for metric in family.settings.metrics if not metric.first_of}
    if promised != found.keys() - {"score"}:
        given = ", ".join(sorted(found.keys() - {"score"}))
        _fail(f"the settings promise the metrics {', '.join(sorted(promised))}, not {given}")
    if family.settings.pictures and any(
        len(leaf) != 3 for leaf in family.pictures(tasks, params).values()
    ):
        _fail("pictures must give tensors (B, …): the first axis of every tensor is the task")


def _check_resized(family: TaskFamily) -> None:
    per_class = family.settings.classes_per_task
    smaller = family.resized(support=1, query=2)
    tasks = smaller.sample(3, generator("contract"), "train")
    if (tasks.support.size, tasks.query.size) != (per_class, 2 * per_class):
        _fail("resized must change the numbers of examples per class in both sets")


def _check_rule(made: FineTuner) -> None:
    """Check a rule on parameters of several shapes and three tasks."""
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
        _fail("tasks are not independent: a task's step changes when other tasks are in the batch")


def _check_double(made: FineTuner) -> None:
    _, moved = _stepped(made, *(_doubled(_params(3, name)) for name in ("params", "grads")))
    if any(leaf.dtype != torch.float64 for leaf in moved.values()):
        _fail("float64 weights and parameters must give float64 parameters")


def _differentiable(settings: LearnedTuner, weights: Params) -> None:
    """Check that two steps are differentiable in φ, in the parameters and in the gradients."""
    phi, theta, g = (
        {name: leaf.clone().requires_grad_() for name, leaf in part.items()}
        for part in (weights, _params(3, "params"), _params(3, "grads"))
    )
    made = settings.build(phi)
    state, moved = made.step(made.start(theta), theta, g)
    _, moved = made.step(state, moved, g)
    total = sum((leaf.square().sum() for leaf in moved.values()), torch.zeros(()))
    for what, part in (("its weights", phi), ("the parameters", theta), ("the gradients", g)):
        found = total.requires_grad and torch.autograd.grad(
            total, list(part.values()), allow_unused=True, retain_graph=True
        )
        if not found or all(grad is None for grad in found):
            _fail(f"step cannot be differentiated in {what}; meta-training needs that")


def _stepped(made: FineTuner, params: Params, grads: Params) -> tuple[Any, Params]:
    with torch.no_grad():
        state = made.start(params)
        if not _plain(state):
            _fail("the state must be made of tensors in plain dicts and lists, or be None")
        result = made.step(state, params, grads)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        _fail("step must return the pair (state, parameters)")
    return result


def _plain(state: Any) -> bool:
    """Whether a state survives a round trip through a state dict unchanged."""
    if type(state) is dict:
        return all(map(_plain, state.values()))
    if type(state) is list:
        return all(map(_plain, state))
    return state is None or isinstance(state, Tensor)


def _drawn(what: str, draw: Callable[[Generator], Any]) -> Any:
    """Call ``draw`` and check that the result depends only on its generator."""
    before = torch.random.get_rng_state()
    first, second = (draw(generator("contract", what)) for _ in range(2))
    if not torch.equal(before, torch.random.get_rng_state()):
        _fail(f"{what} draws from torch's global generator; it must use the one it is given")
    if not _equal(first, second):
        _fail(f"{what} gives different values when called again with an equal generator")
    try:
        elsewhere = _with_other_defaults(lambda: draw(generator("contract", what)))
        same = _equal(first, elsewhere)
    except (RuntimeError, NotImplementedError):  # The draw mixes tensors of several devices.
        same = False
    if not same:
        _fail(f"{what} depends on torch's default device or dtype; name both in every draw")
    return first


def _with_other_defaults(draw: Callable[[], Any]) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            return draw()
    finally:
        torch.set_default_dtype(before)


def _named_floats(what: str, tensors: Any) -> None:
    if not isinstance(tensors, dict) or not tensors:
        _fail(f"{what} must give a dict of tensors by name")
    for name, leaf in tensors.items():
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            _fail(f"{what} must give floating-point tensors, but {name!r} is {_described(leaf)}")


def _params(n_tasks: int, name: str) -> Params:
    random = generator("contract", name)
    return {
        key: torch.randn((n_tasks, *shape), generator=random, dtype=torch.float32)
        for key, shape in SHAPES.items()
    }


def _doubled(params: Params) -> Params:
    return {name: leaf.double() for name, leaf in params.items()}


def _copied(tree: Any) -> Any:
    return tree_map_only(Tensor, torch.Tensor.clone, tree)


def _equal(one: Any, other: Any) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor))


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
