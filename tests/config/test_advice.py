"""Error texts that say what to do: it is done, and the error is gone."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from result_folders import built, complete, make, profile, sine
from tiny import profile_values

from lft.commands import jobs
from lft.config import Profile, load_profile
from lft.errors import UsageError
from lft.report.claims import read_verdicts

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


@pytest.mark.parametrize("where", mappings(profile_values()), ids=lambda keys: ".".join(keys))
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
