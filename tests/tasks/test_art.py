"""Cross-check with the Adversarial Robustness Toolbox: its attacks, measured by our metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny_images

from lft.config import AttackFamily, VictimSettings
from lft.tasks.attack import Attack
from lft.tasks.pools import Pools
from lft.tasks.victim import LeNet5, correct, train_victim
from lft.types import Batch

evasion = pytest.importorskip("art.attacks.evasion")


@pytest.fixture(scope="module")
def victim() -> LeNet5:
    settings = VictimSettings(epochs=3, batch=16, learning_rate=3e-3)
    return train_victim(tiny_images(), settings, "grey", "cpu")


def test_a_universal_perturbation_of_art_gets_its_fooling_rate_from_our_metrics(
    victim: LeNet5,
) -> None:
    from art.estimators.classification import PyTorchClassifier

    images = tiny_images()
    family = Attack(
        AttackFamily(source="grey", classes=3, support=1, query=1),
        victim,
        Pools(images, "disjoint", 0.2),
    )
    right = correct(victim, images.test_images, images.test_labels)
    x = images.test_images[right].float() / 255
    y = images.test_labels[right]
    classifier = PyTorchClassifier(
        victim, torch.nn.CrossEntropyLoss(), (1, 28, 28), 3, clip_values=(0.0, 1.0)
    )
    np.random.seed(0)  # noqa: NPY002 - ART draws from the global generator
    universal = evasion.UniversalPerturbation(
        classifier,
        attacker="fgsm",
        attacker_params={"eps": 0.1},
        eps=0.25,
        max_iter=2,
        verbose=False,
    )
    adversarial = torch.from_numpy(universal.generate(x.numpy()))
    noise = torch.from_numpy(universal.noise).view(1, 1, 28, 28)

    ours = family.metrics({"delta": noise}, Batch(x[None], y[None]))
    predicted = torch.from_numpy(classifier.predict(adversarial.numpy()).argmax(1))
    # Shares of the same few dozen images; float32 pixels may differ in the last bit, which only
    # matters for a margin of 1e-6.
    assert float(ours["asr"]) == pytest.approx(float((predicted != y).double().mean()), abs=1e-6)
    assert float(ours["asr"]) == pytest.approx(universal.fooling_rate, abs=1e-6)
    assert 0.2 < float(ours["asr"]) <= 1
    assert float(ours["distortion"]) == pytest.approx(
        float(np.abs(universal.noise).mean()), rel=1e-6
    )
    assert float(ours["distortion"]) <= 0.25 + 1e-6
    torch.testing.assert_close(
        family.attacked({"delta": noise}, x[None])[0], adversarial, rtol=0.0, atol=1e-6
    )


def test_a_fine_tuner_is_an_attack_of_art(victim: LeNet5) -> None:
    """As a white-box attack on pixels in [0, 255], through ART's own preprocessing."""
    from art.estimators.classification import PyTorchClassifier

    from lft.art import LearnedUniversalPerturbation
    from lft.attacks import universal

    images = tiny_images()
    right = correct(victim, images.test_images, images.test_labels)
    x = images.test_images[right][::6].float()
    y = images.test_labels[right][::6]
    classifier = PyTorchClassifier(
        victim, torch.nn.CrossEntropyLoss(), (1, 28, 28), 3,
        clip_values=(0.0, 255.0), preprocessing=(0.0, 255.0),
    )  # fmt: skip
    attack = LearnedUniversalPerturbation(classifier, steps=40)
    assert isinstance(attack, evasion.UniversalPerturbation.__mro__[1])  # EvasionAttack
    adversarial = attack.generate(x.numpy(), y.numpy())
    assert adversarial.dtype == np.float32
    assert 0 <= adversarial.min() <= adversarial.max() <= 255
    predicted = classifier.predict(adversarial).argmax(1)
    assert attack.fooling_rate == pytest.approx(float((predicted != y.numpy()).mean()), abs=1e-6)
    assert attack.fooling_rate > 0.5
    ours = universal(victim, x / 255, y, steps=40)
    # The same float32 operations but for the scaling by 255 and back, over 40 steps.
    np.testing.assert_allclose(attack.noise[0] / 255, ours.numpy(), atol=1e-3)
    attack.set_params(steps=1)
    unlabelled = attack.generate(x.numpy())
    np.testing.assert_array_equal(unlabelled, attack.generate(x.numpy(), np.eye(3)[y.numpy()]))


