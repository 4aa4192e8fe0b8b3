"""The paper's figures and those of the theory. Plots take data frames and return figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lft.config import AttackFamily, Profile
from lft.records import (
    HISTORY_COLUMNS,
    SUMMARY_COLUMNS,
    THEORY_COLUMNS,
    atomic_folder,
    read_rows,
    write_rows,
)
from lft.report.claims import load_paper
from lft.report.style import ORDERS, Style
from lft.report.theory_tests import gap_points, sweep

mpl.use("Agg")
RC: dict[Any, Any] = {
    **sns.axes_style("whitegrid"),
    "svg.hashsalt": "lft",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "figure.dpi": 150,
}
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
STAGES = {"initial": "initial φ", "halfway": "half-trained φ", "best": "trained φ"}


@dataclass(frozen=True)
class Drawing:
    """A figure with the numbers that it draws and a sentence that says what it shows."""

    id: str
    caption: str
    alt: str
    figure: Figure
    data: pd.DataFrame


def draw_figures(profile: Profile, results: Path) -> None:
    """Write every figure that the measurements allow as SVG, PDF, PNG and CSV into ``figures/``,
    and ``captions.csv`` with their captions and alternative texts."""
    with (
        mpl.rc_context(RC),
        atomic_folder(results / "figures") as folder,
    ):
        rows = []
        for drawing in build_figures(profile, results):
            for suffix, metadata in UNDATED.items():
                drawing.figure.savefig(
                    folder / f"{drawing.id}.{suffix}", metadata=metadata, bbox_inches="tight"
                )
            drawing.data.to_csv(folder / f"{drawing.id}.csv", index=False, lineterminator="\n")
            rows.append((drawing.id, drawing.caption, drawing.alt))
        write_rows(folder / "captions.csv", ("id", "caption", "alt"), rows)


def build_figures(profile: Profile, results: Path) -> list[Drawing]:
    """All figures of a result folder, in the order of the page."""
    summary = curves(read_rows(results / "summary.csv", SUMMARY_COLUMNS))
    theory = read_rows(results / "theory.csv", THEORY_COLUMNS)
    style = Style(profile)
    drawings = [
        grid(summary, style, "figure-2", "attack", "asr", "Figure 2. Attack success rate"),
        grid(
            summary, style, "figure-a1", "attack", "distortion", "Figure A1. Distortion, mean |δ|"
        ),
        grid(summary, style, "figure-3", "classification", "accuracy", "Figure 3. Accuracy"),
        by_order(summary, style, "figure-4", "sine", "mse", "Figure 4. Mean squared error"),
        perturbations(profile, style, results),
        gaps(theory),
        vanishing(theory, style),
        histories(profile, style, results),
    ]
    return [drawing for drawing in drawings if drawing is not None]


def curves(summary: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds, and standard deviation over tasks and seeds, of every cell and step.

    The variance over tasks and seeds is the mean variance within a seed plus the variance of the
    seeds' means.
    """
    keys = ["experiment", "trained_on", "tested_on", "method", "order", "metric", "step"]
    frame = summary.assign(variance=summary["std"] ** 2)
    groups = frame.groupby(keys, observed=True, sort=False)
    result = groups.agg(
        mean=("mean", "mean"),
        within=("variance", "mean"),
        between=("mean", lambda means: means.var(ddof=0)),
        seeds=("seed", "nunique"),
    ).reset_index()
    result["std"] = np.sqrt(result["within"] + result["between"])
    return result.drop(columns=["within", "between"])


def grid(
    summary: pd.DataFrame, style: Style, id: str, experiment: str, metric: str, title: str
) -> Drawing | None:
    """Rows are training mixtures, columns test mixtures; a line per method, ± 1 standard deviation
    shaded; open markers are the paper's printed values at 100 steps."""
    data = _select(summary, experiment, metric)
    if data.empty:
        return None
    settings = style.profile.experiment(experiment)
    rows, columns = settings.train_on, settings.test_on
    figure, axes = _axes(len(rows), len(columns))
    paper = load_paper()
    for i, trained_on in enumerate(rows):
        for j, tested_on in enumerate(columns):
            axis = axes[i, j]
            cell = data[(data["trained_on"] == trained_on) & (data["tested_on"] == tested_on)]
            _lines(axis, cell, style, experiment)
            for method in settings.methods:
                printed = paper.get((trained_on, tested_on, method, metric))
                if printed and not printed["note"]:
                    color = style.method(experiment, method).color
                    step = min(100, int(data["step"].max()))
                    value = float(printed["value"])
                    axis.plot(step, value, "o", mfc="none", color=color, clip_on=False)
            axis.set_title(f"tested on {style.mixture(experiment, tested_on)}" if i == 0 else "")
            label = f"trained on\n{style.mixture(experiment, trained_on)}"
            axis.set_ylabel(f"{label}\n{title.split('. ')[1]}" if j == 0 else "")
            axis.set_xlabel("fine-tuning steps" if i == len(rows) - 1 else "")
    _legend(figure, axes)
    return Drawing(
        id,
        f"{title} against fine-tuning steps; rows: trained on, columns: tested on. Means over test "
        "tasks and seeds, shaded ± 1 standard deviation; open circles: the paper's values.",
        _last_values(data, style, experiment),
        figure,
        data,
    )


