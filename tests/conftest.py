"""Settings of the whole test suite."""

from __future__ import annotations

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
