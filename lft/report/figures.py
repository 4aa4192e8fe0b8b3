"""The paper's figures and those of the theory. Plots take data frames and return figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lft import plugins
from lft.config import AttackFamily, Experiment, Profile
from lft.records import (
    HISTORY_COLUMNS,
    SUMMARY_COLUMNS,
    THEORY_COLUMNS,
    atomic_folder,
    read_rows,
    write_frame,
    write_rows,
)
from lft.report.claims import load_paper
from lft.report.statistics import mean_interval
from lft.report.style import CAPTION_COLUMNS, INK, ORDERS, RULE, Look, Style
from lft.report.tables import judged_by, metric_of
from lft.report.theory_tests import bound_over_gap, gap_points, sweep

mpl.use("Agg")
RC: dict[str, Any] = {
    "svg.hashsalt": "lft",
    "svg.fonttype": "none",
    "text.parse_math": False,  # labels come from settings
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 150,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
}
UNDATED = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}
PAPER_STEP = 100
"""Table 1 is taken after this many fine-tuning steps."""
PAPER_EXPERIMENTS = ("attack", "classification", "sine")
RATES = ("asr", "accuracy")
"""Metrics between 0 and 1."""
MOST_PICTURES = 6
"""Query images of a task that are shown."""
STAGES = {"initial": "initial φ", "halfway": "half-trained φ"}
"""Stages of φ before the trained one."""
QUANTITIES = {
    "gap": Look("gap", INK, ()),
    "variance_part": Look("variance part", "#56B4E9", (5, 2)),
    "fitting_part": Look("fitting part", "#CC79A7", (6, 2, 1, 2)),
    "bound": Look("bound of Theorem 1", "#E69F00", (1, 1)),
}


@dataclass(frozen=True)
class Drawing:
    """A figure with the numbers that it draws and a sentence that says what it shows.

    Attributes:
        section: where the page shows it: figures, theory or training.
        alt: alternative text, from the data.
    """

    id: str
    section: str
    caption: str
    alt: str
    figure: Figure
    data: pd.DataFrame


class Panel(NamedTuple):
    """One cell of a grid of fine-tuning curves."""

    trained_on: str
    tested_on: str
    order: str


@dataclass(frozen=True)
class Measured:
    """What a result folder holds for the figures, read when first asked for."""

    profile: Profile
    results: Path

    @cached_property
    def style(self) -> Style:
        return Style(self.profile)

    @cached_property
    def summary(self) -> pd.DataFrame:
        return read_rows(self.results / "summary.csv", SUMMARY_COLUMNS)

    @cached_property
    def curves(self) -> pd.DataFrame:
        return curves(self.summary)

    @cached_property
    def theory(self) -> pd.DataFrame:
        return read_rows(self.results / "theory.csv", THEORY_COLUMNS)


def draw_figures(profile: Profile, results: Path) -> None:
    """Write every figure that the measurements allow as SVG, PDF, PNG and CSV into ``figures/``,
    and ``captions.csv`` with their captions and alternative texts."""
    with (
        mpl.style.context([dict(sns.axes_style("whitegrid")), RC]),
        atomic_folder(results / "figures") as folder,
    ):
        rows = []
        for drawing in build_figures(profile, results):
            drawing.figure.draw_without_rendering()
            drawing.figure.set_layout_engine("none")  # laid out now, once for all formats
            for suffix, metadata in UNDATED.items():
                drawing.figure.savefig(folder / f"{drawing.id}.{suffix}", metadata=metadata)
            write_frame(folder / f"{drawing.id}.csv", drawing.data)
            rows.append((drawing.id, drawing.section, drawing.caption, drawing.alt))
        write_rows(folder / "captions.csv", CAPTION_COLUMNS, rows)


def build_figures(profile: Profile, results: Path) -> Iterator[Drawing]:
    """All figures that the measurements allow, in the order of the page."""
    measured = Measured(profile, results)
    plugged = [*plugins.installed("figures"), *profile.plugins.figures]
    for build in (*BUILDERS, *map(plugins.load_object, plugged)):
        yield from build(measured)


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


def success_rate(measured: Measured) -> Iterator[Drawing]:
    """Figure 2: rows are training mixtures, columns test mixtures."""
    yield from _attack_grid(measured, "figure-2", "asr", "Figure 2. Attack success rate")


def distortion(measured: Measured) -> Iterator[Drawing]:
    """Figure A1: the same grid for the distortion."""
    yield from _attack_grid(measured, "figure-a1", "distortion", "Figure A1. Distortion, mean |δ|")


def accuracy(measured: Measured) -> Iterator[Drawing]:
    """Figure 3: trained on the largest mixture, a panel per single source."""
    experiment = measured.profile.experiments.get("classification")
    if experiment:
        trained_on = max(experiment.train_on, key=lambda mixture: mixture.count("+"))
        single = [name for name in experiment.test_on if "+" not in name]
        panels = [[Panel(trained_on, name, experiment.orders[0]) for name in single]]
        title = (
            "Figure 3. Few-shot accuracy, trained on "
            f"{measured.style.mixture('classification', trained_on)}"
        )
        yield from grid(measured, "figure-3", "classification", "accuracy", title, panels)


def regression(measured: Measured) -> Iterator[Drawing]:
    """Figure 4: first order left, zeroth order right; logarithmic."""
    experiment = measured.profile.experiments.get("sine")
    if experiment:
        mixtures = experiment.train_on[0], experiment.test_on[0]
        panels = [[Panel(*mixtures, order) for order in experiment.orders]]
        title = "Figure 4. Mean squared error of sine regression"
        yield from grid(measured, "figure-4", "sine", "mse", title, panels)


def others(measured: Measured) -> Iterator[Drawing]:
    """Experiments that are not the paper's: what they are judged by, rows are training mixtures."""
    for name, experiment in measured.profile.experiments.items():
        if name not in PAPER_EXPERIMENTS:
            panels = [
                [Panel(row, column, experiment.orders[0]) for column in experiment.test_on]
                for row in experiment.train_on
            ]
            for metric in judged_by(experiment):
                id = f"figure-{name}" + f"-{metric}" * (metric != experiment.primary)
                title = f"{experiment.title}. {metric_of(metric).header}"
                yield from grid(measured, id, name, metric, title, panels)


