"""The key ``against``: profiles that compare custom methods with the methods of a kept run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lft.errors import UsageError, suggestion

OWN = ("methods", "variants", "overrides", "step_sizes", "measurements")
"""Keys that an experiment of such a profile may set; the kept run settles all others."""


def beside(kept: dict[str, Any], own: dict[str, Any], path: Path) -> dict[str, Any]:
    """Add custom methods to the settings of a kept run's profile.

    Experiments that the profile does not name are left out, as is the theory.

    Args:
        kept: settings of the kept run's profile.
        own: settings of the profile that adds methods.
        path: file of that profile, for messages.

    Returns:
        The complete settings of the new profile.

    Raises:
        UsageError: the profile adds no method, or changes settings that the kept run settles.
    """
    wanted, known = own.get("experiments"), kept["experiments"]
    if not isinstance(wanted, dict) or not wanted:
        raise UsageError(
            f"{path}: key 'experiments' must name methods to set beside {kept['name']!r}"
        )
    experiments = {}
    for name, changes in wanted.items():
        if name not in known:
            raise UsageError(f"{path}: unknown experiment {name!r}{suggestion(str(name), known)}")
        if not isinstance(changes, dict):
            raise UsageError(f"{path}: experiments.{name}: a mapping of settings is needed")
        for key in changes:
            if key not in OWN:
                raise UsageError(
                    f"{path}: experiments.{name}.{key} is settled by the run that it is against, "
                    f"{kept['name']!r}; set it under 'overrides' for your method alone"
                )
        experiments[name] = _joined(known[name], changes, f"{path}: experiments.{name}")
    together = {"seeds_per_job": "all", "methods_per_job": "all"}
    return {**kept, **together, "theory": {}, **own, "experiments": experiments}


def _joined(kept: dict[str, Any], own: dict[str, Any], where: str) -> dict[str, Any]:
    """Join an experiment's settings; the result's key ``kept`` lists the kept run's methods.

    Raises:
        UsageError: no method is added, or one has the name of a kept method.
    """
    names = [*kept.get("methods", ()), *kept.get("variants", {})]
    methods, variants = own.get("methods", []), own.get("variants", {})
    if not (isinstance(methods, list) and isinstance(variants, dict) and (methods or variants)):
        raise UsageError(f"{where}: name at least one method of your own under 'methods'")
    for name in (*methods, *variants):
        if name in names:
            raise UsageError(
                f"{where}: {name!r} is in the kept run; call yours by another name, e.g. as one "
                "of 'variants'"
            )
    mappings = {key: {**kept.get(key, {}), **own.get(key, {})} for key in OWN if key != "methods"}
    return {**kept, **mappings, "methods": [*kept.get("methods", ()), *methods], "kept": names}
