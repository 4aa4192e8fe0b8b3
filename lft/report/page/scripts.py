"""Scripts of the page, each with the hash by which the page's policy lets it run."""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

from markupsafe import Markup

START_CURVES = """
vegaEmbed("#curves", JSON.parse(document.getElementById("curves-data").textContent),
  {mode: "vega-lite", renderer: "svg", actions: false, ast: true});
"""


class Script(NamedTuple):
    """A script, and what the page's policy calls it."""

    text: Markup
    hash: str


def script(text: str) -> Script:
    """A script that the page's policy allows; nobody but this package may have written it."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), f"'sha256-{digest}'")
