"""w_k of eq. 4 in segments, and capped losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lft.meta.estimators.base import capped, norm, segment_weights, slope, step_weights


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("uniform", [1 / 4, 1 / 4, 1 / 4, 1 / 4]),
        ("linear", [1 / 10, 2 / 10, 3 / 10, 4 / 10]),
        ("final", [0, 0, 0, 1]),
    ],
)
def test_step_weights(kind: Any, expected: list[float]) -> None:
    assert step_weights(kind, 4) == expected
    assert step_weights(kind, 1) == [1]


@pytest.mark.parametrize("length", [1, 2, 5, 10])
@pytest.mark.parametrize("kind", ["uniform", "linear", "final"])
def test_the_mean_over_segments_is_the_sum_over_the_trajectory(kind: Any, length: int) -> None:
    losses = torch.arange(1.0, 11.0).square().tolist()
    whole = sum(w * f for w, f in zip(step_weights(kind, 10), losses, strict=True))
    segments = [
        sum(
            w * f
            for w, f in zip(
                segment_weights(kind, 10, begin, length),
                losses[begin : begin + length],
                strict=True,
            )
        )
        for begin in range(0, 10, length)
    ]
    # float64, a few additions.
    assert sum(segments) / len(segments) == pytest.approx(whole, rel=1e-14)


def test_capped_losses_are_smooth_and_grow_like_a_logarithm() -> None:
    losses = torch.tensor([0.0, 4.9, 5.0, 5.1, 50.0, 1e30], dtype=torch.float64)
    losses.requires_grad_()
    values = capped(losses, 5.0)
    assert values[:3].tolist() == losses[:3].tolist()
    # 5 (1 + log 10) and 5 (1 + log 2e29), with the logarithms from a table: 2.302585, 67.468….
    assert values[4].item() == pytest.approx(5 * 3.302585, rel=1e-6)
    assert values[5].item() == pytest.approx(5 * (1 + 29 * 2.302585 + 0.693147), rel=1e-6)
    (found,) = torch.autograd.grad(values.sum(), losses)
    torch.testing.assert_close(found, slope(losses.detach(), 5.0))
    assert slope(losses.detach(), 5.0)[:3].tolist() == [1, 1, 1]


def test_a_loss_that_is_no_number_counts_as_the_largest() -> None:
    values = capped(torch.tensor([float("nan"), float("inf"), 3e38]), 5.0)
    assert values.isfinite().all()
    # log of the largest float32 is 88.7; the third loss is 1.13 times smaller.
    assert values.tolist() == pytest.approx([5 * (1 + 88.72 - 1.609)] * 3, rel=2e-3)
    assert slope(torch.tensor([float("inf")]), 5.0).tolist() == [0]


def test_without_a_cap_losses_stay_as_they_are() -> None:
    losses = torch.tensor([1.0, float("inf")])
    assert capped(losses, None) is losses
    assert slope(losses, None).tolist() == [1, 1]


def test_norm_is_that_of_all_leaves_together() -> None:
    assert norm({"a": torch.tensor([3.0]), "b": torch.tensor([[0.0, 4.0]])}) == 5
