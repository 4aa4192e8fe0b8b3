"""The paper's claims in claims.yaml, and its printed numbers in paper.csv."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError, field_validator, model_validator

from lft.config import Settings, explain, read_yaml
from lft.errors import UsageError, suggestion
from lft.methods import METHODS
from lft.paths import written
from lft.report import theory_tests
from lft.report.effects import CellName
from lft.report.scales import ARRIVAL, Scale
from lft.results.registered import CLAIMS, REFERENCE

STEP = 100
"""Fine-tuning steps of the paper's tables."""


class Claim(Settings):
    """One testable sentence of the paper; the head of claims.yaml explains the kinds."""

    id: str
    claim: str
    place: str
    hypothesis: str
    figure: str


class CellClaim(Claim):
    """A claim about two cells of the result tables."""

    kind: Literal["better", "not-worse", "equivalent", "wider"]
    experiment: str
    metric: str
    a: CellName
    b: CellName
    step: int


class TheoryClaim(Claim):
    """A statement about the rows of theory.csv.

    The kind ``check`` is a proven statement; it tests the code and not the paper.
    """

    kind: Literal["theory", "check"]
    test: str

    @field_validator("test")
    @classmethod
    def _known(cls, test: str) -> str:
        if test not in theory_tests.TESTS:
            raise ValueError(f"unknown test {test!r}{suggestion(test, theory_tests.TESTS)}")
        return test


class Claims(Settings):
    """A version of claims.yaml."""

    version: int
    date: str
    metrics: dict[str, Scale]
    hypotheses: dict[str, str]
    claims: tuple[CellClaim | TheoryClaim, ...]

    @model_validator(mode="after")
    def _complete(self) -> Claims:
        if "asr" not in self.metrics:
            raise ValueError("metrics must define 'asr'")
        for claim in self.claims:
            if claim.hypothesis not in self.hypotheses:
                hint = suggestion(claim.hypothesis, self.hypotheses)
                raise ValueError(f"{claim.id}: unknown hypothesis {claim.hypothesis!r}{hint}")
            if isinstance(claim, CellClaim) and claim.metric not in self.metrics:
                hint = suggestion(claim.metric, self.metrics)
                raise ValueError(f"{claim.id}: unknown metric {claim.metric!r}{hint}")
        return self


def load_claims(path: Path = CLAIMS) -> Claims:
    """Read the registered claims, once until the file changes.

    Raises:
        UsageError: the file is not valid; the message names the claim and the key.
    """
    return _load(path, written(path))


@functools.lru_cache(maxsize=2)
def _load(path: Path, _written: tuple[int, int]) -> Claims:
    content = read_yaml(path, "claims")
    entries = content.get("claims") if isinstance(content, dict) else None
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise UsageError(
            f"{path}: expected version, date, metrics, hypotheses and a list of claims"
        )
    claims: list[CellClaim | TheoryClaim] = []
    for number, entry in enumerate(entries, start=1):
        kind = TheoryClaim if entry.get("kind") in ("theory", "check") else CellClaim
        try:
            claims.append(kind.model_validate(entry))
        except ValidationError as error:
            where = f"claim {number} ({entry.get('id', 'without id')})"
            raise UsageError(f"{path}: {where}: {explain(error)}") from None
        for method in _methods(claims[-1]):
            if method not in METHODS:
                hint = suggestion(method, METHODS)
                raise UsageError(f"{path}: claim {number}: unknown method {method!r}{hint}")
        if claims[-1].id in {claim.id for claim in claims[:-1]}:
            raise UsageError(f"{path}: claim {claims[-1].id!r} is listed twice")
    try:
        return Claims.model_validate(
            {**content, "date": str(content.get("date")), "claims": tuple(claims)}
        )
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error)}") from None


def printed(
    paper: Mapping[tuple[str, ...], dict[str, str]], claim: CellClaim, cell: CellName
) -> dict[str, str] | None:
    """Find the row of a claim's cell in the paper's tables.

    Args:
        paper: result of :func:`load_paper`.
        claim: the claim.
        cell: one of its cells.

    Returns:
        None where the tables have no number, as after other steps or for zeroth-order input.
    """
    in_table = cell[3] == "first" and (claim.metric == ARRIVAL or claim.step == STEP)
    return paper.get((*cell[:3], claim.metric)) if in_table else None


def _methods(claim: CellClaim | TheoryClaim) -> tuple[str, ...]:
    return (claim.a[2], claim.b[2]) if isinstance(claim, CellClaim) else ()


def load_paper(path: Path = REFERENCE / "paper.csv") -> dict[tuple[str, ...], dict[str, str]]:
    """Read the printed numbers, by (trained on, tested on, method, metric)."""
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (row["trained_on"], row["tested_on"], row["method"], row["metric"]): row
            for row in csv.DictReader(file)
        }
