"""Places in a result folder that several commands share; see :mod:`lft.records` for all of them."""

from __future__ import annotations

from pathlib import Path


def data_path(results: Path, source: str) -> Path:
    """The array file of an image source."""
    return results / "data" / f"{source}.safetensors"


def victim_path(results: Path, source: str) -> Path:
    """The victim's weights; its accuracy stands in the .json beside it."""
    return results / "victims" / f"{source}.safetensors"
