"""Compare a trained fine-tuner with Adam as an optimizer of ordinary networks.

There are seven small problems, with data that come with the package's dependencies. Each has 60 %
of its examples for training, 20 % for validation, which chooses the step size, and 20 % for
testing.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from lft.errors import UsageError
from lft.pretrained import Pretrained
from lft.seeding import generator

STEP_SIZES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Candidate step sizes of a fine-tuner."""
STEPS, BATCH = 200, 64
SEEDS = (0, 1, 2)

Make = Callable[[list[nn.Parameter]], Optimizer]
"""Builds an optimizer for some parameters."""


class Split(NamedTuple):
    """Examples of a problem.

    Attributes:
        x: features, (n, …), standardised or in [0, 1].
        y: classes, (n,).
    """

    x: Tensor
    y: Tensor


class Problem(NamedTuple):
    """A data set and a network for it.

    Attributes:
        data: returns training, validation and test examples.
        network: returns an untrained network for them.
    """

    data: Callable[[], tuple[Split, Split, Split]]
    network: Callable[[], nn.Module]


class Outcome(NamedTuple):
    """Outcome of training a network.

    Attributes:
        first: loss of the first minibatch.
        last: mean loss of the last 20 minibatches.
        validation: accuracy on the validation examples.
        test: accuracy on the test examples.
    """

    first: float
    last: float
    validation: float
    test: float


def train(problem: Problem, make: Make, seed: int) -> Outcome:
    """Train a network for :data:`STEPS` minibatches of :data:`BATCH` examples.

    Args:
        problem: data and network.
        make: builds the optimizer.
        seed: seed of the initial weights and the minibatches.
    """
    training, validation, test = problem.data()
    random = generator("trial", seed)
    network = problem.network()
    _initialise(network, random)
    optimizer = make(list(network.parameters()))
    losses = []
    for _ in range(STEPS):
        drawn = torch.randint(len(training.y), (BATCH,), generator=random)
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(training.x[drawn]), training.y[drawn])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    network.eval()
    accuracies = (_accuracy(network, split) for split in (validation, test))
    return Outcome(losses[0], sum(losses[-20:]) / 20, *accuracies)


def tried(tuner: Pretrained) -> Pretrained:
    """Measure ``step_size`` and ``compared`` of a fine-tuner's card, which takes minutes.

    ``step_size`` has the best mean validation accuracy with the initial weights of seed 0, among
    the :data:`STEP_SIZES` that reduce the loss on every problem. ``compared`` has mean test
    accuracies over :data:`SEEDS`, beside Adam with its defaults.

    Args:
        tuner: the fine-tuner.

    Returns:
        The same fine-tuner with the new card.

    Raises:
        UsageError: no step size reduces the loss on every problem.
    """
    quality = {}
    for step_size in STEP_SIZES:
        outcomes = [train(each, _optimizer(tuner, step_size), 0) for each in PROBLEMS.values()]
        if all(outcome.last < outcome.first for outcome in outcomes):
            quality[step_size] = sum(outcome.validation for outcome in outcomes)
    if not quality:
        raise UsageError(f"{tuner} does not reduce the loss with any step size of {STEP_SIZES}")
    best = max(quality, key=quality.__getitem__)
    makes = {tuner.card.method: _optimizer(tuner, best), "adam": torch.optim.Adam}
    compared = {
        name: {
            label: round(sum(train(problem, make, seed).test for seed in SEEDS) / len(SEEDS), 3)
            for label, make in makes.items()
        }
        for name, problem in PROBLEMS.items()
    }
    changes = {"step_size": best, "compared": compared}
    return Pretrained(tuner.card.model_copy(update=changes), tuner.weights)


def _optimizer(tuner: Pretrained, step_size: float) -> Make:
    return lambda params: tuner.optimizer(params, lr=step_size)


@torch.no_grad()
def _initialise(network: nn.Module, random: torch.Generator) -> None:
    """Draw weights and biases uniformly from ±1/√fan_in, PyTorch's default, with a generator."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters():
                parameter.uniform_(-bound, bound, generator=random)


@torch.no_grad()
def _accuracy(network: nn.Module, split: Split) -> float:
    return float((network(split.x).argmax(1) == split.y).double().mean())


def _divided(x: Tensor, y: Tensor) -> tuple[Split, Split, Split]:
    order = torch.randperm(len(y), generator=generator("trial", "division"))
    share = len(y) // 5
    training, validation, test = order.split([len(y) - 2 * share, share, share])
    return (
        Split(x[training], y[training]),
        Split(x[validation], y[validation]),
        Split(x[test], y[test]),
    )


@functools.cache
def _table(name: str) -> tuple[Split, Split, Split]:
    """Load a table of scikit-learn, its columns standardised."""
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    x = torch.tensor(found.data, dtype=torch.float32)
    return _divided((x - x.mean(0)) / x.std(0), torch.tensor(found.target))


@functools.cache
def _digits() -> tuple[Split, Split, Split]:
    from sklearn.datasets import load_digits

    found = load_digits()
    x = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    return _divided(x, torch.tensor(found.target))


@functools.cache
def _embedded(name: str) -> tuple[Split, Split, Split]:
    from lft.data import embedded

    train, test, _ = embedded.EMBEDDED[name]()
    x = torch.cat([torch.from_numpy(split.images) for split in (train, test)])
    y = torch.cat([torch.from_numpy(split.labels) for split in (train, test)])
    return _divided(x.float() / 255, y.long())


def _mlp(*widths: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(widths[0], widths[1])]
    for before, after in itertools.pairwise(widths[1:]):
        layers += [nn.ReLU(), nn.Linear(before, after)]
    return nn.Sequential(*layers)


def _cnn(channels: int, side: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16 * (side // 2 - 1) ** 2, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


PROBLEMS = {
    "digits, MLP": Problem(_digits, lambda: _mlp(64, 64, 10)),
    "digits, CNN": Problem(_digits, lambda: _cnn(1, 8)),
    "MNIST-5k, MLP": Problem(lambda: _embedded("mnist5k"), lambda: _mlp(784, 64, 10)),
    "MNIST-5k, CNN": Problem(lambda: _embedded("mnist5k"), lambda: _cnn(1, 28)),
    "photographs, MLP": Problem(lambda: _embedded("photos"), lambda: _mlp(3072, 64, 10)),
    "breast cancer, MLP": Problem(lambda: _table("breast_cancer"), lambda: _mlp(30, 32, 32, 2)),
    "wine, MLP": Problem(lambda: _table("wine"), lambda: _mlp(13, 32, 3)),
}
"""Problems by the name in cards; the networks have 500 to 200,000 parameters."""
