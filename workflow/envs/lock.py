"""Write both lock files from the environment that runs this: ``python workflow/envs/lock.py``.

``requirements.lock`` pins everything that is installed, ``requirements-workflow.lock`` what the
extra ``workflow`` needs, directly or not. One environment gives both, so they never disagree.
"""

from __future__ import annotations

from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
NOT_LOCKED = {"lft", "pip", "wheel"}


def needed(name: str, extras: frozenset[str] = frozenset()) -> dict[str, Distribution]:
    """A package and all that it needs, by canonical name.

    Args:
        extras: extras of the package that count as needed.

    Raises:
        importlib.metadata.PackageNotFoundError: something that is needed is not installed.
    """
    found: dict[str, Distribution] = {}
    asked: set[tuple[str, frozenset[str]]] = set()
    waiting = [(canonicalize_name(name), extras)]
    while waiting:
        item = waiting.pop()
        if item in asked:
            continue
        asked.add(item)
        package, wanted = item
        found[package] = distribution(package)
        for text in found[package].requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in (*wanted, "")):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def pinned(packages: dict[str, Distribution]) -> str:
    """One line a package, as pip reads them."""
    pins = {
        f"{found.metadata['Name']}=={found.version.partition('+')[0]}"
        for name, found in packages.items()
        if name not in NOT_LOCKED
    }
    return "\n".join(sorted(pins, key=lambda pin: pin.partition("=")[0].lower())) + "\n"


def main() -> None:
    """Write the two files at the top level."""
    installed = {canonicalize_name(found.metadata["Name"]): found for found in distributions()}
    (ROOT / "requirements.lock").write_text(pinned(installed))
    workflow = needed("lft", frozenset({"workflow"}))
    (ROOT / "requirements-workflow.lock").write_text(pinned(workflow))


if __name__ == "__main__":
    main()
