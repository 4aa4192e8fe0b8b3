"""Which claims were registered before a run: versions and hashes of claims.yaml.

This module imports neither torch nor pandas, so that every command can put the hash into its
manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from lft.config import read_yaml
from lft.errors import UsageError
from lft.paths import shipped

REFERENCE = shipped("workflow", "reference")
CLAIMS = REFERENCE / "claims.yaml"
VERSIONS = REFERENCE / "registered.yaml"
"""File with the hashes of every registered version of claims.yaml."""


@dataclass(frozen=True)
class Version:
    """One registered version of claims.yaml.

    Attributes:
        version: its number.
        date: day of registration.
        digest: hash of the whole file, from :func:`registered_digest`.
        claims: claim -> digest of everything that decides its verdict.
    """

    version: int
    date: str
    digest: str
    claims: dict[str, str]


def registered_digest(path: Path = CLAIMS) -> str:
    """Return the SHA-256 of the content of claims.yaml; comments and layout do not count."""
    return _digest(_content(path))


def version_of(path: Path = CLAIMS) -> Version:
    """Compute the entry of registered.yaml for a file of claims.

    Raises:
        UsageError: a key is missing or malformed.
    """
    content = _content(path)
    try:
        claims = {claim["id"]: _digest(_decisive(claim, content)) for claim in content["claims"]}
        return Version(content["version"], str(content["date"]), _digest(content), claims)
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: {error} is missing or malformed; correct it, or restore it from git"
        ) from None


def versions(path: Path = VERSIONS) -> dict[str, Version]:
    """Read the registered versions, by the digest of the whole file.

    Raises:
        UsageError: the file, or an entry of it, cannot be read.
    """
    try:
        entries = [Version(**entry) for entry in read_yaml(path, "registered versions") or []]
    except TypeError:
        keys = ", ".join(field.name for field in fields(Version))
        raise UsageError(
            f"{path}: an entry has the keys {keys}; correct it, or restore it from git"
        ) from None
    return {entry.digest: entry for entry in entries}


def changes(old: Version, new: Version) -> dict[str, str]:
    """Map each claim that differs between two versions to ``added``, ``changed`` or ``removed``."""
    found = {
        name: "changed" if name in old.claims else "added"
        for name, digest in new.claims.items()
        if old.claims.get(name) != digest
    }
    return found | {name: "removed" for name in old.claims if name not in new.claims}


def _content(path: Path) -> dict[str, Any]:
    content = read_yaml(path, "claims")
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected version, date, metrics, hypotheses and claims")
    return content


def _decisive(claim: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a claim with the scale and margin that it is judged on."""
    return {**claim, "judged on": content["metrics"].get(claim.get("metric"))}


def _digest(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def as_yaml(version: Version) -> str:
    """Format an entry for registered.yaml."""
    return yaml.safe_dump([vars(version)], sort_keys=False, allow_unicode=True)
