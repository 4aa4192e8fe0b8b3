from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from lft.config import Source


@pytest.fixture
def source() -> Callable[..., Source]:
    """Settings of a source, with stand-ins for whatever a test does not care about."""

    def make(kind: str, **settings: Any) -> Source:
        return Source(**{"kind": kind, "name": "x", "label": "x", "shape": (1, 28, 28), **settings})

    return make


@pytest.fixture
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """Inside it, writing beyond that many bytes of a file fails, as on a full disk."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
