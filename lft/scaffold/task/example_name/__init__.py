"""Settings of a task family. This file does not import torch, so that it loads fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lft.config import FamilySettings, Positive, Source
from lft.metrics import MSE, Metric
from lft.shapes import Shapes

if TYPE_CHECKING:
    from lft.tasks.base import TaskFamily
    from lft.tasks.build import Context

WORST = Metric("worst_error", "largest error", "largest error of a query point", decimals=2)


class ExampleNameSettings(FamilySettings):
    """Linear regression y = w · x from a few points; w differs from task to task."""

    metrics = (MSE, WORST)
    kind: Literal["example-name"] = "example-name"
    support: Positive  #: points
    query: Positive  #: points
    dimension: Positive = 5  #: coordinates of x

    def shapes(self, source: Source | None) -> Shapes:
        """Return the parameters' shapes; families with equal shapes can share an initialisation."""
        return {"w": (self.dimension,)}

    def build(self, context: Context) -> TaskFamily:
        """Build the family."""
        from .tasks import ExampleName

        return ExampleName(self, context.device)
