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
from lft.report.claims import REFERENCE, Verdict, Verdicts, load_claims, read_verdicts
from lft.report.claims.agreement import agreement, unexplained
from lft.report.claims.shown import (
    SYMBOLS,
    effect_text,
    failures_text,
    needed_text,
    skewed_text,
    skewness_note,
)
from lft.report.interactive import curves, library, specification
from lft.report.statistics import NOTHING, Interval
from lft.report.style import CAPTION_COLUMNS, Style, theme
from lft.report.tables import build_tables, summary_tables
from lft.report.templates import render
from lft.report.theory_numbers import (
    FITTED,
    FROZEN,
    SWEEPS,
    bound_table,
    gradient_missing,
    rate_table,
)
from lft.results.folder import Results
from lft.results.schema import CELL_COLUMNS, SUMMARY_COLUMNS, THEORY_COLUMNS
from lft.storage.atomic import write_text
from lft.storage.csv import read_rows
from lft.storage.json import read_json

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
PAPER = {"tasks": 1000, "seeds": 3, "attack": 100, "classification": 500, "sine": 500}


def write_page(profile: Profile, results: Path) -> None:
    """Write report.html, and for a README its verdicts as verdicts.md and the outcome of every
    method as numbers.md, from claims.json, measurements.csv, summary.csv, cells.csv, theory.csv and
    figures/.

    Raises:
        UsageError: one of these files is missing or damaged.
    """
    shown = context(profile, results)
    write_text(results / "report.html", render("report.html.j2", **shown))
    for name in ("verdicts.md", "numbers.md"):
        write_text(results / name, render(f"{name}.j2", **shown))


