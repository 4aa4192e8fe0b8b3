"""Fine-tune and measure along the trajectory, for evaluation and for the library."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError
from torch import Tensor

from lft.config import Testing, ZerothOrderSettings, explain
from lft.errors import UsageError
from lft.finetuners.base import FineTuner
from lft.meta.adapt import adapt, parts
from lft.meta.gradients import FirstOrder, Gradient, ZerothOrder
from lft.metrics import SUPPORT
from lft.runtime.modes import own_modes
from lft.seeding import check_seed, generator
from lft.tasks.base import TaskFamily
from lft.types import Params, TaskBatch

if TYPE_CHECKING:
    import pandas as pd


@torch.no_grad()
def measured(
    family: TaskFamily,
    tuner: FineTuner,
    tasks: TaskBatch,
    start: Params,
    *,
    steps: int,
    every: int,
    gradient: Gradient,
) -> tuple[dict[str, Tensor], Params]:
    """Fine-tune tasks and measure them every few steps.

    Args:
        family: defines the loss and the metrics.
        tuner: update rule.
        tasks: B tasks.
        start: θ⁽⁰⁾, each (B, …).
        steps: K.
        every: interval between measured steps, from step 0.
        gradient: g of eq. 3.

    Returns:
        The metrics by name, and θ⁽ᴷ⁾, each (B, …). Metrics of a step have shape
        (steps / every + 1, B): all metrics on the query set, and the primary one on the support set
        under a name that ends in ``_support``. Metrics of a whole trajectory have shape (1, B).
    """
    whole = {m.name: m.first_of for m in family.settings.metrics if m.first_of}
    found_of, ends = [], []
    for part, params in parts(tasks, start):
        points = adapt(family, tuner, params, part.support, steps=steps, gradient=gradient)
        after = chain([params], (point.params for point in points))
        rows, every_step = [], []
        for step, end in enumerate(after):
            written = step % every == 0
            if written or whole:
                every_step.append(family.metrics(end, part.query))
            if written:
                rows.append(every_step[-1] | _on_support(family, end, part))
        found = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        for name_of, share in whole.items():
            found[name_of] = first_full(torch.stack([row[share] for row in every_step]))
        found_of.append(found)
        ends.append(end)
    result = {key: torch.cat([of_part[key] for of_part in found_of], 1) for key in found_of[0]}
    return result, {key: torch.cat([end[key] for end in ends]) for key in ends[0]}


def _on_support(family: TaskFamily, params: Params, tasks: TaskBatch) -> dict[str, Tensor]:
    primary = family.settings.primary
    return {f"{primary}{SUPPORT}": family.metrics(params, tasks.support)[primary]}


def first_full(shares: Tensor) -> Tensor:
    """Find the first step with a share of 100 %.

    Args:
        shares: (steps + 1, B), in [0, 1].

    Returns:
        The step, (1, B); NaN if there is none.
    """
    full = shares >= 1
    first = full.to(torch.float32).argmax(0, keepdim=True).to(torch.float32)
    return first.where(full.any(0, keepdim=True), torch.nan)


def steps_of(values: Tensor, steps: int, every: int) -> list[int]:
    """Return the fine-tuning step of each row of ``values``.

    A metric of a whole trajectory has one row, for the last step.

    Args:
        values: one metric, from :func:`measured`.
        steps: K.
        every: interval between measured steps.
    """
    return [*range(0, steps + 1, every)][-len(values) :]


def adapted(
    tuner: FineTuner,
    family: TaskFamily,
    tasks: int | TaskBatch,
    *,
    steps: int,
    every: int,
    seed: int,
    init: Params | None = None,
    zeroth_order: ZerothOrderSettings | None = None,
) -> pd.DataFrame:
    """Fine-tune test tasks and tabulate their metrics.

    The same seed gives the same tasks and random starts for every fine-tuner, in whatever modes of
    torch (autocast, inference) the caller is.

    Args:
        tuner: update rule.
        family: defines the tasks, the loss and the metrics.
        tasks: B tasks, or how many to draw.
        steps: K.
        every: interval between measured steps, from step 0.
        seed: names the random draws.
        init: a meta-learned θ⁽⁰⁾ without a task axis, to replace the random starts.
        zeroth_order: settings of gradient estimates (eq. 6), to replace gradients.

    Returns:
        One row per task and measured step, with columns ``task``, ``step`` and one per metric.
        Metrics of a whole trajectory are in the row of the last step.

    Raises:
        UsageError: a number is out of range, or ``tasks`` or ``seed`` is of another type.
    """
    import pandas as pd

    check_seed(seed)
    if not isinstance(tasks, int | TaskBatch):
        kind = type(tasks).__name__
        raise UsageError(f"adapt: tasks must be a whole number or a TaskBatch, not a {kind}")
    try:
        Testing(tasks=tasks if isinstance(tasks, int) else 1, steps=steps, every=every)
    except ValidationError as error:
        raise UsageError(f"adapt: {explain(error)}") from None
    random = generator("adapt directions", seed)
    gradient = FirstOrder() if zeroth_order is None else ZerothOrder(zeroth_order, random)
    with own_modes():
        if isinstance(tasks, int):
            tasks = family.sample(tasks, generator("adapt tasks", seed), "test")
        start = family.init(len(tasks.query.x), generator("adapt start", seed))
        if init is not None:
            start = {name: init[name].to(leaf).expand_as(leaf) for name, leaf in start.items()}
        found, _ = measured(
            family, tuner, tasks, start, steps=steps, every=every, gradient=gradient
        )
    columns = {
        name: pd.DataFrame(values.T.double().cpu().numpy(), columns=steps_of(values, steps, every))
        .rename_axis(index="task", columns="step")
        .stack(future_stack=True)
        for name, values in found.items()
    }
    return pd.DataFrame(columns).reset_index()