def by_order(
    summary: pd.DataFrame, style: Style, id: str, experiment: str, metric: str, title: str
) -> Drawing | None:
    """One panel per order, first left and zeroth right; logarithmic."""
    data = _select(summary, experiment, metric)
    if data.empty:
        return None
    orders = style.profile.experiment(experiment).orders
    figure, axes = _axes(1, len(orders))
    for axis, order in zip(axes[0], orders, strict=True):
        _lines(axis, data[data["order"] == order], style, experiment)
        axis.set(title=ORDERS[order], xlabel="fine-tuning steps", yscale="log")
        axis.yaxis.set_minor_formatter("")
    axes[0, 0].set_ylabel(title.split(". ")[1])
    _legend(figure, axes)
    return Drawing(
        id,
        f"{title} of sine regression against fine-tuning steps. Means over test tasks and seeds, "
        "shaded ± 1 standard deviation.",
        _last_values(data, style, experiment),
        figure,
        data,
    )


def perturbations(profile: Profile, style: Style, results: Path) -> Drawing | None:
    """A test task's perturbation by every method: δ, an image, and the image with δ."""
    if "attack" not in profile.experiments:
        return None
    experiment = profile.experiments["attack"]
    shown = []
    for run in dict.fromkeys(run._replace(seed=0) for run in profile.runs("attack")):
        path = results / run.evaluation_folder / "examples.safetensors"
        if run.trained_on == experiment.train_on[-1] and path.is_file():
            tensors = load_file(path)
            families = dict.fromkeys(name.split("/")[0] for name in tensors)
            shown += [(run, family, tensors) for family in families]
    if not shown:
        return None
    n_columns = 1 + max(t[f"{f}/images"].shape[1] for _, f, t in shown)
    figure, axes = _axes(len(shown), n_columns, width=1.25, height=1.35, share=False)
    rows = []
    for line, (run, name, tensors) in zip(axes, shown, strict=True):
        part = {k.split("/")[1]: v[0] for k, v in tensors.items() if k.startswith(f"{name}/")}
        delta = part["perturbation"]
        scale = max(float(np.abs(delta).max()), 1e-6)
        _image(line[0], 0.5 + delta / (2 * scale))
        label = style.method("attack", run.method).label
        source = style.mixture("attack", name)
        line[0].set_title(f"{label}, {source}\nδ (±{scale:.2g})", fontsize=6)
        family = experiment.families[name]
        clip = isinstance(family, AttackFamily) and family.clip
        for column, image in enumerate(part["images"], start=1):
            attacked = image / 255 + delta
            _image(line[column], attacked.clip(0, 1) if clip else attacked)
            true, seen = int(part["labels"][column - 1]), int(part["attacked"][column - 1])
            line[column].set_title(f"{true} → {seen}", fontsize=6)
            rows.append((run.method, name, column, true, seen, float(np.abs(delta).mean())))
    columns = ["method", "family", "image", "label", "prediction", "mean_abs_delta"]
    data = pd.DataFrame(rows, columns=columns)
    fooled = (data["label"] != data["prediction"]).groupby(data["method"]).mean()
    alt = "; ".join(
        f"{m}: {share:.0%} of the images shown are fooled" for m, share in fooled.items()
    )
    return Drawing(
        "figure-perturbations",
        "Perturbations of the first test task: δ, then each query image with δ; true class → the "
        f"victim's prediction. Trained on {style.mixture('attack', experiment.train_on[-1])}.",
        alt,
        figure,
        data,
    )