def support_sizes(measured: Measured) -> Iterator[Drawing]:
    """Experiments whose test families differ in the support set's size alone: what is reached after
    the paper's steps and after all, against that size."""
    for name, experiment in measured.profile.experiments.items():
        sizes = _support_sizes(experiment)
        testing = experiment.testing
        steps = list(dict.fromkeys((testing.written(PAPER_STEP), testing.steps)))
        keys = [(row, step) for row in experiment.train_on for step in steps]
        data = _by_size(measured.summary, name, experiment, sizes, steps)
        if not sizes or data.empty:
            continue
        metrics = judged_by(experiment)
        figure, axes = _axes(len(metrics), len(keys), share=False)
        for line, metric in zip(axes, metrics, strict=True):
            for axis, (trained_on, step) in zip(line, keys, strict=True):
                where = {"trained_on": trained_on, "step": step, "metric": metric}
                _points(axis, _where(data, where), measured.style, name)
                axis.set_xscale("log")
                axis.set_xticks(sorted(sizes.values()))
                axis.xaxis.set_minor_locator(NullLocator())
                axis.xaxis.set_major_formatter(_plain)
                if metric in RATES:
                    axis.set_ylim(-0.02, 1.02)
            line[0].set_ylabel(metric_of(metric).header)
        for axis, (trained_on, step) in zip(axes[0], keys, strict=True):
            axis.set_title(
                f"trained on {measured.style.mixture(name, trained_on)},\nafter {step} steps"
            )
        for axis in axes[-1]:
            axis.set_xlabel("support images per class")
        _legend(figure, axes)
        caption = (
            f"{experiment.title}: {' and '.join(metric_of(m).header for m in metrics)} on the "
            "query set against the size of the support set of testing. Means over "
            f"{testing.tasks} test tasks and seeds, bars are 95 % t intervals over seeds."
        )
        yield Drawing(
            f"figure-{name}-sizes",
            "figures",
            _noted(caption, measured.style, name),
            _at_sizes(data, measured.style, name, experiment.primary),
            figure,
            data,
        )


