"""Perturbations of test tasks as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lft.report.figures.base import Drawing, Measured, noted, subplots
from lft.report.style import Style
from lft.results.folder import evaluation_file

MOST_PICTURES = 6
"""Largest number of query images per task."""


def perturbations(measured: Measured) -> Iterator[Drawing]:
    """Draw a test task's perturbation by every method, one figure per training mixture.

    It shows δ, and the query images without and with δ, each with the victim's prediction.
    """
    for name, experiment in measured.profile.experiments.items():
        shown = (*experiment.test_on[0].split("+"), *experiment.test_on[-1].split("+"))
        families = {family: experiment.families[family] for family in shown}
        attacks = [f for f, settings in families.items() if settings.pictures]
        for trained_on in experiment.train_on if attacks else ():
            yield from _perturbations(measured, name, trained_on, attacks)


def _perturbations(
    measured: Measured, name: str, trained_on: str, families: list[str]
) -> Iterator[Drawing]:
    examples = _examples(measured, name, trained_on, families)
    shown = {family for parts in examples.values() for family in parts}
    if not shown:
        return
    families = [family for family in families if family in shown]
    height = 0.55 * (1.2 + len(examples))
    figure, axes = subplots(1, len(families), width=3.6, height=height, share=False)
    data = pd.concat(
        _pictures(axis, examples, name, family, measured.style)
        for axis, family in zip(axes[0], families, strict=True)
    )
    fooled = (data["label"] != data["prediction"]).groupby(data["method"], sort=False).mean()
    mixture = measured.style.mixture(name, trained_on)
    caption = (
        f"Perturbations by methods trained on {mixture}, for the first test task: δ (scaled to "
        "the range given), then query images without (top) and with δ. Below each: true "
        "class → the victim's prediction."
    )
    alt = "; ".join(
        f"{measured.style.method(name, str(method)).label} fools the victim on "
        f"{share:.0%} of the images shown"
        for method, share in fooled.items()
    )
    own = "" if name == "attack" else f"{name}-"
    yield Drawing(
        f"figure-perturbations-{own}{trained_on.replace('+', '-')}",
        "figures",
        noted(caption, measured.style, name),
        f"{alt}.",
        figure,
        data,
    )


def _examples(
    measured: Measured, name: str, trained_on: str, shown: list[str]
) -> dict[str, dict[str, dict[str, NDArray[Any]]]]:
    """Load the pictures of the first test task: method -> family -> tensor name -> tensor.

    Variants are left out, because they may have other tasks.
    """
    examples: dict[str, dict[str, dict[str, NDArray[Any]]]] = {}
    for run in measured.profile.runs(name):
        path = evaluation_file(measured.results, run, "examples.safetensors")
        variant = run.method in measured.profile.experiment(name).variants
        if run.trained_on != trained_on or variant or run.method in examples or path is None:
            continue
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        for key, tensor in sorted(load_file(path).items()):
            method, family, part = key.split("/")
            if method == run.method and family in shown:
                parts.setdefault(family, {})[part] = tensor[0]
        examples[run.method] = parts
    return examples


def _pictures(
    axis: Axes,
    examples: dict[str, dict[str, dict[str, NDArray[Any]]]],
    name: str,
    family: str,
    style: Style,
) -> pd.DataFrame:
    """Draw one family: a row of clean images, then a row per method with δ in the first column."""
    first = next(method for method, families in examples.items() if family in families)
    rows: list[tuple[Any, ...]] = []
    for line, (method, families) in enumerate(examples.items(), start=1):
        axis.text(-0.1, line + 0.5, style.method(name, method).label, ha="right", va="center")
        if family not in families:
            axis.text(0.1, line + 0.5, "not applicable", va="center")
            continue
        parts = families[family]
        stride = -(-len(parts["images"]) // MOST_PICTURES)
        delta, images = parts["perturbation"], parts["images"][::stride] / 255
        scale = max(float(np.abs(delta).max()), 1e-6)
        _tile(axis, line, 0, 0.5 + delta / (2 * scale), f"±{scale:.2f}")
        classes_of = (parts[part][::stride] for part in ("labels", "clean", "attacked"))
        predictions = zip(*classes_of, strict=True)
        for column, (image, classes) in enumerate(zip(images, predictions, strict=True), start=1):
            label, clean, seen = map(int, classes)
            _tile(axis, line, column, image + delta, f"{label} → {seen}")
            if method == first:
                _tile(axis, 0, column, image, f"{label} → {clean}")
            size = float(np.abs(delta).mean())
            rows.append((family, method, column, label, clean, seen, size))
    axis.text(-0.1, 0.5, "clean", ha="right", va="center")
    axis.text(0.5, 0.9, "δ", ha="center", va="bottom")
    columns = ["family", "method", "image", "label", "clean", "prediction", "mean_abs_delta"]
    data = pd.DataFrame(rows, columns=columns)
    axis.set(xlim=(-0.8, data["image"].max() + 1), ylim=(len(examples) + 1.1, 0), aspect="equal")
    axis.set_title(style.mixture(name, family))
    axis.set_axis_off()
    return data


def _tile(axis: Axes, row: int, column: int, pixels: NDArray[np.floating], text: str) -> None:
    """Draw an image (C, H, W) in [0, 1] in a cell of a grid of pictures, with a text below."""
    channels = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0).clip(0, 1)
    axis.imshow(
        channels, extent=(column + 0.1, column + 0.9, row + 0.9, row + 0.1), interpolation="none"
    )
    axis.text(column + 0.5, row + 0.92, text, ha="center", va="top", fontsize=6)
