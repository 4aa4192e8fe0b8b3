"""The report page: one self-contained HTML file, rendered from files that a run wrote."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup

from lft.config import Experiment, Profile, Run
from lft.errors import UsageError
from lft.report.alternatives import effects, found_alternatives
from lft.report.claims import REFERENCE, SHARES
from lft.report.interactive import curves, library, specification
from lft.report.statistics import NOTHING, Interval, mean_interval
from lft.report.style import CAPTION_COLUMNS, Style, theme
from lft.report.tables import build_tables
from lft.report.templates import render
from lft.report.theory_tests import (
    bound_over_gap,
    decay_slopes,
    gap_points,
    gradient_missing,
    share_below_bound,
)
from lft.results.records import (
    CELL_COLUMNS,
    CLAIM_COLUMNS,
    SUMMARY_COLUMNS,
    THEORY_COLUMNS,
    read_json,
    read_rows,
)
from lft.storage.atomic import write_text

PAPER_FIGURES = {
    "figure-2": "Figure 2",
    "figure-a1": "Figure A1",
    "figure-3": "Figure 3",
    "figure-4": "Figure 4",
    "figure-gap": "the gradient gap",
    "figure-vanishing": "the meta-gradients' norms",
}
START_CURVES = """
vegaEmbed("#curves", JSON.parse(document.getElementById("curves-data").textContent),
  {mode: "vega-lite", renderer: "svg", actions: false, ast: true});
"""
MANIFEST = {
    "run": dict, "status": str, "seconds": float, "device": str, "kernel": str, "commit": object,
    "modified": object, "machine": dict, "python": str, "versions": dict,
}  # fmt: skip
"""What the page takes from a run.json."""
SYMBOLS = {
    "reproduced": "✓",
    "direction only": "≈",
    "not reproduced": "✗",
    "inconclusive": "?",
}
PAPER = {"tasks": 1000, "seeds": 3, "attack": 100, "classification": 500, "sine": 500}


def write_page(profile: Profile, results: Path) -> None:
    """Write report.html, and its first table as verdicts.md, from claims.csv, summary.csv,
    cells.csv, theory.csv and figures/.

    Raises:
        UsageError: one of these files is missing or damaged.
    """
    shown = context(profile, results)
    write_text(results / "report.html", render("report.html.j2", **shown))
    write_text(results / "verdicts.md", render("verdicts.md.j2", claims=shown["claims"]))


def context(profile: Profile, results: Path) -> dict[str, Any]:
    """Everything that the template shows, as plain values."""
    style = Style(profile)
    claims = read_rows(results / "claims.csv", CLAIM_COLUMNS)
    cells = read_rows(results / "cells.csv", CELL_COLUMNS)
    summary = read_rows(results / "summary.csv", SUMMARY_COLUMNS)
    theory = read_rows(results / "theory.csv", THEORY_COLUMNS)
    tables = build_tables(profile, results)
    figures = list(_figures(results))
    lines = list(curves(summary, style))
    anchors = {table.id for table in tables} | {figure["id"] for figure in figures} | {"theory"}
    absent = claims["reason"].astype(str).str.contains("is not in this profile", regex=False)
    claims = claims[~absent]
    counts = Counter(claims["verdict"].astype(str))
    manifests = list(_manifests(profile, results))
    return {
        "profile": profile,
        "stand_ins": [s for s in profile.sources.values() if s.stands_in_for],
        "sources": profile.sources,
        "claims": [_claim(row, anchors) for row in _records(claims)],
        "untested": int(absent.sum()),
        "counts": [(SYMBOLS[name], name, counts.get(name, 0)) for name in SYMBOLS],
        "tables": tables,
        "figures": figures,
        "undrawn": [name for id, name in PAPER_FIGURES.items() if id not in anchors],
        "theory": _theory(theory),
        "rates": _rates(theory),
        "curves": specification(lines) if lines else None,
        "scripts": [_script(text) for text in (library(), START_CURVES)] if lines else [],
        "victims": list(_victims(profile, results)),
        "problems": _problems(cells),
        "open_questions": list(_open_questions(profile, results)),
        "differences": _differences(profile),
        "times": list(_times(profile, manifests)),
        "runs": [_run(profile, manifest) for manifest in manifests],
        "provenance": _provenance(manifests),
        "settings": yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False),
    }


def inline(svg: str, prefix: str, label: str) -> Markup:
    """A figure's SVG as a part of the page: ids that are used made unique, colours those of the
    page's theme, and the text ``label`` for those who cannot see it."""
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", body)
    for color, variable in theme().items():
        body = body.replace(color.lower(), variable)
    body = re.sub(
        r' width="([\d.]+)pt" height="[\d.]+pt"', r' style="width: calc(\1pt * 1.1)"', body
    )
    opening = Markup('<svg role="img" aria-label="{}" ').format(label)
    return Markup(body.replace("<svg ", opening, 1))


