"""The native CNN at all sizes, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lft.kernels import cnn
from lft.types import Batch, TaskBatch
from tests.kernels.parity import STEP_SIZE, STEPS, cnn_case

pytestmark = pytest.mark.usefixtures("compiler")


@given(
    channels=st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple),
    inputs=st.integers(1, 5),
    height=st.integers(1, 35),
    width=st.integers(1, 35),
)
def test_any_sizes(channels: tuple[int, ...], inputs: int, height: int, width: int) -> None:
    case = cnn_case((inputs, height, width), channels)
    assume(case.far_from_kinks())
    case.check()


@pytest.mark.parametrize("width", [8, 16, 32])
def test_the_sizes_of_the_profiles(width: int) -> None:
    cnn_case((3, 32, 32), (width,) * 4, outputs=10, n_tasks=3, n=10).check()


@given(
    channels=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    inputs=st.integers(1, 5),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    n=st.integers(1, 5),
)
def test_descent_of_any_size_is_differentiated(
    channels: tuple[int, ...], inputs: int, height: int, width: int, n: int
) -> None:
    case = cnn_case((inputs, height, width), channels, n=n)
    assume(case.far_from_kinks())
    case.check_descent()


def test_descent_at_the_sizes_of_the_profiles() -> None:
    cnn_case((3, 32, 32), (8,) * 4, outputs=10, n_tasks=3, n=10).check_descent()


def test_arguments_that_do_not_fit_are_refused() -> None:
    case = cnn_case((1, 8, 8), (4, 4))
    support = case.tasks.support
    x, y = support
    with pytest.raises(RuntimeError, match="labels must be in"):
        cnn.cross_entropy(case.params, x, y + 3, lambda leaves: torch.zeros(2))
    with pytest.raises(RuntimeError, match="labels must be in"):
        cnn.descend(case.params, TaskBatch(support, Batch(x, y - 1)), STEPS, STEP_SIZE)
    with pytest.raises(RuntimeError, match="labels must be contiguous"):
        cnn.cross_entropy(case.params, x, y[:, 1:], lambda leaves: torch.zeros(2))
    with pytest.raises(RuntimeError, match="images must be"):
        cnn.logits(case.params, x.double())
    with pytest.raises(RuntimeError, match="weight must be"):
        cnn.logits(case.params, x[..., :4])
    with pytest.raises(RuntimeError, match="are needed"):
        cnn.logits(case.params, x[0])
    case.params["bias1"] = torch.zeros(2, 5)
    with pytest.raises(RuntimeError, match="bias must be"):
        cnn.logits(case.params, x)
