"""Few-shot classification."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny import tiny_images
from torch.nn import functional

from lft.config import ClassificationFamily
from lft.errors import UsageError
from lft.seeding import generator
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.types import Batch


def family(**changes: Any) -> Classification:
    values = {"source": "grey", "net": "mlp", "widths": (), "ways": 2, "support": 2, "query": 3}
    images = tiny_images()
    settings = ClassificationFamily(**{**values, **changes})
    return Classification(settings, images, Pools(images, "disjoint", 0.4))


def logits_only(rule: Classification, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Parameters of a network without hidden layer that gives all images the same logits (B, c)."""
    n_tasks, outputs = logits.shape
    return {"w0": torch.zeros(n_tasks, 28 * 28, outputs), "b0": logits[:, None]}


def test_inputs_are_standardised() -> None:
    rule = family(support=1, query=5)
    pixels = torch.cat([part.x.flatten() for part in rule.sample(400, generator("t"), "train")])
    # The mean of 4,800 draws from 27 images of equal shares per class: a few per mille.
    assert abs(float(pixels.mean())) < 0.02
    assert float(pixels.std()) == pytest.approx(1, abs=0.02)


def test_inputs_are_pixels_where_the_settings_say_so() -> None:
    pixels = family(standardise=False).sample(4, generator("t"), "train").query.x
    assert 0 <= pixels.min() < 0.2 and 0.8 < pixels.max() <= 1
    rule = family()
    standardised = rule.sample(4, generator("t"), "train").query.x
    # float32: one product and one sum.
    torch.testing.assert_close(standardised * rule.std + rule.mean, pixels, rtol=1e-5, atol=1e-6)


def test_only_a_cnn_is_normalised() -> None:
    with pytest.raises(ValidationError, match="normalise: only a CNN has channels, net is 'mlp'"):
        family(normalise=True)


@pytest.mark.parametrize(("outputs", "width"), [("classes", 3), ("ways", 2)])
@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_outputs_are_classes_or_ways(outputs: str, width: int, net: str) -> None:
    rule = family(outputs=outputs, net=net, widths=(4,))
    tasks = rule.sample(5, generator("tasks"), "train")
    params = rule.init(5, generator("start"))
    assert rule.network(params, tasks.query.x).shape == (5, 6, width)
    assert tasks.query.y.max() == width - 1
    assert rule.loss(params, tasks.query).shape == (5,)


def test_loss_is_the_cross_entropy_of_each_task() -> None:
    rule = family(widths=(4,))
    batch = rule.sample(3, generator("tasks"), "train").query
    params = rule.init(3, generator("start"))
    losses, logits = rule.loss(params, batch), rule.network(params, batch.x)
    for task in range(3):
        # float32: a mean of six.
        torch.testing.assert_close(
            losses[task],
            functional.cross_entropy(logits[task], batch.y[task]),
            rtol=1e-5,
            atol=1e-6,
        )


def test_loss_and_accuracy_by_hand() -> None:
    rule = family()
    x = torch.zeros(2, 4, 1, 28, 28)
    y = torch.tensor([[0, 0, 1, 2], [2, 2, 2, 2]])
    params = logits_only(rule, torch.tensor([[0.0, -1.0, -1.0], [0.0, 0.0, 3.0]]))
    accuracy = rule.metrics(params, Batch(x, y))["accuracy"]
    assert accuracy.tolist() == [0.5, 1.0]
    first = math.log(1 + 2 / math.e)  # −log softmax of class 0, the others cost 1 more
    second = math.log(1 + 2 / math.e**3)
    # float32.
    assert rule.loss(params, Batch(x, y)).tolist() == pytest.approx([first + 0.5, second], rel=1e-5)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_accuracy_is_nan_where_outputs_are_not_finite(broken: float) -> None:
    rule = family()
    params = logits_only(rule, torch.tensor([[0.0, broken, 0.0], [0.0, 1.0, 0.0]]))
    batch = Batch(torch.zeros(2, 1, 1, 28, 28), torch.tensor([[1], [1]]))
    accuracy = rule.metrics(params, batch)["accuracy"]
    assert math.isnan(accuracy[0])
    assert accuracy[1] == 1


def test_tasks_too_large_for_the_images_are_refused() -> None:
    with pytest.raises(UsageError, match="a task needs 4 classes, but there are 3"):
        family(ways=4)
    with pytest.raises(UsageError, match="a task needs 90"):
        family(support=80, query=10)
