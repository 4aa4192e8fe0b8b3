"""The tables of a result folder: file names and columns."""

from __future__ import annotations

from typing import NamedTuple

TRAINED = ("weights.safetensors", "history.csv", "run.json")
"""Files that a meta-training writes into a run's folder."""
EVALUATED = ("measurements.csv", "examples.safetensors")
"""Files that an evaluation adds to it."""


class Measurement(NamedTuple):
    """One metric of one test task after one fine-tuning step.

    Attributes:
        task: family and index of the test task; all methods get the same tasks at a given seed.
        step: fine-tuning steps done, from 0 (the start).
        value: the metric on the query set or, with the ending ``_support``, on the support set.
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
"""Outer loss of each meta-step; step 0 is the untrained start. After a validation round there are
also the meta-validation score, its standard error over tasks, and the uncapped outer loss of these
tasks. The loss of step 0 is that of the meta-validation tasks."""

FORMER_HISTORY_COLUMNS = HISTORY_COLUMNS[:4]
"""Columns of older runs, which did not record ``error`` and ``outer``."""

SEARCH_COLUMNS = (
    "experiment", "trained_on", "method", "order", "settings",
    "score", "seeds", "diverged", "seconds", "chosen",
)  # fmt: skip
"""One combination of a hyper-parameter search. ``score`` is the meta-validation score averaged over
seeds, NaN if a seed has none. ``chosen`` marks the lowest score of each method, training mixture
and order. ``seconds`` is the time of one meta-training."""

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
"""Effect of one other choice. ``alternative`` is a variant of ``method``, or a method that differs
from it only in the meta-gradient or in also learning the initialisation. ``settings`` is what a
variant sets, as JSON. ``base`` and ``mean`` are the outcomes of ``method`` and ``alternative``,
means over tasks and seeds. ``difference``, ``low`` and ``high`` are paired by seed."""

THEORY_COLUMNS = (
    "experiment", "stage", "quantity", "method", "seed",
    "steps", "support", "query", "task", "value",
)  # fmt: skip
"""One theory measurement. ``quantity`` is gap, variance_part, fitting_square, gradient_square,
gradient_kept, bound, sigma, jacobian, statement1_error, derivative_order or meta_gradient_norm;
``stage`` is initial, halfway or best; ``support`` and ``query`` are |D_tr| and |D_val|; ``steps``
is K."""
