"""The native MLP at all sizes, and what it refuses."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lft.kernels import mlp
from lft.types import TaskBatch
from tests.kernels.parity import STEP_SIZE, STEPS, mlp_case

pytestmark = pytest.mark.usefixtures("compiler")

MeanLoss = Literal["squared error", "cross-entropy"]


@given(
    widths=st.lists(st.integers(1, 70), min_size=2, max_size=5).map(tuple),
    n=st.integers(1, 25),
    loss=st.sampled_from(["squared error", "cross-entropy"]),
)
def test_any_sizes(widths: tuple[int, ...], n: int, loss: MeanLoss) -> None:
    case = mlp_case(widths, loss, n=n)
    assume(case.far_from_kinks())
    case.check()


@pytest.mark.parametrize("n", [1, 5, 13])
@pytest.mark.parametrize("loss", ["squared error", "cross-entropy"])
@pytest.mark.parametrize("widths", [(3, 2), (5, 7, 3), (1, 40, 40, 1), (2, 17, 33, 20, 6)])
def test_descent_is_differentiated(widths: tuple[int, ...], loss: MeanLoss, n: int) -> None:
    mlp_case(widths, loss, n_tasks=3, n=n).check_descent()


def test_the_sizes_of_the_profiles() -> None:
    for case in (
        mlp_case((1, 40, 40, 1), n=10),
        mlp_case((784, 20, 20, 10), "cross-entropy", n=10),
    ):
        case.check()
        case.check_descent()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.full((2, 4), 2)}, r"labels must be in \[0, 2\)"),
        ({"y": torch.zeros(2, 3, dtype=torch.long)}, "labels must be"),
        ({"y": torch.zeros(2, 4, 3)}, "targets must be"),
        ({"x": torch.zeros(2, 4, 5)}, "weight must be"),
        ({"x": torch.zeros(2, 0, 3)}, "inputs .* are needed"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    case = mlp_case((3, 4, 2), "cross-entropy")
    batch = case.tasks.support._replace(**change)
    with pytest.raises(RuntimeError, match=message):
        mlp.loss(case.params, *batch, lambda leaves: torch.zeros(2))
    with pytest.raises(RuntimeError, match=message):
        mlp.descend(case.params, TaskBatch(batch, batch), STEPS, STEP_SIZE)
