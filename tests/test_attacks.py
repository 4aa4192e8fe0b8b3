"""Attacks on networks of one's own: the loss of the paper's tasks, and what a user gets wrong."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_images
from torch import Tensor, nn

import lft
from lft.attacks import AttackLoss, measure, perturbations, universal
from lft.config import AttackFamily, VictimSettings, ZerothOrderSettings
from lft.errors import UsageError
from lft.pretrained import Pretrained
from lft.tasks.attack import Attack
from lft.tasks.pools import Pools
from lft.tasks.victim import LeNet5, correct, train_victim
from lft.types import Batch


@pytest.fixture(scope="module")
def victim() -> LeNet5:
    settings = VictimSettings(epochs=3, batch=16, learning_rate=3e-3)
    return train_victim(tiny_images(), settings, "grey", "cpu")


@pytest.fixture(scope="module")
def images(victim: LeNet5) -> tuple[Tensor, Tensor]:
    """Ten images that the victim classifies correctly, and their labels."""
    source = tiny_images()
    right = correct(victim, source.test_images, source.test_labels)
    return source.test_images[right][::6][:10].float() / 255, source.test_labels[right][::6][:10]


def test_the_network_is_fooled(victim: LeNet5, images: tuple[Tensor, Tensor]) -> None:
    assert measure(victim, *images, torch.zeros(1, 28, 28)).asr == 0
    delta = universal(victim, *images, loss=AttackLoss(distortion_weight=1.0))
    asr, distortion = measure(victim, *images, delta)
    assert asr >= 0.9
    assert distortion < 0.4
    seen = victim((images[0] + delta).clamp(0, 1)).argmax(1)
    assert float((seen != images[1]).double().mean()) == pytest.approx(asr)


def test_the_loss_is_that_of_the_attack_tasks(
    victim: LeNet5, images: tuple[Tensor, Tensor]
) -> None:
    """With plain gradient steps of the fine-tuner, each step shows the gradient of the loss."""
    tuner = lft.load("lft-mnist+cifar10")
    fed: list[Tensor] = []

    class Recorder(Pretrained):
        def step(self, state, params, grads):  # type: ignore[no-untyped-def]
            fed.append(grads["delta"])
            return super().step(state, params, grads)

    deltas = list(
        perturbations(victim, *images, tuner=Recorder(tuner.card, tuner.weights), steps=2)
    )
    settings = AttackFamily(source="grey", classes=3, **tuner.card.attack_loss.model_dump())
    family = Attack(settings, victim, Pools(tiny_images(), "disjoint", 0.2))
    batch = Batch(images[0][None], images[1][None])
    for delta, gradient in zip(deltas, fed, strict=False):
        leaf = delta[None].clone().requires_grad_()
        family.loss({"delta": leaf}, batch).sum().backward()
        torch.testing.assert_close(gradient, leaf.grad)


def test_a_module_is_left_as_it_was(images: tuple[Tensor, Tensor]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Dropout(), nn.Linear(784, 3))
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = universal(model, *images, steps=3)
    assert [part.training for part in model.modules()] == [True, True, True, False, True]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(param.grad is None for param in model.parameters())
    assert torch.equal(first, universal(model, *images, steps=3))  # no dropout, no batch statistics
    assert not torch.equal(first, universal(model, *images, steps=3, seed=1))


def test_a_zeroth_order_fine_tuner_needs_no_gradient(
    victim: LeNet5, images: tuple[Tensor, Tensor]
) -> None:
    tuner = lft.load("lft-mnist+cifar10")
    settings = ZerothOrderSettings(mu=1e-2, directions=5)
    changes = {"order": "zeroth", "zeroth_order": settings}
    blind = Pretrained(tuner.card.model_copy(update=changes), tuner.weights)
    calls = []

    def black_box(x: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.from_numpy(victim(x).detach().numpy())

    delta = universal(black_box, *images, tuner=blind, steps=4)
    assert calls == [6 * len(images[0])] * 4
    assert delta.isfinite().all()


def test_what_a_user_gets_wrong_is_said(victim: LeNet5, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    wrong = {
        r"\(n, C, H, W\), not torch.float32 28x28": lambda: universal(victim, x[0, 0], y),
        "not torch.uint8 10x1x28x28": lambda: universal(victim, (255 * x).byte(), y),
        "divide by 255": lambda: universal(victim, 255 * x, y),
        "labels must be 10 integers, not torch.int64 3": lambda: universal(victim, x, y[:3]),
        "not torch.float32 10": lambda: universal(victim, x, y.float()),
        "steps is 0": lambda: universal(victim, x, y, steps=0),
        "unknown fine-tuner": lambda: universal(victim, x, y, tuner="none"),
        "the perturbation is 28x28, the images 1x28x28": lambda: measure(victim, x, y, x[0, 0]),
    }
    for message, call in wrong.items():
        with pytest.raises(UsageError, match=message):
            call()


def test_pixels_outside_the_range_are_a_choice(images: tuple[Tensor, Tensor]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    universal(model, 2 * images[0] - 1, images[1], steps=1, loss=AttackLoss(clip=False))
