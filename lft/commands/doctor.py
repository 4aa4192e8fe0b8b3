"""Check the machine and the installation; the output is plain text for a bug report."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from platformdirs import user_cache_path

from lft.config import Run, load_profile
from lft.errors import UsageError
from lft.kernels import build
from lft.kernels.build import Kernel
from lft.meta.estimators import meta_gradient
from lft.meta.learner import Learner
from lft.paths import PACKAGE, shipped
from lft.seeding import generator
from lft.tasks.build import Context, Families
from lft.types import Params

MEMORY_GB = 4.0
"""Gigabytes: most memory that a rule of the workflow requests for its first attempt."""
DISK_GB = 2.0
"""Gigabytes that a run may write."""
SNAKEMAKE = 9
"""Oldest supported major version."""
DEVIATION = 1e-4
"""Largest accepted difference between kernels and PyTorch, relative to the largest entry of the
meta-gradient. Both compute in float32 (2**-24), in another order, over a few hundred operations."""
RUN = Run("sine", "sine", "lft", "first", 0)
"""Run of profile smoke that the self-test uses; it needs no images."""

MEMINFO = Path("/proc/meminfo")
"""File in which Linux says how much memory is free."""

State = Literal["ok", "note", "BROKEN"]


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        name: what was checked.
        text: the finding.
        todo: what to do about it; empty if all is well.
        state: ``note`` for something that works, but slower or with less.
    """

    name: str
    text: str
    todo: str = ""
    state: State = "ok"

    def __str__(self) -> str:
        return f"{self.state:<7}{self.name:<12}{self.text}" + f"; {self.todo}" * bool(self.todo)


def examine() -> Iterator[Finding]:
    """Yield all findings, one by one; the self-test may compile kernels for a minute."""
    yield Finding("lft", f"{_version('lft')} in {PACKAGE}")
    yield Finding("Python", f"{platform.python_version()} in {sys.executable}")
    yield Finding("system", platform.platform())
    yield _torch()
    yield _compiler()
    yield kernels()
    yield _cores()
    yield memory(_total_gb(), _free_gb())
    yield disk(shutil.disk_usage(Path.cwd()).free / 1e9)
    yield cache(user_cache_path("lft"))
    yield _gpu()
    yield snakemake(_version("snakemake"))
    yield report({name: _version(name) for name in ("pandas", "matplotlib", "jinja2")})
    yield _workflow()


def kernels(measure: Callable[[], float] | None = None) -> Finding:
    """Check that the native kernels are available and agree with plain PyTorch.

    Args:
        measure: the self-test; :func:`deviation` by default.
    """
    try:
        build.chosen("fused", torch.device("cpu"), torch.float32)
    except UsageError as error:
        todo = "without the kernels jobs take several times as long"
        return Finding("kernels", f"plain PyTorch: {error}", todo, "note")
    found = (measure or deviation)()
    text = f"native, meta-gradient differs from plain PyTorch by {found:.1g} of its largest part"
    if found < DEVIATION:
        return Finding("kernels", text)
    folder = user_cache_path("lft")
    todo = f"delete {folder} to compile them again, set kernel: torch until then, and report this"
    return Finding("kernels", text, todo, "BROKEN")


def deviation() -> float:
    """Compare a meta-gradient of LFT with native kernels to that of PyTorch.

    Returns:
        The largest difference, relative to the largest entry. It covers the LSTM, the MLP and their
        derivatives.
    """
    native, plain = _gradient("fused"), _gradient("torch")
    differences = torch.stack([(native[name] - leaf).abs().max() for name, leaf in plain.items()])
    largest = torch.stack([leaf.abs().max() for leaf in plain.values()])
    return float(differences.max() / largest.max())


def _gradient(kernel: Kernel) -> Params:
    profile = load_profile(Path("smoke")).model_copy(update={"kernel": kernel})
    learner = Learner.of(profile, RUN)
    families = Families(Context(profile, Path(), torch.device("cpu")))
    family = families.of(learner.experiment, ["sine"], RUN.seed)["sine"]
    random = generator("doctor")
    meta = learner.initial(family, random)
    tasks = family.sample(2, random, "train")
    return meta_gradient(learner, meta, family, tasks, None, random).grads


def memory(total: float, free: float | None) -> Finding:
    """Check the memory.

    Args:
        total: gigabytes.
        free: gigabytes; None if the system does not say.
    """
    if free is None:
        text, free = f"{total:.1f} GB", total
    else:
        text = f"{total:.1f} GB, {free:.1f} GB free"
    if free >= MEMORY_GB:
        return Finding("memory", text)
    todo = f"a job may take {MEMORY_GB:.0f} GB: close other programs, or use --cores 1"
    return Finding("memory", text, todo, "note")


def disk(free: float) -> Finding:
    """Check the free gigabytes of the current folder."""
    text = f"{free:.1f} GB free in {Path.cwd()}"
    if free >= DISK_GB:
        return Finding("disk", text)
    return Finding("disk", text, f"make room: a run may write {DISK_GB:.0f} GB", "note")


def cache(folder: Path) -> Finding:
    """Check the folder for compiled kernels and downloads."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if os.access(there, os.W_OK):
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return Finding("cache", f"{size / 1e6:.0f} MB in {folder}")
    todo = "name a folder that can be written in the variable XDG_CACHE_HOME"
    return Finding("cache", f"{folder} cannot be written", todo, "note")


def snakemake(found: str) -> Finding:
    """Check Snakemake's version; an empty one means that it is not installed."""
    install = "pip install 'lft[workflow]'"
    if not found:
        return Finding("Snakemake", "not installed", install, "BROKEN")
    if int(found.partition(".")[0]) < SNAKEMAKE:
        return Finding("Snakemake", f"{found} is older than {SNAKEMAKE}", install, "BROKEN")
    return Finding("Snakemake", found)


def report(versions: dict[str, str]) -> Finding:
    """Check the versions of the report's packages; an empty one means that it is not installed."""
    absent = [name for name, found in versions.items() if not found]
    if absent:
        text = f"{', '.join(absent)} not installed"
        return Finding("report", text, "pip install 'lft[report]'", "BROKEN")
    return Finding("report", ", ".join(f"{name} {found}" for name, found in versions.items()))


def _torch() -> Finding:
    capability = torch.backends.cpu.get_cpu_capability()
    text = f"{torch.__version__}, NumPy {_version('numpy')}, instruction set {capability}"
    if capability.startswith("AVX"):
        return Finding("PyTorch", text)
    return Finding("PyTorch", text, "the kernels cannot use AVX here; jobs take longer", "note")


def _compiler() -> Finding:
    words = shlex.split(os.environ.get("CXX", "c++")) or ["c++"]
    install = "install g++ 11 or newer, or name a compiler in the variable CXX"
    try:
        done = subprocess.run(
            [*words, "--version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return Finding("compiler", f"{words[0]} does not run", install, "note")
    return Finding("compiler", (done.stdout.splitlines() or ["says nothing"])[0])


def _cores() -> Finding:
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}"
    return Finding("cores", f"{own} of {os.cpu_count()} for this program{load}")


def _total_gb() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def _free_gb() -> float | None:
    """Read the memory that programs can still get; None where Linux's file is missing."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    found = (int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("MemAvail"))
    return next(found, None)


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        return Finding("GPU", "none that PyTorch can use; profiles run with device: cpu")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("GPU", ", ".join(names))


def _workflow() -> Finding:
    path = shipped("workflow", "Snakefile")
    if path.is_file():
        return Finding("workflow", str(path))
    return Finding("workflow", f"{path} is missing", "install lft again", "BROKEN")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
