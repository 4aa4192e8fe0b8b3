"""What a job depends on: all that Python itself would load, and nothing that it could not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from modulefinder import ModuleFinder
from pathlib import Path

import pytest

from lft.paths import PACKAGE
from lft.results.sources import Sources

JOBS = {
    "data": {"lft.data"},
    "victim": {"lft.tasks.build"},
    "train": {"lft.meta.train"},
    "evaluate": {"lft.meta.evaluate"},
    "theory": {"lft.theory"},
    "search": {"lft.results.search"},
    "aggregate": {"lft.results.aggregate"},
    "tables": {"lft.report.tables", "lft.report.claims", "lft.report.alternatives"},
    "figures": {"lft.report.figures"},
    "page": {"lft.report.page"},
}
"""The modules that do each job."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, to be changed."""
    ignored = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(PACKAGE, tmp_path_factory.mktemp("copy") / "lft", ignore=ignored)


def python_files(files: frozenset[Path]) -> set[Path]:
    return {path.relative_to(PACKAGE) for path in files if path.suffix == ".py"}


IMPORTER = """
import importlib, json, os, sys
import matplotlib.pyplot, pandas, scipy.stats, torch  # once, and not again for every job
for job, modules in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        for module in modules:
            importlib.import_module(module)
        files = [m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "lft"]
        print(json.dumps([job, files]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[Path]]:
    """The package's files that an interpreter runs when it imports the modules of each job."""
    asked = json.dumps({job: sorted(modules) for job, modules in JOBS.items()})
    command = [sys.executable, "-c", IMPORTER, asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answers = map(json.loads, done.stdout.splitlines())
    return {job: {Path(file).relative_to(PACKAGE) for file in files} for job, files in answers}


def reachable(modules: set[str]) -> set[Path]:
    """The package's files that the standard library's finder finds, in any function, even for
    types alone."""
    finder = ModuleFinder(path=[str(PACKAGE.parent)])
    for module in modules:
        finder.import_hook(module)
        for name in [name for name in finder.modules if name.startswith(f"{module}.")]:
            finder.import_hook(name)
    files = {module.__file__ for name, module in finder.modules.items() if name[:3] == "lft"}
    return {Path(file).relative_to(PACKAGE) for file in files if file}


@pytest.mark.parametrize(("job", "modules"), JOBS.items())
def test_it_is_what_python_loads_and_no_more_than_python_could(
    job: str, modules: set[str], loaded: dict[str, set[Path]]
) -> None:
    found = python_files(Sources().files(job))
    assert loaded[job] <= found <= reachable(modules | {"lft.config"})
    assert not found & {Path("cli.py"), Path("commands/jobs.py"), Path("commands/options.py")}


def test_the_list_that_was_kept_by_hand_missed_these() -> None:
    sources = Sources()
    expected = {
        "train": ["kernels/csrc/operators.h", "kernels/csrc/lstm.cpp", "storage/tensors.py",
                  "config/profile.py", "plugins.py", "meta/estimators/exact.py"],
        "victim": ["seeding.py", "runtime/device.py", "data/images.py", "kernels/csrc/lenet.cpp"],
        "theory": ["theory/__init__.py", "theory/theorem1.py", "meta/estimators/exact.py"],
    }  # fmt: skip
    for job, names in expected.items():
        assert {PACKAGE / name for name in names} <= sources.files(job)
    assert PACKAGE / "report/page.py" not in sources.files("train")
    assert PACKAGE / "meta/train.py" not in sources.files("evaluate")
    assert PACKAGE / "meta/adapt.py" not in sources.files("page")


def test_an_edit_of_any_file_changes_the_digests_of_the_jobs_that_import_it(copy: Path) -> None:
    """One file of each type and set of jobs."""
    sources = Sources(copy)
    before = {job: sources.digest(job) for job in JOBS}
    files = {job: sources.files(job) for job in JOBS}
    kinds: dict[tuple[str, frozenset[str]], Path] = {}
    for path in sorted(path for path in copy.rglob("*") if path.is_file()):
        importers = frozenset(job for job in JOBS if path in files[job])
        kinds.setdefault((path.suffix, importers), path)
    assert len(kinds) > 10
    for (_, importers), path in kinds.items():
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        changed = {job for job in JOBS if sources.digest(job) != before[job]}
        path.write_bytes(content)
        assert changed == importers, path


def package(folder: Path, **files: str) -> Sources:
    """A package ``p`` whose command ``job`` imports ``p.entry``; ``a__b`` is the file a/b.py."""
    jobs = "def job():\n    from p import entry\n"
    texts = {"__init__": "", "commands____init__": "", "commands__jobs": jobs, **files}
    for name, text in texts.items():
        init = name.endswith("__init__")
        place = name.removesuffix("__init__").replace("__", "/") + ("__init__" if init else "")
        path = folder / "p" / f"{place}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Sources(folder / "p")


@pytest.mark.parametrize(
    "text",
    [
        "import p.used",
        "import p.used as other",
        "from p import used",
        "from p.used import X",
        "from . import used",
        "from .used import X",
        "def f():\n    from p.used import X",
        "class C:\n    def f(self):\n        import p.used",
        "try:\n    import p.used\nexcept ImportError:\n    pass",
        "if X:\n    pass\nelse:\n    import p.used",
        "REFERENCE = 'p.used:X'",
        "from p import between",
    ],
)
def test_every_way_to_import_counts(text: str, tmp_path: Path) -> None:
    sources = package(tmp_path, entry=text, used="X = 1", between="from p.used import X", unused="")
    found = {path.name for path in sources.files("job")}
    assert {"entry.py", "used.py", "__init__.py"} <= found
    assert "unused.py" not in found


@pytest.mark.parametrize(
    "text",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p import used",
        "'''Text about p.used: it is not imported.'''",
        "import pused",
    ],
)
def test_what_is_only_named_does_not_count(text: str, tmp_path: Path) -> None:
    sources = package(tmp_path, entry=text, used="")
    assert "used.py" not in {path.name for path in sources.files("job")}


def test_what_settings_build_counts_for_jobs_that_build(tmp_path: Path) -> None:
    """And an edit of a kernel does not prepare images again."""
    files = {
        "config____init__": "",
        "config__families": "def build():\n    from p.tasks.sine import Sine",
        "tasks____init__": "",
        "tasks__sine": "",
        "tasks__base": "",
    }
    reader = package(tmp_path / "a", entry="import p.config.families", **files)
    assert "sine.py" not in {path.name for path in reader.files("job")}
    builder = package(
        tmp_path / "b", entry="import p.config.families\nimport p.tasks.base", **files
    )
    assert "sine.py" in {path.name for path in builder.files("job")}
    assert not {PACKAGE / "kernels/build.py", PACKAGE / "tasks/sine.py"} & Sources().files("data")


def test_files_of_plug_ins_and_what_they_import_count(tmp_path: Path) -> None:
    sources = package(tmp_path, entry="", used="", unused="")
    plug_in = tmp_path / "mine.py"
    plug_in.write_text("from p import used\n")
    found = {path.name for path in sources.files("job", [plug_in])}
    assert {"mine.py", "used.py"} <= found
    before = sources.digest("job", [plug_in])
    plug_in.write_text("from p import used\nX = 2\n")
    assert Sources(tmp_path / "p").digest("job", [plug_in]) != before


def test_a_command_that_does_nothing_is_an_error(tmp_path: Path) -> None:
    sources = package(tmp_path, entry="")
    with pytest.raises(LookupError, match="has no command 'jobs'"):
        sources.files("jobs")
