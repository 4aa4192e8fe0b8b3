"""Attacks on networks of one's own: the loss of the paper's tasks, and what a user gets wrong."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
        def advance(self, state, params, grads):  # type: ignore[no-untyped-def]
            fed.append(grads["delta"])
            return super().advance(state, params, grads)

    deltas = list(
        perturbations(victim, *images, tuner=Recorder(tuner.card, tuner.weights), steps=2)
    )
    settings = AttackFamily(source="grey", classes=3, **tuner.card.attack_loss.model_dump())
    family = Attack(settings, victim, Pools(tiny_images(), "disjoint", 0.2))
    batch = Batch(images[0][None], images[1][None])
    assert len(fed) == 2
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
        "seed is None": lambda: universal(victim, x, y, seed=None),  # type: ignore[arg-type]
        "hold NaN": lambda: measure(victim, x * torch.nan, y, x[0], clip=False),
        "or infinite": lambda: universal(victim, x / 0, y, loss=AttackLoss(clip=False)),
        "is neither a fine-tuner nor a file": lambda: universal(victim, x, y, tuner="none"),
        "the perturbation is 28x28, the images 1x28x28": lambda: measure(victim, x, y, x[0, 0]),
    }
    for message, call in wrong.items():
        with pytest.raises(UsageError, match=message):
            call()


def test_pixels_outside_the_range_are_a_choice(images: tuple[Tensor, Tensor]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    universal(model, 2 * images[0] - 1, images[1], steps=1, loss=AttackLoss(clip=False))


# --- a network that the library knows nothing of --------------------------------------------------

X = torch.linspace(0, 1, 6 * 16).remainder(0.37).view(6, 1, 4, 4)
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def network(*parts: nn.Module, classes: int = 3) -> nn.Sequential:
    """Sixteen pixels to classes, with fixed weights."""
    last = nn.Linear(16, classes)
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).sin().view_as(parameter))
    return nn.Sequential(nn.Flatten(), *parts, last)


class Holder:
    """An object of a user's own."""

    def __init__(self, model: nn.Module) -> None:
        self.deep = {"model": [model]}

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self.deep["model"][0](images)
        return logits

    def predict(self, images: Tensor) -> Tensor:
        return self(images)


class Slotted:
    """An object that has no ``__dict__``."""

    __slots__ = ("model", "unset")

    def __init__(self, model: nn.Module) -> None:
        self.model = {model}

    def __call__(self, images: Tensor) -> Tensor:
        (model,) = self.model
        logits: Tensor = model(images)
        return logits


RESTLESS = network(nn.BatchNorm1d(16), nn.Dropout())  # of the module, for a name that is global


def wrapped(model: nn.Module) -> list[Callable[[Tensor], Tensor]]:
    """One network behind everything that may hold one."""

    def inner(images: Tensor) -> Tensor:
        logits: Tensor = model((images - 0.5) / 0.25)
        return logits

    def outer(images: Tensor, f: Callable[[Tensor], Tensor] = inner) -> Tensor:
        return f(images)

    holder, queue = Holder(model), deque([model])
    return [
        *(inner, outer, model.forward, holder, holder.predict, Slotted(model)),
        lambda images: queue[0](images),
        functools.partial(model),
        lambda images: holder.predict(images),
    ]


def test_whatever_holds_a_network_the_attack_repeats_and_leaves_it_as_it_was() -> None:
    model = network(nn.BatchNorm1d(16), nn.Dropout())
    for f in [*wrapped(model), lambda images: RESTLESS(2 * images)]:
        first, second = (universal(f, X, Y, steps=2) for _ in range(2))
        assert torch.equal(first, second)
        assert measure(f, X, Y, first) == measure(f, X, Y, first)
    for each in (model, RESTLESS):
        assert all(part.training for part in each.modules())
        assert int(each[1].num_batches_tracked) == 0  # type: ignore[arg-type]


def test_the_caller_may_change_what_is_yielded() -> None:
    untouched = list(perturbations(network(), X, Y, steps=3))
    for expected, delta in zip(untouched, perturbations(network(), X, Y, steps=3), strict=True):
        assert torch.equal(expected, delta)
        delta.zero_()