def _figures(results: Path) -> Iterator[dict[str, Any]]:
    folder = results / "figures"
    captions = read_rows(folder / "captions.csv", CAPTION_COLUMNS)
    for row in _records(captions.astype(str)):
        path = folder / f"{row['id']}.svg"
        try:
            svg = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        yield {**row, "svg": inline(svg, row["id"], row["alt"])}


def _script(text: str) -> dict[str, Any]:
    """A script for the page, and the hash by which the page's policy lets it run."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"text": Markup(text), "hash": f"'sha256-{digest}'"}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _claim(row: dict[str, Any], anchors: set[str]) -> dict[str, Any]:
    verdict = str(row["verdict"])
    share = row["metric"] in SHARES
    difference, low, high = (
        float(row[name]) * (100 if share else 1) for name in ("difference", "low", "high")
    )
    interval = f"{difference:.3g}" if np.isfinite(difference) else "–"
    if np.isfinite(low):
        interval += f" [{low:.3g}, {high:.3g}]"
    if share and np.isfinite(difference):
        interval += " points"
    return {
        **{name: str(row[name]) for name in CLAIM_COLUMNS},
        "symbol": SYMBOLS[verdict],
        "slug": verdict.replace(" ", "-"),
        "difference": interval,
        "p": f"{float(row['p']):.2g}" if np.isfinite(row["p"]) else "–",
        "linked": row["figure"] in anchors,
        "minutes": f"{float(row['seconds']) / 60:.1f}",
    }


def _theory(theory: pd.DataFrame) -> list[dict[str, str]]:
    """Where the bound holds and by what factor, per experiment and stage of φ."""
    points, missing = gap_points(theory), gradient_missing(theory)
    if points.empty:
        return []
    rows = []
    for (experiment, stage), group in points.groupby(["experiment", "stage"], observed=True):
        ratio = bound_over_gap(group)
        share = missing.get((str(experiment), str(stage)), NOTHING)
        rows.append(
            {
                "experiment": str(experiment),
                "stage": str(stage),
                "holds": f"{share_below_bound(group):.0%} of {len(group)} points",
                "factor": f"{_plain(ratio.min())} to {_plain(ratio.max())}",
                "variance": _plain((group["gap"] / group["variance_part"]).median()),
                "missing": _percent(share),
                "a1": "fails" if share.low > 0 or share.high < 0 else "not seen to fail",
                "sigma": _plain(group["sigma"].median()),
                "jacobian": _plain(group["jacobian"].median()),
            }
        )
    return rows


def _rates(theory: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    """Experiment, stage of φ and the four slopes of :func:`decay_slopes`, over seeds."""
    columns = [
        pd.Series(decay_slopes(theory, quantity, *sizes), dtype=float)
        for sizes in (("support", "query"), ("query", "support"))
        for quantity in ("gap", "variance_part")
    ]
    if all(column.empty for column in columns):
        return []
    table = pd.concat(columns, axis=1, sort=False)
    rows = []
    for (experiment, stage), group in table.groupby(level=[0, 1], sort=False):
        slopes = [_slope(mean_interval(column.dropna())) for _, column in group.items()]
        rows.append((str(experiment), str(stage), slopes))
    return rows


def _slope(interval: Interval) -> str:
    if np.isnan(interval.mean):
        return "–"
    return f"{interval.mean:.2f}" + _plus_minus(interval, ".2f")


def _plus_minus(interval: Interval, spec: str) -> str:
    return "" if np.isnan(interval.low) else f" ± {interval.half_width:{spec}}"


def _plain(value: float) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.0f}" if 100 <= value < 1e6 else f"{value:.2g}"


def _percent(interval: Interval) -> str:
    if np.isnan(interval.mean):
        return "–"
    # + 0: no minus before a zero.
    return f"{round(interval.mean, 2) + 0:.0%}" + _plus_minus(interval, ".0%")


def _victims(profile: Profile, results: Path) -> Iterator[tuple[str, str, str]]:
    for name, source in profile.sources.items():
        path = results / "victims" / f"{name}.json"
        if path.is_file():
            content = read_json(path, accuracy_train=float, accuracy_test=float)
            train, test = content["accuracy_train"], content["accuracy_test"]
            yield source.label, f"{train:.1%}", f"{test:.1%}"


def _problems(cells: pd.DataFrame) -> list[dict[str, str]]:
    bad = cells[~cells["status"].isin(["ok", "not applicable"])]
    return _records(bad.astype(str))


def _open_questions(profile: Profile, results: Path) -> Iterator[dict[str, Any]]:
    entries = yaml.safe_load((REFERENCE / "open-questions.yaml").read_text(encoding="utf-8"))
    found = found_alternatives(profile, results)
    for entry in entries:
        choices = {}
        for name, experiment in profile.experiments.items():
            value = _lookup(experiment, entry["choice"])
            if value is not None:
                choices[name] = "".join([value, *_exceptions(experiment, entry["choice"])])
        methods = entry.get("methods", [])
        tried = {
            name: list(effects(rows, entry["choice"], methods)) for name, rows in found.items()
        }
        yield {
            "id": entry["id"],
            "gap": entry["gap"],
            "choice": _agreed(choices),
            "note": entry["note"],
            "tried": [
                (_report_of(name, profile, results), name, t) for name, t in tried.items() if t
            ],
        }


def _report_of(name: str, profile: Profile, results: Path) -> str | None:
    """Link to the report of a run beside this one, if it is there."""
    there = name != profile.name and (results.parent / name / "report.html").is_file()
    return f"../{name}/report.html" if there else None


def _exceptions(experiment: Experiment, choice: str) -> Iterator[str]:
    """The methods for which a choice is another."""
    for method, changes in experiment.overrides.items():
        if choice in changes:
            yield f" ({experiment.label(method)}: {changes[choice]})"


def _agreed(choices: dict[str, str]) -> str:
    """One value where all experiments agree, else a value per experiment."""
    if len(set(choices.values())) == 1:
        return next(iter(choices.values()))
    return "; ".join(f"{name}: {value}" for name, value in choices.items()) or "–"


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
        if name not in PAPER:
            continue
        training, testing = experiment.training, experiment.testing
        if training.tasks != PAPER["tasks"] or testing.tasks != PAPER[name]:
            found.append(
                f"{name}: {training.tasks} training and {testing.tasks} test tasks per source, "
                f"where the paper has {PAPER['tasks']} and {PAPER[name]}."
            )
    general = yaml.safe_load((REFERENCE / "differences.yaml").read_text(encoding="utf-8"))
    return found + list(general)


def _manifests(profile: Profile, results: Path) -> Iterator[dict[str, Any]]:
    for name in profile.experiments:
        for run in profile.runs(name):
            path = results / run.folder / "run.json"
            if path.is_file():
                yield read_json(path, **MANIFEST)


def _times(profile: Profile, manifests: list[dict[str, Any]]) -> Iterator[tuple[str, int, str]]:
    for name in profile.experiments:
        seconds = [m["seconds"] for m in manifests if m["run"]["experiment"] == name]
        yield name, len(seconds), f"{sum(seconds) / 60:.1f}"


def _run(profile: Profile, manifest: dict[str, Any]) -> dict[str, str]:
    run = Run(**manifest["run"])
    return {
        "path": f"{run.folder.as_posix()}/run.json",
        "name": " · ".join(
            (
                run.experiment,
                run.trained_on,
                profile.experiment(run.experiment).label(run.method),
                run.order,
                f"seed {run.seed}",
            )
        ),
        "status": manifest["status"],
        "seconds": f"{manifest['seconds']:.1f}",
        "device": manifest["device"],
    }


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
        ("Kernels", once(m["kernel"] for m in manifests)),
        ("Python", once(m["python"] for m in manifests)),
        ("packages", once(f"{k} {v}" for m in manifests for k, v in m["versions"].items())),
    ]
