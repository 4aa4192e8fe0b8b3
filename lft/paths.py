"""Places that several modules share: shipped files, and files of a result folder
(:mod:`lft.results` lists all of the latter)."""

from __future__ import annotations

from pathlib import Path

from lft.errors import UsageError

PACKAGE = Path(__file__).resolve().parent
"""The installed package."""


CHECKOUT = None if (PACKAGE / "share").is_dir() else PACKAGE.parent
"""The checkout that the package runs from; None where it was installed from a wheel."""


def shipped(*parts: str) -> Path:
    """A file or folder that comes with the package, e.g. ``shipped("workflow", "reference")``.

    A checkout keeps them at its top level; a wheel carries them in ``lft/share``.
    """
    return (CHECKOUT or PACKAGE / "share").joinpath(*parts)


PARTS = ("workflow/config", "workflow/reference", "workflow/rules", "report_templates")
"""Folders beside the package, without which nothing works."""


def check_complete() -> None:
    """Refuse to begin where a part of what comes with the package is missing.

    Raises:
        UsageError: there is only a part of a checkout.
    """
    missing = [part for part in PARTS if not shipped(part).is_dir()]
    if missing:
        raise UsageError(
            f"{shipped()} lacks {' and '.join(missing)}; git checkout -- {' '.join(missing)}, "
            "git sparse-checkout disable or a new copy brings it back"
        )


def data_path(results: Path, source: str) -> Path:
    """The array file of an image source."""
    return results / "data" / f"{source}.safetensors"


def victim_path(results: Path, source: str, seed: int | str | None = None) -> Path:
    """The victim's weights; its accuracy stands in the .json beside it.

    Args:
        seed: whose victim it is; None where one serves all seeds.
    """
    name = source if seed is None else f"{source}-seed{seed}"
    return results / "victims" / f"{name}.safetensors"


def theory_path(results: Path, experiment: str, seed: int | str) -> Path:
    """Theory measurements of one seed; their manifest stands in the .json beside them."""
    return results / "theory" / f"{experiment}-seed{seed}.csv"


def kept_alternatives(results: Path) -> dict[str, Path]:
    """alternatives.csv of the profiles that exist to try other choices, where they were run beside
    a result folder."""
    paths = {
        name: results.parent / name / "alternatives.csv"
        for name in ("ablation", "alternatives", "supplement")
    }
    return {name: path for name, path in paths.items() if path.is_file()}


def kept_benchmarks(results: Path) -> list[Path]:
    """The benchmarks of each processor, where they are kept beside a result folder."""
    return sorted((results.parent / "benchmarks").glob("*.json"))


def kept_shares(results: Path) -> Path:
    """shares.csv of the profile ``multiverse``, which may have been run beside a result folder."""
    return results.parent / "multiverse" / "shares.csv"
