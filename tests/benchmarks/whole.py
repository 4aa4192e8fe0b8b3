"""Time the whole of `quick`, on all cores, with and without the native kernels.

    python tests/benchmarks/whole.py

It runs in fresh clones of the last commit, and takes minutes: the machine should be idle.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def seconds(kernel: str) -> float:
    """Wall-clock seconds of the workflow with one setting of `kernel`."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), folder], check=True)
        profile = Path(folder) / f"quick-{kernel}.yaml"
        profile.write_text(f"extends: quick\nkernel: {kernel}\n")
        command = [sys.executable, "-m", "snakemake", "--cores", "all", "--quiet", "all"]
        command += ["--config", f"profile={profile.name}", "--", "all"]
        began = time.perf_counter()
        subprocess.run(command, check=True, cwd=folder, env={**os.environ, "PYTHONPATH": folder})
        return time.perf_counter() - began


if __name__ == "__main__":
    times = {kernel: seconds(kernel) for kernel in ("auto", "torch")}
    for kernel, value in times.items():
        print(f"kernel: {kernel}: {value:.0f} s ({value / times['auto']:.2f}x)")
