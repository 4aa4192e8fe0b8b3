"""Pack a finished run as a Workflow Run RO-Crate: results, settings and workflow."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lft.config import Profile
from lft.errors import UsageError
from lft.paths import shipped
from lft.results.digests import EVALUATION, JOINED, SUMS, check
from lft.results.folder import Results
from lft.results.jobs import jobs
from lft.results.schema import CELL_COLUMNS, EVALUATED
from lft.storage.atomic import atomic_path
from lft.storage.csv import read_rows

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

PROFILES = (
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
)
"""Address, name and version of each profile that the crate conforms to."""

REPORT = (*JOINED, "claims.json", "claims.csv", "report.html")
"""Files that every finished run has."""
FOLDERS = {
    "tables": "tables",
    "figures": "figures",
    "runs": "train",
    "theory": "theory",
    "victims": "victim",
}
"""Folders that a crate contains, with the rule that makes each."""
TYPES = {
    "": "text/plain",
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".smk": "text/plain",
    ".svg": "image/svg+xml",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
}
"""Media types by suffix; the default is application/octet-stream."""


def write_crate(profile: Profile, results: Path, output: Path) -> None:
    """Pack a finished run into a zip file that follows the Workflow Run Crate profile 0.5.

    The crate has one action: the run of the workflow. Its instrument is ``workflow/Snakefile`` and
    its object the resolved profile. Its results are the report, tables, figures and measurements,
    and the weights, history and ``run.json`` of every meta-training. The crate leaves out image
    data, which are inputs under their own licences, as well as logs and checkpoints. The workflow
    does not record who ran it or when it began, so the crate does not say.

    Args:
        profile: settings of the run.
        results: its result folder.
        output: the zip file to write.

    Raises:
        UsageError: the run is incomplete, was changed by hand or belongs to another profile, or the
            file cannot be written.
    """
    from rocrate.rocrate import ROCrate

    _check_complete(profile, results)
    ended = datetime.fromtimestamp((results / "report.html").stat().st_mtime, UTC)
    commits = _commits(profile, results)
    crate = ROCrate(version="1.1")
    crate.name = f"lft-bench: {profile.title}"
    crate.description = (
        "Reproduction of Learned Fine-Tuner for Incongruous Few-Shot Learning (arXiv 2009.13714), "
        f"profile {profile.name}, seeds {', '.join(map(str, profile.seeds))}."
    )
    crate.datePublished = ended
    crate.license = _entity(
        crate, "https://spdx.org/licenses/MIT", "CreativeWork", name="MIT License"
    )
    crate.root_dataset["conformsTo"] = [
        _entity(crate, address, "CreativeWork", name=name, version=version)
        for address, name, version in PROFILES
    ]
    workflow = _add_workflow(crate, ", ".join(commits))
    with atomic_path(output) as temporary:
        settings = temporary.with_suffix(".yaml")
        try:
            values = profile.model_dump(mode="json")
            text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
            settings.write_text(text, encoding="utf-8")
            run = crate.add_action(
                workflow,
                identifier="#run",
                object=_add_file(crate, settings, "profile.yaml", "Resolved settings of the run"),
                result=_add_results(crate, results),
                properties={
                    "name": f"Run of the profile {profile.name}",
                    "description": f"snakemake reproduce all --config profile={profile.name}",
                    "endTime": ended.isoformat(timespec="seconds"),
                    "actionStatus": "http://schema.org/CompletedActionStatus",
                },
            )
            crate.root_dataset["mentions"] = run
            crate.write_zip(temporary)
        finally:
            settings.unlink(missing_ok=True)


def _check_complete(profile: Profile, results: Path) -> None:
    """Refuse a run that lacks its report or a cell, or that was changed by hand."""
    again = f"run snakemake reproduce all --config profile={profile.name}"
    rules = {job.rule for job in jobs(profile)}
    for name in (*REPORT, *(folder for folder, rule in FOLDERS.items() if rule in rules)):
        if not (results / name).exists():
            raise UsageError(f"{results / name} is missing: the run is incomplete; {again}")
    check(results, REPORT)
    for sums in sorted((results / "runs").rglob(SUMS)):
        check(sums.parent, EVALUATED, EVALUATION)
    cells = read_rows(results / "cells.csv", CELL_COLUMNS)
    planned = Counter(_cell(cell.run, cell.tested_on) for cell in profile.cells())
    found = Counter(_cell(row, str(row.tested_on)) for row in cells.itertuples())
    if planned != found:
        raise UsageError(
            f"{results} is not a run of the profile {profile.name} as it is now; {again}"
        )
    missing = cells[cells["status"] == "missing"]
    if len(missing):
        first = missing.iloc[0]
        raise UsageError(
            f"{len(missing)} of {len(cells)} cells of {results} are missing, the first is "
            f"{first['method']} of {first['experiment']} on {first['tested_on']}; {again}"
        )


def _cell(run: Any, tested_on: str) -> tuple[Any, ...]:
    return run.experiment, run.trained_on, tested_on, run.method, run.order, run.seed


def _commits(profile: Profile, results: Path) -> list[str]:
    """Return the distinct commits that the meta-trainings ran from."""
    folder = Results(profile, results)
    runs = [run for name in profile.experiments for run in profile.runs(name)]
    return sorted({folder.trained(run).commit or "unknown" for run in runs})


def _add_workflow(crate: ROCrate, version: str) -> Any:
    """Add the Snakefile as the main entity, and the rules and settings beside it."""
    root = shipped("workflow")
    main = crate.add_workflow(
        root / "Snakefile", "workflow/Snakefile", main=True, lang="snakemake",
        properties={"name": "lft-bench", "version": version, "encodingFormat": "text/plain"},
    )  # fmt: skip
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != "Snakefile":
            _add_file(crate, path, f"workflow/{path.relative_to(root).as_posix()}")
    return main


def _add_results(crate: ROCrate, results: Path) -> list[Any]:
    """Add every file of :data:`REPORT` and :data:`FOLDERS`; see :mod:`lft.results`."""
    files = [results / name for name in REPORT]
    files += [path for path in [results / SUMS] if path.is_file()]
    for folder in FOLDERS:
        files += sorted(path for path in (results / folder).rglob("*") if path.is_file())
    places = [(path, path.relative_to(results)) for path in files]
    return [
        _add_file(crate, path, place.as_posix())
        for path, place in places
        if "checkpoints" not in place.parts and not place.name.startswith(".")
    ]


def _add_file(crate: ROCrate, path: Path, place: str, name: str | None = None) -> Any:
    kind = TYPES.get(path.suffix, "application/octet-stream")
    properties = {"name": name or place, "encodingFormat": kind}
    return crate.add_file(path, place, properties=properties, record_size=True)


def _entity(crate: ROCrate, identifier: str, kind: str, **properties: str) -> Any:
    from rocrate.model.contextentity import ContextEntity

    return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **properties}))
