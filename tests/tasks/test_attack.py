"""Attack loss, margins, ASR and distortion on cases computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lft.config import AttackFamily
from lft.data import ImageSet
from lft.errors import UsageError
from lft.seeding import generator
from lft.tasks.attack import Attack, distortion, margins
from lft.tasks.pools import Pools
from lft.types import Batch

pytestmark = pytest.mark.usefixtures("float64")


class TwoPixels(torch.nn.Module):
    """A victim of images of two pixels: its logits are the pixels and a constant 0.2."""

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1)
        return torch.cat([pixels, torch.full_like(pixels[:, :1], 0.2)], dim=1)


def attack(**changes: Any) -> Attack:
    labels = torch.arange(3).repeat(10)
    pixels = torch.zeros(30, 1, 1, 2, dtype=torch.uint8)
    images = ImageSet(pixels, labels, pixels, labels, ("a", "b", "c"), "pixels", None, None)
    values = {"source": "pixels", "distortion_weight": 0.5, "margin": "logit"}
    settings = AttackFamily(**{**values, **changes})
    return Attack(settings, TwoPixels(), Pools(images, "disjoint", 0.4))


def batch(*examples: tuple[float, float, int]) -> Batch:
    """One task of images (first pixel, second pixel, label)."""
    pixels = torch.tensor([example[:2] for example in examples], dtype=torch.float64)
    return Batch(pixels.view(1, -1, 1, 1, 2), torch.tensor([[label for *_, label in examples]]))


def delta(first: float, second: float) -> dict[str, Tensor]:
    return {"delta": torch.tensor([first, second], dtype=torch.float64).view(1, 1, 1, 2)}


def test_margins_by_hand() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    assert margins(scores, torch.tensor([0, 1, 0, 0])).tolist() == [1, -2, 0, -1]
    assert margins(scores[None], torch.tensor([[2, 2, 2, 2]])).tolist() == [[-1, -1, -1, 0]]


def test_distortion_is_the_mean_over_pixels_of_every_channel() -> None:
    perturbation = torch.zeros(2, 3, 2, 2)
    perturbation[0, 0, 0] = torch.tensor([0.6, -0.6])
    perturbation[1] = -1
    assert distortion(perturbation).tolist() == pytest.approx([0.1, 1])


CASES: dict[str, tuple[Batch, dict[str, Tensor], float, float, float]] = {
    # batch, δ, mean hinge, ASR, distortion
    "none attacked": (batch((0.9, 0.3, 0), (0.1, 0.8, 1)), delta(0, 0), (0.6 + 0.6) / 2, 0, 0),
    "already misclassified": (batch((0.9, 0.3, 1)), delta(0, 0), 0, 1, 0),
    "one of two attacked": (batch((0.9, 0.3, 0), (0.9, 0.3, 1)), delta(0, 0), 0.3, 0.5, 0),
    "a tie is an attack": (batch((0.5, 0.5, 0), (0.5, 0.5, 1)), delta(0, 0), 0, 1, 0),
    "all attacked": (batch((0.9, 0.3, 0), (0.7, 0.6, 0)), delta(-0.6, 0.1), 0, 1, 0.35),
    "another class gets close": (batch((0.9, 0.3, 0)), delta(-0.2, 0.1), 0.3, 0, 0.15),
    "a large δ is not cut": (batch((0.0, 0.9, 1)), delta(0.8, -0.8), 0, 1, 0.8),
    "a dark image stays at 0": (batch((0.0, 0.6, 1)), delta(-0.5, 0), 0.4, 0, 0.25),
    "a bright image stays at 1": (batch((1.0, 0.9, 0)), delta(0.5, 0.5), 0, 1, 0.5),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_loss_and_metrics_by_hand(case: str) -> None:
    images, params, hinge, asr, size = CASES[case]
    rule = attack()
    # float64: a handful of additions of decimal fractions.
    assert float(rule.loss(params, images)) == pytest.approx(hinge + 0.5 * size, abs=1e-14)
    result = rule.metrics(params, images)
    assert float(result["asr"]) == asr
    assert float(result["distortion"]) == pytest.approx(size, abs=1e-14)


def test_clipping_can_be_switched_off() -> None:
    images, params = batch((1.0, 0.9, 0)), delta(0.5, 0.5)
    assert attack(clip=True).attacked(params, images.x).flatten().tolist() == [1, 1]
    unclipped = attack(clip=False)
    assert unclipped.attacked(params, images.x).flatten().tolist() == pytest.approx([1.5, 1.4])
    assert float(unclipped.metrics(params, images)["asr"]) == 0


def test_margins_of_probabilities_and_log_probabilities() -> None:
    images = batch((0.9, 0.3, 0))
    total = math.exp(0.9) + math.exp(0.3) + math.exp(0.2)
    probability = (math.exp(0.9) - math.exp(0.3)) / total
    values = {"probability": probability, "log_probability": 0.6, "logit": 0.6}
    for margin, expected in values.items():
        loss = attack(margin=margin).loss(delta(0, 0), images)
        assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_every_task_has_its_own_perturbation() -> None:
    one, other = batch((0.9, 0.3, 0), (0.8, 0.1, 0)), batch((0.1, 0.8, 1), (0.2, 0.6, 1))
    both = Batch(torch.cat([one.x, other.x]), torch.cat([one.y, other.y]))
    params = {"delta": torch.cat([delta(0, 0.1)["delta"], delta(0.3, 0)["delta"]])}
    rule = attack()
    expected = [
        float(rule.loss(delta(0, 0.1), one)),
        float(rule.loss(delta(0.3, 0), other)),
    ]
    assert rule.loss(params, both).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_of_the_loss_by_hand() -> None:
    """Hinge: −1 for the other class's pixel, +1 for the true one's; λ sign(δ) / pixels."""
    params = {"delta": delta(-0.1, 0.2)["delta"].requires_grad_()}
    attack().loss(params, batch((0.9, 0.3, 0))).sum().backward()
    assert params["delta"].grad is not None
    assert params["delta"].grad.flatten().tolist() == pytest.approx([1 - 0.25, -1 + 0.25])


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_metrics_are_nan_or_infinite_where_the_perturbation_is(broken: float) -> None:
    result = attack().metrics(delta(broken, 0), batch((0.9, 0.3, 0)))
    assert math.isnan(result["asr"])
    assert not math.isfinite(result["distortion"])


def test_perturbations_start_at_random() -> None:
    params = attack(init_scale=0.3).init(4000, generator("start"))
    assert params["delta"].shape == (4000, 1, 1, 2)
    # Standard error of 8,000 normal draws' deviation is 0.8 %; five of them.
    assert float(params["delta"].std()) == pytest.approx(0.3, rel=0.04)
    assert not attack(init_scale=0).init(2, generator("start"))["delta"].any()


def test_a_uniform_start_fills_its_interval() -> None:
    delta = attack(start="uniform", init_scale=0.3).init(4000, generator("start"))["delta"]
    # The largest of 8,000 uniform draws misses the end by 1e-3 of it with a chance of e^-8.
    assert 0.2997 < float(delta.abs().max()) <= 0.3
    # Standard error of the deviation of 8,000 uniform draws is 0.5 %; five of them.
    assert float(delta.std()) == pytest.approx(0.3 / math.sqrt(3), rel=0.025)


def test_tasks_too_large_for_the_images_are_refused() -> None:
    with pytest.raises(UsageError, match="a task needs 4 classes, but there are 3"):
        attack(classes=4)
    with pytest.raises(UsageError, match="has 4 usable images for meta-validation"):
        attack(support=3, query=2)
