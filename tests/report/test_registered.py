"""Claims are registered before the runs: versions, hashes and what has changed since."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lft.config import Profile
from lft.report.claims import load_claims
from lft.report.claims.write import verdicts
from lft.results import registered
from lft.results.registered import CLAIMS, as_yaml, changes, registered_digest, version_of, versions

Make = Callable[..., Path]


def test_the_present_claims_are_a_registered_version() -> None:
    """Who changes what decides a verdict raises the version and adds it to registered.yaml."""
    now = version_of()
    assert versions().get(now.digest) == now, f"registered.yaml lacks this entry:\n{as_yaml(now)}"
    numbers = [entry.version for entry in versions().values()]
    assert len(set(numbers)) == len(numbers)
    assert set(now.claims) == {claim.id for claim in load_claims().claims}


def test_comments_do_not_count_and_margins_do(tmp_path: Path) -> None:
    text = CLAIMS.read_text(encoding="utf-8")
    path = tmp_path / "claims.yaml"
    path.write_text("# Another comment\n" + text)
    assert registered_digest(path) == registered_digest()
    path.write_text(text.replace("smallest: 0.05", "smallest: 0.04"))
    assert registered_digest(path) != registered_digest()
    changed = changes(version_of(), version_of(path))
    assert set(changed.values()) == {"changed"}
    assert "asr-lft-l2o" in changed
    assert "accuracy-both-both" not in changed


def test_claims_that_differ_from_the_registered_ones_are_marked(
    profile: Profile, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the runs had been made under this version, and the file were changed afterwards."""
    content = yaml.safe_load(CLAIMS.read_text(encoding="utf-8"))
    content["version"] += 1
    content["claims"][0]["step"] = 50
    gone = content["claims"].pop()
    later = tmp_path / "claims.yaml"
    later.write_text(yaml.safe_dump(content), encoding="utf-8")
    found = verdicts(profile, results, later)
    marked = {row.claim: row.change for row in found.claims if row.change}
    assert marked == {content["claims"][0]["id"]: "changed"}
    assert found.removed == (gone["id"],)
    assert found.registered == (f"{version_of().version} of {version_of().date}",)


def test_runs_from_before_any_registration_say_so(sine: Profile, make: Make) -> None:
    results = make(sine)
    for path in results.glob("runs/*/*/*/seed*/run.json"):
        content = json.loads(path.read_text())
        del content["claims"]
        path.write_text(json.dumps(content))
    found = verdicts(sine, results)
    assert found.registered == ()
    assert {row.change for row in found.claims} == {"unregistered"}


def test_a_manifest_costs_neither_torch_nor_pandas() -> None:
    code = f"import sys, {registered.__name__}; print({{'torch', 'pandas'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
