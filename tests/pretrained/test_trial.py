"""What cards and documents say of shipped fine-tuners as optimizers: measured again, in part."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import lft
from lft.pretrained import available, trial

QUICK = ("digits, MLP", "wine, MLP", "breast cancer, MLP")


@pytest.mark.parametrize("name", available())
def test_the_default_step_size_reduces_the_loss_and_gives_the_accuracy_of_the_card(
    name: str,
) -> None:
    tuner = lft.load(name)
    assert set(tuner.card.compared) == set(trial.PROBLEMS)
    for problem in QUICK:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Adam is better
            outcomes = [
                trial.train(trial.PROBLEMS[problem], tuner.optimizer, seed) for seed in trial.SEEDS
            ]
        assert all(outcome.last < outcome.first for outcome in outcomes)
        test = sum(outcome.test for outcome in outcomes) / len(outcomes)
        # Means of three times 35 to 359 examples; another processor's rounding moves a few.
        assert test == pytest.approx(tuner.card.compared[problem][tuner.card.method], abs=0.03)


def test_adams_accuracy_is_that_of_the_cards() -> None:
    for problem in QUICK:
        outcomes = [
            trial.train(trial.PROBLEMS[problem], torch.optim.Adam, seed) for seed in trial.SEEDS
        ]
        test = sum(outcome.test for outcome in outcomes) / len(outcomes)
        for name in available():
            assert test == pytest.approx(lft.load(name).card.compared[problem]["adam"], abs=0.03)


def test_the_docstring_holds_the_table_of_the_cards() -> None:
    text = lft.pretrained.Pretrained.optimizer.__doc__
    assert text is not None
    for problem in trial.PROBLEMS:
        rows = [lft.load(name).card.compared[problem] for name in available()]
        cells = [problem, *(f"{row['lft']:.3f}" for row in rows), f"{rows[0]['adam']:.3f}"]
        assert " ".join(cells) in " ".join(text.split()), cells
    sizes = [f"{lft.load(name).card.step_size:g}" for name in available()]
    assert f"step size {' '.join(sizes)}" in " ".join(text.split())


def test_a_division_shares_no_example() -> None:
    for problem in QUICK:
        parts = trial.PROBLEMS[problem].data()
        rows = torch.cat([part.x.flatten(1) for part in parts])
        labels = torch.cat([part.y for part in parts])
        assert len(rows) == len(labels) == sum(len(part.y) for part in parts)
        if "digits" in problem:  # no two of them are equal
            assert len(rows.unique(dim=0)) == len(rows)


def test_tables_are_standardised_without_a_look_at_the_test_examples() -> None:
    """float32 rounds means of some hundred numbers by 1e-6 of columns that vary by a third."""
    for problem in ("wine, MLP", "breast cancer, MLP"):
        training, *others = (split.x for split in trial.PROBLEMS[problem].data())
        one = torch.ones(training.shape[1])
        torch.testing.assert_close(training.mean(0), 0 * one, atol=1e-4, rtol=0)
        torch.testing.assert_close(training.std(0), one, atol=1e-4, rtol=0)
        assert all((split.mean(0).abs() > 1e-3).any() for split in others)


def test_the_best_step_size_that_reduces_every_loss_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By validation accuracy, which the largest rate here would win with a loss that grows."""
    outcomes = {3.0: (1, 2, 0.9), 1.0: (2, 1, 0.7), 0.1: (2, 1, 0.8), 0.01: (2, 1, 0.6)}

    def train(problem: object, make: trial.Make, seed: int) -> trial.Outcome:
        lr = make([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"]
        return trial.Outcome(*outcomes.get(lr, (1, 1, 0.95)), test=lr)

    monkeypatch.setattr(trial, "train", train)
    card = trial.tried(lft.load("lft-mnist+cifar10")).card
    assert card.step_size == 0.1
    assert card.compared["wine, MLP"] == {"lft": 0.1, "adam": 0.001}
