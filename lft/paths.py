"""Paths that several modules share: shipped files, and files of a result folder.

:mod:`lft.results` lists all files of a result folder.
"""

from __future__ import annotations

from pathlib import Path

from lft.errors import UsageError

PACKAGE = Path(__file__).resolve().parent
"""The installed package."""


CHECKOUT = None if (PACKAGE / "share").is_dir() else PACKAGE.parent
"""The checkout that the package runs from; None if it was installed from a wheel."""


def shipped(*parts: str) -> Path:
    """Return the path of a file or folder that ships with the package.

    A checkout has them at its top level, a wheel in ``lft/share``.

    Args:
        parts: path components, e.g. ``shipped("workflow", "reference")``.
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


def written(path: Path) -> tuple[int, int]:
    """Return when a file was written, in nanoseconds, and its size; zeros if it is missing.

    Caches of a file's content have these in their key.
    """
    if not path.is_file():
        return 0, 0
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def data_path(results: Path, source: str) -> Path:
    """Return the path of an image source's array file."""
    return results / "data" / f"{source}.safetensors"


def victim_path(results: Path, source: str, seed: int | str | None = None) -> Path:
    """Return the path of a victim's weights; the .json beside it contains its accuracy.

    Args:
        results: the result folder.
        source: name of the image source.
        seed: the victim's seed; None if one victim serves all seeds.
    """
    name = source if seed is None else f"{source}-seed{seed}"
    return results / "victims" / f"{name}.safetensors"


def theory_path(results: Path, experiment: str, seed: int | str) -> Path:
    """Return the path of one seed's theory measurements; the .json beside it is the manifest."""
    return results / "theory" / f"{experiment}-seed{seed}.csv"


def universe_path(results: Path, experiment: str, number: int | str) -> Path:
    """Return the path of a universe's measurements; its manifest is the .json beside them."""
    return results / "universes" / experiment / f"{number}.csv"


def kept_alternatives(results: Path) -> dict[str, Path]:
    """Return existing alternatives.csv files beside a result folder, by profile.

    Only profiles whose purpose is to try other choices are included.
    """
    paths = {
        name: results.parent / name / "alternatives.csv"
        for name in ("ablation", "alternatives", "supplement")
    }
    return {name: path for name, path in paths.items() if path.is_file()}


def kept_benchmarks(results: Path) -> list[Path]:
    """List the benchmark files beside a result folder, one per processor."""
    return sorted((results.parent / "benchmarks").glob("*.json"))


def kept_shares(results: Path) -> Path:
    """Return the path of the profile ``multiverse``'s shares.csv beside a result folder.

    The file need not exist.
    """
    return results.parent / "multiverse" / "shares.csv"
