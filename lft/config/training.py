"""Sections of an experiment: how its methods are meta-trained and meta-tested."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lft.config.base import Order, Positive, Rate, Settings


class ZerothOrderSettings(Settings):
    """The zeroth-order gradient estimate of eq. 6."""

    mu: Rate = 1e-3  #: smoothing mu, in units of the optimizee
    directions: Positive = 20  #: q, random directions per estimate
    shared_directions: bool = False  #: use the same u_j for every task of a batch


class Validation(Settings):
    """Meta-validation, which selects among the states of a meta-training."""

    tasks: Positive  #: meta-validation tasks per family
    rounds: Positive  #: equally spaced validations during meta-training


class EvolutionSettings(Settings):
    """Perturbations of phi by evolution strategies."""

    pairs: Positive = 1  #: antithetic pairs per task
    sigma: Rate = 0.05  #: standard deviation, in units of phi


class Training(Settings):
    """Meta-training of fine-tuners by LFT and L2O; methods like MAML use some of its keys."""

    tasks: Positive  #: distinct training tasks
    epochs: Positive = 1  #: passes over the training tasks
    meta_batch: Positive  #: tasks per meta-batch
    steps: Positive  #: fine-tuning steps per task
    segment: Positive  #: steps per truncated segment; each segment gives one meta-update
    step_weights: Literal["uniform", "linear", "final"] = "uniform"  #: w_k of eq. 4
    #: estimator of the meta-gradient (:mod:`lft.meta.estimators`); ``dropped`` omits the term with
    #: dg/dtheta in eq. 8; ``evolution`` uses whole trajectories and ignores ``segment``
    estimator: Literal["exact", "dropped", "evolution", "pes", "mixed"] = "dropped"
    evolution: EvolutionSettings = EvolutionSettings()
    learning_rate: Rate  #: of Adam on phi
    schedule: Literal["cosine", "constant"] = "cosine"  #: ``cosine`` decays the rate to 0
    clip: Annotated[float, Field(gt=0)] = 1.0  #: largest norm of the meta-gradient
    #: loss of a task above which the outer loss grows only logarithmically; no limit if None
    task_clip: Annotated[float, Field(gt=0)] | None = None
    #: fine-tuning steps in each of several equal stages of meta-training; the last is ``steps``
    curriculum: tuple[Positive, ...] = ()
    #: first meta-batches that are trained like L2O's: support and query joined for both loops,
    #: estimator ``dropped``, uniform w_k over all steps; the curriculum divides the other ones
    warm_start: Annotated[int, Field(ge=0, strict=True)] = 0
    validation: Validation

    @model_validator(mode="after")
    def _whole_batches(self) -> Training:
        if self.tasks % self.meta_batch:
            raise ValueError(
                f"tasks ({self.tasks}) must be a multiple of meta_batch ({self.meta_batch})"
            )
        for steps in (self.steps, *self.curriculum):
            if self.estimator != "evolution" and steps % self.segment:
                raise ValueError(f"steps ({steps}) must be a multiple of segment ({self.segment})")
        if self.curriculum and self.curriculum[-1] != self.steps:
            raise ValueError(
                f"curriculum must end with steps ({self.steps}), not with {self.curriculum[-1]}"
            )
        if self.estimator == "mixed" and self.meta_batch < 2:
            raise ValueError("estimator mixed needs a meta_batch of two tasks or more")
        return self

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, values: Any) -> Any:
        if isinstance(values, dict) and "second_order" in values:
            raise ValueError(
                f"second_order is now called estimator; write estimator: {values['second_order']}"
            )
        return values

    @property
    def batches(self) -> int:
        """Meta-batches per epoch."""
        return self.tasks // self.meta_batch


class MamlSettings(Settings):
    """Meta-training of an initialisation by MAML, FOMAML or Reptile (eqs. 1 and 2)."""

    epochs: Positive  #: passes over the training tasks
    steps: Positive  #: K during meta-training
    step_size: dict[Order, Rate]  #: alpha, for first- and zeroth-order gradients
    learning_rate: Rate  #: of Adam on theta(0), decayed to 0 along a cosine


class Testing(Settings):
    """Meta-testing."""

    tasks: Positive  #: meta-test tasks per family
    steps: Positive  #: fine-tuning steps
    every: Positive = 1  #: stride of the steps whose metrics are written

    @model_validator(mode="after")
    def _whole_strides(self) -> Testing:
        if self.steps % self.every:
            raise ValueError(f"steps ({self.steps}) must be a multiple of every ({self.every})")
        return self

    def written(self, step: int) -> int:
        """Last step up to ``step`` whose metrics are written."""
        return min(step, self.steps) // self.every * self.every
