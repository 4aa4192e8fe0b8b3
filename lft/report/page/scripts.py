"""Scripts of the page, each with the hash by which the page's policy lets it run."""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

from markupsafe import Markup

from lft.paths import shipped

START_CURVES = """
vegaEmbed("#curves", JSON.parse(document.getElementById("curves-data").textContent),
  {mode: "vega-lite", renderer: "svg", actions: false, ast: true});
"""


class Script(NamedTuple):
    """A script, and what the page's policy calls it."""

    text: Markup
    hash: str


def filters() -> str:
    """Which claims are shown: a reader without JavaScript sees all."""
    return shipped("report_templates", "filters.js").read_text(encoding="utf-8")


def script(text: str) -> Script:
    """A script that the page's policy allows; nobody but this package may have written it."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), f"'sha256-{digest}'")
