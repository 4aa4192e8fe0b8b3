"""Settings of the whole test suite."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import hypothesis
import pytest
import torch

# The same examples in every run; no deadline, since continuous integration shares its cores.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.load_profile("suite")


@pytest.fixture
def float64() -> Iterator[None]:
    """Everything that is drawn or made during the test is float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files cannot grow beyond 4 kB: writing fails as on a full disk, with another errno."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