def horizons(measured: Measured) -> Iterator[Drawing]:
    """Experiments with variants that are trained on other numbers of steps: their fine-tuning
    curves, in the first mixtures."""
    for name, experiment in measured.profile.experiments.items():
        trained = _trained_steps(experiment)
        metrics = judged_by(experiment)
        panel = Panel(experiment.train_on[0], experiment.test_on[0], experiment.orders[0])
        data = pd.concat(_select(measured.curves, name, m, [[panel]]) for m in metrics)
        data = data[data["method"].isin(list(trained))]
        if data.empty:
            continue
        data = data.assign(trained_steps=data["method"].astype(str).map(trained))
        figure, axes = _axes(1, len(metrics), width=3.2, height=2.3, share=False)
        shades = _shades(sorted(set(trained.values())))
        for axis, metric in zip(axes[0], metrics, strict=True):
            lines = _where(data, {"metric": metric})
            for method, k in trained.items():
                line = _where(lines, {"method": method})
                look = measured.style.method(name, experiment.base_method(method).name)
                label = f"{look.label}, trained on {k} steps"
                axis.plot(line["step"], line["mean"], color=shades[k], ls=look.line, label=label)
                at = line[line["step"] == k]
                axis.plot(at["step"], at["mean"], "o", ms=4, color=shades[k])
            axis.set(xlabel="fine-tuning steps of testing", ylabel=metric_of(metric).header)
            if metric in RATES:
                axis.set_ylim(-0.02, 1.02)
        _legend(figure, axes)
        last = _where(data, {"metric": experiment.primary, "step": data["step"].max()})
        ends = "; ".join(
            f"trained on {row.trained_steps} steps {row.mean:.3g}" for row in last.itertuples()
        )
        caption = (
            f"{experiment.title}: as many meta-training tasks fine-tuned for fewer or more steps. "
            "Means over test tasks and seeds; a dot where the steps of meta-training end."
        )
        yield Drawing(
            f"figure-{name}-horizons",
            "figures",
            _noted(caption, measured.style, name),
            f"{metric_of(experiment.primary).header} after {data['step'].max()} steps: {ends}.",
            figure,
            data,
        )


def _attack_grid(measured: Measured, id: str, metric: str, title: str) -> Iterator[Drawing]:
    experiment = measured.profile.experiments.get("attack")
    if experiment:
        panels = [
            [Panel(row, column, experiment.orders[0]) for column in experiment.test_on]
            for row in experiment.train_on
        ]
        yield from grid(measured, id, "attack", metric, title, panels)


def grid(
    measured: Measured, id: str, name: str, metric: str, title: str, panels: list[list[Panel]]
) -> Iterator[Drawing]:
    """A panel of fine-tuning curves per cell: a line per method, ± 1 standard deviation shaded,
    and open markers for the paper's printed values. Nothing where nothing was measured."""
    style, experiment = measured.style, measured.profile.experiments[name]
    data = _select(measured.curves, name, metric, panels)
    if data.empty:
        return
    figure, axes = _axes(len(panels), len(panels[0]))
    marked = False
    for line, row in zip(axes, panels, strict=True):
        for axis, panel in zip(line, row, strict=True):
            _lines(axis, _cell(data, panel), style, name)
            marked |= _paper_values(axis, panel, style, name, metric, data["step"].max())
    for axis, panel in zip(axes[0], panels[0], strict=True):
        several = len(experiment.orders) > 1
        tested_on = f"tested on\n{style.mixture(name, panel.tested_on)}"
        axis.set_title(ORDERS[panel.order] if several else tested_on)
    for axis, row in zip(axes[:, 0], panels, strict=True):
        trained_on = f"trained on\n{style.mixture(name, row[0].trained_on)}"
        axis.set_ylabel(
            trained_on if len(panels) > 1 else title.split(". ")[1].split(",")[0].split(" of ")[0]
        )
    if metric == "mse":
        _logarithmic(axes, data)
    for axis in axes[-1]:
        axis.set_xlabel("fine-tuning steps")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _legend(figure, axes)
    caption = (
        f"{title}, against fine-tuning steps"
        + ("; rows: trained on, columns: tested on" if len(panels) > 1 else "")
        + ". Means over test tasks and seeds, shaded ± 1 standard deviation over both."
        + (" Open circles: the paper's printed values" * marked)
        + (", at the right edge where the steps differ." * marked)
    )
    yield Drawing(
        id, "figures", _noted(caption, style, name), _last_values(data, style, name), figure, data
    )


