"""Settings of a task family. This file does not import torch, to stay light."""

from __future__ import annotations

from typing import Literal

from lft.config import FamilySettings, Positive


class ExampleNameSettings(FamilySettings):
    """Linear regression y = w · x from a few points, with w that differs from task to task."""

    tasks = f"{__name__}.tasks:ExampleName"
    primary = "mse"
    kind: Literal["example-name"] = "example-name"
    support: Positive  # points
    query: Positive  # points
    dimension: Positive = 5  # coordinates of x

    def optimizee(self, image: tuple[int, int, int] | None) -> str:
        """Families can share a meta-learned initialisation iff this text is the same."""
        return f"a vector of {self.dimension}"
