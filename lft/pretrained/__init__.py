"""Trained fine-tuners: a safetensors file with φ, and a card that says where φ comes from.

Loading unpickles nothing and runs no code from the file: the card names a row of the method table.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, ValidationError, field_validator, model_validator
from torch import Tensor

from lft.config import (
    AttackLoss,
    HandDesignedTuner,
    LearnedTuner,
    Order,
    Settings,
    Tuner,
    ZerothOrderSettings,
    explain,
    register_installed,
)
from lft.errors import UsageError, suggestion
from lft.finetuners.base import FineTuner, InPlace
from lft.meta.measured import adapted
from lft.methods import Method, get_method
from lft.optimizer import LearnedOptimizer
from lft.seeding import generator
from lft.shapes import Shapes
from lft.storage.tensors import below, load_tensors, save_tensors
from lft.tasks.own import as_family, shapes_of
from lft.types import Params, State, TaskBatch

if TYPE_CHECKING:
    import pandas as pd

AGAIN = "get the file again, or make it again with lft export"
FOLDER = Path(__file__).parent
"""Folder of the fine-tuners that come with the package."""


class Card(Settings):
    """Description and origin of a trained fine-tuner."""

    name: str
    method: str  # row of the method table
    order: Order  # whether its input is gradients or zeroth-order estimates
    finetuner: Tuner
    zeroth_order: ZerothOrderSettings | None = None
    experiment: str
    trained_on: str  # names of the families, as the profile has them
    families: dict[str, dict[str, Any]]  # their settings; "images" names the images
    training: dict[str, Any]  # settings of the meta-training
    seed: int
    # test mixture -> metric -> mean over test tasks; none if a test task diverged
    scores: dict[str, dict[str, float]]
    scored_after: int  # fine-tuning steps
    commit: str | None  # of the code that trained it
    versions: dict[str, str]
    licence: str
    note: str | None = None  # what users should know, e.g. how images were obtained
    step_size: Annotated[float, Field(ge=0)] = 1.0  # default learning rate of optimizers
    # network -> method or adam -> test accuracy, from lft.pretrained.trial
    compared: dict[str, dict[str, float]] = Field(default_factory=dict)

    @field_validator("licence")
    @classmethod
    def _named(cls, licence: str) -> str:
        if not licence.strip():
            raise ValueError("none is named; name one, e.g. MIT, or NOASSERTION if none is known")
        return licence

    @model_validator(mode="after")
    def _compared_with_adam(self) -> Card:
        for problem, row in self.compared.items():
            if row.keys() != {self.method, "adam"}:
                raise ValueError(f"compared.{problem} needs the keys {self.method} and adam")
        return self

    @property
    def attack_loss(self) -> AttackLoss:
        """The loss of the attacks in its meta-training; the default if there were none."""
        fields = AttackLoss.model_fields
        for family in self.families.values():
            if family.get("kind") == "attack":
                return AttackLoss(**{key: family[key] for key in fields if key in family})
        return AttackLoss()


class Pretrained:
    """A trained fine-tuner, and an optimizer for ``torch.nn`` modules.

    It is a :class:`lft.finetuners.base.FineTuner` for parameters of any shape, device and
    floating-point type.

    Attributes:
        card: description and origin.
        weights: φ, or the ``step_size`` of a hand-designed rule; a meta-learned θ⁽⁰⁾ is below
            ``init/``.
        history: outer losses and meta-validations right after meta-training, with columns
            :data:`lft.results.schema.HISTORY_COLUMNS`; otherwise None.
    """

    def __init__(self, card: Card, weights: Params, history: pd.DataFrame | None = None) -> None:
        self.card = card
        self.weights = weights
        self.history = history
        self._tuners: dict[tuple[torch.device, torch.dtype], FineTuner] = {}

    def __repr__(self) -> str:
        return f"<{self.method.label} {self.card.name!r}>"

    @property
    def method(self) -> Method:
        """Its row of the method table."""
        return get_method(self.card.method)

    def save(self, path: str | Path, *, licence: str | None = None) -> None:
        """Write a file for :func:`load`, atomically.

        Args:
            path: the file.
            licence: SPDX identifier of the weights' licence; the card's by default.

        Raises:
            UsageError: the licence is empty, or the folder cannot be written.
        """
        card = self.card
        if licence is not None:
            try:
                card = Card.model_validate(card.model_dump(mode="json") | {"licence": licence})
            except ValidationError as error:
                raise UsageError(f"{path}: {explain(error)}") from None
        save_tensors(Path(path).expanduser(), self.weights, card.model_dump(mode="json"))

    def adapt(
        self,
        family: Any,
        tasks: int | TaskBatch = 100,
        *,
        steps: int = 100,
        every: int = 1,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Fine-tune unseen tasks, from random starts or the meta-learned one.

        Args:
            family: where the tasks come from, with ``sample``, ``init`` and ``loss``
                (:class:`lft.tasks.base.TaskFamily`).
            tasks: B tasks, or how many to draw for meta-testing.
            steps: fine-tuning steps K.
            every: steps between measurements, from step 0; divides ``steps``.
            seed: seed of the tasks, the random starts and the zeroth-order directions; two
                fine-tuners with one seed get the same.

        Returns:
            A row for each task and step: ``task``, ``step`` and a column for each metric of the
                family. Columns with the ending ``_support`` are on the support set.

        Raises:
            UsageError: ``family`` is not a family, its shapes differ from those of the meta-learned
                θ⁽⁰⁾, or a number is out of range.
        """
        family, method = as_family(family), self.method
        init = below("init", self.weights) if method.learns_initialisation else None
        if init is not None:
            own: Shapes = {name: tuple(leaf.shape) for name, leaf in init.items()}
            these = shapes_of(family, generator("shapes"))
            method.check_applicable({"meta-training": own, "these tasks": these})
        zeroth = self.card.zeroth_order if self.card.order == "zeroth" else None
        return adapted(
            self, family, tasks, steps=steps, every=every, seed=seed, init=init, zeroth_order=zeroth
        )

    def start(self, params: Params) -> State:
        """Return the state before the first step; see :class:`lft.finetuners.base.FineTuner`."""
        return self._tuner(params).start(params)

    def step(self, state: State, params: Params, grads: Params) -> tuple[State, Params]:
        """Take one step; see :class:`lft.finetuners.base.FineTuner`."""
        return self._tuner(params).step(state, params, grads)

    def advance(self, state: State, params: Params, grads: Params) -> tuple[State, Params]:
        """Take one step that may overwrite the state; see :class:`lft.finetuners.base.InPlace`."""
        tuner = self._tuner(params)
        step = tuner.advance if isinstance(tuner, InPlace) else tuner.step
        return step(state, params, grads)

    def optimizer(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        *,
        lr: float | None = None,
        seed: int = 0,
    ) -> LearnedOptimizer:
        """An optimizer for the parameters of a module; see :class:`LearnedOptimizer`.

        >>> import lft, torch
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = lft.load("lft-mnist+cifar10").optimizer(model.parameters())
        >>> model(torch.ones(3)).square().backward()
        >>> optimizer.step()

        The shipped fine-tuners were meta-trained for other purposes: ``lft-mnist+cifar10`` on
        attacks, ``lft-classify-mnist+cifar10`` on few-shot classification. On ordinary networks
        Adam is better. Test accuracy after 200 steps of 64 examples, mean of three
        initialisations, with the card's step size and Adam's defaults
        (:mod:`lft.pretrained.trial`):

        ==================== ============= ============= ======
        problem              classify      attack        Adam
        ==================== ============= ============= ======
        digits, MLP          0.747         0.865         0.919
        digits, CNN          0.957         0.947         0.968
        MNIST-5k, MLP        0.110         0.823         0.901
        MNIST-5k, CNN        0.783         0.858         0.941
        photographs, MLP     0.181         0.496         0.544
        breast cancer, MLP   0.988         0.976         0.991
        wine, MLP            0.952         0.962         0.971
        step size            3             0.1           0.001
        ==================== ============= ============= ======

        Args:
            params: as for any optimizer of ``torch.optim``.
            lr: factor of the update; the card's ``step_size`` by default. Attacks use 1.
            seed: seed of the directions of a zeroth-order fine-tuner.

        Raises:
            UsageError: ``lr`` is negative or not finite.

        Warns:
            UserWarning: there are several tensors, which means a network, and the card says that
                Adam is better on most networks.
        """
        lr = self.card.step_size if lr is None else lr
        zeroth = self.card.zeroth_order
        optimizer = LearnedOptimizer(params, self, lr=lr, zeroth_order=zeroth, seed=seed)
        if sum(len(group["params"]) for group in optimizer.param_groups) > 1:
            self._warn_of_networks()
        return optimizer

    def _warn_of_networks(self) -> None:
        """Warn if Adam is better on most of the networks in the card."""
        rows = self.card.compared.values()
        worse = sum(row["adam"] > row[self.card.method] for row in rows)
        if worse > len(rows) / 2:
            kinds = {str(family.get("kind")) for family in self.card.families.values()}
            warnings.warn(
                f"{self.card.name!r} was meta-trained on {' and '.join(sorted(kinds))} tasks; on "
                f"{worse} of {len(rows)} small networks Adam is better (lft card {self.card.name})",
                stacklevel=3,
            )

    def _tuner(self, params: Params) -> FineTuner:
        """Return the update rule with φ on the parameters' device and in their type."""
        leaf = next(iter(params.values()))
        where = leaf.device, leaf.dtype
        if where not in self._tuners:
            self._tuners[where] = self._built(*where)
        return self._tuners[where]

    def _built(self, device: torch.device, dtype: torch.dtype) -> FineTuner:
        rule = self.card.finetuner
        if isinstance(rule, LearnedTuner):
            weights = {name: w.to(device, dtype) for name, w in _update_rule(self.weights).items()}
            return rule.build(weights)
        assert isinstance(rule, HandDesignedTuner)
        return rule.build(float(self.weights["step_size"]))