def test_the_callers_modes_do_not_matter() -> None:
    model = network()
    blind = blinded(lft.load("lft-mnist+cifar10"))

    def both() -> list[Tensor]:
        return [universal(model, X, Y, steps=3, tuner=tuner) for tuner in (SHIPPED, blind)]

    expected = both()
    with torch.inference_mode():
        labels, images = Y + 0, X * 1
        results = [both()]
    results.append([universal(model, images, labels, steps=3, tuner=t) for t in (SHIPPED, blind)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results.append(both())
    try:
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float64)
        loaded = lft.load("lft-mnist+cifar10")
        results.append([universal(model, X, Y, steps=3, tuner=t) for t in (loaded, blind)])
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    for result in results:
        assert all(map(torch.equal, result, expected))


SHIPPED = lft.load("lft-mnist+cifar10")


def blinded(tuner: Pretrained, directions: int = 3) -> Pretrained:
    """The same weights, fed estimates."""
    zeroth = ZerothOrderSettings(mu=1e-2, directions=directions)
    changes = {"order": "zeroth", "zeroth_order": zeroth}
    return Pretrained(tuner.card.model_copy(update=changes), tuner.weights)


@pytest.mark.parametrize("blind", [False, True])
def test_images_go_through_the_network_in_parts_with_the_same_result(blind: bool) -> None:
    model, sizes = network(), []

    def counting(images: Tensor) -> Tensor:
        sizes.append(len(images))
        logits: Tensor = model(images)
        return logits

    images, labels = X.repeat(50, 1, 1, 1), Y.repeat(50)
    tuner = blinded(SHIPPED) if blind else SHIPPED
    deltas = [
        universal(counting, images, labels, tuner=tuner, steps=3, batch_size=size)
        for size in (7, 1200)
    ]
    assert max(sizes) == (1200 if blind else 300)  # the second time, all at once
    # Sums of float32 in another order, of three steps whose input is the gradient's logarithm; an
    # estimate divides their rounding by mu = 0.01.
    torch.testing.assert_close(*deltas, rtol=0, atol=1e-3 if blind else 1e-5)
    sizes.clear()
    parts = [measure(counting, images, labels, deltas[0], batch_size=n) for n in (7, 256)]
    assert parts[0] == parts[1]
    assert max(sizes) == 256


def test_a_black_box_may_answer_in_another_precision() -> None:
    double = network().double()
    delta = universal(lambda x: double(x.double()).detach(), X, Y, tuner=blinded(SHIPPED), steps=2)
    single = universal(double.float(), X, Y, tuner=blinded(SHIPPED), steps=2)
    # The float32 loss has seven digits, of which mu = 0.01 costs two and the network three or so.
    torch.testing.assert_close(delta, single, rtol=0, atol=1e-2)


class Output(dict[str, Tensor]):
    """What some libraries return: keys as attributes."""

    __getattr__ = dict.__getitem__


WRONG: dict[str, tuple[Callable[[Tensor], Any], Any]] = {
    "gives 1 logit; .* two classes or more": (network(classes=1), Y),
    r"label 3, but the network has 3 classes \(0 to 2\)": (network(), Y + 1),
    "label -3, but the network has 3 classes": (network(), Y - 3),
    r"must give logits \(n, classes\), not a tuple": (lambda x: (network()(x),), Y),
    "not a dict": (lambda x: {"logits": network()(x)}, Y),
    "not an Output": (lambda x: Output(logits=network()(x)), Y),
    "not torch.float32 3 for": (lambda x: network()(x)[0], Y),
    "not torch.int64 .*x3": (lambda x: network()(x).long(), Y),
    "gives NaN": (lambda x: network()(x) * torch.nan, Y),
    "labels must be 6 integers, not a list": (network(), Y.tolist()),
    "labels must be 6 integers, not a ndarray": (network(), Y.numpy()),
    "labels must be 6 integers, not torch.bool 6": (network(), Y > 0),
    "must be a module or a function, not a str": ("resnet18", Y),
}


@pytest.mark.parametrize("words", WRONG)
def test_answers_and_labels_are_checked_in_every_entry(words: str) -> None:
    model, labels = WRONG[words]
    for tuner in (SHIPPED, blinded(SHIPPED)):
        with pytest.raises(UsageError, match=words):
            universal(model, X, labels, tuner=tuner, steps=1)
    with pytest.raises(UsageError, match=words):
        measure(model, X, labels, torch.zeros(1, 4, 4))


def test_the_advice_for_a_network_without_gradient_works() -> None:
    model = network()
    with pytest.raises(UsageError, match=r"no gradient; remove detach\(\) and no_grad\(\) from it"):
        universal(lambda x: model(x).detach(), X, Y, steps=1)
    universal(lambda x: model(x), X, Y, steps=1)
    universal(lambda x: model(x).detach(), X, Y, steps=1, tuner=blinded(SHIPPED))


ODD = st.one_of(
    st.none(),
    st.integers(-3, 3),
    st.floats(),
    st.sampled_from(["x", [], {}, X, X[0], X.double(), X.bfloat16(), X * 300, X.byte(), Y, Y[:0]]),
    st.sampled_from([Y.int(), Y.numpy(), X.numpy(), X[:0], X * torch.nan, X[:, :, :0], Y[:1]]),
)


@settings(max_examples=75, deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from(["images", "labels", "tuner", "steps", "loss", "batch_size"]), ODD
    ),
    answer=st.sampled_from([None, "x", 0, X, (), torch.zeros(6, 2), torch.zeros(6, 3).bfloat16()]),
)
def test_anything_is_attacked_or_refused_in_one_line(
    changes: dict[str, Any], answer: object
) -> None:
    model = network()
    given_: dict[str, Any] = {"images": X, "labels": Y, "steps": 1} | changes
    for f in (model, lambda images: answer):
        try:
            delta = universal(f, **given_)
            assert delta.shape == given_["images"].shape[1:]
            assert measure(f, given_["images"], given_["labels"], delta).asr >= 0
        except UsageError as error:
            assert "\n" not in str(error)
