"""The LeNet-5 victim."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_images
from torch import nn

from lft.config import VictimSettings
from lft.tasks.victim import LeNet5, correct, train_victim

SETTINGS = VictimSettings(epochs=3, batch=16, learning_rate=3e-3)


@pytest.mark.parametrize(("shape", "padding"), [((1, 28, 28), 2), ((3, 32, 32), 0)])
def test_lenet5_matches_its_textbook_layers(shape: tuple[int, int, int], padding: int) -> None:
    victim = LeNet5(shape, 10)
    victim.initialise(0)
    textbook = nn.Sequential(
        nn.Conv2d(shape[0], 6, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )
    named = zip(victim.state_dict().values(), textbook.state_dict(), strict=True)
    textbook.load_state_dict({name: leaf for leaf, name in named})
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    # float32; ReLU and max-pooling commute exactly.
    torch.testing.assert_close(victim(x), textbook(x), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def trained() -> LeNet5:
    return train_victim(tiny_images(), SETTINGS, "grey", "cpu")


def test_training_teaches_the_classes_and_freezes_the_weights(trained: LeNet5) -> None:
    images = tiny_images()
    right = correct(trained, images.test_images, images.test_labels)
    assert right.dtype == torch.bool
    assert right.double().mean() > 0.9  # a third by guessing
    assert not any(weight.requires_grad for weight in trained.parameters())
    assert not trained.training


def test_training_repeats_bit_by_bit_whatever_the_global_generator_says(trained: LeNet5) -> None:
    torch.manual_seed(123)
    again = train_victim(tiny_images(), SETTINGS, "grey", "cpu").state_dict()
    other = train_victim(tiny_images(), SETTINGS, "other", "cpu").state_dict()
    for name, weight in trained.state_dict().items():
        assert torch.equal(weight, again[name])
        assert not torch.equal(weight, other[name])


def test_correct_says_which_images_are_classified_correctly(trained: LeNet5) -> None:
    images = tiny_images()
    labels = trained(images.test_images.float() / 255).argmax(1)
    labels[::2] = (labels[::2] + 1) % 3
    expected = torch.arange(len(labels)) % 2 == 1
    assert torch.equal(correct(trained, images.test_images, labels), expected)
