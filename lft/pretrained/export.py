"""Turn a run into a trained fine-tuner that can be shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lft.config import Run, explain
from lft.errors import UsageError
from lft.methods import get_method
from lft.pretrained import Card, Pretrained
from lft.results.digests import EVALUATION, check
from lft.results.folder import evaluation_file
from lft.results.manifest import RunManifest
from lft.results.schema import Measurement
from lft.storage.csv import read_rows
from lft.storage.tensors import below, load_tensors

SETTINGS = ("method", "families", "finetuner", "training")
"""Settings of a run that go into a card."""


def from_run(
    results: Path, run: Run, *, name: str | None = None, licence: str, note: str | None = None
) -> Pretrained:
    """Load the best φ of a run, with a card from its manifest and measurements.

    Args:
        results: result folder.
        run: a meta-trained and evaluated run.
        name: ``<method>-<image sources>`` by default, with ``-zeroth`` for zeroth order.
        licence: SPDX identifier of the weights' licence.
        note: what users should know, e.g. how images were obtained.

    Raises:
        UsageError: a file is missing, damaged or changed by hand, the licence is empty, the run
            diverged or was not evaluated, or it learns no fine-tuner for parameters of any shape.
    """
    folder = results / run.folder
    manifest = RunManifest.read(folder / "run.json")
    if manifest.status != "ok":
        raise UsageError(f"{folder} diverged; export another run")
    settings = manifest.settings
    if lacking := [key for key in SETTINGS if key not in settings]:
        raise UsageError(
            f"{folder / 'run.json'}: settings.{lacking[0]} is missing; delete the file and run the "
            "workflow again"
        )
    method = get_method(settings["method"])
    if method.learns != "finetuner":
        raise UsageError(
            f"{method.label} has no fine-tuner for parameters other than those it was "
            "trained on; export a run of a method that learns the fine-tuner alone, e.g. lft"
        )
    weights, _ = load_tensors(folder / "weights.safetensors")
    families = {key: _family(value) for key, value in settings["families"].items()}
    measured = evaluation_file(results, run, "measurements.csv")
    if measured is None:
        raise UsageError(f"{folder} has not been evaluated; run lft evaluate first")
    check(measured.parent, [measured.name.removesuffix(".gz")], EVALUATION)
    scores, steps = _scores(measured, run)
    try:
        card = Card(
            name=name or _name(run, families),
            method=method.name,
            order=run.order,
            finetuner=settings["finetuner"],
            zeroth_order=settings.get("zeroth_order"),
            experiment=run.experiment,
            trained_on=run.trained_on,
            families=families,
            training=settings["training"],
            seed=run.seed,
            scores=scores,
            scored_after=steps,
            commit=manifest.commit,
            versions=manifest.versions,
            licence=licence,
            note=note,
        )
    except ValidationError as error:
        raise UsageError(f"{folder} cannot be exported: {explain(error)}") from None
    return Pretrained(card, below(f"best/{method.phi}", weights))


def _family(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a family's settings without the path of its images on the training machine."""
    images = {key: value for key, value in settings.get("images", {}).items() if key != "path"}
    return settings | {"images": images} if images else settings


def _name(run: Run, families: dict[str, dict[str, Any]]) -> str:
    sources = [
        families[name].get("images", {}).get("name", name).lower()
        for name in run.trained_on.split("+")
    ]
    return f"{run.method}-{'+'.join(sources)}" + ("-zeroth" if run.order == "zeroth" else "")


def _scores(path: Path, run: Run) -> tuple[dict[str, dict[str, float]], int]:
    """Average every metric over the test tasks of the run's seed, after the last step.

    Returns:
        Test mixture -> metric -> mean, and the last step.
    """
    rows = read_rows(path, Measurement._fields)
    rows = rows[(rows["method"] == run.method) & (rows["seed"] == run.seed)]
    if rows.empty:
        raise UsageError(
            f"{path} has no rows of {run.method}, seed {run.seed}; evaluate the run first"
        )
    rows = rows[rows["step"] == rows["step"].max()]
    means = rows.groupby(["tested_on", "metric"], observed=True)["value"].mean().dropna()
    scores: dict[str, dict[str, float]] = {}
    for (tested_on, metric), mean in means.items():
        scores.setdefault(str(tested_on), {})[str(metric)] = float(f"{mean:.4g}")
    return scores, int(rows["step"].max())
