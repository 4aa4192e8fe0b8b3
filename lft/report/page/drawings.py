"""Figures as parts of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lft.errors import UsageError
from lft.report.page.provenance import records
from lft.report.style import CAPTION_COLUMNS, theme
from lft.storage.csv import read_rows


def figures(results: Path) -> Iterator[dict[str, Any]]:
    """Yield every drawn figure with its caption.

    Raises:
        UsageError: one is missing.
    """
    folder = results / "figures"
    captions = read_rows(folder / "captions.csv", CAPTION_COLUMNS)
    for row in records(captions.astype(str)):
        path = folder / f"{row['id']}.svg"
        try:
            svg = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        yield {**row, "width": _width(svg), "svg": inline(svg, row["id"], row["alt"])}


def inline(svg: str, prefix: str, label: str) -> Markup:
    """Convert a figure's SVG to a part of the page.

    Ids become unique, unused ones go, and colours follow the page's theme.

    Args:
        svg: content of the file.
        prefix: makes the ids unique.
        label: text for screen readers.
    """
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", body)
    for color, variable in theme().items():
        body = body.replace(color.lower(), variable)
    body = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", body, count=1)
    opening = Markup('<svg role="img" aria-label="{}"').format(label)
    return Markup(body.replace("<svg", opening, 1))


def _width(svg: str) -> str:
    """Return the width in points, as drawn."""
    found = re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)
    return found[1] if found else "400"
