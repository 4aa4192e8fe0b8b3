"""Estimators of the meta-gradient, one module each.

To add one, write a module here, add a row to :data:`ESTIMATORS`, and allow its name in the setting
``training.estimator`` (:class:`lft.config.Training`).
"""

from __future__ import annotations

from torch import Generator

from lft.meta.estimators.base import Estimate, Estimator, Progress
from lft.meta.estimators.dropped import Dropped
from lft.meta.estimators.evolution import Evolution
from lft.meta.estimators.exact import Exact
from lft.meta.estimators.mixed import Mixed
from lft.meta.estimators.pes import PersistentEvolution
from lft.meta.estimators.reptile import Reptile
from lft.meta.learner import Learner
from lft.tasks.base import TaskFamily
from lft.types import Params, TaskBatch

__all__ = ["ESTIMATORS", "Estimate", "Estimator", "Progress", "meta_gradient"]

ESTIMATORS: dict[str, Estimator] = {
    "exact": Exact(),
    "dropped": Dropped(),
    "reptile": Reptile(),
    "evolution": Evolution(),
    "pes": PersistentEvolution(),
    "mixed": Mixed(Dropped()),
}


def meta_gradient(
    learner: Learner,
    meta: Params,
    family: TaskFamily,
    tasks: TaskBatch,
    state: Progress | None,
    generator: Generator,
) -> Estimate:
    """Estimate the meta-gradient of the next segment (eq. 7), on the data that the method uses.

    Args:
        learner: method and settings; its plan names the estimator.
        meta: meta-parameters.
        family: defines the loss and θ⁽⁰⁾.
        tasks: B tasks.
        state: end of the previous segment; None at the start of a trajectory.
        generator: draws θ⁽⁰⁾, zeroth-order directions and perturbations.
    """
    estimator = ESTIMATORS[learner.plan.estimator]
    return estimator(learner, meta, family, learner.data(tasks), state, generator)
