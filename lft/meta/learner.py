"""A row of the method table with its settings: what to start from and how to fine-tune."""

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
    """How long and how fast a learner is meta-trained."""

    epochs: int
    steps: int
    segment: int
    learning_rate: float
    estimator: str


@dataclass(frozen=True)
class Learner:
    """A method under the settings of an experiment.

    Meta-parameters are a flat dict of tensors without task axis: ``init/…`` is a meta-learned
    θ⁽⁰⁾, ``lstm/…`` is φ, named by the fine-tuner's kind, ``step_size`` the chosen step size of a
    hand-designed fine-tuner.

    Args:
        method: row of the method table.
        experiment: settings, a variant's overrides applied.
        order: what the fine-tuner is fed.
        kernel: native kernels or PyTorch, for the coordinate-wise LSTM.
    """

    method: Method
    experiment: Experiment
    order: Order = "first"
    kernel: Kernel = "auto"

    @classmethod
    def of(cls, profile: Profile, run: Run) -> Learner:
        """The learner of one run of a profile."""
        experiment = profile.experiment(run.experiment)
        return cls(
            experiment.base_method(run.method),
            experiment.for_method(run.method),
            run.order,
            profile.kernel,
        )

    @property
    def plan(self) -> Plan:
        """Meta-training lengths; methods without LSTM follow the ``maml`` settings."""
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
        """Length of meta-training."""
        return self.plan.epochs * self.experiment.training.batches

    @property
    def differentiates_descent(self) -> bool:
        """Whether the meta-gradient is that of gradient descent in its start (eq. 1)."""
        first_order_descent = self.method.tuner == "sgd" and self.order == "first"
        return first_order_descent and self.plan.estimator == "exact"

    @property
    def task_clip(self) -> float | None:
        """Largest loss of a task that counts in full in the outer loss of a fine-tuner."""
        return self.experiment.training.task_clip if self.method.learns_finetuner else None

    @property
    def sigma(self) -> float:
        """Standard deviation of the perturbations of evolution strategies."""
        return self.experiment.training.evolution.sigma

    def at(self, meta_batch: int) -> Learner:
        """The learner of one meta-batch: as L2O in a warm start, then with its number of steps."""
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
        """The data of the inner loop, as support, and of the outer one, as query."""
        if self.method.outer == "query":
            return tasks
        if self.method.outer == "support":
            return TaskBatch(tasks.support, tasks.support)
        joined = tasks.joined()
        return TaskBatch(tasks.support, joined.query) if self.method.outer == "union" else joined

    def initial(self, family: TaskFamily, generator: Generator) -> Params:
        """Meta-parameters before meta-training."""
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
        """θ⁽⁰⁾ of B tasks: the meta-learned one for every task, or random ones."""
        if not self.method.learns_initialisation:
            return family.init(n_tasks, generator)
        return {
            name: leaf.expand(n_tasks, *leaf.shape) for name, leaf in below("init", meta).items()
        }

    def tuner(self, meta: Params) -> FineTuner:
        """The fine-tuner that meta-parameters describe."""
        rule = self.experiment.tuner(self.method)
        if isinstance(rule, LearnedTuner):
            return rule.build(below(self.method.phi, meta), self.kernel)
        assert isinstance(rule, HandDesignedTuner)
        return rule.build(self.step_size(meta))

    def step_size(self, meta: Params) -> float:
        """α of a hand-designed fine-tuner: the chosen one, or the setting."""
        if "step_size" in meta:
            return float(meta["step_size"])
        return self.experiment.descent.step_size[self.order]

    def gradient(self, generator: Generator, *, create_graph: bool = False) -> Gradient:
        """What the fine-tuner is fed; ``generator`` draws zeroth-order directions."""
        if self.order == "first":
            return FirstOrder(create_graph=create_graph)
        return ZerothOrder(self.experiment.zeroth_order, generator, create_graph=create_graph)
