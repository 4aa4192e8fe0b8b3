"""Set the claims of the first reference run beside those of the present one.

    python workflow/studies/changes.py docs/explanation/changes.md

rewrites the table between the page's marks, from results/first-run.md (the first run's verdicts.md,
all that is kept of it) and results/reference/verdicts.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from trials_table import line, with_table

from lft.paths import CHECKOUT
from lft.storage.atomic import write_text

FIRST, PRESENT = Path("results/first-run.md"), Path("results/reference/verdicts.md")


def read(path: Path) -> dict[str, dict[str, str]]:
    """Read a Markdown table: first cell of a row -> its cells by heading."""
    lines = [text for text in path.read_text(encoding="utf-8").splitlines() if text[:1] == "|"]
    head, _, *rows = ([cell.strip() for cell in text[1:-1].split(" | ")] for text in lines)
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def table(checkout: Path) -> str:
    """Format the claims that both runs judged, as Markdown."""
    first, present = read(checkout / FIRST), read(checkout / PRESENT)
    head = ["claim", "first run", "now", "effect then", "effect now", "verdict then", "verdict now"]
    rows = [
        [claim, first[claim]["ours"], now["ours"], first[claim]["effect"], now["effect"],
         first[claim]["verdict"], now["verdict"]]
        for claim, now in present.items()
        if claim in first
    ]  # fmt: skip
    return "\n".join(map(line, [head, ["---"] * len(head), *rows])) + "\n"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    made = table(CHECKOUT or Path())
    write_text(page, with_table(page.read_text(encoding="utf-8"), made))
