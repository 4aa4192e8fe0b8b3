"""Use any object with ``sample``, ``init`` and ``loss`` as a task family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Generator, Tensor

from lft.config import FamilySettings
from lft.errors import UsageError
from lft.metrics import Metric
from lft.shapes import Shapes
from lft.tasks.base import Phase, TaskFamily
from lft.types import Batch, Params, TaskBatch

NEEDED = ("sample", "init", "loss")
"""Methods that every task family must have."""


class OwnSettings(FamilySettings):
    """Settings for a family that has none; its loss is its only metric."""

    metrics = (Metric("loss", "loss"),)
    kind: Literal["own"] = "own"


class Own(TaskFamily):
    """Adapts an object that has the methods :data:`NEEDED` of :class:`lft.tasks.base.TaskFamily`.

    The object's ``metrics`` are used if it has ``settings`` that name them, and its ``score`` if it
    has one.

    Args:
        tasks: the object; its ``sample`` may return two pairs (x, y), support and query.

    Raises:
        UsageError: a method is missing, or returns something other than it should.
    """

    def __init__(self, tasks: Any) -> None:
        if isinstance(tasks, type):
            name = tasks.__name__
            raise UsageError(f"{name} is a class, and a task family is an object: {name}(...)")
        for name in NEEDED:
            if not callable(getattr(tasks, name, None)):
                raise UsageError(
                    f"{tasks!r:.60} is not a task family: it has no method {name!r}; "
                    "lft.tasks.base.TaskFamily lists the methods it needs"
                )
        self.tasks = tasks
        self.measured = hasattr(tasks, "settings")
        self.settings = tasks.settings if self.measured else OwnSettings()

    def sample(self, n_tasks: int, generator: Generator, phase: Phase) -> TaskBatch:
        """See :meth:`lft.tasks.base.TaskFamily.sample`."""
        drawn = self.tasks.sample(n_tasks, generator, phase)
        if not (_is_pair(drawn) and all(map(_is_pair, drawn))) or not all(
            _of_tasks(leaf, n_tasks) for part in drawn for leaf in part
        ):
            raise UsageError(
                f"sample of {self.tasks!r:.60} must return two pairs (x, y) of tensors, support "
                f"and query; the first axis of each is the task, here of size {n_tasks}"
            )
        return TaskBatch(*(Batch(*part) for part in drawn))

    def init(self, n_tasks: int, generator: Generator) -> Params:
        """See :meth:`lft.tasks.base.TaskFamily.init`."""
        found: Params = self.tasks.init(n_tasks, generator)
        if not (isinstance(found, dict) and found) or not all(
            _of_tasks(leaf, n_tasks) and leaf.is_floating_point() for leaf in found.values()
        ):
            raise UsageError(
                f"init of {self.tasks!r:.60} must return a dict of floating-point tensors; the "
                f"first axis of each is the task, here of size {n_tasks}"
            )
        return found

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """See :meth:`lft.tasks.base.TaskFamily.loss`."""
        found: Tensor = self.tasks.loss(params, batch)
        n_tasks = len(batch.x)
        if not isinstance(found, Tensor) or found.shape != (n_tasks,):
            shape = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)
            raise UsageError(
                f"loss of {self.tasks!r:.60} must return one number per task, a tensor "
                f"({n_tasks},), not {shape:.60}"
            )
        return found

    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        """The object's metrics, or its loss."""
        if not self.measured:
            return {"loss": self.loss(params, batch)}
        found: dict[str, Tensor] = self.tasks.metrics(params, batch)
        return found

    def score(self, params: Params, batch: Batch) -> Tensor:
        """The object's score, or its loss."""
        found: Tensor = getattr(self.tasks, "score", self.loss)(params, batch)
        return found


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _of_tasks(value: object, n_tasks: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == n_tasks


def as_family(tasks: Any) -> TaskFamily:
    """Return a task family unchanged; wrap any other object in :class:`Own`.

    Raises:
        UsageError: a method is missing.
    """
    return tasks if isinstance(tasks, TaskFamily) else Own(tasks)


def as_families(tasks: Any) -> dict[str, TaskFamily]:
    """Turn one task family, a list or a dict of them into a dict by name.

    An unnamed family takes the name of its kind; a list also numbers its families.

    Raises:
        UsageError: there is none, or one is not a task family.
    """
    if isinstance(tasks, Mapping):
        found = {str(name): as_family(one) for name, one in tasks.items()}
    elif isinstance(tasks, Sequence) and not isinstance(tasks, str):
        families = [as_family(one) for one in tasks]
        found = {f"{one.settings.kind}-{i}": one for i, one in enumerate(families, start=1)}
    else:
        family = as_family(tasks)
        found = {family.settings.kind: family}
    if not found:
        raise UsageError("meta-training needs at least one task family")
    return found


def shapes_of(family: TaskFamily, generator: Generator) -> Shapes:
    """Shapes of one task's parameters, without the task axis."""
    return {name: tuple(leaf.shape[1:]) for name, leaf in family.init(1, generator).items()}
