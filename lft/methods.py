"""The method table: what each method meta-learns, with which fine-tuner, on which data.

MAML, L2O, LFT, their relatives and hand-designed optimizers differ only in their rows here; a new
method is a new row. All share the loops in :mod:`lft.meta.adapt` and :mod:`lft.meta.outer_loop`.
This module does not import torch, so the report and the workflow can read the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lft.errors import NotApplicable, UsageError, suggestion
from lft.shapes import Shapes, differences

Learned = Literal["initialisation", "finetuner", "both", "step_size"]
Outer = Literal["query", "joint", "support", "union"]
MetaGradient = Literal["exact", "dropped", "reptile", "configured"]


@dataclass(frozen=True)
class Method:
    """One row of the method table.

    Attributes:
        name: key in configs, file names and CSV rows.
        label: name in tables and figures.
        color: hex colour in every figure.
        learns: what meta-training changes. ``step_size`` methods are not meta-trained; their step
            size is picked from a grid on meta-validation tasks.
        tuner: kind of the inner loop's fine-tuner, a key of :data:`lft.config.FINETUNERS`.
        outer: data of the outer loss. ``query`` is LFT's. L2O has no query set, and the others are
            three readings of it: ``joint`` joins support and query for both loops, ``support`` uses
            the support set in both, ``union`` uses the support set inside and the joined set
            outside.
        meta_gradient: ``exact`` keeps second-order terms, ``dropped`` treats the inner gradient as
            a constant input, ``reptile`` moves towards the fine-tuned parameters, and
            ``configured`` follows the setting ``training.estimator``.
    """

    name: str
    label: str
    color: str
    learns: Learned
    tuner: str
    outer: Outer = "query"
    meta_gradient: MetaGradient = "configured"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.name):
            raise UsageError(
                f"method {self.name!r}: use only lowercase letters, digits and hyphens in a name"
            )
        if not re.fullmatch(r"#[0-9A-Fa-f]{6}", self.color):
            raise UsageError(f"method {self.name!r}: color {self.color!r} must look like #0072B2")

    @property
    def phi(self) -> str:
        """Prefix of φ in the names of meta-parameters."""
        return self.tuner

    @property
    def learns_initialisation(self) -> bool:
        """Whether meta-training learns θ⁽⁰⁾."""
        return self.learns in ("initialisation", "both")

    @property
    def learns_finetuner(self) -> bool:
        """Whether meta-training learns φ."""
        return self.learns in ("finetuner", "both")

    def differs_only_in_meta_gradient(self, other: Method) -> bool:
        """Whether both meta-learn the same parameters, with the same fine-tuner and data."""
        return (self.learns, self.tuner, self.outer) == (other.learns, other.tuner, other.outer)

    def check_applicable(self, families: Mapping[str, Shapes]) -> None:
        """Refuse tasks whose parameters cannot share a meta-learned initialisation.

        Args:
            families: parameter shapes of every family to train or test on, by family name.

        Raises:
            NotApplicable: the method learns an initialisation and the shapes differ (sec. 2).
        """
        found = differences(families) if self.learns_initialisation else ""
        if found:
            raise NotApplicable(
                f"{self.label} meta-learns one initialisation, which tasks with different "
                f"parameters cannot share: {found}"
            )


METHODS: dict[str, Method] = {}
"""The method table, by name; plug-ins add rows."""


def register(method: Method) -> None:
    """Add a row to the table.

    Raises:
        UsageError: the argument is not a row, or another row has its name.
    """
    if not isinstance(method, Method):
        raise UsageError(f"a method must be an instance of lft.methods.Method, not {method!r}")
    if METHODS.setdefault(method.name, method) != method:
        raise UsageError(f"a method named {method.name!r} already exists; choose another name")


def get_method(name: str) -> Method:
    """Look up a row of the table.

    Raises:
        UsageError: no method has that name; the message suggests the nearest.
    """
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}{suggestion(name, METHODS)}")
    return METHODS[name]


for _row in (
    Method("maml", "MAML", "#0072B2", "initialisation", "sgd", meta_gradient="exact"),
    Method("fomaml", "FOMAML", "#56B4E9", "initialisation", "sgd", meta_gradient="dropped"),
    Method("reptile", "Reptile", "#009E73", "initialisation", "sgd", meta_gradient="reptile"),
    Method("l2o", "L2O", "#E69F00", "finetuner", "lstm", outer="joint"),
    Method("l2o-support", "L2O on support", "#999933", "finetuner", "lstm", outer="support"),
    Method("l2o-union", "L2O, joined outside", "#882255", "finetuner", "lstm", outer="union"),
    Method("lft", "LFT", "#D55E00", "finetuner", "lstm"),
    Method("lft-init", "LFT + learned init", "#CC79A7", "both", "lstm"),
    Method("sgd", "SGD", "#7F7F7F", "step_size", "sgd"),
    Method("adam", "Adam", "#4D4D4D", "step_size", "adam"),
):
    register(_row)
