"""What stands in the files of a result folder: the columns of its tables."""

from __future__ import annotations

from typing import NamedTuple

TRAINED = ("weights.safetensors", "history.csv", "run.json")
"""What a meta-training writes into a run's folder."""
EVALUATED = ("measurements.csv", "examples.safetensors")
"""What an evaluation writes beside it."""


class Measurement(NamedTuple):
    """One number of one test task after one fine-tuning step.

    ``task`` counts the test tasks of a family (the same tasks for every method and seed index),
    prefixed by the family's name; ``step`` counts fine-tuning steps from 0 (before the first).
    """

    experiment: str
    trained_on: str
    tested_on: str
    method: str
    order: str
    seed: int
    task: str
    step: int
    metric: str
    value: float


HISTORY_COLUMNS = ("meta_step", "family", "loss", "validation", "error", "outer")
"""Outer loss of each meta-step, the untrained start being step 0; after a validation round also the
meta-validation score, its standard error over tasks, and the outer loss of these tasks without any
cap. The loss of step 0 is that of the meta-validation tasks."""

FORMER_HISTORY_COLUMNS = HISTORY_COLUMNS[:4]
"""Those of runs that were kept before ``error`` and ``outer`` were recorded."""

SEARCH_COLUMNS = (
    "experiment", "trained_on", "method", "order", "settings",
    "score", "seeds", "diverged", "seconds", "chosen",
)  # fmt: skip
"""One combination of a hyper-parameter search: ``score`` is the meta-validation score, averaged
over seeds, NaN if one had none; ``chosen`` marks the lowest of each method, training mixture and
order; ``seconds`` is the time of one meta-training."""

CELL_COLUMNS = (
    "experiment",
    "trained_on",
    "tested_on",
    "method",
    "order",
    "seed",
    "status",
    "reason",
)
"""Status is ``ok``, ``diverged``, ``missing`` or ``not applicable``."""

SUMMARY_COLUMNS = (
    "experiment",
    "trained_on",
    "tested_on",
    "method",
    "order",
    "seed",
    "metric",
    "step",
    "mean",
    "std",
    "tasks",
)
"""Mean and standard deviation of a metric over the test tasks of one seed."""

ALTERNATIVE_COLUMNS = (
    "experiment", "trained_on", "tested_on", "order", "method", "alternative", "label", "settings",
    "metric", "step", "base", "mean", "difference", "low", "high", "interval", "n_seeds",
)  # fmt: skip
"""What another choice changed: ``alternative`` is a variant of ``method``, or a method that differs
from it in the meta-gradient or in learning the initialisation, too; ``settings`` is what a variant
sets, as JSON; ``base`` and ``mean`` are the outcomes of ``method`` and ``alternative``, means over
tasks and seeds; ``difference``, ``low`` and ``high`` are paired by seed."""

THEORY_COLUMNS = (
    "experiment", "stage", "quantity", "method", "seed",
    "steps", "support", "query", "task", "value",
)  # fmt: skip
"""One theory measurement: ``quantity`` is gap, variance_part, fitting_square, gradient_square,
gradient_kept, bound, sigma, jacobian, statement1_error or meta_gradient_norm; ``stage`` is initial,
halfway or best; ``support`` and ``query`` are |D_tr| and |D_val|; ``steps`` is K."""
