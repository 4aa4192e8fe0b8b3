"""Summary of a run: verdict counts, and whether it agrees with the kept run of the same profile."""

from __future__ import annotations

import csv
import io
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lft.config import Profile
from lft.errors import UsageError
from lft.paths import CHECKOUT
from lft.report.claims import Verdict, read_verdicts
from lft.report.claims.shown import SYMBOLS
from lft.report.compare import compare, sources_note
from lft.results.digests import check

COMPARED = ("summary.csv", "claims.csv", "runs")
"""Parts of a kept run that the comparison reads."""
LINES = 12
"""Most lines of a list on a terminal; the rest is counted."""
TESTED = ("differ", "negligible", "agree", "inconclusive", "identical")
"""Verdicts of a comparison about cells with the same images in both runs."""


def lines(profile: Profile, results: Path, checkout: Path | None = CHECKOUT) -> Iterator[str]:
    """Yield the summary, line by line.

    Args:
        profile: settings.
        results: the profile's result folder.
        checkout: repository that keeps runs; None if there is none.

    Raises:
        UsageError: the claims have not been judged, or were changed by hand.
    """
    for name in ("claims.json", "summary.csv"):
        if not (results / name).is_file():
            raise UsageError(f"{results / name} is missing; run snakemake reproduce first")
    check(results, ("claims.json", "summary.csv"))
    claims = read_verdicts(results).claims
    yield f"Profile {profile.name}: {_counts(claims)}"
    with kept(profile.name, checkout) as folder:
        if folder is None:
            yield f"No run of profile {profile.name} is kept in git to compare with."
        elif (folder / "summary.csv").read_bytes() == (results / "summary.csv").read_bytes():
            yield "Every number is that of the run kept in git."
        else:
            yield from _difference(claims, results, folder)
    yield f"Report: {results / 'report.html'}; lft open -p {profile.name} shows it"


@contextmanager
def kept(name: str, checkout: Path | None = CHECKOUT) -> Iterator[Path | None]:
    """Extract the result folder of a profile from the last commit; None if there is none."""
    with tempfile.TemporaryDirectory(prefix="lft-kept-") as temporary:
        content = None if checkout is None else _archive(checkout, f"results/{name}")
        if content is None:
            yield None
            return
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(temporary, filter="data")
        yield Path(temporary)


def _archive(checkout: Path, folder: str) -> bytes | None:
    """Return the folder in the last commit as a tar file; None if there is none."""
    git = ["git", "-C", str(checkout)]
    try:
        listed = subprocess.run(
            [*git, "ls-tree", "--name-only", f"HEAD:{folder}"], capture_output=True, check=True
        )
        names = [name for name in COMPARED if name in listed.stdout.decode().split()]
        if "summary.csv" not in names:
            return None
        command = [*git, "archive", "--format=tar", f"HEAD:{folder}", *names]
        return subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, no repository, or nothing of that name


def _counts(claims: Iterable[Verdict]) -> str:
    """Count the claims by verdict, and the checks of proven statements separately."""
    rows = list(claims)
    words = Counter(row.verdict or row.status for row in rows if row.kind != "check")
    checks = Counter(row.check or row.status for row in rows if row.kind == "check")
    order = sorted(words, key=lambda word: [*SYMBOLS, word].index(word))
    text = f"{words.total()} claims: " + ", ".join(f"{words[word]} {word}" for word in order)
    if checks:
        found = ", ".join(f"{n} {word}" for word, n in checks.items())
        text += f"; {checks.total()} checks of what is proven: {found}"
    return text


def _difference(claims: Iterable[Verdict], results: Path, folder: Path) -> Iterator[str]:
    frame = compare(results, folder)
    counts = frame["verdict"].value_counts()
    found = ", ".join(f"{n} {word}" for word, n in counts.items())
    yield f"Beside the run kept in git, {len(frame)} cells: {found}"
    differing = frame[frame["verdict"] == "differ"]
    yield from _shortened([_cell(row) for row in differing.to_dict("records")])
    if note := sources_note(frame):
        yield f"  other data: {note}"
    yield from _shortened(list(_changed(claims, folder)))
    yield _agreement(int(counts[counts.index.isin(TESTED)].sum()), len(differing))


def _agreement(tested: int, differing: int) -> str:
    if not tested:
        return "Nothing can be compared with the kept run."
    if not differing:
        return "Agrees with the kept run within the spread over seeds: no cell differs."
    return (
        f"Differs from the kept run beyond the spread over seeds in {differing} of {tested} cells."
    )


def _cell(row: Mapping[Hashable, Any]) -> str:
    return (
        f"  differs: {row['experiment']}, {row['method']}, {row['order']} order, "
        f"{row['trained_on']} to {row['tested_on']}, {row['metric']}: "
        f"{row['a']:.3g}, kept {row['b']:.3g}"
    )


def _changed(claims: Iterable[Verdict], folder: Path) -> Iterator[str]:
    """Yield the claims whose verdict differs from the kept run's."""
    path = folder / "claims.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))  # versions differ in their other columns
    before = {row["claim"]: row.get("verdict") or row.get("status") for row in rows}
    for row in claims:
        now, then = row.verdict or row.status, before.get(row.claim)
        if then is not None and now != then:
            yield f"  verdict: {row.claim}: {now}, kept {then}"


def _shortened(texts: list[str]) -> list[str]:
    more = len(texts) - LINES
    return [*texts[:LINES], f"  and {more} more"] if more > 0 else texts
