"""Named randomness: any draw can be repeated alone, in any order, on any machine."""

from __future__ import annotations

import hashlib
from numbers import Integral
from typing import TYPE_CHECKING

from lft.errors import UsageError

if TYPE_CHECKING:
    from torch import Generator


def seed_from(*parts: str | int) -> int:
    """Return a 63-bit seed that depends on every part and on their order."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: str | int) -> Generator:
    """Return a CPU generator seeded from named parts; every device gets the same numbers."""
    import torch

    return torch.Generator("cpu").manual_seed(seed_from(*parts))


def check_seed(seed: object) -> None:
    """Check a seed that a user gives.

    Raises:
        UsageError: the seed is not a whole number.
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise UsageError(f"seed is {' '.join(repr(seed).split()):.60}; it must be a whole number")
