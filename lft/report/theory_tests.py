"""Tests of the paper's theory on the rows of theory.csv.

:func:`theory_rows` gives one row per statement and experiment, with an estimate for every seed, so
that a verdict can test it like any other claim. Proven statements are checks of the code, not
claims.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from lft.report.statistics import Finding, Interval, against, mean_interval
from lft.report.theory_numbers import (
    FITTED,
    FROZEN,
    POINT,
    bound_over,
    correlation,
    counted,
    decades,
    finite,
    groups,
    growth,
    tasks,
    total,
)
from lft.report.theory_rates import Sweep, rates

EXACT = 1e-9
"""Largest accepted relative difference between Statement 1's recursion and autograd, in float64."""
SLOWER = 0.1
"""Smallest exponent of interest: |D|^0.1 is 1.3 over sizes that differ by a factor of 16."""
CORRELATED = 0.1
"""Smallest rank correlation of interest."""
FACTOR_OF_TWO = float(np.log10(2))
"""Smallest change of a norm of interest, in decades."""

READING = "under our reading of the lost formula"
"""Note on every statement that needs the formula of Theorem 1."""
NAMES = {
    FITTED: {"both": "|D_tr| = |D_val|", "support": "|D_tr|", "query": "|D_val|"},
    FROZEN: {"both": "|D_new| = |D_val|", "support": "|D_new|", "query": "|D_val|"},
}


class TheoryRow(NamedTuple):
    """One statement in one experiment.

    Attributes:
        claim: value of ``test`` in claims.yaml.
        kind: ``check`` for a proven statement, which tests the code; otherwise ``claim``.
        what: description of the estimate.
        by_seed: the estimate of every seed.
        expected: value of the estimate at the edge of the statement.
        better: side of ``expected`` on which the statement holds.
        margin: smallest effect of interest, in units of the estimate.
        equal: whether ``expected`` itself satisfies the statement ("not slower than"); it is then
            judged by non-inferiority within the margin.
        n: number of values used: tasks of all seeds, and points where each counts by itself.
        violations: number of values that violate an inequality, before any averaging.
        left_out: number of values left out, by reason.
        note: further remarks.
    """

    claim: str
    experiment: str
    kind: Literal["claim", "check"]
    what: str
    by_seed: Mapping[int, float]
    expected: float
    better: Literal["higher", "lower"]
    margin: float = 0.0
    equal: bool = False
    n: int = 0
    violations: int = 0
    left_out: Mapping[str, int] = {}
    note: str = ""

    @property
    def effects(self) -> dict[int, float]:
        """By seed, how far the estimate is on the statement's side."""
        sign = 1.0 if self.better == "higher" else -1.0
        return {seed: sign * (value - self.expected) for seed, value in self.by_seed.items()}


Statement = Callable[[str, pd.DataFrame, str], TheoryRow | None]
"""Maps an experiment, its rows and the stage of φ to a row; None if nothing was measured."""


def theory_rows(theory: pd.DataFrame, stage: str = "best") -> list[TheoryRow]:
    """Return every statement in every experiment that measured it.

    Args:
        theory: rows of THEORY_COLUMNS.
        stage: stage of φ for statements about gaps. Inequalities use all stages; vanishing and
            exploding use the initial φ.
    """
    return [row for claim in STATEMENTS for row in readings(claim, theory, stage)]


def readings(claim: str, theory: pd.DataFrame, stage: str = "best") -> list[TheoryRow]:
    """Return one statement in every experiment that measured it; see :func:`theory_rows`."""
    found = (
        STATEMENTS[claim](str(name), of_experiment, stage)
        for name, of_experiment in theory.groupby("experiment", observed=True, sort=False)
    )
    return [row for row in found if row is not None]


# ---------------------------------------------------------------- checks


def _statement1(name: str, theory: pd.DataFrame, stage: str) -> TheoryRow | None:
    """Statement 1: the recursion of eqs. 8 and 9 is the meta-gradient."""
    errors = theory[theory["quantity"] == "statement1_error"]
    if errors.empty:
        return None
    what = "largest relative difference between recursion and autograd"
    return _inequality("statement1", name, what, errors, "value", EXACT)


def _zeroth_derivatives(name: str, theory: pd.DataFrame, stage: str) -> TheoryRow | None:
    """Sec. 3: with zeroth-order input the meta-gradient needs first derivatives of f only."""
    orders = theory[theory["quantity"] == "derivative_order"]
    zeroth = orders[orders["method"].str.startswith("lft zeroth")]
    if zeroth.empty:
        return None
    what = "highest derivative of f that the meta-gradient takes"
    row = _inequality("zeroth_derivatives", name, what, zeroth, "value", 1.0)
    first = orders.loc[orders["method"] == "lft first exact", "value"]
    return row._replace(note=f"with first-order input {first.max():.0f}" if len(first) else "")


