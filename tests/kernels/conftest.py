"""What the tests of all kernels need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lft.kernels import build as native


@pytest.fixture
def compiler() -> None:
    """Skips where the kernels cannot be had."""
    if not native.available(torch.device("cpu"), torch.float32):
        pytest.skip("no compiler")


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts the number of torch's threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
