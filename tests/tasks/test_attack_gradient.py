"""The attack's gradient by hand, in float32, against autograd on the plain path in float64."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Generator

from lft.config import AttackFamily
from lft.data import ImageSet
from lft.kernels import build as native
from lft.meta.gradients import value_and_grad
from lft.tasks.attack import Attack
from lft.tasks.pools import Pools
from lft.tasks.victim import LeNet5
from lft.types import Batch, Params

# float32 sums of at most 400 products.
TOLERANCE = 1e-5
CHANNELS, SIDE, CLASSES, TASKS = 3, 32, 4, 5


@pytest.fixture(autouse=True)
def compiler() -> None:
    if not native.available(torch.device("cpu"), torch.float32):
        pytest.skip("no compiler")


def attack(
    kernel: Literal["auto", "torch"] = "auto",
    *,
    margin: Literal["probability", "log_probability", "logit"] = "log_probability",
    clip: bool = True,
) -> Attack:
    victim = LeNet5((CHANNELS, SIDE, SIDE), CLASSES, kernel)
    victim.initialise(1)
    labels = torch.arange(CLASSES).repeat(10)
    pixels = torch.zeros(len(labels), CHANNELS, SIDE, SIDE, dtype=torch.uint8)
    names = tuple("abcd")
    images = ImageSet(pixels, labels, pixels, labels, names, "nothing", None, None)
    settings = AttackFamily(source="nothing", distortion_weight=0.5, margin=margin, clip=clip)
    return Attack(settings, victim.requires_grad_(False).eval(), Pools(images, "disjoint", 0.4))


def problem() -> tuple[Params, Batch]:
    """Perturbations that drive a third of the pixels out of [0, 1]."""
    generator = Generator().manual_seed(0)
    images = torch.rand(TASKS, 6, CHANNELS, SIDE, SIDE, generator=generator)
    labels = torch.randint(CLASSES, (TASKS, 6), generator=generator)
    delta = 0.5 * torch.randn(TASKS, CHANNELS, SIDE, SIDE, generator=generator)
    return {"delta": delta}, Batch(images, labels)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("margin", ["log_probability", "logit"])
def test_loss_and_gradient(margin: Literal["log_probability", "logit"], *, clip: bool) -> None:
    params, batch = problem()
    family = attack(margin=margin, clip=clip)
    found = family.loss_and_gradients(params, batch)
    assert found is not None
    plain = attack("torch", margin=margin, clip=clip)
    plain.victim.double()
    exact = {"delta": params["delta"].double()}
    losses, grads = value_and_grad(plain, exact, Batch(batch.x.double(), batch.y))
    hinge = losses - 0.5 * exact["delta"].abs().flatten(1).mean(1)
    assert (hinge > 0).any(), "no image that is not fooled"
    assert (family.metrics(params, batch)["asr"] > 0).any(), "no image that is fooled"
    assert (found[0] - losses).norm() <= TOLERANCE * losses.norm()
    assert (found[1]["delta"] - grads["delta"]).norm() <= TOLERANCE * grads["delta"].norm()


def test_it_serves_the_inner_loop() -> None:
    params, batch = problem()
    family = attack()
    found = family.loss_and_gradients(params, batch)
    assert found is not None
    losses, grads = value_and_grad(family, params, batch)
    assert torch.equal(losses, found[0])
    assert torch.equal(grads["delta"], found[1]["delta"])


def test_autograd_is_left_what_it_does_not_cover() -> None:
    params, batch = problem()
    assert attack(margin="probability").loss_and_gradients(params, batch) is None
    assert attack("torch").loss_and_gradients(params, batch) is None
