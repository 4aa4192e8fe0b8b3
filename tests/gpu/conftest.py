"""Every test of this folder that can runs on the CPU; where there is a GPU, there as well.

The variable ``LFT_TEST_DEVICE``, e.g. ``cuda:1``, names another GPU than the first.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from places import GPU, on_gpu
from tiny import tiny_profile

from lft.runtime.device import use_device


@pytest.fixture(params=["cpu", on_gpu(GPU)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """A device, set up as jobs set it up."""
    threads = torch.get_num_threads()
    use_device(tiny_profile(device=request.param))
    yield request.param
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