@pytest.fixture
def small() -> torch.nn.Module:
    """A network of 8x8 pixels and three classes."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(-9, 9, parameter.numel()).sin().view_as(parameter))
    return model


PIXELS = torch.linspace(0, 1, 6 * 64).remainder(0.61).view(6, 1, 8, 8).numpy()


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float32", "float64"])
def test_images_of_any_type_come_back_as_that_type(small: torch.nn.Module, dtype: str) -> None:
    """Integers are rounded, not cut off; what is reported is that of the images returned."""
    from art.estimators.classification import PyTorchClassifier

    from lft.art import LearnedUniversalPerturbation

    classifier = PyTorchClassifier(
        small, torch.nn.CrossEntropyLoss(), (1, 8, 8), 3,
        clip_values=(0.0, 255.0), preprocessing=(0.0, 255.0),
    )  # fmt: skip
    x = (PIXELS * 255).astype(dtype)
    y = classifier.predict(x.astype("f4")).argmax(1)
    attack = LearnedUniversalPerturbation(classifier, steps=15)
    adversarial = attack.generate(x, y)
    assert adversarial.dtype == dtype
    predicted = classifier.predict(adversarial.astype("f4")).argmax(1)
    assert attack.fooling_rate == (predicted != y).mean()
    exact = np.clip(x.astype("f8") + attack.noise, 0, 255)
    # Half a pixel for integers, and no bias; float16 has a step of 1/8 near 255.
    limit = 0.5 if np.dtype(dtype).kind in "iu" else 0.0625
    assert np.abs(adversarial - exact).max() <= limit + 1e-4
    assert abs((adversarial - exact).mean()) < 0.05


def test_a_range_may_differ_from_pixel_to_pixel(small: torch.nn.Module) -> None:
    from art.estimators.classification import PyTorchClassifier

    from lft.art import LearnedUniversalPerturbation

    def attacked(low: object, high: object) -> np.ndarray:  # type: ignore[type-arg]
        classifier = PyTorchClassifier(
            small, torch.nn.CrossEntropyLoss(), (1, 8, 8), 3, clip_values=(low, high)
        )
        return LearnedUniversalPerturbation(classifier, steps=5).generate(PIXELS)  # type: ignore[no-any-return]

    one = np.ones((1, 8, 8), "f4")
    np.testing.assert_array_equal(attacked(0 * one, one), attacked(0.0, 1.0))
    top = one.copy()
    top[0, :4] = 0.7  # PIXELS stay below 0.61
    assert attacked(0 * one, top)[:, :, :4].max() <= np.float32(0.7)
    assert attacked(0 * one, top)[:, :, 4:].max() > 0.7


def test_what_a_user_of_art_gets_wrong_is_said(small: torch.nn.Module) -> None:
    from art.estimators.classification import PyTorchClassifier

    from lft.art import LearnedUniversalPerturbation
    from lft.errors import UsageError

    def attack(**settings: object) -> LearnedUniversalPerturbation:
        classifier = PyTorchClassifier(small, torch.nn.CrossEntropyLoss(), (1, 8, 8), 3, **settings)
        return LearnedUniversalPerturbation(classifier, steps=1)

    with pytest.raises(UsageError, match="clip_values; set them to the range of x"):
        attack().generate(255 * PIXELS)
    attack(clip_values=(0.0, 255.0)).generate(255 * PIXELS)
    with pytest.raises(UsageError, match="labels outside the classifier's 3 classes"):
        attack().generate(PIXELS, np.full(6, 3))


def test_art_refuses_other_classifiers(victim: LeNet5) -> None:
    from art.estimators.classification import BlackBoxClassifier
    from art.exceptions import EstimatorError

    from lft.art import LearnedUniversalPerturbation

    black_box = BlackBoxClassifier(lambda x: np.eye(3)[[0] * len(x)], (1, 28, 28), 3)
    with pytest.raises(EstimatorError):
        LearnedUniversalPerturbation(black_box)
