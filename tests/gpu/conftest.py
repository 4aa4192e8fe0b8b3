"""Every test of this folder that can runs on the CPU; where there is a GPU, there as well.

The variable ``LFT_TEST_DEVICE``, e.g. ``cuda:1``, names another GPU than the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from places import GPU, Place, on_gpu
from tiny import tiny_profile

from lft.runtime.device import use_device


@contextmanager
def set_up(device: str) -> Iterator[None]:
    """As jobs set a device up, without TF32 and repeatable."""
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    use_device(tiny_profile(device=device))
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = tf32


@pytest.fixture(params=["cpu", on_gpu(GPU)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    with set_up(request.param):
        yield request.param


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Where a test computes, a parameter of it."""
    with set_up(request.param.device):
        yield request.param