def _below_bound(claim: str, quantity: str) -> Statement:
    def below(name: str, theory: pd.DataFrame, stage: str) -> TheoryRow | None:
        """Theorem 1, task by task; the proof covers D_new, and D_tr only as far as A1 holds."""
        table = tasks(theory, quantity, "bound", "sigma")
        if table.empty:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            table["ratio"] = np.where(table[quantity] > 0, table[quantity] / table["bound"], 0.0)
        known = table[finite(table, quantity, "bound")]
        row = _inequality(claim, name, "largest gap / bound of a task", known, "ratio", 1.0)
        factor = bound_over(known, quantity)
        note = f"bound / gap {factor.min():.2g} to {factor.max():.2g}; " if len(factor) else ""
        note += _without_bound(known, row.violations)
        unknown = counted({"not finite": len(table) - len(known)})
        return row._replace(left_out=unknown, note=note + READING)

    return below


def _without_bound(table: pd.DataFrame, violations: int) -> str:
    """Describe the points where the bound is 0, and count the violations elsewhere."""
    nothing = table[table["bound"] == 0]
    if nothing.empty:
        return ""
    n, measured = len(nothing), int((nothing["sigma"] == 0).sum())
    why = "where" if measured == n else f"at {measured} of them"
    positive = violations - int((~(nothing["ratio"] <= 1.0)).sum())
    return (
        f"the bound is 0 at {n} of {len(table)}, {why} σ was measured as 0; "
        f"{positive} violations of a bound above 0; "
    )


def _inequality(
    claim: str, name: str, what: str, rows: pd.DataFrame, column: str, most: float
) -> TheoryRow:
    """Check that every value of a column is at most ``most``."""
    largest = rows.groupby("seed")[column].max()
    return TheoryRow(
        claim, name, "check", what, _by_seed(largest), most, "lower", equal=True,
        n=len(rows), violations=int((~(rows[column] <= most)).sum()),
    )  # fmt: skip


def _decay(sweep: Sweep, series: str) -> Statement:
    kind: Literal["claim", "check"] = "claim" if series == FITTED else "check"
    quantity, suffix = ("gap", "") if series == FITTED else ("variance_part", "_independent")

    def decay(name: str, theory: pd.DataFrame, stage: str) -> TheoryRow | None:
        """The gap falls with |D| no more slowly than the bound.

        An upper bound does not imply that the gap falls as fast. With D_new it is proven for the
        root mean square.
        """
        of_stage = theory[theory["stage"] == stage]
        all_rates = rates(of_stage, quantity, series, sweep)
        known = {seed: r for (_, _, seed), r in all_rates.items() if np.isfinite(r.excess)}
        if len(known) < (2 if kind == "check" else 1):
            return None  # one seed has no interval, so nothing could violate a check
        slope = mean_interval([rate.slope for rate in known.values()])
        one = next(iter(known.values()))
        excess = {seed: rate.excess for seed, rate in known.items()}
        return TheoryRow(
            f"decay_{sweep}{suffix}", name, kind,
            f"exponent of {NAMES[series][sweep]} in the gap less that in the bound",
            excess, 0.0, "lower", SLOWER, equal=True,
            n=sum(rate.tasks for rate in known.values()),
            violations=int(kind == "check" and _low(excess) > SLOWER),
            left_out=total(rate.left_out for rate in all_rates.values()),
            note=f"exponent {_plus_minus(slope)}, in the bound {one.of_bound:.2f}, over sizes that "
            f"differ by a factor of {np.exp(one.span):.0f}; {READING}",
        )  # fmt: skip

    return decay


# ---------------------------------------------------------------- claims


def _grows_with(constant: str, symbol: str) -> Statement:
    def grows(name: str, theory: pd.DataFrame, stage: str) -> TheoryRow | None:
        """Remark 2: tasks with a larger constant have a larger gap, at the same sizes and K."""
        table = _fitted(tasks(theory, "gap", constant), stage)
        found = correlation(table, constant, "gap", POINT)
        if not found.by_seed:
            return None
        what = f"rank correlation of gap and {symbol} over tasks, mean over points"
        return TheoryRow(
            constant, name, "claim", what, found.by_seed, 0.0, "higher", CORRELATED,
            n=found.n, left_out=found.left_out,
        )  # fmt: skip

    return grows


def _steps(name: str, theory: pd.DataFrame, stage: str) -> TheoryRow | None:
    """Remark 2, if its lost symbol is K: more steps give a task a larger gap."""
    table = _fitted(tasks(theory, "gap"), stage)
    if table.empty:
        return None
    table = max(
        (group for _, group in groups(table, "support", "query")),
        key=lambda group: group["steps"].nunique(),
    )
    found = growth(table, "steps", "gap")
    if not found.by_seed:
        return None
    middle = table[finite(table, "gap")].groupby("steps")["gap"].median()
    ends = (f"{middle.loc[k]:.2g} at K = {k}" for k in (middle.index.min(), middle.index.max()))
    return TheoryRow(
        "steps", name, "claim", "exponent of K in the gap", found.by_seed, 0.0, "higher", SLOWER,
        n=found.n, left_out=found.left_out, note=f"median gap {', '.join(ends)}",
    )  # fmt: skip


