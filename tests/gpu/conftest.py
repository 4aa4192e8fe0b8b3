"""Every test of this folder that can runs on the CPU; where there is a GPU, there as well.

The variable ``LFT_TEST_DEVICE``, e.g. ``cuda:1``, names another GPU than the first.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from places import GPU, Place, on_gpu
from tiny import tiny_profile

from lft.runtime.device import settings


@pytest.fixture(params=["cpu", on_gpu(GPU)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Set up as jobs set it up."""
    with settings(tiny_profile(device=request.param)):
        yield request.param


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Where a test computes, a parameter of it."""
    with settings(tiny_profile(device=request.param.device)):
        yield request.param