def gaps(theory: pd.DataFrame) -> Drawing | None:
    """Theorem 1: gap, its parts and the bound against |D_tr|, |D_val| and K, one row per
    experiment, trained φ; initial and half-trained φ thinner."""
    points = gap_points(theory)
    if points.empty:
        return None
    experiments = list(points["experiment"].unique())
    figure, axes = _axes(len(experiments), 3, share=False)
    looks = {
        "gap": ("gap", "#D55E00"),
        "variance_part": ("variance part", "#0072B2"),
        "fitting_part": ("fitting part", "#009E73"),
        "bound": ("bound", "#4D4D4D"),
    }
    usual = points["support"].groupby(points["experiment"]).agg(lambda s: s.mode().iloc[0])
    for line, experiment in zip(axes, experiments, strict=True):
        of_experiment = points[points["experiment"] == experiment]
        size = usual[experiment]
        panels = {
            "support": sweep(of_experiment, "support", "query"),
            "query": sweep(of_experiment, "query", "support"),
            "steps": of_experiment[
                (of_experiment["support"] == size) & (of_experiment["query"] == size)
            ].sort_values("steps"),
        }
        names = {"support": "|D_tr|", "query": "|D_val|", "steps": "K"}
        for axis, (varied, data) in zip(line, panels.items(), strict=True):
            for stage, width in (("initial", 0.5), ("halfway", 0.9), ("best", 1.8)):
                chosen = data[data["stage"] == stage]
                for quantity, (label, color) in looks.items():
                    name = label if stage == "best" else None
                    axis.plot(
                        chosen[varied], chosen[quantity], "o-", ms=2 * width, lw=width,
                        color=color, label=name,
                    )  # fmt: skip
            axis.set(xscale="log", yscale="log", xlabel=names[varied], title=experiment)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter("")
            axis.set_xticks(sorted(data[varied].unique()))
    axes[0, 0].set_ylabel("norm of the meta-gradient")
    _legend(figure, axes)
    best = points[points["stage"] == "best"]
    ratio = best["bound"] / best["gap"]
    return Drawing(
        "figure-gap",
        "Theorem 1. Gap between the meta-gradients of LFT and L2O, its two parts and the bound; "
        "thick: trained φ, thin: half-trained and initial φ. Means over tasks and seeds.",
        f"With trained φ the bound is {ratio.min():.2g} to {ratio.max():.2g} times the gap.",
        figure,
        points,
    )


def vanishing(theory: pd.DataFrame, style: Style) -> Drawing | None:
    """Norms of meta-gradients against K, relative to the smallest K."""
    rows = theory[theory["quantity"] == "meta_gradient_norm"]
    if rows.empty:
        return None
    rows = rows.astype({"experiment": str, "method": str})
    first = rows[rows["steps"] == rows["steps"].min()].set_index(["experiment", "method", "seed"])
    index = pd.MultiIndex.from_frame(rows[["experiment", "method", "seed"]])
    rows = rows.assign(relative=rows["value"].to_numpy() / first["value"].reindex(index).to_numpy())
    experiments = list(rows["experiment"].unique())
    steps = sorted(rows["steps"].unique())
    figure, axes = _axes(1, len(experiments))
    for axis, experiment in zip(axes[0], experiments, strict=True):
        for method, group in rows[rows["experiment"] == experiment].groupby("method"):
            look = style.method(experiment, str(method))
            mean = group.groupby("steps")["relative"].apply(lambda v: np.exp(np.log(v).mean()))
            axis.plot(mean.index, mean, "o-", ms=3, color=look.color, label=look.label)
        axis.set(xscale="log", yscale="log", xlabel="K", title=experiment)
        axis.set_xticks(steps, [f"{k:g}" for k in steps], minor=False)
        axis.xaxis.set_minor_formatter("")
    axes[0, 0].set_ylabel("norm of the meta-gradient\nrelative to K = 1")
    _legend(figure, axes)
    last = rows[rows["steps"] == rows["steps"].max()].groupby("method")["relative"].median()
    alt = "; ".join(
        f"{m}: {value:.2g} times its first value at the largest K" for m, value in last.items()
    )
    return Drawing(
        "figure-vanishing",
        "Norm of the meta-gradient against the number of fine-tuning steps K, second-order terms "
        "kept; geometric means over seeds.",
        alt,
        figure,
        rows[["experiment", "method", "seed", "steps", "value", "relative"]],
    )


