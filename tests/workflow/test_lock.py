"""The lock files pin what pyproject.toml asks for, and agree with each other."""

from __future__ import annotations

import importlib.util
import tomllib

import pytest
from checkout import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return {canonicalize_name(pin.partition("==")[0]): pin for pin in lines}


def asked(*extras: str) -> set[str]:
    """What pyproject.toml names for the package and these extras, other extras of it followed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting, names = [*project["dependencies"]], set()
    for extra in extras:
        waiting += project["optional-dependencies"][extra]
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name == project["name"]:
            for extra in requirement.extras:
                waiting += project["optional-dependencies"][extra]
        else:
            names.add(canonicalize_name(requirement.name))
    return names


@pytest.mark.parametrize(
    ("file", "extras"),
    [("requirements.lock", ("dev",)), ("requirements-workflow.lock", ("workflow",))],
)
def test_every_dependency_is_pinned(file: str, extras: tuple[str, ...]) -> None:
    assert asked(*extras) <= pins(file).keys()


def test_the_workflow_installs_a_part_of_the_rest() -> None:
    everything, workflow = pins("requirements.lock"), pins("requirements-workflow.lock")
    assert workflow.items() <= everything.items()
    assert not workflow.keys() & {"jax", "sphinx", "tensorboard", "adversarial-robustness-toolbox"}


def test_the_files_are_what_the_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("lock", ROOT / "workflow/envs/lock.py")
    assert spec is not None and spec.loader is not None
    lock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lock)
    written = lock.pinned(lock.needed("lft", frozenset({"workflow"})))
    assert written == (ROOT / "requirements-workflow.lock").read_text()
