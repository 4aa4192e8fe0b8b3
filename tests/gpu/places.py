"""Where numbers are computed, and parameters of tests that need a GPU."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import pytest
import torch

from lft.kernels.build import Kernel

GPU = os.environ.get("LFT_TEST_DEVICE", "cuda:0")


class Place(NamedTuple):
    """Where and how numbers are computed."""

    device: str
    dtype: torch.dtype = torch.float32
    kernel: Kernel = "torch"


_ABSENT = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def on_gpu(*values: Any, id: str | None = None) -> Any:
    """A parameter of a test for which it needs a GPU."""
    return pytest.param(*values, id=id, marks=[pytest.mark.gpu, _ABSENT])


def needs_gpu(test: Any) -> Any:
    """Mark a test that runs on a GPU only."""
    return pytest.mark.gpu(_ABSENT(test))
