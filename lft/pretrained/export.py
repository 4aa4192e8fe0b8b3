"""Turn a run into a trained fine-tuner that can be shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lft.config import Run
from lft.errors import UsageError
from lft.methods import get_method
from lft.pretrained import Card, Pretrained
from lft.results.folder import evaluation_file
from lft.results.schema import Measurement
from lft.storage.csv import read_rows
from lft.storage.json import read_json
from lft.storage.tensors import below, load_tensors


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
        UsageError: a file is missing or damaged, the run diverged or was not evaluated, or it
            learns no fine-tuner for parameters of any shape.
    """
    folder = results / run.folder
    manifest = read_json(folder / "run.json", status=str, settings=dict)
    if manifest["status"] != "ok":
        raise UsageError(f"{folder} diverged; export another run")
    settings = manifest["settings"]
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
    scores, steps = _scores(measured, run)
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
        commit=manifest["commit"],
        versions=manifest["versions"],
        licence=licence,
        note=note,
    )
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
