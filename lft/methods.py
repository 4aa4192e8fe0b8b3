"""The method table: what is meta-learned, by which fine-tuner, on which data.

Everything that differs between MAML, L2O, LFT, their relatives and hand-designed
optimizers is a row here, and a new method is a new row; the loops in :mod:`lft.meta.adapt` and
:mod:`lft.meta.outer_loop` are shared.
This module does not import torch, so the report and the workflow can read the table too.
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
        name: key used in configs, file names and CSV rows.
        label: name shown in tables and figures.
        color: hex colour used in every figure.
        learns: what meta-training changes. ``step_size`` methods are not meta-trained:
            their step size is picked from a grid on meta-validation tasks.
        tuner: kind of the inner loop's fine-tuner, as :data:`lft.config.FINETUNERS` knows it.
        outer: data of the outer loss: ``query`` (LFT), or one of three readings of L2O, which has
            no query set: ``joint`` joins support and query for both loops, ``support`` uses the
            support set in both, ``union`` the support set inside and the joined set outside.
        meta_gradient: ``exact`` keeps second-order terms, ``dropped`` treats the inner gradient
            as a constant input, ``reptile`` moves towards the fine-tuned parameters and
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
            raise UsageError(f"method {self.name!r}: a name has small letters, digits and hyphens")
        if not re.fullmatch(r"#[0-9A-Fa-f]{6}", self.color):
            raise UsageError(f"method {self.name!r}: color {self.color!r} is not like #0072B2")

    @property
    def phi(self) -> str:
        """Prefix of φ among the meta-parameters."""
        return self.tuner

    @property
    def learns_initialisation(self) -> bool:
        return self.learns in ("initialisation", "both")

    @property
    def learns_finetuner(self) -> bool:
        return self.learns in ("finetuner", "both")

    def differs_only_in_meta_gradient(self, other: Method) -> bool:
        """Whether both meta-learn the same by the same fine-tuner on the same data."""
        return (self.learns, self.tuner, self.outer) == (other.learns, other.tuner, other.outer)

    def check_applicable(self, families: Mapping[str, Shapes]) -> None:
        """Refuse tasks whose parameters cannot share a meta-learned initialisation.

        Args:
            families: shapes of the parameters of all families that the method is trained and
                tested on, by the family's name.

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
"""The method table, by name; plug-ins add their rows."""


def register(method: Method) -> None:
    """Add a row of one's own to the table.

    Raises:
        UsageError: it is no row, or another one has its name.
    """
    if not isinstance(method, Method):
        raise UsageError(f"a method is an instance of lft.methods.Method, not {method!r}")
    if METHODS.setdefault(method.name, method) != method:
        raise UsageError(f"there is another method {method.name!r}; choose another name")


def get_method(name: str) -> Method:
    """Look up a row of the table.

    Raises:
        UsageError: no method has that name; the nearest one is suggested.
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
