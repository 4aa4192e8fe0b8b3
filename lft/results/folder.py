"""A result folder: the one reader and writer of a profile's runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lft.config import ALL, Profile, Run
from lft.errors import UsageError
from lft.paths import theory_path, victim_path
from lft.results.digests import EVALUATION, check, record
from lft.results.manifest import RunManifest
from lft.results.schema import (
    CELL_COLUMNS,
    EVALUATED,
    SUMMARY_COLUMNS,
    THEORY_COLUMNS,
    Measurement,
)
from lft.storage.csv import read_bytes, read_rows, stored, write_rows

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


class Results:
    """The results of a profile: manifests, weights and tables, each read once.

    A run is returned only if it was made under the profile's current settings.

    Args:
        profile: settings.
        folder: the profile's result folder.
    """

    def __init__(self, profile: Profile, folder: Path) -> None:
        self.profile = profile
        self.folder = folder
        self._manifests: dict[Run, RunManifest | None] = {}
        self._frames: dict[Path, pd.DataFrame] = {}

    # ------------------------------------------------------------ meta-trainings

    def manifest(self, run: Run) -> RunManifest | None:
        """Read the run.json of a meta-training; None if it has not been trained.

        Raises:
            UsageError: it is damaged, it was made under other settings, or there are weights
                without it.
        """
        if run not in self._manifests:
            path = self.folder / run.folder / "run.json"
            if not path.is_file() and path.with_name("weights.safetensors").is_file():
                raise UsageError(
                    f"{path} is missing, so nobody knows how the weights beside it were made; "
                    f"run snakemake reproduce all, or lft train, again"
                )
            self._manifests[run] = self._checked(run, path) if path.is_file() else None
        return self._manifests[run]

    def _checked(self, run: Run, path: Path) -> RunManifest:
        found = RunManifest.read(path)
        if found.run != run:
            raise UsageError(
                f"{path} is that of {found.run.folder.as_posix()}; move it there, or delete its "
                "folder and run the workflow again"
            )
        difference = found.difference(self.profile.training_inputs(run))
        if difference:
            raise UsageError(f"{path} was trained with {difference}; restore it, or train again")
        return found

    def trained(self, run: Run) -> RunManifest:
        """Read the run.json of a meta-training that must exist.

        Raises:
            UsageError: it is missing, damaged, or made under other settings.
        """
        found = self.manifest(run)
        if found is None:
            raise UsageError(
                f"{self.folder / run.folder / 'run.json'} is missing: "
                "the run has not been trained; train it first"
            )
        return found

    def manifests(self) -> Iterator[RunManifest]:
        """Yield the manifests of all meta-trainings of the profile that exist."""
        for name in self.profile.experiments:
            yield from filter(None, map(self.manifest, self.profile.runs(name)))

    def weights(self, run: Run, device: Any = "cpu") -> dict[str, Tensor]:
        """Load the meta-parameters of a run, by ``stage/name``.

        Raises:
            UsageError: they are missing, damaged, or made under other settings.
        """
        from lft.storage.tensors import load_tensors

        self.trained(run)
        return load_tensors(self.folder / run.folder / "weights.safetensors", device)[0]

    # ------------------------------------------------------------ evaluations

    def measurement_file(self, run: Run) -> Path | None:
        """Find the file with the measurements of a run; None if it has not been evaluated."""
        given = self.profile.experiment(run.experiment).measurements.get(run.method)
        if given is not None:
            return given
        return evaluation_file(self.folder, run, "measurements.csv")

    def write_evaluation(
        self, run: Run, rows: Iterable[Measurement], pictures: dict[str, Tensor]
    ) -> None:
        """Write measurements.csv, examples.safetensors and their digests for a run.

        Args:
            run: the evaluated run.
            rows: its measurements.
            pictures: tensors by name; empty unless the run is an attack.
        """
        from lft.storage.tensors import save_tensors

        folder = self.folder / run.folder
        write_rows(folder / "measurements.csv", Measurement._fields, rows)
        save_tensors(folder / "examples.safetensors", pictures, {})
        record(folder, EVALUATED, anew=True)

    # ------------------------------------------------------------ victims and theory

    def victim_files(self, source: str) -> list[Path]:
        """Return the existing victim manifests of an image source, one per seed or one for all."""
        own = [victim_path(self.folder, source, seed) for seed in self.profile.victim_seeds]
        there = [path for path in own if path.is_file()] or [victim_path(self.folder, source)]
        manifests = [path.with_suffix(".json") for path in there]
        return [path for path in manifests if path.is_file()]

    def theory_files(self) -> list[Path]:
        """Return the existing files of theory measurements: one per seed, or one for all seeds."""
        found: list[Path] = []
        for name in self.profile.theory_experiments:
            paths = [theory_path(self.folder, name, seed) for seed in self.profile.seeds]
            together = self.folder / "theory" / f"{name}.csv"
            own = [path for path in paths if path.is_file()]
            found += own or [path for path in [together] if path.is_file()]
        return found

    # ------------------------------------------------------------ joined tables

    @property
    def summary(self) -> pd.DataFrame:
        """Rows of summary.csv, see :data:`lft.results.schema.SUMMARY_COLUMNS`."""
        return self._table(self.folder / "summary.csv", SUMMARY_COLUMNS)

    @property
    def cells(self) -> pd.DataFrame:
        """Rows of cells.csv, see :data:`lft.results.schema.CELL_COLUMNS`."""
        return self._table(self.folder / "cells.csv", CELL_COLUMNS)

    @property
    def theory(self) -> pd.DataFrame:
        """Rows of theory.csv, see :data:`lft.results.schema.THEORY_COLUMNS`."""
        return self._table(self.folder / "theory.csv", THEORY_COLUMNS)

    def _table(self, path: Path, columns: Sequence[str]) -> pd.DataFrame:
        if path not in self._frames:
            self._frames[path] = read_rows(path, columns)
        return self._frames[path].copy()


def evaluation_file(results: Path, run: Run, name: str) -> Path | None:
    """Find a file that the evaluation of a run wrote; None if there is none.

    Versions before 0.2 wrote one file for all seeds, or one for all seeds and methods.

    Args:
        results: the result folder.
        run: the evaluated run.
        name: name of the file.
    """
    together = run._replace(method=ALL)
    folders = (run.folder, run.evaluation_folder, together.evaluation_folder)
    paths = (stored(results / folder / name) for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def rows_of(path: Path, runs: list[Run]) -> tuple[pd.DataFrame, bytes]:
    """Read the measurements of some runs.

    Args:
        path: a file of measurements.
        runs: runs to keep, all of one experiment, training mixture and order.

    Returns:
        The rows as a table, and as lines of CSV without a header.

    Raises:
        UsageError: the file is damaged, incomplete, or was changed after the evaluation.
    """
    frame, text = read_rows(path, Measurement._fields), read_bytes(path)
    if not text.endswith(b"\n"):
        raise UsageError(
            f"{path}: its last line is cut; delete the file and run the workflow again"
        )
    check(path.parent, [path.name.removesuffix(".gz")], EVALUATION)
    wanted = {(run.method, run.seed) for run in runs}
    kept = [key in wanted for key in zip(frame["method"], frame["seed"], strict=True)]
    if all(kept):
        return frame, text.partition(b"\n")[2]
    frame = frame[kept]
    lines = frame.to_csv(
        index=False, header=False, float_format="%.7g", na_rep="nan", lineterminator="\n"
    )
    return frame, lines.encode()
