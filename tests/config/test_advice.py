"""Error texts that say what to do: it is done, and the error is gone."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from result_folders import built, complete, make, profile, sine
from tiny import profile_values

from lft.commands import jobs
from lft.config import Profile, load_profile
from lft.data import published
from lft.errors import UsageError
from lft.methods import METHODS
from lft.report.claims import load_claims, read_verdicts
from lft.results import registered
from lft.runtime import device
from lft.scaffold import create

__all__ = ["built", "complete", "make", "profile", "sine"]


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_profile(path)
    return str(caught.value)


def mappings(values: Any, *above: str) -> Iterator[tuple[str, ...]]:
    """Where the mappings of a profile with fixed keys are, of experiments in the first alone."""
    free = {"sources", "experiments", "families", "step_size", "step_sizes"}
    if isinstance(values, dict) and not {"attack", "classification"} & set(above):
        if not (above and above[-1] in free):
            yield above
        for key, value in values.items():
            yield from mappings(value, *above, key)


def at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


@pytest.mark.parametrize("where", list(mappings(profile_values())), ids=".".join)
def test_the_suggested_key_is_the_right_one(where: tuple[str, ...], tmp_path: Path) -> None:
    """Every key of four letters or more, misspelt by two letters in the wrong order."""
    path = tmp_path / "mine.yaml"
    for key in at(profile_values(), where):
        wrong = key[:-2] + key[-1] + key[-2]
        if len(key) < 4 or wrong == key or key == "kind" or not isinstance(key, str):
            continue
        values = copy.deepcopy(profile_values())
        section = at(values, where)
        section[wrong] = section.pop(key)
        path.write_text(json.dumps(values))  # which is YAML, and written at once
        found = re.search(r"unknown key '.*'; did you mean '(\w+)'\?$", refusal(path))
        assert found is not None and found[1] == key, (where, wrong)


PROFILES = {
    "name": ("extends: smoke", "key 'name' is missing", "extends: smoke\nname: mine"),
    "taken": ("extends: smoke\nname: quick", "choose another", "extends: smoke\nname: mine"),
    "twice": (
        "extends: smoke\nname: a\nname: mine",
        "'name' is given twice; keep one",
        "extends: smoke\nname: mine",
    ),
    "loop": (
        "extends: mine.yaml\nname: mine",
        "extends itself; correct its key 'extends'",
        "extends: smoke\nname: mine",
    ),
    "device": (
        "extends: smoke\nname: mine\ndevice: gpu",
        "use cpu",
        "extends: smoke\nname: mine\ndevice: cpu",
    ),
    "seed": (
        "extends: smoke\nname: mine\nseeds: [9007199254740992]",
        "less than 9007199254740992",
        "extends: smoke\nname: mine\nseeds: [9007199254740991]",
    ),
    "plug-in": (
        "extends: smoke\nname: mine\nplugins: {methods: [plug]}",
        "must be module:name or path:name",
        "extends: smoke\nname: mine",
    ),
}


@pytest.mark.parametrize("case", PROFILES)
def test_a_profile_mended_as_advised_loads(case: str, tmp_path: Path) -> None:
    broken, advice, mended = PROFILES[case]
    path = tmp_path / "mine.yaml"
    path.write_text(broken)
    assert advice in refusal(path)
    path.write_text(mended)
    assert load_profile(path).name == "mine"


def test_the_commands_that_lines_name_help(sine: Profile, make: Any, tmp_path: Path) -> None:
    results, path = make(sine), tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(sine.model_dump(mode="json")))
    (results / "summary.csv").unlink()
    with pytest.raises(UsageError, match=r"summary\.csv is missing; lft report makes it"):
        jobs.tables(path, results)
    jobs.aggregate(path, results)  # the first step of lft report
    jobs.tables(path, results)
    (results / "claims.json").write_text('{"claims": [1]}')
    with pytest.raises(UsageError, match=r"delete the file and run lft tables again"):
        read_verdicts(results)
    (results / "claims.json").unlink()
    jobs.tables(path, results)
    assert read_verdicts(results).claims


ROW = 'Method("{name}", "Good", "{color}", "{learns}", "{tuner}")'
GOOD = {"name": "good", "color": "#000001", "learns": "finetuner", "tuner": "lstm"}
PLUG_INS = {
    "no colon": ({}, "good.py", "must be module:name or path:name"),
    "name taken": ({"name": "lft"}, "good.py:METHOD", "choose another name"),
    "letters": ({"name": "Good"}, "good.py:METHOD", "use only lowercase letters"),
    "color": ({"color": "red"}, "good.py:METHOD", "must look like #0072B2"),
    "nearest": ({"tuner": "lsmt"}, "good.py:METHOD", "did you mean 'lstm'?"),
    "no tuner": ({"learns": "step_size"}, "good.py:METHOD", "only a learned fine-tuner"),
    "module taken": ({}, "json.py:METHOD", "rename it"),
}


@pytest.mark.parametrize("case", PLUG_INS)
def test_a_plug_in_mended_as_advised_is_known(case: str, tmp_path: Path, registry: None) -> None:
    wrong, named, advice = PLUG_INS[case]
    path, right = tmp_path / "mine.yaml", GOOD | {"color": "#0072B2"}

    def write(changes: dict[str, str], reference: str) -> None:
        row = ROW.format(**GOOD | changes)
        text = f"from lft.methods import Method\nMETHOD = {row}\n"
        (tmp_path / f"{reference.partition('.')[0]}.py").write_text(text)
        path.write_text(f"extends: smoke\nname: mine\nplugins: {{methods: ['{reference}']}}\n")

    write(wrong, named)
    assert advice in refusal(path)
    write(right, "good.py:METHOD")
    sys.modules.pop("good", None)  # a user starts the command again
    METHODS.pop("good", None)
    assert load_profile(path).plugins.methods == ("good:METHOD",)


@pytest.mark.parametrize("name", ["class", "random", "maml", "smoke", "Mine"])
def test_another_name_for_a_plug_in_helps(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"choose another|as in my-method") as caught:
        create("method", name, tmp_path)
    advised = re.search(r"as in ([\w-]+)", str(caught.value))
    assert create("method", advised[1] if advised else f"another-{name}", tmp_path).is_dir()


CLAIMS = {
    "metric": ("metric", "accuracyx", r"unknown metric 'accuracyx'; did you mean '(\w+)'"),
    "hypothesis": ("hypothesis", None, r"unknown hypothesis '.*'; did you mean '([\w-]+)'"),
    "method": ("a", "ltf", r"unknown method 'ltf'; did you mean '(\w+)'"),
    "key": ("stepp", 3, r"unknown key 'stepp'; did you mean '(\w+)'"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_claim_mended_as_advised_is_read(case: str, tmp_path: Path) -> None:
    content = yaml.safe_load(registered.CLAIMS.read_text(encoding="utf-8"))
    claim = next(one for one in content["claims"] if "a" in one and one["metric"] == "accuracy")
    path, (key, wrong, message) = tmp_path / "claims.yaml", CLAIMS[case]
    keys = set(claim)
    if key == "a":
        claim["a"][2] = wrong
    elif key == "stepp":
        claim["stepp"] = claim.pop("step")
    else:
        claim[key] = wrong or f"{claim[key]}x"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        load_claims(path)
    found = re.search(message, str(caught.value))
    assert found is not None
    if key == "a":
        claim["a"][2] = found[1]
    elif key == "stepp":
        claim[found[1]] = claim.pop("stepp")
    else:
        claim[key] = found[1]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert len(load_claims(path).claims) == len(content["claims"])
    assert set(claim) == keys


def test_the_entry_that_registers_claims_registers_them(tmp_path: Path) -> None:
    """What test_registered prints when claims.yaml was changed, added to registered.yaml."""
    content = yaml.safe_load(registered.CLAIMS.read_text(encoding="utf-8"))
    content["version"] += 1
    claims, known = tmp_path / "claims.yaml", tmp_path / "registered.yaml"
    claims.write_text(yaml.safe_dump(content), encoding="utf-8")
    now, before = registered.version_of(claims), registered.VERSIONS.read_text(encoding="utf-8")
    known.write_text(before, encoding="utf-8")
    assert now.digest not in registered.versions(known)
    known.write_text(before + registered.as_yaml(now), encoding="utf-8")
    assert registered.versions(known)[now.digest] == now


@pytest.mark.parametrize("damage", ["- {version: 1}", "7", "[7]", "- {vers: 1}"])
def test_a_damaged_register_is_one_line_and_its_restoration_helps(
    damage: str, tmp_path: Path
) -> None:
    path = tmp_path / "registered.yaml"
    path.write_text(damage)
    with pytest.raises(UsageError, match="correct it, or restore it from git"):
        registered.versions(path)
    path.write_bytes(registered.VERSIONS.read_bytes())
    assert registered.versions(path) == registered.versions()


@pytest.mark.parametrize("damage", ["metrics: []", "claims: [a]", "version:"])
def test_damaged_claims_are_one_line_and_their_restoration_helps(
    damage: str, tmp_path: Path
) -> None:
    path, (key, _, value) = tmp_path / "claims.yaml", damage.partition(": ")
    content = yaml.safe_load(registered.CLAIMS.read_text(encoding="utf-8"))
    if value:
        content[key] = yaml.safe_load(value)
    else:
        del content[key.removesuffix(":")]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match="correct it, or restore it from git"):
        registered.version_of(path)
    path.write_bytes(registered.CLAIMS.read_bytes())
    assert registered.version_of(path) == registered.version_of()


def test_the_device_that_is_advised_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\nname: mine\ndevice: cuda\n")
    message = "set device: cpu in the profile"
    with pytest.raises(UsageError, match=message), device.settings(load_profile(path)):
        pass
    path.write_text("extends: smoke\nname: mine\ndevice: cpu\n")
    with device.settings(load_profile(path)) as found:
        assert found == torch.device("cpu")


def test_what_is_to_be_lowered_on_a_full_gpu_can_be_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1, 2))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 1)
    line = device.memory_problem(RuntimeError("CUDA out of memory")) or ""
    found = re.search(r"lower ([\w.]+), ([\w.]+) or ([\w.]+),", line)
    assert found is not None, line
    for name in found.groups():
        values = profile_values()
        (section,) = (
            at(values, (*where,))
            for where in mappings(values)
            if f"{'.'.join(where)}.{name}".startswith("experiments.sine.")
            if at(values, where).keys() >= {name.rpartition(".")[2]}
            if name.count(".") == 0 or where[-1] == name.partition(".")[0]
        )
        section[name.rpartition(".")[2]] //= 2
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
        assert load_profile(tmp_path / "mine.yaml") != Profile.model_validate(profile_values())


def test_a_file_that_was_got_by_hand_is_taken(tmp_path: Path) -> None:
    """As the line says: with that checksum, into that folder."""
    content = b"obtained elsewhere"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/"
    wanted = hashlib.md5(content).hexdigest()

    def fetch() -> Path:
        return published.fetch("data.gz", wanted, tmp_path / "cache", (address,), 5.0)

    with pytest.raises(UsageError) as caught:
        fetch()
    found = re.search(r"by hand, with MD5 (\w+), and put it into (.+)$", str(caught.value))
    assert found is not None, caught.value
    assert found[1] == wanted
    Path(found[2]).mkdir(exist_ok=True)
    (Path(found[2]) / "data.gz").write_bytes(content)
    assert fetch().read_bytes() == content