def perturbations(measured: Measured) -> Iterator[Drawing]:
    """A test task's perturbation by every method, one figure per training mixture: δ, and the
    query images without and with δ, each with the victim's prediction."""
    for name, experiment in measured.profile.experiments.items():
        shown = (*experiment.test_on[0].split("+"), *experiment.test_on[-1].split("+"))
        families = {family: experiment.families[family] for family in shown}
        attacks = [f for f, settings in families.items() if isinstance(settings, AttackFamily)]
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
    figure, axes = _axes(1, len(families), width=3.6, height=height, share=False)
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
        _noted(caption, measured.style, name),
        f"{alt}.",
        figure,
        data,
    )


def gaps(measured: Measured) -> Iterator[Drawing]:
    """Theorem 1: gap, its parts and the bound against |D_tr|, |D_val| and K, a row per
    experiment; the gap also with initial and half-trained φ."""
    points = gap_points(measured.theory)
    if points.empty:
        return
    experiments = list(points["experiment"].unique())
    figure, axes = _axes(len(experiments), 3, share=False)
    for line, experiment in zip(axes, experiments, strict=True):
        panels = _sweeps(points[points["experiment"] == experiment])
        for axis, (varied, data) in zip(line, panels.items(), strict=True):
            for (stage, name), width in zip(STAGES.items(), (0.5, 1.0), strict=True):
                rows = data[data["stage"] == stage]
                label = f"gap, {name}"
                axis.plot(rows[varied], rows["gap"], "s-", ms=2, lw=width, color=INK, label=label)
            best = data[data["stage"] == "best"]
            for quantity, look in QUANTITIES.items():
                axis.plot(
                    best[varied], best[quantity], "o", ms=3, lw=1.6,
                    ls=look.line, color=look.color, label=look.label,
                )  # fmt: skip
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(sorted(data[varied].unique()))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(_plain)
            _decades(axis)
        line[0].set_ylabel(experiment)
    for axis, name in zip(axes[-1], ("|D_tr|", "|D_val|", "fine-tuning steps K"), strict=True):
        axis.set_xlabel(name)
    _legend(figure, axes)
    yield Drawing(
        "figure-gap",
        "theory",
        "Theorem 1. Norm of the gap between the meta-gradients of LFT and L2O, of its variance and "
        "fitting parts, and the bound, with trained φ; the gap also with initial and half-trained "
        "φ. Means over tasks and seeds, of the fitting part the root of the mean square, missing "
        "where the estimate of that is negative; one of |D_tr|, |D_val| and K varies at a time.",
        _gap_sentences(points),
        figure,
        points,
    )


