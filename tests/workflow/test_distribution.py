"""The source distribution and the wheel, used from an empty folder without the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest
import yaml
from checkout import ROOT

from lft.paths import CHECKOUT


def run(*command: object, cwd: Path) -> str:
    """Standard output of a command that must succeed, run without a path to the checkout."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the unpacked source distribution, so that both are complete."""
    folder = tmp_path_factory.mktemp("build")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    unpacked = next(path for path in folder.iterdir() if path.is_dir())
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=unpacked)
    shutil.rmtree(unpacked)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts of an environment with the wheel; the dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    scripts = folder / "bin"
    run(sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet",
        "--no-deps", "--no-index", wheel, cwd=folder)  # fmt: skip
    packages = sysconfig.get_path("purelib", vars={"base": folder, "platbase": folder})
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return scripts


def test_the_checkout_is_not_used(installed: Path, tmp_path: Path) -> None:
    assert CHECKOUT == ROOT
    code = "import lft.paths; print(lft.paths.CHECKOUT, lft.paths.PACKAGE)"
    checkout, package = run(installed / "python", "-c", code, cwd=tmp_path).split()
    assert checkout == "None"
    assert package.startswith(str(installed.parent))


def test_what_stands_at_the_top_level_is_carried(installed: Path, tmp_path: Path) -> None:
    code = "import lft.paths; print(lft.paths.shipped())"
    share = Path(run(installed / "python", "-c", code, cwd=tmp_path).strip())
    for name in ("report_templates", "workflow"):
        for path in (ROOT / name).rglob("*.*"):
            assert (share / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


def test_shipped_fine_tuners_are_carried(installed: Path, tmp_path: Path) -> None:
    names = run(installed / "lft", "card", cwd=tmp_path).split()
    assert names == [path.stem for path in sorted((ROOT / "lft/pretrained").glob("*.safetensors"))]
    card = yaml.safe_load(run(installed / "lft", "card", names[0], cwd=tmp_path))
    assert card["name"] == names[0]


def test_commands_work_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    run(installed / "lft", "data", "mnist", "--profile", "smoke", cwd=tmp_path)
    for command in (("train", "sine", "sine", "lft"), ("evaluate", "sine", "sine", "lft")):
        run(installed / "lft", *command, "--profile", "smoke", cwd=tmp_path)
    page = run(installed / "lft", "report", "--profile", "smoke", cwd=tmp_path).splitlines()[-1]
    assert page == "results/smoke/report.html"
    assert "Smoke test" in (tmp_path / page).read_text()
    assert (tmp_path / "results/smoke/tables/table-sine.csv").is_file()
    manifest = (tmp_path / "results/smoke/runs/sine/sine/lft-first/seed0/run.json").read_text()
    assert yaml.safe_load(manifest)["commit"] is None


def test_the_workflow_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    run(installed / "lft", "new", "method", "momentum", cwd=tmp_path)
    snakefile = run(installed / "lft", "workflow", cwd=tmp_path).strip()
    assert snakefile.startswith(str(installed.parent))
    snakemake = (installed / "python", "-m", "snakemake", "--snakefile", snakefile, "--cores", 1)
    plan = run(*snakemake, "-n", "reproduce", "--config", "profile=smoke", cwd=tmp_path)
    assert "lft/share/workflow/reference/paper.csv" in plan
    table = "results/momentum/claims.csv"
    run(*snakemake, table, "--config", "profile=momentum/profile.yaml", cwd=tmp_path)
    assert "momentum" in (tmp_path / "results/momentum/tables/table-demo.csv").read_text()
