"""Scripts of the page, each with the hash that the page's content policy requires."""

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
"""Starts the interactive view."""


class Script(NamedTuple):
    """A script and its hash in the page's content policy."""

    text: Markup
    hash: str


def filters() -> str:
    """Return the script that filters claims; without JavaScript the reader sees all."""
    return shipped("report_templates", "filters.js").read_text(encoding="utf-8")


def script(text: str) -> Script:
    """Mark a script as allowed by the page's policy; it must come from this package."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), f"'sha256-{digest}'")