def vanishing(measured: Measured) -> Iterator[Drawing]:
    """Norms of meta-gradients against K, relative to the smallest K."""
    rows = measured.theory[measured.theory["quantity"] == "meta_gradient_norm"]
    if rows.empty:
        return
    data = _relative(rows)
    experiments = list(data["experiment"].unique())
    figure, axes = _axes(1, len(experiments), width=3.2, share=False)
    for axis, experiment in zip(axes[0], experiments, strict=True):
        for method, line in data[data["experiment"] == experiment].groupby("method", sort=False):
            look = measured.style.method(experiment, str(method))
            axis.plot(
                line["steps"], line["relative"], "o", ms=3,
                color=look.color, ls=look.line, label=look.label,
            )  # fmt: skip
        axis.set(xscale="log", yscale="log", title=experiment, xlabel="fine-tuning steps K")
        axis.set_xticks(sorted(data["steps"].unique()))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(_plain)
        _decades(axis)
    first = data["steps"].min()
    axes[0, 0].set_ylabel(f"meta-gradient norm\nrelative to K = {first}")
    _legend(figure, axes)
    last = data[data["steps"] == data["steps"].max()]
    alt = "; ".join(
        f"{row.experiment}, {measured.style.method(row.experiment, row.method).label}: "
        f"{row.relative:.2g} times"
        for row in last.itertuples()
    )
    yield Drawing(
        "figure-vanishing",
        "theory",
        "Do meta-gradients vanish? Their norm against the number of fine-tuning steps K, relative "
        f"to K = {first}, second-order terms kept; geometric means over tasks and seeds.",
        f"Norm at K = {data['steps'].max()} over norm at K = {first}. {alt}.",
        figure,
        data,
    )


