"""A copy of the checkout to run the workflow in, as a user does."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SNAKEMAKE = Path(sys.executable).parent / "snakemake"


def copy_checkout(target: Path) -> Path:
    """What the workflow reads of a checkout."""
    for name in ("lft", "workflow", "report_templates"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, target / name, ignore=ignored)
    return target


def edit(checkout: Path, old: str, new: str) -> None:
    """Change the smoke profile of a copy."""
    path = checkout / "workflow/config/smoke.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
