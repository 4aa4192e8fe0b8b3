"""Settings of the whole test suite."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import hypothesis
import pytest
import torch

from lft import plugins
from lft.config import FAMILIES, FINETUNERS
from lft.methods import METHODS
from lft.metrics import METRICS
from lft.tasks.base import TaskFamily

# The same examples in every run; no deadline, since continuous integration shares its cores.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("suite")


TESTS = Path(__file__).parent
MARKERS = {
    "cluster": "workflow", "workflow": "workflow", "kernels": "kernels", "gpu": "kernels",
    "docs": "docs",
}  # fmt: skip
"""The marker of each folder's tests, where it has one; gpu/places.py marks those for a GPU."""
SLOW = (
    "report", "meta/test_train.py", "meta/test_evaluate.py", "meta/test_universe.py",
    "pretrained/test_trial.py", "results/test_digests.py", "results/test_kept.py",
    "runtime/test_device.py", "theory/test_statement1.py",
)  # fmt: skip
"""Folders and files whose tests train, simulate or build tables for ten seconds or more."""
REPORTS = {"rebuilt", "write_report"}
"""Fixtures that make a whole report."""
LONG = ("workflow", "report", "docs", "gpu", "kernels")
"""Folders whose files take longest."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by folder and by what they build; long files come first, so that no process
    idles at the end."""

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(TESTS).parts[0]
        return LONG.index(folder) if folder in LONG else len(LONG)

    for item in items:
        path = item.path.relative_to(TESTS)
        folder = path.parts[0]
        if folder in MARKERS:
            item.add_marker(MARKERS[folder])
        if folder in SLOW or path.as_posix() in SLOW:
            item.add_marker("slow")
        if REPORTS & {*getattr(item, "fixturenames", ())}:
            item.add_marker("docs")
    items.sort(key=rank)


@pytest.fixture(autouse=True)
def denormal_numbers() -> None:
    """Jobs flush them to zero for the rest of their process; hypothesis needs them."""
    torch.set_flush_denormal(False)


@pytest.fixture
def registry() -> Iterator[None]:
    """What a test registers is forgotten afterwards."""
    tables = METHODS, METRICS, FAMILIES, FINETUNERS, plugins._places
    before = [dict(table) for table in tables]
    yield
    for name in set(plugins._places) - set(before[-1]):
        sys.modules.pop(name, None)  # libraries stay: numpy cannot be imported twice
    for table, content in zip(tables, before, strict=True):
        for name in set(table) - set(content):
            del table[name]


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What task families and the test itself draw is float64."""
    monkeypatch.setattr(TaskFamily, "dtype", torch.float64)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """Inside it, writing beyond that many bytes of a file fails, as on a full disk.

    A block, not a whole test: the limit would hold for the file that pytest reports to as well.
    """

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