def histories(measured: Measured) -> Iterator[Drawing]:
    """Meta-validation score during meta-training, a line per method and seed."""
    data = _validations(measured)
    if data.empty:
        return
    keys = ["experiment", "trained_on", "order"]
    panels = list(data[keys].drop_duplicates().itertuples(index=False, name=None))
    columns = min(3, len(panels))
    figure, axes = _axes(-(-len(panels) // columns), columns, share=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, panels, strict=False):
        rows = _where(data, dict(zip(keys, panel, strict=True)))
        for (method, _), line in rows.groupby(["method", "seed"], sort=False):
            look = measured.style.method(panel[0], str(method))
            axis.plot(
                line["share"], line["validation"],
                color=look.color, ls=look.line, lw=0.9, label=look.label,
            )  # fmt: skip
        several = len(measured.profile.experiment(panel[0]).orders) > 1
        axis.set_title(
            f"{panel[0]}{f', {ORDERS[panel[2]]}' if several else ''}\n"
            f"{measured.style.mixture(panel[0], panel[1])}"
        )
    for axis in axes.flat[max(0, len(panels) - columns) : len(panels)]:
        axis.set_xlabel("share of meta-training")
    for axis in axes[:, 0]:
        axis.set_ylabel("meta-validation score")
    _legend(figure, axes)
    best = data.groupby(["experiment", "method"], sort=False)["validation"].min().reset_index()
    alt = "; ".join(
        f"{experiment}, {measured.style.method(experiment, method).label} {loss:.3g}"
        for experiment, method, loss in best.itertuples(index=False, name=None)
    )
    yield Drawing(
        "figure-training",
        "training",
        _noted(
            "Meta-validation score during meta-training (error rate of classifiers, loss of other "
            "tasks, over all steps), a line per seed. The lowest point is kept.",
            measured.style,
            *measured.profile.experiments,
        ),
        f"Smallest meta-validation score: {alt}.",
        figure,
        data.drop(columns="share"),
    )


BUILDERS: tuple[Callable[[Measured], Iterator[Drawing]], ...] = (
    success_rate,
    distortion,
    accuracy,
    regression,
    others,
    support_sizes,
    horizons,
    perturbations,
    gaps,
    vanishing,
    histories,
)


def _select(frame: pd.DataFrame, name: str, metric: str, panels: list[list[Panel]]) -> pd.DataFrame:
    """Rows of an experiment and metric that the panels show, in the panels' order."""
    rows = _where(frame, {"experiment": name, "metric": metric})
    shown = [_cell(rows, panel) for line in panels for panel in line]
    return pd.concat(shown).reset_index(drop=True)


def _cell(data: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    return _where(data, panel._asdict())


def _where(data: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    """Rows that have all these values."""
    return data[np.logical_and.reduce([data[name] == value for name, value in values.items()])]


def _axes(
    rows: int, columns: int, width: float = 2.4, height: float = 1.9, *, share: bool = True
) -> tuple[Figure, NDArray[Any]]:
    figure = Figure(figsize=(width * columns, height * rows + 0.6), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)


def _lines(axis: Axes, cell: pd.DataFrame, style: Style, experiment: str) -> None:
    for method in style.profile.experiment(experiment).methods:
        line = cell[cell["method"] == method].sort_values("step")
        if line.empty:
            continue
        look = style.method(experiment, method)
        axis.plot(
            line["step"], line["mean"], color=look.color, ls=look.line, lw=1.4, label=look.label
        )
        low, high = line["mean"] - line["std"], line["mean"] + line["std"]
        if line["metric"].iloc[0] == "mse":
            low = low.clip(lower=line["mean"] / 10)
        axis.fill_between(line["step"], low, high, color=look.color, alpha=0.12, lw=0)
    if not cell.empty and cell["metric"].iloc[0] in RATES:
        axis.set_ylim(-0.02, 1.02)


def _paper_values(
    axis: Axes, panel: Panel, style: Style, experiment: str, metric: str, last: int
) -> bool:
    """Mark the paper's printed values: at their step where it is known and was reached, else
    beside the right edge. Values that the paper misprints are left out."""
    paper, marked = load_paper(), False
    for method in style.profile.experiment(experiment).methods:
        printed = paper.get((panel.trained_on, panel.tested_on, method, metric))
        if printed is None or printed["note"]:
            continue
        at_step = printed["table"] == "1" and last >= PAPER_STEP
        axis.plot(
            PAPER_STEP if at_step else 1.03,
            float(printed["value"]),
            "o",
            mfc="none",
            ms=4.5,
            color=style.method(experiment, method).color,
            clip_on=False,
            transform=axis.transData if at_step else axis.get_yaxis_transform(),
        )
        marked = True
    return marked


def _logarithmic(axes: NDArray[Any], data: pd.DataFrame) -> None:
    """A logarithmic y-axis up to three times the mean before the first step; a line that leaves it
    diverges."""
    means = data["mean"][data["mean"] > 0]
    for axis in axes.flat:
        axis.set_yscale("log")
        axis.set_ylim(means.min() / 2, 3 * data["mean"][data["step"] == 0].max())
        _decades(axis)


def _decades(axis: Axes) -> None:
    """Label a logarithmic y-axis at 1, 2 and 5, or at powers of ten if it spans many decades."""
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(_plain)
    axis.yaxis.set_minor_formatter(NullFormatter())


def _plain(value: float, _position: float) -> str:
    return f"{value:g}"


def _legend(figure: Figure, axes: NDArray[Any]) -> None:
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    longest = max(map(len, handles), default=0)
    columns = max(1, int(figure.get_figwidth() / (0.6 + 0.075 * longest)))  # inches
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=columns,
        handlelength=2.6,
    )  # fmt: skip


def _noted(caption: str, style: Style, *experiments: str) -> str:
    """A caption with the footnote on stand-in data, where the experiments use such."""
    mixtures = [
        style.mixture(name, family)
        for name in experiments
        for family in style.profile.experiment(name).families
    ]
    return f"{caption} {style.footnote}" if any("*" in mixture for mixture in mixtures) else caption


def _last_values(data: pd.DataFrame, style: Style, experiment: str) -> str:
    """At the last step: each method's mean in every cell, as a sentence."""
    last = data[data["step"] == data["step"].max()]
    parts = []
    for keys, rows in last.groupby(list(Panel._fields), observed=True, sort=False):
        panel = Panel(*map(str, keys))
        values = ", ".join(
            f"{style.method(experiment, str(row.method)).label} {row.mean:.3g}"
            for row in rows.itertuples()
        )
        parts.append(
            f"trained on {style.mixture(experiment, panel.trained_on)}, tested on "
            f"{style.mixture(experiment, panel.tested_on)}, {ORDERS[panel.order]}: {values}"
        )
    return f"After {data['step'].max()} steps, " + "; ".join(parts) + "."


def _examples(
    measured: Measured, name: str, trained_on: str, shown: list[str]
) -> dict[str, dict[str, dict[str, NDArray[Any]]]]:
    """Pictures of the first test task: method -> family -> tensor name -> tensor. Variants may have
    other tasks and are left out."""
    examples: dict[str, dict[str, dict[str, NDArray[Any]]]] = {}
    for run in measured.profile.runs(name):
        path = measured.results / run.evaluation_folder / "examples.safetensors"
        variant = run.method in measured.profile.experiment(name).variants
        if run.trained_on != trained_on or variant or run.method in examples or not path.is_file():
            continue
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        for key, tensor in sorted(load_file(path).items()):
            family, part = key.split("/")
            if family in shown:
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
    """Draw one family: a row of clean images, then a row per method, δ in the first column."""
    settings = style.profile.experiment(name).families[family]
    clip = isinstance(settings, AttackFamily) and settings.clip
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
            attacked = (image + delta).clip(0, 1) if clip else image + delta
            _tile(axis, line, column, attacked, f"{label} → {seen}")
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
    """An image (C, H, W) in [0, 1] in a cell of a picture table, a text below."""
    channels = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0).clip(0, 1)
    axis.imshow(
        channels, extent=(column + 0.1, column + 0.9, row + 0.9, row + 0.1), interpolation="none"
    )
    axis.text(column + 0.5, row + 0.92, text, ha="center", va="top", fontsize=6)


def _support_sizes(experiment: Experiment) -> dict[str, int]:
    """Support sizes of the test families, if there are three and nothing else differs."""
    families = {name: experiment.families[name] for name in experiment.test_on if "+" not in name}
    rest = [f.model_dump(exclude={"support", "label"}) for f in families.values()]
    sizes = {name: getattr(family, "support", 0) for name, family in families.items()}
    alike = all(settings == rest[0] for settings in rest)
    return sizes if alike and len(set(sizes.values())) >= 3 else {}


def _by_size(
    summary: pd.DataFrame,
    name: str,
    experiment: Experiment,
    sizes: dict[str, int],
    steps: list[int],
) -> pd.DataFrame:
    """Mean and interval over seeds by support size, of the metrics and steps that are shown."""
    rows = _where(summary, {"experiment": name, "order": experiment.orders[0]})
    rows = rows[rows["step"].isin(steps) & rows["metric"].isin(judged_by(experiment))]
    rows = rows[rows["tested_on"].isin(list(sizes))].astype({"tested_on": str})
    rows = rows.assign(support=rows["tested_on"].map(sizes).astype(int))
    keys = ["trained_on", "method", "metric", "step", "support"]
    intervals = [
        (*key, interval.mean, interval.low, interval.high, interval.n)
        for key, means in rows.groupby(keys, sort=True, observed=True)["mean"]
        for interval in [mean_interval(means)]
    ]
    return pd.DataFrame(intervals, columns=[*keys, "mean", "low", "high", "seeds"])


def _points(axis: Axes, data: pd.DataFrame, style: Style, name: str) -> None:
    """A line per method through means with bars for their intervals."""
    for method in style.profile.experiment(name).methods:
        line = data[data["method"] == method]
        look = style.method(name, method)
        bars = [line["mean"] - line["low"], line["high"] - line["mean"]]
        axis.errorbar(
            line["support"], line["mean"], yerr=np.nan_to_num(np.array(bars)), fmt="o", ms=3,
            color=look.color, ls=look.line, lw=1.4, elinewidth=0.6, capsize=1.5, label=look.label,
        )  # fmt: skip


def _at_sizes(data: pd.DataFrame, style: Style, name: str, metric: str) -> str:
    """The metric with the smallest and the largest support set, as a sentence."""
    rows = _where(data, {"metric": metric, "step": data["step"].max()})
    ends = rows[rows["support"].isin([rows["support"].min(), rows["support"].max()])]
    parts = [
        f"{style.method(name, str(method)).label} trained on {style.mixture(name, str(mixture))} "
        + " and ".join(f"{row.mean:.3g} with {row.support}" for row in lines.itertuples())
        for (mixture, method), lines in ends.groupby(["trained_on", "method"], sort=False)
    ]
    return (
        f"{metric_of(metric).header} after {data['step'].max()} steps, by support images per "
        f"class: {'; '.join(parts)}."
    )


def _trained_steps(experiment: Experiment) -> dict[str, int]:
    """Fine-tuning steps of meta-training, of variants that change them and of their methods."""
    changed = [n for n, variant in experiment.variants.items() if "training.steps" in variant.set]
    names = dict.fromkeys([*(experiment.variants[n].method for n in changed), *changed])
    steps = {name: experiment.for_method(name).training.steps for name in names}
    return dict(sorted(steps.items(), key=lambda item: item[1]))


def _shades(values: list[int]) -> dict[int, Any]:
    """A colour for each value, from dark to bright."""
    return dict(
        zip(values, mpl.colormaps["viridis"](np.linspace(0.1, 0.8, len(values))), strict=True)
    )


def _sweeps(points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Points of one experiment along |D_tr|, |D_val| and K, the other two at their usual values."""
    usual = {size: points[size].mode().iloc[0] for size in ("support", "query")}
    at_usual = (points["support"] == usual["support"]) & (points["query"] == usual["query"])
    return {
        "support": sweep(points, "support", "query"),
        "query": sweep(points, "query", "support"),
        "steps": points[at_usual].sort_values("steps"),
    }


def _gap_sentences(points: pd.DataFrame) -> str:
    """With trained φ: how the gap changes with |D_tr| and how far the bound lies above it."""
    sentences = []
    for experiment, group in points[points["stage"] == "best"].groupby("experiment", sort=False):
        line = sweep(group, "support", "query")
        first, last = line.iloc[0], line.iloc[-1]
        ratio = bound_over_gap(group)
        sentences.append(
            f"{experiment}: the gap goes from {first['gap']:.2g} at |D_tr| = {first['support']} to "
            f"{last['gap']:.2g} at |D_tr| = {last['support']}; the bound is {ratio.min():.2g} to "
            f"{ratio.max():.2g} times the gap."
        )
    return "With trained φ, " + " ".join(sentences)


def _relative(rows: pd.DataFrame) -> pd.DataFrame:
    """Geometric mean over tasks and seeds of meta-gradient norms, over that at the smallest K."""
    keys = ["experiment", "method", "steps"]
    logs = rows.astype({"experiment": str, "method": str}).assign(log=np.log(rows["value"]))
    data = logs.groupby(keys, sort=False)["log"].mean().reset_index().sort_values(keys)
    first = data.groupby(keys[:2])["log"].transform("first")
    return data.assign(norm=np.exp(data["log"]), relative=np.exp(data["log"] - first)).drop(
        columns="log"
    )


def _validations(measured: Measured) -> pd.DataFrame:
    """Meta-validation scores of all meta-trained runs, ``share`` counting from 0 to 1."""
    frames = []
    for name in measured.profile.experiments:
        for run in measured.profile.runs(name):
            path = measured.results / run.folder / "history.csv"
            method = measured.profile.experiment(name).base_method(run.method)
            if method.learns != "step_size" and path.is_file():
                frame = read_rows(path, HISTORY_COLUMNS)
                share = frame["meta_step"] / frame["meta_step"].max()
                frames.append(frame.assign(share=share, **run._asdict()))
    if not frames:
        return pd.DataFrame()
    columns = [*run._fields, "meta_step", "share", "validation"]
    return pd.concat(frames).dropna(subset=["validation"])[columns]
