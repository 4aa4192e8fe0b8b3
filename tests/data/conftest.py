from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lft.config import Source


@pytest.fixture
def source() -> Callable[..., Source]:
    """Settings of a source, with stand-ins for whatever a test does not care about."""

    def make(kind: str, **settings: Any) -> Source:
        return Source(**{"kind": kind, "name": "x", "label": "x", "shape": (1, 28, 28), **settings})

    return make