def histories(profile: Profile, style: Style, results: Path) -> Drawing | None:
    """Outer loss during meta-training (smoothed) and meta-validation loss, per experiment."""
    frames = []
    for name in profile.experiments:
        for run in profile.runs(name):
            path = results / run.folder / "history.csv"
            if (
                path.is_file()
                and profile.experiment(name).base_method(run.method).learns != "step_size"
            ):
                frame = pd.read_csv(path)
                if tuple(frame.columns) == HISTORY_COLUMNS:
                    frames.append(frame.assign(**run._asdict()))
    if not frames:
        return None
    data = pd.concat(frames).dropna(subset=["validation"])
    panels = list(
        dict.fromkeys(
            data[["experiment", "trained_on", "order"]].itertuples(index=False, name=None)
        )
    )
    figure, axes = _axes(1, len(panels), share=False)
    for axis, (experiment, trained_on, order) in zip(axes[0], panels, strict=True):
        rows = data[
            (data["experiment"] == experiment)
            & (data["trained_on"] == trained_on)
            & (data["order"] == order)
        ]
        for (method, _seed), line in rows.groupby(["method", "seed"]):
            look = style.method(experiment, str(method))
            share = line["meta_step"] / line["meta_step"].max()
            axis.plot(
                share, line["validation"], look.dash, color=look.color, lw=0.9, label=look.label
            )
        axis.set(yscale="log", xlabel="share of meta-training")
        axis.set_title(f"{experiment}, {ORDERS[order]}\n{style.mixture(experiment, trained_on)}")
    axes[0, 0].set_ylabel("meta-validation loss")
    _legend(figure, axes)
    return Drawing(
        "figure-training",
        "Meta-validation loss during meta-training; a line per seed. The best point is kept.",
        f"{len(frames)} meta-trainings.",
        figure,
        data[["experiment", "trained_on", "method", "order", "seed", "meta_step", "validation"]],
    )


def _select(summary: pd.DataFrame, experiment: str, metric: str) -> pd.DataFrame:
    rows = (summary["experiment"] == experiment) & (summary["metric"] == metric)
    return summary[rows].reset_index(drop=True)


def _axes(
    rows: int, columns: int, width: float = 2.5, height: float = 2.1, *, share: bool = True
) -> tuple[Figure, NDArray[Any]]:
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)


def _lines(axis: Axes, cell: pd.DataFrame, style: Style, experiment: str) -> None:
    settings = style.profile.experiment(experiment)
    for method in (*settings.methods, *settings.variants):
        line = cell[cell["method"] == method].sort_values("step")
        if line.empty:
            continue
        look = style.method(experiment, method)
        axis.plot(line["step"], line["mean"], look.dash, color=look.color, label=look.label, lw=1.3)
        low, high = line["mean"] - line["std"], line["mean"] + line["std"]
        if line["metric"].iloc[0] == "mse":
            low = low.clip(lower=line["mean"].min() / 10)
        axis.fill_between(line["step"], low, high, color=look.color, alpha=0.12, lw=0)
    if not cell.empty and cell["metric"].iloc[0] in ("asr", "accuracy"):
        axis.set_ylim(-0.02, 1.02)


def _legend(figure: Figure, axes: NDArray[Any]) -> None:
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(8, len(handles)),
    )


def _last_values(data: pd.DataFrame, style: Style, experiment: str) -> str:
    """At the last step: each method's mean in every cell, as a sentence."""
    last = data[data["step"] == data["step"].max()]
    parts = []
    for keys, rows in last.groupby(["trained_on", "tested_on", "order"], observed=True):
        trained_on, tested_on, order = map(str, keys)
        values = ", ".join(
            f"{style.method(experiment, str(row.method)).label} {row.mean:.3g}"
            for row in rows.itertuples()
        )
        mixtures = (
            f"{style.mixture(experiment, trained_on)} to {style.mixture(experiment, tested_on)}"
        )
        parts.append(f"{mixtures}, {ORDERS[order]}: {values}")
    return f"At step {data['step'].max()}: " + "; ".join(parts) + "."


def _image(axis: Axes, pixels: NDArray[np.floating]) -> None:
    channels = np.moveaxis(pixels, 0, -1)
    if channels.shape[-1] == 1:
        axis.imshow(channels[..., 0], cmap="gray", vmin=0, vmax=1)
    else:
        axis.imshow(channels.clip(0, 1))
    axis.set_axis_off()
