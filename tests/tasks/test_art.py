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


def test_art_refuses_other_classifiers(victim: LeNet5) -> None:
    from art.estimators.classification import BlackBoxClassifier
    from art.exceptions import EstimatorError

    from lft.art import LearnedUniversalPerturbation

    black_box = BlackBoxClassifier(lambda x: np.eye(3)[[0] * len(x)], (1, 28, 28), 3)
    with pytest.raises(EstimatorError):
        LearnedUniversalPerturbation(black_box)