def context(profile: Profile, results: Path) -> dict[str, Any]:
    """Everything that the template shows, as plain values."""
    style = Style(profile)
    verdicts = read_verdicts(results)
    cells = read_rows(results / "cells.csv", CELL_COLUMNS)
    summary = read_rows(results / "summary.csv", SUMMARY_COLUMNS)
    theory = read_rows(results / "theory.csv", THEORY_COLUMNS)
    tables = build_tables(profile, results)
    figures = list(_figures(results))
    lines = list(curves(summary, style))
    anchors = {table.id for table in tables} | {figure["id"] for figure in figures} | {"theory"}
    planned = [row for row in verdicts.claims if row.status != "not in this profile"]
    claims = [row for row in planned if row.kind != "check"]
    counts = Counter(str(row.verdict) for row in claims)
    manifests = list(_manifests(profile, results))
    return {
        "profile": profile,
        "stand_ins": [s for s in profile.sources.values() if s.stands_in_for],
        "sources": profile.sources,
        "hypotheses": list(_hypotheses(claims, anchors)),
        "interval": _usual_interval(claims),
        "skewness": skewness_note(claims),
        "checks": [_claim(row, anchors, "") for row in planned if row.kind == "check"],
        "untested": len(verdicts.claims) - len(planned),
        "unjudged": sum(row.verdict is None for row in claims),
        "counts": [(SYMBOLS[name], name, counts[name]) for name in SYMBOLS],
        "registration": _registration(verdicts),
        "agreement": agreement(profile, results),
        "unexplained": unexplained(),
        "tables": tables,
        "summaries": summary_tables(profile, results),
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


def _hypotheses(claims: list[Verdict], anchors: set[str]) -> Iterator[dict[str, Any]]:
    """The claims of each hypothesis, which rest on the same trainings."""
    usual = _usual_interval(claims)
    for id, text in load_claims().hypotheses.items():
        rows = [_claim(row, anchors, usual) for row in claims if row.hypothesis == id]
        if rows:
            yield {"id": id, "text": text, "claims": rows}


def _usual_interval(claims: list[Verdict]) -> str:
    """What most intervals are, to be said once."""
    kinds = Counter(row.interval for row in claims if row.low is not None)
    return kinds.most_common(1)[0][0] if kinds else ""


def _claim(row: Verdict, anchors: set[str], usual: str) -> dict[str, Any]:
    word = row.verdict or row.check or row.status
    other = row.without_failures
    depends = f"without failed runs: {other}" if other and other != row.verdict else ""
    return {
        "text": row.text,
        "place": row.place,
        "figure": row.figure,
        "linked": row.figure in anchors,
        "change": row.change if row.change != "unregistered" else "",
        "verdict": word,
        "symbol": SYMBOLS.get(word, ""),
        "slug": word.replace(" ", "-"),
        "reasons": [
            text
            for text in (row.reason, row.behind, depends, skewed_text(row), needed_text(row))
            if text
        ],
        "paper": row.paper,
        "ours": row.ours,
        "effect": effect_text(row),
        "interval": row.interval if row.interval != usual else "",
        "p": _p(row.p),
        "g": "–" if row.g is None else f"{row.g:.1f}",
        "improvement": "–" if row.improvement is None else f"{row.improvement:.0%}",
        "seeds": "–" if row.n_for is None else f"{row.n_for}/{row.n_seeds}",
        "failures": [failures_text(row, side) for side in "ab"],
        "minutes": f"{row.seconds / 60:.1f}",
    }


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _registration(verdicts: Verdicts) -> dict[str, Any]:
    """What the page says of the claims' version and of what changed after the runs."""
    changed = [row.claim for row in verdicts.claims if row.change in ("added", "changed")]
    return {
        "version": verdicts.version,
        "date": verdicts.date,
        "digest": verdicts.digest[:12],
        "registered": verdicts.registered,
        "changed": changed,
        "removed": verdicts.removed,
        "unregistered": any(row.change == "unregistered" for row in verdicts.claims),
        "family": len(verdicts.family),
    }


def _theory(theory: pd.DataFrame) -> list[dict[str, str]]:
    """Where the bound holds and by what factor, per experiment and stage of φ."""
    missing, rows = gradient_missing(theory), []
    for row in bound_table(theory):
        share = missing.get((row.experiment, row.stage), NOTHING)
        rows.append(
            {
                "experiment": row.experiment,
                "stage": row.stage,
                "holds": f"{row.violations} of {row.points}",
                "factor": " to ".join(map(_plain, row.factors)),
                "variance": _plain(row.over_variance),
                "missing": _percent(share),
                "a1": "fails" if share.low > 0 or share.high < 0 else "not seen to fail",
                "sigma": _plain(row.sigma),
                "jacobian": _plain(row.jacobian),
            }
        )
    return rows


def _rates(theory: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    """Experiment, stage of φ and exponents: of both series, as both sizes or one of them vary."""
    rows: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for row in rate_table(theory):
        text = f"{row.slope.mean:.2f}{_plus_minus(row.slope, '.2f')} ({row.of_bound:.2f})"
        rows.setdefault((row.experiment, row.stage), {})[row.series, row.sweep] = text
    columns = [(series, sweep) for series in (FITTED, FROZEN) for sweep in SWEEPS]
    return [
        (*where, [slopes.get(column, "–") for column in columns]) for where, slopes in rows.items()
    ]


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
    folder = Results(profile, results)
    for name, source in profile.sources.items():
        found = [
            read_json(path, accuracy_train=float, accuracy_test=float)
            for path in folder.victim_files(name)
        ]
        if found:
            train, test = (
                float(np.mean([victim[split] for victim in found]))
                for split in ("accuracy_train", "accuracy_test")
            )
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
            "figures": _figures_named(entry.get("figures"), profile, results),
            "tried": [
                (_report_of(name, profile, results), name, t) for name, t in tried.items() if t
            ],
        }


def _figures_named(prefix: str | None, profile: Profile, results: Path) -> list[tuple[str, str]]:
    """Figures of the page that answer a question, by id and experiment."""
    return [
        (id, experiment.title)
        for name, experiment in profile.experiments.items()
        if prefix and (results / "figures" / f"{(id := f'{prefix}-{name}')}.svg").is_file()
    ]


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
    found += [source.remarks + "." for source in profile.sources.values() if source.remarks]
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
                f"{name}: {training.tasks} training tasks, shared by the sources of a mixture, and "
                f"{testing.tasks} test tasks, where the paper has {PAPER['tasks']} and "
                f"{PAPER[name]}."
            )
    general = yaml.safe_load((REFERENCE / "differences.yaml").read_text(encoding="utf-8"))
    return found + list(general)


def _manifests(profile: Profile, results: Path) -> Iterator[dict[str, Any]]:
    for found in Results(profile, results).manifests():
        yield found.model_dump(mode="json") | {"run": found.run._asdict()}


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
