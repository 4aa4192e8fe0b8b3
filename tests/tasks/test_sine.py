"""Sine regression."""

from __future__ import annotations

import math

import pytest
import torch

from lft.config import SineFamily
from lft.seeding import generator
from lft.tasks.sine import Sine

FAMILY = Sine(SineFamily(support=5, query=7, amplitude=(0.5, 2), phase=(0, 1), hidden=(4, 3)))


def test_tasks_are_sine_waves_within_the_bounds() -> None:
    tasks = FAMILY.sample(200, generator("tasks"))
    assert tasks.support.x.shape == tasks.support.y.shape == (200, 5, 1)
    assert tasks.query.x.shape == tasks.query.y.shape == (200, 7, 1)
    x = torch.cat([tasks.support.x, tasks.query.x], 1)[..., 0].double()
    y = torch.cat([tasks.support.y, tasks.query.y], 1)[..., 0].double()
    assert x.abs().max() <= 5
    assert x.min() < -4.9
    assert x.max() > 4.9
    # y = a cos b · sin x + a sin b · cos x is linear in two unknowns, shared by both sets.
    basis = torch.stack([x.sin(), x.cos()], dim=2)
    solution = torch.linalg.lstsq(basis, y[..., None]).solution[..., 0]
    amplitude = solution.norm(dim=1)
    phase = torch.atan2(solution[:, 1], solution[:, 0])
    # float32 data, and 12 points that rarely leave the fit ill-conditioned.
    torch.testing.assert_close((basis @ solution[..., None])[..., 0], y, rtol=0.0, atol=1e-5)
    for fitted, low, high in ((amplitude, 0.5, 2), (phase, 0, 1)):
        assert fitted.min() > low - 1e-4
        assert fitted.max() < high + 1e-4
        assert fitted.max() - fitted.min() > 0.9 * (high - low)


def test_loss_and_metric_are_the_mean_squared_error() -> None:
    batch = FAMILY.sample(3, generator("tasks")).query
    params = FAMILY.init(3, generator("start"))
    loss = FAMILY.loss(params, batch)
    assert torch.equal(FAMILY.metrics(params, batch)["mse"], loss)
    for task in range(3):
        hidden = batch.x[task]
        for layer in range(3):
            hidden = hidden @ params[f"w{layer}"][task] + params[f"b{layer}"][task]
            hidden = hidden.relu() if layer < 2 else hidden
        by_hand = sum(
            (float(p) - float(y)) ** 2 for p, y in zip(hidden, batch.y[task], strict=True)
        )
        # float32: seven squares.
        assert float(loss[task]) == pytest.approx(by_hand / 7, rel=1e-5)


def test_default_phase_goes_up_to_pi() -> None:
    assert SineFamily(support=1, query=1).phase == (0, math.pi)
