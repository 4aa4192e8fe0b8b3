"""Write claims.json and claims.csv, with the differences from the registered claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from lft.config import Profile, explain
from lft.errors import UsageError
from lft.report.claims.baselines import behind
from lft.report.claims.judge import judge
from lft.report.claims.model import CellClaim, TheoryClaim, load_claims
from lft.report.claims.verdict import Verdict, Verdicts
from lft.results.digests import record
from lft.results.folder import Results
from lft.results.registered import CLAIMS, Version, changes, version_of, versions
from lft.storage.atomic import write_text
from lft.storage.csv import write_frame
from lft.storage.json import read_json


def write_claims(profile: Profile, results: Path, claims: Path = CLAIMS) -> None:
    """Write claims.json, the same rows as claims.csv, and their digests.

    Args:
        profile: settings.
        results: the profile's result folder.
        claims: file to judge and to compare with the registered versions.
    """
    found = verdicts(profile, results, claims)
    write_text(results / "claims.json", found.model_dump_json(indent=1) + "\n")
    rows = pd.DataFrame(
        [row.model_dump() for row in found.claims], columns=list(Verdict.model_fields)
    )
    write_frame(results / "claims.csv", rows)
    record(results, ["claims.json", "claims.csv"])


def read_verdicts(results: Path) -> Verdicts:
    """Read claims.json.

    Raises:
        UsageError: it is missing or damaged.
    """
    path = results / "claims.json"
    read_json(path)  # reports a missing file, or one that is not JSON
    try:
        return Verdicts.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UsageError(
            f"{path}: {explain(error)}; delete the file and run lft tables again"
        ) from None


def verdicts(profile: Profile, results: Path, claims: Path = CLAIMS) -> Verdicts:
    """Judge the registered claims, and mark those that changed since the runs were made."""
    now = version_of(claims)
    before = list(_registered(profile, results))
    differing: dict[str, str] = {}
    for old in before:
        differing |= changes(old, now) if old else dict.fromkeys(now.claims, "unregistered")
    if not before:
        differing = dict.fromkeys(now.claims, "unregistered")
    chosen = load_claims(claims)
    slower = behind(profile, results)
    rows = [
        row.model_copy(
            update={"change": differing.get(row.claim, ""), "behind": _behind(claim, slower)}
        )
        for claim, row in zip(chosen.claims, judge(profile, results, chosen), strict=True)
    ]
    return Verdicts(
        profile=profile.name,
        version=now.version,
        date=now.date,
        digest=now.digest,
        registered=tuple(f"{old.version} of {old.date}" for old in before if old),
        removed=tuple(name for name, word in differing.items() if word == "removed"),
        family=tuple(
            row.claim
            for row in rows
            if row.kind != "check" and row.status in ("judged", "not measured")
        ),
        claims=tuple(rows),
    )


def _behind(claim: CellClaim | TheoryClaim, slower: Mapping[tuple[str, ...], str]) -> str:
    """Join the sentences about a claim's methods that are behind a hand-designed rule."""
    if not isinstance(claim, CellClaim):
        return ""
    found = (slower.get((claim.experiment, *cell)) for cell in (claim.a, claim.b))
    return "; ".join(dict.fromkeys(filter(None, found)))


def _registered(profile: Profile, results: Path) -> Iterator[Version | None]:
    """Yield the versions in the runs' manifests; None for an unknown version or none."""
    known = versions()
    digests = {manifest.claims for manifest in Results(profile, results).manifests()}
    for digest in sorted(digests, key=str):
        yield known.get(str(digest))