def _fitted(table: pd.DataFrame, stage: str) -> pd.DataFrame:
    return table[(table["stage"] == stage) & (table["method"] == FITTED)]


def _change(claim: Literal["vanishing", "exploding"]) -> Statement:
    verb = "loses with K" if claim == "vanishing" else "gains beyond a factor of K"

    def change(name: str, theory: pd.DataFrame, stage: str) -> TheoryRow | None:
        """At the initial φ, LFT's meta-gradient vanishes less with K than MAML's, or grows no more.

        The paper only mentions vanishing. A sum of K like terms grows as K; only growth beyond that
        counts as exploding.
        """
        table = decades(theory[theory["stage"] == "initial"])
        known = table[finite(table, "decades")]
        beyond = -known["decades"] if claim == "vanishing" else known["decades"] - known["of_k"]
        means = known.assign(amount=beyond.clip(lower=0)).pivot_table(
            index="seed", columns="method", values="amount"
        )
        if not {"lft", "maml"} <= set(means.columns):
            return None
        means = means.dropna()
        return TheoryRow(
            claim, name, "claim", f"decades that a task's meta-gradient {verb}: MAML's less LFT's",
            _by_seed(means["maml"] - means["lft"]), 0.0, "higher", FACTOR_OF_TWO,
            equal=claim == "exploding", n=len(known),
            left_out=counted({"0 or not finite": len(table) - len(known)}),
            note=f"LFT's {means['lft'].mean():.2f}, MAML's {means['maml'].mean():.2f}",
        )  # fmt: skip

    return change


STATEMENTS: dict[str, Statement] = {
    "statement1": _statement1,
    "zeroth_derivatives": _zeroth_derivatives,
    "bound": _below_bound("bound", "gap"),
    "bound_independent": _below_bound("bound_independent", "variance_part"),
    "decay_both_independent": _decay("both", FROZEN),
    "decay_support_independent": _decay("support", FROZEN),
    "decay_query_independent": _decay("query", FROZEN),
    "decay_both": _decay("both", FITTED),
    "decay_support": _decay("support", FITTED),
    "decay_query": _decay("query", FITTED),
    "sigma": _grows_with("sigma", "σ"),
    "jacobian": _grows_with("jacobian", "G"),
    "steps": _steps,
    "vanishing": _change("vanishing"),
    "exploding": _change("exploding"),
}
"""Every statement, by its name in claims.yaml (``test``)."""


# ---------------------------------------------------------------- findings


def finding(rows: list[TheoryRow]) -> Finding | None:
    """Combine a statement's rows.

    For a claim, the experiment that speaks most against it decides. A check holds if nothing
    violates it.

    Args:
        rows: rows of one statement.

    Returns:
        None without rows.
    """
    if not rows:
        return None
    if rows[0].kind == "check":
        n, violations = sum(row.n for row in rows), sum(row.violations for row in rows)
        ours = f"{violations} violations in {n} values"
        return Finding(ours, holds=violations == 0, note=_remarks(rows))
    effects = {row.experiment: np.array(list(row.effects.values())) for row in rows}
    edge = rows[0].margin if rows[0].equal else 0.0
    weakest = effects[against({name: found + edge for name, found in effects.items()})]
    numbers = ", ".join(
        f"{row.experiment} {_plus_minus(mean_interval(list(row.by_seed.values())))}" for row in rows
    )
    return Finding(
        f"{rows[0].what}: {numbers}",
        tuple(weakest),
        smallest=rows[0].margin,
        equal=rows[0].equal,
        unit=rows[0].what,
        readings=len(rows),
        note=_remarks(rows),
    )


def _remarks(rows: list[TheoryRow]) -> str:
    """Join the notes of each experiment and the counts of left-out values."""
    remarks = []
    for row in rows:
        left = (f"{count} left out ({reason})" for reason, count in row.left_out.items())
        said = "; ".join(filter(None, (row.note, *left)))
        remarks += [f"{row.experiment}: {said}"] if said else []
    return " / ".join(remarks)


def _test(claim: str) -> Callable[[pd.DataFrame], Finding | None]:
    return lambda theory: finding(readings(claim, theory))


TESTS: dict[str, Callable[[pd.DataFrame], Finding | None]] = {
    claim: _test(claim) for claim in STATEMENTS
}
"""Tests that a claim of claims.yaml may name."""


def _by_seed(values: pd.Series[float]) -> dict[int, float]:
    return {int(str(seed)): float(value) for seed, value in values.items()}


def _low(by_seed: Mapping[int, float]) -> float:
    """Return the lower end of the interval over seeds."""
    return mean_interval(list(by_seed.values())).low


def _plus_minus(interval: Interval) -> str:
    half = "" if np.isnan(interval.low) else f" ± {interval.half_width:.2f}"
    return f"{interval.mean:.2f}{half}"
