"""The blocks of the gallery and of the README run; doctests are run by test_docs.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkout import ROOT

from lft.config import load_profile
from lft.report.claims.model import CellClaim, load_claims
from lft.results.jobs import jobs

GALLERY = (ROOT / "docs/guide/gallery.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GALLERY, re.M | re.S)
PLANNED = 'snakemake() { command snakemake --snakefile "$LFT_SNAKEFILE" --dry-run --quiet "$@"; }\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the gallery, and the checkout's profiles."""
    folder = tmp_path_factory.mktemp("gallery")
    for language, text in BLOCKS:
        named = re.match(r"# (\S+\.(?:py|yaml))\n", text)
        if language in ("python", "yaml") and named:
            (folder / named[1]).write_text(text)
    (folder / "workflow").symlink_to(ROOT / "workflow")
    return folder


@pytest.mark.parametrize("block", [text for language, text in BLOCKS if language == "sh"])
def test_a_block_of_shell_runs(block: str, place: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    extra = {"LFT_SNAKEFILE": str(ROOT / "workflow/Snakefile"), "PATH": path}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", PLANNED + block],
        cwd=place, env=os.environ | extra, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_only_the_own_method_is_to_be_trained(place: Path) -> None:
    for name, own in (("mine", {"l2o-mine"}), ("given", set())):
        profile = load_profile(place / f"{name}.yaml")
        runs = [run for job in jobs(profile) for run in job.runs]
        assert {run.method for run in runs if not profile.is_kept(run)} == own
        assert "l2o-mine" in profile.experiments["classification"].methods


def test_the_claim_is_one() -> None:
    text = next(text for _, text in BLOCKS if text.startswith("# claim\n"))
    claim = CellClaim.model_validate(yaml.safe_load(text))
    assert claim.hypothesis in load_claims().hypotheses
    assert claim.id not in {other.id for other in load_claims().claims}


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", readme, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert {path.name for path in tmp_path.iterdir()} == {"tuner.safetensors", "curves.png"}
