"""The report page: one self-contained HTML file, rendered from files that a run wrote."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup

from lft.config import Experiment, Profile
from lft.errors import UsageError
from lft.records import (
    CELL_COLUMNS,
    CLAIM_COLUMNS,
    SUMMARY_COLUMNS,
    THEORY_COLUMNS,
    read_json,
    read_rows,
    write_text,
)
from lft.report.claims import REFERENCE
from lft.report.style import ORDERS, Style
from lft.report.tables import build_tables
from lft.report.templates import render
from lft.report.theory_tests import gap_points

PRIMARY = {"attack": "asr", "classification": "accuracy", "sine": "mse"}
SYMBOLS = {
    "reproduced": "✓",
    "direction only": "≈",
    "not reproduced": "✗",
    "inconclusive": "?",
}
PAPER = {"tasks": 1000, "seeds": 3, "attack": 100, "classification": 500, "sine": 500}


def write_page(profile: Profile, results: Path) -> None:
    """Write report.html from claims.csv, summary.csv, cells.csv, theory.csv and figures/.

    Raises:
        UsageError: one of these files is missing or damaged.
    """
    page = render("report.html.j2", **context(profile, results))
    write_text(results / "report.html", page)


def context(profile: Profile, results: Path) -> dict[str, Any]:
    """Everything that the template shows, as plain values."""
    style = Style(profile)
    claims = read_rows(results / "claims.csv", CLAIM_COLUMNS)
    cells = read_rows(results / "cells.csv", CELL_COLUMNS)
    summary = read_rows(results / "summary.csv", SUMMARY_COLUMNS)
    theory = read_rows(results / "theory.csv", THEORY_COLUMNS)
    tables = build_tables(profile, results)
    figures = list(_figures(results))
    anchors = {table.id for table in tables} | {figure["id"] for figure in figures} | {"theory"}
    counts = Counter(claims["verdict"].astype(str))
    manifests = list(_manifests(profile, results))
    return {
        "profile": profile,
        "stand_ins": [s for s in profile.sources.values() if s.stands_in_for],
        "sources": profile.sources,
        "claims": [_claim(row, anchors) for row in _records(claims)],
        "counts": [(SYMBOLS[name], name, counts.get(name, 0)) for name in SYMBOLS],
        "tables": tables,
        "figures": figures,
        "theory": _theory(theory),
        "interactive": Markup(interactive(summary, style)),
        "victims": list(_victims(profile, results)),
        "problems": _problems(cells),
        "open_questions": list(_open_questions(profile)),
        "differences": _differences(profile),
        "times": list(_times(profile, manifests)),
        "provenance": _provenance(manifests),
        "settings": yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False),
    }


def interactive(summary: pd.DataFrame, style: Style) -> str:
    """Fine-tuning curves with a menu of cells; methods and seeds are switched in the legend."""
    import plotly.graph_objects as go

    figure = go.Figure()
    panels: list[tuple[str, int]] = []
    keys = ["experiment", "trained_on", "tested_on", "order"]
    rows = summary[summary["metric"].astype(str) == summary["experiment"].map(PRIMARY).astype(str)]
    for panel, (names, cell) in enumerate(rows.groupby(keys, observed=True)):
        experiment, trained_on, tested_on, order = map(str, names)
        before = len(figure.data)
        for (method, seed), line in cell.groupby(["method", "seed"], observed=True):
            look = style.method(experiment, str(method))
            line = line.sort_values("step")
            figure.add_scatter(
                x=line["step"].tolist(),
                y=[round(float(value), 5) for value in line["mean"]],
                name=_inert(f"{look.label}, seed {seed}"),
                line={"color": look.color, "dash": "dash" if look.dash == "--" else "solid"},
                visible=panel == 0,
            )
        label = (
            f"{experiment} {PRIMARY[experiment].upper()}, {ORDERS[order]}: "
            f"{style.mixture(experiment, trained_on)} → {style.mixture(experiment, tested_on)}"
        )
        panels.append((_inert(label), len(figure.data) - before))
    _add_menu(figure, panels)
    return str(
        figure.to_html(
            full_html=False,
            include_plotlyjs="inline",
            div_id="curves",
            config={"displaylogo": False, "responsive": True},
        )
    )


def _add_menu(figure: Any, panels: list[tuple[str, int]]) -> None:
    total, start, buttons = sum(count for _, count in panels), 0, []
    for label, count in panels:
        visible = [start <= index < start + count for index in range(total)]
        buttons.append({"label": label, "method": "update", "args": [{"visible": visible}]})
        start += count
    figure.update_layout(
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.18, "yanchor": "top"}],
        xaxis_title="fine-tuning steps",
        template="none",
        paper_bgcolor="#ffffff",
        height=460,
        margin={"l": 50, "r": 10, "t": 70, "b": 40},
        legend={"orientation": "h", "y": -0.18},
    )


def _inert(text: str) -> str:
    """Plotly reads a little HTML in labels; angle brackets become lookalikes without meaning."""
    return text.replace("<", "‹").replace(">", "›")


def _figures(results: Path) -> Iterator[dict[str, str]]:
    folder = results / "figures"
    captions = read_rows(folder / "captions.csv", ("id", "caption", "alt"))
    for row in _records(captions.astype(str)):
        try:
            svg = (folder / f"{row['id']}.svg").read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {folder}/{row['id']}.svg: {error.strerror}") from None
        yield {**row, "data": base64.b64encode(svg).decode()}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _claim(row: dict[str, Any], anchors: set[str]) -> dict[str, Any]:
    verdict = str(row["verdict"])
    low, high = float(row["low"]), float(row["high"])
    interval = f"{float(row['difference']):.3g}" if np.isfinite(row["difference"]) else "–"
    if np.isfinite(low):
        interval += f" [{low:.3g}, {high:.3g}]"
    return {
        **{name: str(row[name]) for name in CLAIM_COLUMNS},
        "symbol": SYMBOLS[verdict],
        "slug": verdict.replace(" ", "-"),
        "difference": interval,
        "p": f"{float(row['p']):.2g}" if np.isfinite(row["p"]) else "–",
        "linked": row["figure"] in anchors,
    }


def _theory(theory: pd.DataFrame) -> list[dict[str, str]]:
    """Where the bound holds and by what factor, per experiment and stage of φ."""
    points = gap_points(theory)
    if points.empty:
        return []
    rows = []
    for (experiment, stage), group in points.groupby(["experiment", "stage"], observed=True):
        ratio = group["bound"] / group["gap"]
        rows.append(
            {
                "experiment": str(experiment),
                "stage": str(stage),
                "holds": f"{(ratio >= 1).mean():.0%} of {len(group)} points",
                "factor": f"{ratio.min():.2g} to {ratio.max():.2g}",
                "fitting": f"{(group['fitting_part'] / group['variance_part']).median():.2g}",
                "sigma": f"{group['sigma'].median():.2g}",
                "jacobian": f"{group['jacobian'].median():.2g}",
            }
        )
    return rows


def _victims(profile: Profile, results: Path) -> Iterator[tuple[str, str, str]]:
    for name, source in profile.sources.items():
        path = results / "victims" / f"{name}.json"
        if path.is_file():
            content = read_json(path)
            train, test = content["accuracy_train"], content["accuracy_test"]
            yield source.label, f"{train:.1%}", f"{test:.1%}"


def _problems(cells: pd.DataFrame) -> list[dict[str, str]]:
    bad = cells[~cells["status"].isin(["ok", "not applicable"])]
    return _records(bad.astype(str))


def _open_questions(profile: Profile) -> Iterator[dict[str, str]]:
    entries = yaml.safe_load((REFERENCE / "open-questions.yaml").read_text(encoding="utf-8"))
    for entry in entries:
        choices, tried = [], []
        for name, experiment in profile.experiments.items():
            found = _lookup(experiment, entry["choice"])
            if found is not None:
                choices.append(f"{name}: {found}")
            tried += [v.label for v in experiment.variants.values() if entry["choice"] in v.set]
        yield {
            "id": entry["id"],
            "gap": entry["gap"],
            "choice": "; ".join(dict.fromkeys(choices)) or "–",
            "note": entry["note"],
            "tried": ", ".join(tried) or "none in this profile",
        }


def _lookup(experiment: Experiment, dotted: str) -> str | None:
    value: Any = experiment.model_dump(mode="json")
    for key in dotted.split("."):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def _differences(profile: Profile) -> list[str]:
    found = [
        f"{source.label} stands in for {source.stands_in_for}."
        for source in profile.sources.values()
        if source.stands_in_for
    ]
    found += [source.note + "." for source in profile.sources.values() if source.note]
    if profile.partition == "disjoint":
        found.append(
            "Meta-training, meta-validation and meta-test tasks draw from disjoint images. The "
            "paper draws support sets from the training and query sets from the test images in "
            "every phase (partition: paper)."
        )
    for name, experiment in profile.experiments.items():
        training, testing = experiment.training, experiment.testing
        if training.tasks != PAPER["tasks"] or testing.tasks != PAPER.get(name, testing.tasks):
            found.append(
                f"{name}: {training.tasks} training and {testing.tasks} test tasks per source, "
                f"where the paper has {PAPER['tasks']} and {PAPER.get(name)}."
            )
    general = yaml.safe_load((REFERENCE / "differences.yaml").read_text(encoding="utf-8"))
    return found + list(general)


def _manifests(profile: Profile, results: Path) -> Iterator[dict[str, Any]]:
    for name in profile.experiments:
        for run in profile.runs(name):
            path = results / run.folder / "run.json"
            if path.is_file():
                yield read_json(path)


def _times(profile: Profile, manifests: list[dict[str, Any]]) -> Iterator[tuple[str, int, str]]:
    for name in profile.experiments:
        seconds = [m["seconds"] for m in manifests if m["run"]["experiment"] == name]
        yield name, len(seconds), f"{sum(seconds) / 60:.1f}"


def _provenance(manifests: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Facts of the runs, each value once."""

    def once(values: Iterator[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values)) or "–"

    return [
        ("commit", once(m["commit"] for m in manifests)),
        ("with uncommitted changes", once(m["modified"] for m in manifests)),
        ("processor", once(m["machine"]["processor"] for m in manifests)),
        ("cores", once(m["machine"]["cores"] for m in manifests)),
        ("system", once(m["machine"]["system"] for m in manifests)),
        ("device", once(m["device"] for m in manifests)),
        ("LSTM kernel", once(m["kernel"] for m in manifests if m["kernel"] != "none")),
        ("Python", once(m["python"] for m in manifests)),
        ("packages", once(f"{k} {v}" for m in manifests for k, v in m["versions"].items())),
    ]
