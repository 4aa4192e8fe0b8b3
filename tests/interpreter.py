"""A fresh interpreter, in which nothing is registered and nothing stays so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def python(*arguments: str, cwd: Path, **environment: str) -> str:
    """Its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def install(folder: Path, name: str, **groups: str) -> str:
    """Make a template's package look installed; returns the PYTHONPATH for that."""
    metadata = folder / "site" / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    points = [f"[lft.{group}]\n{name} = {reference}\n" for group, reference in groups.items()]
    (metadata / "entry_points.txt").write_text("".join(points))
    places = [folder / "site", folder / name, os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(map(str, places))
