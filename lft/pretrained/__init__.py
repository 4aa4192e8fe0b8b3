"""Trained fine-tuners: a safetensors file holds φ, and a card that says where φ comes from.

Nothing is unpickled and no code comes from a file: the card names a row of the method table.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from lft.config import (
    AttackLoss,
    LSTMSettings,
    Order,
    Settings,
    ZerothOrderSettings,
    explain,
    register_installed,
)
from lft.errors import UsageError, suggestion
from lft.finetuners.base import FineTuner
from lft.finetuners.registry import learned_tuner
from lft.methods import get_method
from lft.optimizer import LearnedOptimizer
from lft.storage.tensors import load_tensors, save_tensors
from lft.types import Params, State

FOLDER = Path(__file__).parent
"""The fine-tuners that come with the package."""


class Card(Settings):
    """What a trained fine-tuner is and where it comes from."""

    name: str
    method: str  # row of the method table
    order: Order  # what it was fed: gradients, or estimates of them
    finetuner: LSTMSettings
    zeroth_order: ZerothOrderSettings | None = None
    experiment: str
    trained_on: str  # names of the families, as the profile has them
    families: dict[str, dict[str, Any]]  # their settings; "images" says which images those were
    training: dict[str, Any]  # settings of the meta-training
    seed: int
    scores: dict[str, dict[str, float]]  # test mixture -> metric -> mean over test tasks
    scored_after: int  # fine-tuning steps
    commit: str | None  # of the code that trained it
    versions: dict[str, str]
    licence: str
    note: str | None = None  # what users should know, e.g. how images were obtained

    @property
    def attack_loss(self) -> AttackLoss:
        """The loss of the attacks that it was trained on; the usual one if it was on none."""
        fields = AttackLoss.model_fields
        for family in self.families.values():
            if family.get("kind") == "attack":
                return AttackLoss(**{key: family[key] for key in fields if key in family})
        return AttackLoss()


class Pretrained:
    """A trained fine-tuner: a :class:`lft.finetuners.base.FineTuner` for parameters of any shape,
    device and floating-point type, and an optimizer of ``torch.nn`` modules.

    Attributes:
        card: what it is and where it comes from.
        weights: φ.
    """

    def __init__(self, card: Card, weights: Params) -> None:
        self.card = card
        self.weights = weights
        self._tuners: dict[tuple[torch.device, torch.dtype], FineTuner] = {}

    def __repr__(self) -> str:
        return f"<{get_method(self.card.method).label} {self.card.name!r}>"

    def start(self, params: Params) -> State:
        """State before the first step; see :class:`lft.finetuners.base.FineTuner`."""
        return self._tuner(params).start(params)

    def step(self, state: State, params: Params, grads: Params) -> tuple[State, Params]:
        """One step; see :class:`lft.finetuners.base.FineTuner`."""
        return self._tuner(params).step(state, params, grads)

    def optimizer(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        *,
        lr: float = 1.0,
        seed: int = 0,
    ) -> LearnedOptimizer:
        """An optimizer for the parameters of a module; see :class:`LearnedOptimizer`.

        >>> import lft, torch
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = lft.load("lft-mnist+cifar10").optimizer(model.parameters())
        >>> model(torch.ones(3)).square().backward()
        >>> optimizer.step()

        Args:
            lr: factor of the update.
            seed: of the directions, if the fine-tuner is a zeroth-order one.
        """
        return LearnedOptimizer(params, self, lr=lr, zeroth_order=self.card.zeroth_order, seed=seed)

    def _tuner(self, params: Params) -> FineTuner:
        """The update rule with φ where the parameters are."""
        leaf = next(iter(params.values()))
        where = leaf.device, leaf.dtype
        if where not in self._tuners:
            weights = {name: w.to(leaf.device, leaf.dtype) for name, w in self.weights.items()}
            rule = learned_tuner(get_method(self.card.method))
            self._tuners[where] = rule(weights, self.card.finetuner)
        return self._tuners[where]


def available() -> list[str]:
    """Names of the fine-tuners that come with the package."""
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
        UsageError: there is no such fine-tuner, the file is damaged, or its method is that of a
            plug-in that is not installed.
    """
    path = Path(name)
    if not path.suffix and len(path.parts) == 1:
        if str(name) not in available():
            raise UsageError(
                f"unknown fine-tuner {str(name)!r}{suggestion(str(name), available())}"
            )
        path = FOLDER / f"{name}.safetensors"
    weights, info = load_tensors(path)
    try:
        card = Card.model_validate(info)
        _ = card.attack_loss  # what it was trained on must be valid, too
        register_installed()
        method = get_method(card.method)
        if not method.learns_finetuner:
            raise UsageError(f"its method {card.method!r} learns no fine-tuner; export another run")
        rule = learned_tuner(method)
    except ValidationError as error:
        raise UsageError(f"{path} holds no trained fine-tuner: {explain(error, Card)}") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if _shapes(weights) != _shapes(rule.initial(card.finetuner, torch.Generator())):
        raise UsageError(f"{path} holds weights of other sizes than its card says; export it again")
    return Pretrained(card, weights)


def save(path: Path, tuner: Pretrained) -> None:
    """Write a file for :func:`load`, atomically.

    Raises:
        UsageError: the folder cannot be written.
    """
    save_tensors(path, tuner.weights, tuner.card.model_dump(mode="json"))


def _shapes(weights: Params) -> dict[str, torch.Size]:
    return {name: leaf.shape for name, leaf in weights.items()}
