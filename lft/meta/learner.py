"""A method under an experiment's settings: its start, fine-tuner and meta-training plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Generator

from lft.config import Experiment, HandDesignedTuner, LearnedTuner, Order, Profile, Run
from lft.finetuners.base import FineTuner
from lft.kernels.build import Kernel
from lft.meta.gradients import FirstOrder, Gradient, ZerothOrder
from lft.methods import Method
from lft.storage.tensors import below
from lft.tasks.base import TaskFamily
from lft.types import Params, TaskBatch


class Plan(NamedTuple):
    """Length, rate and estimator of a meta-training.

    Attributes:
        epochs: passes over the meta-training tasks.
        steps: K, fine-tuning steps of a trajectory.
        segment: steps per truncated unroll.
        learning_rate: initial rate of the meta-optimizer.
        estimator: key of :data:`lft.meta.estimators.ESTIMATORS`.
    """

    epochs: int
    steps: int
    segment: int
    learning_rate: float
    estimator: str


@dataclass(frozen=True)
class Learner:
    """A method under the settings of an experiment.

    Meta-parameters are a flat dict of tensors without a task axis. ``init/…`` is a meta-learned
    θ⁽⁰⁾. ``lstm/…`` is φ; the prefix names the kind of fine-tuner. ``step_size`` is the chosen step
    size of a hand-designed fine-tuner.

    Args:
        method: row of the method table.
        experiment: settings, with the method's or variant's changes applied.
        order: ``first`` feeds gradients to the fine-tuner, ``zeroth`` feeds estimates (eq. 6).
        kernel: native or PyTorch implementation of the coordinate-wise LSTM.
    """

    method: Method
    experiment: Experiment
    order: Order = "first"
    kernel: Kernel = "auto"

    @classmethod
    def of(cls, profile: Profile, run: Run) -> Learner:
        """Build the learner of one run of a profile."""
        experiment = profile.experiment(run.experiment)
        return cls(
            experiment.base_method(run.method),
            experiment.for_method(run.method),
            run.order,
            profile.kernel,
        )

    @property
    def plan(self) -> Plan:
        """Meta-training plan; methods with a hand-designed fine-tuner follow ``maml``."""
        training = self.experiment.training
        mode = self.method.meta_gradient
        if self.method.learns_finetuner:
            estimator = training.estimator if mode == "configured" else mode
            segment = training.steps if estimator == "evolution" else training.segment
            rate = training.learning_rate
            return Plan(training.epochs, training.steps, segment, rate, estimator)
        maml = self.experiment.descent
        return Plan(maml.epochs, maml.steps, maml.steps, maml.learning_rate, mode)

    @property
    def meta_batches(self) -> int:
        """Length of meta-training, in meta-batches."""
        return self.plan.epochs * self.experiment.training.batches

    @property
    def differentiates_descent(self) -> bool:
        """Whether the meta-gradient differentiates gradient descent in θ⁽⁰⁾ (eqs. 1 and 2)."""
        first_order_descent = self.method.tuner == "sgd" and self.order == "first"
        return first_order_descent and self.plan.estimator == "exact"

    @property
    def task_clip(self) -> float | None:
        """Task loss above which the outer loss grows only logarithmically; None is no cap.

        Only methods that learn a fine-tuner have a cap; see
        :func:`lft.meta.estimators.base.capped`.
        """
        return self.experiment.training.task_clip if self.method.learns_finetuner else None

    @property
    def sigma(self) -> float:
        """Standard deviation σ of the evolution strategies' perturbations of φ."""
        return self.experiment.training.evolution.sigma

    def at(self, meta_batch: int) -> Learner:
        """Return the learner for one meta-batch.

        During a warm start it trains as L2O does. Later, a curriculum sets K by stage.

        Args:
            meta_batch: meta-batches done so far.
        """
        training = self.experiment.training
        if not self.method.learns_finetuner:
            return self
        method, changes = self.method, dict[str, Any]()
        if meta_batch < training.warm_start:
            if method.outer == "query":
                method = replace(method, outer="joint")
            changes = {"estimator": "dropped", "step_weights": "uniform"}
        elif training.curriculum:
            begin = training.warm_start
            stage = (meta_batch - begin) * len(training.curriculum) // (self.meta_batches - begin)
            changes = {"steps": training.curriculum[stage]}
        if not changes:
            return self
        changed = training.model_copy(update=changes)
        experiment = self.experiment.model_copy(update={"training": changed})
        return replace(self, method=method, experiment=experiment)

    def data(self, tasks: TaskBatch) -> TaskBatch:
        """Select the data that the method fine-tunes on and is judged by.

        Returns:
            The inner loop's data as ``support`` and the outer loop's as ``query``.
        """
        if self.method.outer == "query":
            return tasks
        if self.method.outer == "support":
            return TaskBatch(tasks.support, tasks.support)
        joined = tasks.joined()
        return TaskBatch(tasks.support, joined.query) if self.method.outer == "union" else joined

    def initial(self, family: TaskFamily, generator: Generator) -> Params:
        """Draw the meta-parameters before meta-training."""
        meta: Params = {}
        if self.method.learns_initialisation:
            meta |= {f"init/{name}": leaf[0] for name, leaf in family.init(1, generator).items()}
        rule = self.experiment.tuner(self.method)
        if isinstance(rule, LearnedTuner):
            like = next(iter(family.init(1, generator).values()))
            weights = rule.initial(generator)
            meta |= {f"{self.method.phi}/{k}": leaf.to(like) for k, leaf in weights.items()}
        return meta

    def start(self, meta: Params, family: TaskFamily, n_tasks: int, generator: Generator) -> Params:
        """Return θ⁽⁰⁾ of B tasks, each (B, …): meta-learned and shared, or random per task."""
        if not self.method.learns_initialisation:
            return family.init(n_tasks, generator)
        return {
            name: leaf.expand(n_tasks, *leaf.shape) for name, leaf in below("init", meta).items()
        }

    def tuner(self, meta: Params) -> FineTuner:
        """Build the fine-tuner from meta-parameters."""
        rule = self.experiment.tuner(self.method)
        if isinstance(rule, LearnedTuner):
            return rule.build(below(self.method.phi, meta), self.kernel)
        assert isinstance(rule, HandDesignedTuner)
        return rule.build(self.step_size(meta))

    def step_size(self, meta: Params) -> float:
        """Return α of a hand-designed fine-tuner: the chosen value, or else the setting."""
        if "step_size" in meta:
            return float(meta["step_size"])
        return self.experiment.descent.step_size[self.order]

    def gradient(self, generator: Generator, *, create_graph: bool = False) -> Gradient:
        """Return the g of eq. 3.

        Args:
            generator: draws zeroth-order directions.
            create_graph: keep g differentiable in θ.
        """
        if self.order == "first":
            return FirstOrder(create_graph=create_graph)
        return ZerothOrder(self.experiment.zeroth_order, generator, create_graph=create_graph)
