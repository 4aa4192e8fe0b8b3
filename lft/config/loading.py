"""Find and load profiles, with their plug-ins and the profiles that they are based on."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lft import methods, plugins
from lft.config.against import beside
from lft.config.experiment import tuner_class
from lft.config.families import register_family
from lft.config.finetuners import register_finetuner
from lft.config.problems import explain
from lft.config.profile import Plugins, Profile
from lft.config.questions import check_forks
from lft.config.reading import read_yaml
from lft.errors import UsageError, suggestion
from lft.paths import shipped


def find_profile(text: str | Path, folder: Path | None = None) -> Path:
    """Find the file of a profile; the command line, the Snakefile and ``extends`` share this rule.

    An existing file comes first. Any other text must name a profile that comes with the package,
    e.g. ``quick``. A folder is never a profile.

    Args:
        text: a path, which may begin with ``~``, or a name.
        folder: relative paths start here; the current folder by default.

    Raises:
        UsageError: there is neither such a file nor a profile of that name.
    """
    path = (folder or Path()) / Path(str(text)).expanduser()
    if path.is_file():
        return path
    known = shipped_profiles()
    if str(text) in known:
        return known[str(text)]
    if not str(text):
        raise UsageError(f"a profile is a file or one of {', '.join(known)}; name one")
    if path.is_dir():
        raise UsageError(f"{path} is a folder, and a profile is a file; name the file")
    hint = suggestion(path.stem, known)
    raise UsageError(f"there is neither a file {path} nor a profile of that name{hint}")


def shipped_profiles() -> dict[str, Path]:
    """Files of the profiles that come with the package, by name."""
    return {file.stem: file for file in sorted(shipped("workflow", "config").glob("*.yaml"))}


def load_profile(path: Path | str) -> Profile:
    """Read and validate a profile.

    Args:
        path: a YAML file, or the name of a profile that comes with the package; see
            :func:`find_profile`. Top-level keys that start with ``_`` hold YAML anchors and are
            dropped. A file with ``extends: quick``, or ``extends: other.yaml`` relative to its
            folder, needs its own name and only the settings that differ from that profile;
            ``null`` removes a key.

    Raises:
        UsageError: a file is missing or not YAML, or a key is unknown, duplicate, mistyped or
            out of range; the message names the key and the nearest valid key or the bound.
    """
    register_installed()
    path = find_profile(path)
    try:
        profile = Profile.model_validate(_profile_values(path))
        check_forks(profile)
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error)}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    _check_name(profile.name, path)
    return profile


def _check_name(name: str, path: Path) -> None:
    """Check that a custom profile does not take the name, and so the results, of a shipped one.

    Raises:
        UsageError: it does.
    """
    known = shipped_profiles()
    if name in known and path.stem != name and not path.samefile(known[name]):
        raise UsageError(
            f"{path}: name {name!r} is that of a profile that comes with the package; "
            "choose another"
        )


def _profile_values(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a profile's settings and merge them into those of the profile that it is based on.

    Args:
        path: the file.
        extended_by: files whose chain of ``extends`` led here, to detect a cycle.

    Raises:
        UsageError: a file cannot be read, or the profiles do not fit together.
    """
    values = read_yaml(path, "profile")
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a profile is a mapping of settings")
    values = {key: value for key, value in values.items() if not str(key).startswith("_")}
    if values.get("plugins") is not None:
        values["plugins"] = _plugins(values["plugins"], path)
    victim = values.get("victim")
    if isinstance(victim, dict) and ":" in str(victim.get("model")):
        values["victim"] = {**victim, "model": _located(str(victim["model"]), path)}
    if values.get("against", "") is None:  # a profile that was written out has this key
        del values["against"]
    based = [key for key in ("against", "extends") if key in values]
    if not based:
        return values
    if len(based) > 1:
        raise UsageError(f"{path}: give one of the keys 'extends' and 'against'; remove the other")
    if "name" not in values:
        raise UsageError(
            f"{path}: key 'name' is missing; a profile that is based on another needs its own "
            "name, which names its folder of results"
        )
    key = based[0]
    base = _based_on(values.pop(key), key, path)
    if base in (path.resolve(), *extended_by):
        raise UsageError(f"{path}: profile {base.name} extends itself; correct its key {key!r}")
    settings = _profile_values(base, (path.resolve(), *extended_by))
    if key == "extends":
        return _merged(settings, values)
    if settings.get("against") is not None:
        raise UsageError(
            f"{path}: against: {base.name} has the key 'against' itself; name the run given there"
        )
    return {**beside(settings, values, path), "against": settings["name"]}


def _located(reference: str, profile: Path) -> str:
    try:
        return plugins.located(reference, profile.parent)
    except UsageError as error:
        raise UsageError(f"{profile}: victim.model: {error}") from None


def _based_on(named: Any, key: str, path: Path) -> Path:
    try:
        return find_profile(str(named), path.parent).resolve()
    except UsageError as error:
        raise UsageError(f"{path}: {key}: {error}") from None


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge ``changes`` into ``base``, nested mappings included; None removes a key."""
    merged = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merged(old, value)
        merged[key] = value
    return {key: value for key, value in merged.items() if key not in changes or value is not None}


@functools.cache
def register_installed() -> None:
    """Register the fine-tuners, methods and task families of installed packages.

    Raises:
        UsageError: one of them cannot be loaded or registered.
    """
    _register(*(plugins.installed(group) for group in ("finetuners", "methods", "tasks")))


def _plugins(named: Any, profile: Path) -> dict[str, tuple[str, ...]]:
    """Register a profile's plug-ins.

    Returns:
        References to the plug-ins, with module names in place of paths.

    Raises:
        UsageError: a plug-in cannot be loaded or registered.
    """
    try:
        references = Plugins.model_validate(named).model_dump().items()
        located = {
            group: tuple(
                plugins.located(reference, profile.parent) for reference in group_references
            )
            for group, group_references in references
        }
        _register(located["finetuners"], located["methods"], located["tasks"])
    except ValidationError as error:
        raise UsageError(f"{profile}: plugins.{explain(error)}") from None
    except UsageError as error:
        raise UsageError(f"{profile}: {error}") from None
    return located


def _register(tuners: Iterable[str], rows: Iterable[str], families: Iterable[str]) -> None:
    for reference in tuners:
        register_finetuner(plugins.load_object(reference))
    for reference in rows:
        row = plugins.load_object(reference)
        methods.register(row)
        tuner_class(row)
    for reference in families:
        register_family(plugins.load_object(reference))
