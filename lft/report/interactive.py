"""The page's interactive view: fine-tuning curves with switches for methods and seeds.

It is a Vega-Lite specification with the data inside. Vega comes from the package vl-convert and is
embedded, so the page fetches nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lft.metrics import metric_of
from lft.report.style import ORDERS, Look, Style, theme

MOST_STEPS = 101
"""Longer curves are thinned to about this many points."""


class Curve(NamedTuple):
    """Mean over test tasks against fine-tuning steps, for one method and seed in one cell."""

    panel: str
    look: Look
    seed: int
    steps: list[int]
    values: list[float | None]


def library() -> str:
    """Return Vega-Embed, with Vega and Vega-Lite, as one script."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def curves(summary: pd.DataFrame, style: Style) -> Iterator[Curve]:
    """Yield the curves of the primary metric in every measured cell."""
    keys = ["experiment", "trained_on", "tested_on", "order"]
    primaries = {name: found.primary for name, found in style.profile.experiments.items()}
    primary = summary["experiment"].astype(str).map(primaries)
    rows = summary[summary["metric"].astype(str) == primary]
    for names, cell in rows.groupby(keys, observed=True, sort=False):
        experiment, trained_on, tested_on, order = map(str, names)
        panel = (
            f"{metric_of(primaries[experiment]).title.capitalize()}: "
            f"{style.mixture(experiment, trained_on)} → {style.mixture(experiment, tested_on)}"
        )
        if len(style.profile.experiment(experiment).orders) > 1:
            panel += f", {ORDERS[order]}"
        for (method, seed), line in cell.groupby(["method", "seed"], observed=True, sort=False):
            line = line.sort_values("step")
            line = line.iloc[:: -(-len(line) // MOST_STEPS)]
            yield Curve(
                panel,
                style.method(experiment, str(method)),
                int(str(seed)),
                line["step"].tolist(),
                [round(value, 4) if np.isfinite(value) else None for value in line["mean"]],
            )


def specification(lines: list[Curve]) -> dict[str, Any]:
    """Build the Vega-Lite specification of the chart.

    A menu chooses the cell, and each method and seed has a checkbox. The inputs go into the
    elements ``#curves-cell``, ``#curves-methods`` and ``#curves-seeds``.
    """
    panels = list(dict.fromkeys(line.panel for line in lines))
    looks = list({line.look.label: line.look for line in lines}.values())
    labels = [look.label for look in looks]
    seeds = sorted({line.seed for line in lines})
    menu = {
        "input": "select",
        "options": list(range(len(panels))),
        "labels": panels,
        "element": "#curves-cell",
        "name": "Cell",
    }
    boxes = {f"method_{i}": ("#curves-methods", label) for i, label in enumerate(labels)}
    boxes |= {f"seed_{i}": ("#curves-seeds", f"seed {seed}") for i, seed in enumerate(seeds)}
    values = [
        {
            "panel": panels.index(line.panel),
            "method": line.look.label,
            "box": labels.index(line.look.label),
            "seed": line.seed,
            "seed_box": seeds.index(line.seed),
            "step": line.steps,
            "value": line.values,
        }
        for line in lines
    ]
    shown_methods = ",".join(f"method_{i}" for i in range(len(labels)))
    shown_seeds = ",".join(f"seed_{i}" for i in range(len(seeds)))
    scale = {"domain": labels, "range": [theme()[look.color] for look in looks]}
    dashes = {"domain": labels, "range": [list(look.dash) or [1, 0] for look in looks]}
    legend = {
        "orient": "bottom",
        "title": None,
        "columns": 3,
        "symbolType": "stroke",
        "symbolSize": 600,
        "symbolStrokeWidth": 2,
    }
    return {
        "description": "Fine-tuning curves of the cell, methods and seeds chosen above; the "
        "numbers are in summary.csv.",
        "params": [
            {"name": "cell", "value": 0, "bind": menu},
            *(
                {
                    "name": name,
                    "value": True,
                    "bind": {"input": "checkbox", "element": element, "name": label},
                }
                for name, (element, label) in boxes.items()
            ),
        ],
        "data": {"values": values},
        "transform": [
            {"filter": "datum.panel == cell"},
            {"filter": f"[{shown_methods}][datum.box] && [{shown_seeds}][datum.seed_box]"},
            {"flatten": ["step", "value"]},
        ],
        "width": "container",
        "height": 320,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "mark": {
            "type": "line",
            "point": {"opacity": 0, "size": 60, "aria": False},
            "tooltip": True,
            "aria": False,
        },
        "encoding": {
            "x": {
                "field": "step",
                "type": "quantitative",
                "title": "fine-tuning steps",
                "axis": {"tickMinStep": 1},
            },
            "y": {
                "field": "value",
                "type": "quantitative",
                "title": None,
                "scale": {"zero": False},
                "axis": {"tickCount": 6},
            },
            "color": {"field": "method", "type": "nominal", "scale": scale, "legend": legend},
            "strokeDash": {"field": "method", "type": "nominal", "scale": dashes, "legend": legend},
            "detail": {"field": "seed"},
            "tooltip": [{"field": name} for name in ("method", "seed", "step", "value")],
        },
        "config": {
            "background": "transparent",
            "font": "inherit",
            "view": {"stroke": None},
            "axis": {
                "labelColor": "currentColor",
                "titleColor": "currentColor",
                "domainColor": "currentColor",
                "tickColor": "currentColor",
                "gridColor": "currentColor",
                "gridOpacity": 0.15,
                "labelFontSize": 12,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
            },
            "legend": {"labelColor": "currentColor", "labelFontSize": 12},
        },
    }