def available() -> list[str]:
    """Return the names of the fine-tuners that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load(name: str | Path) -> Pretrained:
    """Load a trained fine-tuner.

    >>> import lft
    >>> tuner = lft.load("lft-mnist+cifar10")
    >>> tuner.card.trained_on, tuner.card.licence
    ('mnist+cifar10', 'MIT')

    Args:
        name: one of :func:`available`, or the path of a file that ``lft export`` wrote.

    Raises:
        UsageError: there is no such fine-tuner, the file is damaged, or its method belongs to a
            plug-in that is not installed.
    """
    if not isinstance(name, str | Path):
        raise UsageError(f"a fine-tuner has a name or a file, not a {type(name).__name__}")
    given = Path(os.path.expanduser(name))  # noqa: PTH111 - as it is for an unknown user
    path = FOLDER / f"{name}.safetensors" if str(name) in available() else given
    if not path.exists():
        hint = suggestion(str(name), available())
        raise UsageError(f"{str(name)!r} is neither a fine-tuner nor a file{hint}")
    weights, info = load_tensors(path, again=AGAIN)
    try:
        register_installed()
        card = Card.model_validate(info)
        _ = card.attack_loss  # validates the attacks' settings
        wanted = _update_rule_shapes(card)
    except ValidationError as error:
        problem = f"{path} is not a trained fine-tuner: {explain(error)}"
        raise UsageError(f"{problem}; {AGAIN}") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    begins = any(name.startswith("init/") for name in weights)
    sizes = {name: leaf.shape for name, leaf in _update_rule(weights).items()}
    if sizes != wanted or begins != get_method(card.method).learns_initialisation:
        raise UsageError(f"{path} holds weights of other sizes than its card says; export it again")
    return Pretrained(card, weights)


def _update_rule(weights: Params) -> Params:
    """Return the weights without a meta-learned θ⁽⁰⁾."""
    return {name: leaf for name, leaf in weights.items() if not name.startswith("init/")}


def _update_rule_shapes(card: Card) -> dict[str, torch.Size]:
    """Return the shapes of the update rule's weights.

    Raises:
        UsageError: the card's method and fine-tuner contradict each other.
    """
    rule, method = card.finetuner, get_method(card.method)
    if rule.learned != method.learns_finetuner:
        learns = "a" if method.learns_finetuner else "no"
        raise UsageError(
            f"its method {card.method!r} learns {learns} fine-tuner; export another run"
        )
    if not isinstance(rule, LearnedTuner):
        return {"step_size": torch.Size([])}
    return {name: leaf.shape for name, leaf in rule.initial(torch.Generator()).items()}
