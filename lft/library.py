"""Meta-train, fine-tune and compare in a few lines, on any tasks.

>>> import lft
>>> from lft.config import SineFamily
>>> from lft.tasks.sine import Sine
>>> sine = Sine(SineFamily(support=10, query=10))
>>> tuner = lft.meta_train(sine, tasks=20, steps=10)
>>> frame = tuner.adapt(sine, tasks=50, steps=10)
>>> list(frame.columns)
['task', 'step', 'mse', 'mse_support']

The workflow's jobs use the same code to train and measure: :mod:`lft.meta.outer_loop` and
:mod:`lft.meta.measured`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from pydantic import ValidationError

from lft.config import Experiment, Order, Run, explain
from lft.errors import UsageError, suggestion
from lft.finetuners.base import FineTuner
from lft.meta.learner import Learner
from lft.meta.measured import adapted
from lft.meta.outer_loop import begin, meta_batches
from lft.meta.selection import pick_step_size
from lft.meta.state import TrainingState
from lft.methods import METHODS, get_method
from lft.metrics import metric_of
from lft.pretrained import Card, Pretrained
from lft.results.manifest import manifest
from lft.results.schema import HISTORY_COLUMNS
from lft.runtime.device import without_denormals
from lft.runtime.modes import own_modes
from lft.runtime.progress import track
from lft.seeding import check_seed, generator
from lft.storage.tensors import below
from lft.tasks.base import TaskFamily
from lft.tasks.own import as_families, as_family, shapes_of
from lft.types import Params, TaskBatch

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SEGMENT = 20
"""Default upper limit on the segment length, in fine-tuning steps."""
TRAINING: dict[str, Any] = {
    "meta_batch": 5,
    "learning_rate": 1e-2,
    "validation": {"tasks": 20, "rounds": 10},
}
"""Default settings of :class:`lft.config.Training`."""
DESCENT: dict[str, Any] = {
    "steps": 5,
    "step_size": {"first": 1e-2, "zeroth": 3e-4},
    "learning_rate": 1e-2,
    "epochs": 1,
}
"""Default settings of :class:`lft.config.MamlSettings`."""
STEP_SIZES = {
    "sgd": (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0),
    "adam": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1),
}
"""Default step-size grids of hand-designed fine-tuners."""
SECTIONS = ("finetuner", "zeroth_order", "maml", "step_sizes")
"""Settings of :class:`lft.config.Experiment` that :func:`meta_train` takes."""


def meta_train(
    families: Any,
    method: str = "lft",
    *,
    steps: int = 100,
    tasks: int = 1000,
    order: Order = "first",
    seed: int = 0,
    name: str = "own",
    training: Mapping[str, Any] | None = None,
    progress: bool = True,
    **sections: Any,
) -> Pretrained:
    """Meta-train a method on tasks (Algorithm 1); a hand-designed method picks its step size.

    Args:
        families: a task family, i.e. an object with ``sample``, ``init`` and ``loss``
            (:class:`lft.tasks.base.TaskFamily`), or a list or dict of them, which may be
            incongruous.
        method: row of the method table (:mod:`lft.methods`), e.g. ``lft``, ``l2o``, ``maml``,
            ``adam``.
        steps: fine-tuning steps K of each task.
        tasks: number of distinct meta-training tasks, a multiple of the meta-batch size (5 by
            default).
        order: ``first`` feeds gradients to the fine-tuner, ``zeroth`` feeds estimates (eq. 6).
        seed: seed of all random draws.
        name: name of the fine-tuner; the random draws depend on it.
        training: more settings of :class:`lft.config.Training`, e.g.
            ``{"learning_rate": 3e-3, "segment": 10}``.
        progress: show a progress bar on a terminal or in a notebook.
        sections: more settings of :class:`lft.config.Experiment`: ``finetuner``, ``zeroth_order``,
            ``maml``, ``step_sizes``.

    Returns:
        The fine-tuner with the best meta-validation score. Torch modes of the caller (no gradients,
        inference, autocast) do not affect it.

    Raises:
        UsageError: a setting is unknown or out of range, an object is not a task family, or the
            families' parameters cannot share a meta-learned initialisation.
        lft.errors.Diverged: the outer loss or the meta-gradient became infinite or NaN.
    """
    check_seed(seed)
    if not isinstance(name, str):
        raise UsageError(f"meta_train: name must be text, not a {type(name).__name__}")
    found = as_families(families)
    experiment = _experiment(found, method, steps, tasks, order, training or {}, sections)
    learner = Learner(experiment.base_method(method), experiment.for_method(method), order)
    run = Run(name, "+".join(found), method, order, seed)
    with own_modes(gradients=True), without_denormals():
        shapes = {key: shapes_of(family, generator("shapes")) for key, family in found.items()}
        learner.method.check_applicable(shapes)
        state = begin(learner, run, found)
        if learner.method.learns == "step_size":
            pick_step_size(learner, run, found, state)
        else:
            title = f"{learner.method.label} on {run.trained_on}"
            with track(learner.meta_batches, 0, title, shown=progress) as bar:
                for done in meta_batches(learner, run, found, state):
                    bar.advance(done.loss, state.best_score)
        return _trained(learner, run, found, state)


def _experiment(
    families: Mapping[str, TaskFamily],
    method: str,
    steps: int,
    tasks: int,
    order: Order,
    training: Mapping[str, Any],
    sections: Mapping[str, Any],
) -> Experiment:
    """Build the settings of an experiment, as a profile would hold them."""
    get_method(method)
    for section in sections:
        if section not in SECTIONS:
            hint = suggestion(section, SECTIONS)
            raise UsageError(f"meta_train: unknown key {section!r}{hint}")
    whole = isinstance(steps, int)
    segment = max((n for n in range(1, SEGMENT + 1) if whole and steps % n == 0), default=1)
    mixture = "+".join(families)
    values = {
        "title": mixture,
        "families": {name: family.settings for name, family in families.items()},
        "train_on": [mixture],
        "test_on": [mixture],
        "methods": [method],
        "orders": [order],
        "maml": DESCENT,
        "step_sizes": STEP_SIZES,
        "testing": {"tasks": len(families), "steps": steps},
    }
    training = {**TRAINING, "tasks": tasks, "steps": steps, "segment": segment, **training}
    try:
        return Experiment.model_validate({**values, **sections, "training": training})
    except ValidationError as error:
        raise UsageError(f"meta_train: {explain(error)}") from None


def _trained(
    learner: Learner, run: Run, families: Mapping[str, TaskFamily], state: TrainingState
) -> Pretrained:
    """Return the best meta-parameters with a card."""
    import pandas as pd

    experiment, made = learner.experiment, manifest({})
    card = Card(
        name=run.experiment,
        method=run.method,
        order=run.order,
        finetuner=experiment.tuner(learner.method),
        zeroth_order=experiment.zeroth_order if run.order == "zeroth" else None,
        experiment=run.experiment,
        trained_on=run.trained_on,
        families={key: one.settings.model_dump(mode="json") for key, one in families.items()},
        training=experiment.training.model_dump(mode="json"),
        seed=run.seed,
        scores={},
        scored_after=0,
        commit=made["commit"],
        versions=made["versions"],
        licence="NOASSERTION",
    )
    history = pd.DataFrame(state.history, columns=list(HISTORY_COLUMNS)).replace("", float("nan"))
    return Pretrained(card, _weights(learner, state.stages["best"]), history)


def _weights(learner: Learner, meta: Params) -> Params:
    """Rename meta-parameters as :class:`lft.pretrained.Pretrained` expects."""
    weights = {name: leaf for name, leaf in meta.items() if name.startswith("init/")}
    if learner.method.learns_finetuner:
        return weights | below(learner.method.phi, meta)
    return weights | {"step_size": torch.tensor(learner.step_size(meta), dtype=torch.float64)}


class Comparison(NamedTuple):
    """Outcome of :func:`compare`.

    Attributes:
        frame: one row per fine-tuner, task and step, with columns ``tuner``, ``task``, ``step`` and
            one per metric.
        figure: the primary metric against fine-tuning steps, as the mean over tasks with ± 1
            standard deviation shaded.
    """

    frame: pd.DataFrame
    figure: Figure


def compare(
    tuners: Mapping[str, FineTuner],
    family: Any,
    tasks: int | TaskBatch = 100,
    *,
    steps: int = 100,
    every: int = 1,
    seed: int = 0,
) -> Comparison:
    """Fine-tune the same tasks from the same random starts with several fine-tuners.

    Args:
        tuners: fine-tuners by display name, from :func:`meta_train` or :func:`lft.load`, or any
            :class:`lft.finetuners.base.FineTuner`.
        family: this and the other arguments are as in :meth:`lft.pretrained.Pretrained.adapt`.

    Raises:
        UsageError: ``tuners`` is empty or contains something else, or as in
            :meth:`lft.pretrained.Pretrained.adapt`.
    """
    import pandas as pd

    if not isinstance(tuners, Mapping) or not tuners:
        raise UsageError("compare needs at least one fine-tuner, as in {'LFT': tuner}")
    for name, tuner in tuners.items():
        if not all(callable(getattr(tuner, part, None)) for part in ("start", "step")):
            raise UsageError(
                f"compare: {name!r} is {tuner!r:.60}, no fine-tuner; make one with lft.meta_train "
                "or lft.load"
            )
    family = as_family(family)
    frames = {
        name: tuner.adapt(family, tasks, steps=steps, every=every, seed=seed)
        if isinstance(tuner, Pretrained)
        else adapted(tuner, family, tasks, steps=steps, every=every, seed=seed)
        for name, tuner in tuners.items()
    }
    frame = pd.concat(frames, names=["tuner", None]).reset_index(level=0).reset_index(drop=True)
    return Comparison(frame, _drawn(frame, family.settings.primary))


def _drawn(frame: pd.DataFrame, primary: str) -> Figure:
    """Plot the primary metric in the colours of the method table."""
    from matplotlib.figure import Figure

    metric = metric_of(primary)
    figure = Figure(layout="constrained")
    axis = figure.subplots()
    colors = itertools.cycle(dict.fromkeys(method.color for method in METHODS.values()))
    for (name, rows), color in zip(frame.groupby("tuner", sort=False), colors, strict=False):
        curve = rows.groupby("step")[primary].agg(["mean", "std"]) * metric.factor
        low, high = curve["mean"] - curve["std"], curve["mean"] + curve["std"]
        axis.plot(curve.index, curve["mean"], color=color, label=str(name))
        axis.fill_between(curve.index, low, high, color=color, alpha=0.15, lw=0)
    axis.set(xlabel="fine-tuning steps", ylabel=f"{metric.title}{metric.unit}")
    means = frame.groupby(["tuner", "step"])[primary].mean()
    if metric.log and (means > 0).all():
        axis.set_yscale("log")
        axis.set_ylim(bottom=means.min() / 2)
    axis.legend()
    return figure
