"""List the claims with their verdicts and costs, or judge one claim alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from lft.config import Profile
from lft.errors import UsageError
from lft.report.claims import Verdict, judge, load_claims, read_verdicts
from lft.report.claims.needed import Needed, needed
from lft.report.claims.shown import SYMBOLS, effect_text, needed_text
from lft.results.aggregate import aggregate
from lft.results.digests import SUMS, check
from lft.results.folder import Results
from lft.results.schema import CELL_COLUMNS, THEORY_COLUMNS, Measurement
from lft.storage.csv import join_csv, write_rows


def as_table(profile: Profile, results: Path) -> Table:
    """Tabulate every claim with its verdict and the time of its trainings, from claims.json.

    Raises:
        UsageError: claims.json is damaged or was changed by hand.
    """
    judged = (results / "claims.json").is_file()
    check(results, ["claims.json"])
    rows = {row.claim: row for row in read_verdicts(results).claims} if judged else {}
    table = Table(title=escape(f"Claims of the paper, profile {profile.name}"))
    for heading in ("claim", "verdict", "seconds"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "seconds" else "left")
    table.add_column("what it says")
    for claim in load_claims().claims:
        row = rows.get(claim.id)
        cost = f"{row.seconds:,.0f}" if row and row.seconds else "–"
        table.add_row(*map(escape, (claim.id, word(row), cost, claim.claim)))
    if not judged:
        table.caption = escape(f"Without {results / 'claims.json'} there are no verdicts yet.")
    return table


def word(row: Verdict | None) -> str:
    """Return a verdict with its symbol, or the reason that there is none."""
    if row is None:
        return "not judged"
    if row.verdict:
        return f"{SYMBOLS[row.verdict]} {row.verdict}"
    return row.check or row.status


def verdict(profile: Profile, results: Path, claim: str) -> Verdict:
    """Judge one claim from the measurements that it needs, whatever else a result folder contains.

    Its p-value is adjusted over all claims of the profile as if those of the others were larger.
    The verdict of a full report, which knows them, can only be more decided.

    Args:
        profile: settings.
        results: the profile's result folder.
        claim: id of the claim.

    Raises:
        UsageError: there is no such claim, nothing that it needs has been measured, or a run was
            made under other settings.
    """
    needs, found = needed(profile, claim), Results(profile, results)
    measured = [*filter(None, map(found.measurement_file, needs.runs))]
    if needs.theory:
        measured += found.theory_files()
    if not measured:
        raise UsageError(
            f"nothing of claim {claim!r} has been measured in {results}; run "
            f"snakemake claim --config claim={claim} profile={profile.name}"
        )
    sums = {path.with_name(SUMS) for path in measured}
    manifests = [results / run.folder / "run.json" for run in needs.runs]
    manifests += [path.with_suffix(".json") for path in measured if needs.theory]
    with tempfile.TemporaryDirectory(prefix="lft-claim-") as temporary:
        folder = Path(temporary)
        for path in (*measured, *filter(Path.is_file, (*manifests, *sums))):
            if path.is_relative_to(results):  # others are given by the profile, and read there
                _link(path, folder / path.relative_to(results))
        _join(profile, folder, needs)
        rows = judge(profile, folder)
    return next(row for row in rows if row.claim == claim)


def as_text(row: Verdict) -> Iterator[str]:
    """Format a verdict as a few lines."""
    yield f"{row.claim}: {row.text}"
    yield f"  place    {row.place}"
    yield f"  paper    {row.paper}"
    yield f"  ours     {row.ours}"
    if row.effect is not None:
        yield f"  effect   {effect_text(row)}, {row.n_seeds} seed{'s' * (row.n_seeds != 1)}"
    if row.p is not None:
        yield f"  p        {row.p:.2g}, adjusted over all claims, with the others assumed larger"
    yield f"  cost     {row.seconds:,.0f} s of meta-training or theory"
    notes = "; ".join(filter(None, (row.reason, needed_text(row))))
    yield f"  verdict  {word(row)}" + f" ({notes})" * bool(notes)


def _link(source: Path, target: Path) -> None:
    """Link a file into another folder, unless it is there already."""
    if not target.exists():  # a file for all seeds is listed once per seed
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.absolute())


def _join(profile: Profile, folder: Path, needs: Needed) -> None:
    """Write the joined tables that :func:`lft.report.claims.judge` reads."""
    if needs.runs:
        aggregate(profile, folder)
        return
    write_rows(folder / "measurements.csv", Measurement._fields, ())
    unmeasured = (
        (*run[:2], tested_on, *run[2:], "not applicable" if refusal else "missing", refusal or "")
        for run, tested_on, refusal in profile.cells()
    )
    write_rows(folder / "cells.csv", CELL_COLUMNS, unmeasured)
    join_csv(folder / "theory.csv", THEORY_COLUMNS, Results(profile, folder).theory_files())
