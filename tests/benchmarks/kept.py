"""Run the benchmarks, compare them with the kept ones, and write docs/performance.md's tables.

    python tests/benchmarks/kept.py [pytest's arguments]

One file a processor is kept, results/benchmarks/<processor>.json: the median CPU seconds of every
competitor in every group of pytest-benchmark's. Times drift on a shared machine, so it is ratios
within a group that are compared: each competitor's time over the first one's, this package's.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "results" / "benchmarks"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- tables: make benchmark -->\n", "<!-- end of tables -->\n"
MOVED = 0.1

Groups = dict[str, dict[str, float]]
"""Median CPU seconds by group and competitor, both in the order in which they ran."""


def processor() -> str:
    """Its name and the vector instructions that the kernels use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    return f"{fields.get('model name', 'unknown')}, {torch.backends.cpu.get_cpu_capability()}"


def medians(report: dict[str, Any]) -> Groups:
    """From pytest-benchmark's JSON; a test's name ends with its competitor's."""
    groups: Groups = {}
    for benchmark in report["benchmarks"]:
        competitor = re.split(r"[\[-]", benchmark["name"].rstrip("]"))[-1]
        groups.setdefault(benchmark["group"], {})[competitor] = benchmark["stats"]["median"]
    return groups


def ratios(group: dict[str, float]) -> dict[str, float]:
    """Each competitor's time over the first one's."""
    first = next(iter(group.values()))
    return {name: seconds / first for name, seconds in group.items()}


def moved(old: Groups, new: Groups) -> list[str]:
    """Lines that say which ratios changed by more than MOVED."""
    lines = []
    for group in new.keys() & old.keys():
        before, now = ratios(old[group]), ratios(new[group])
        for name in now.keys() & before.keys():
            if abs(now[name] / before[name] - 1) > MOVED:
                lines.append(f"{group}: {name} {before[name]:.2f}x, now {now[name]:.2f}x")
    return sorted(lines)


def rendered(kept: dict[str, Any]) -> str:
    """One processor's tables: a row a group, a column a competitor, the first one's times bold."""
    lines = [f"### {kept['processor']} (torch {kept['torch']})", ""]
    for names, part in groupby(kept["groups"].items(), key=lambda item: tuple(item[1])):
        head = ["milliseconds", *(name.replace("_", " ") for name in names)]
        lines += [f"| {' | '.join(head)} |", f"|---|{'---:|' * len(names)}"]
        for group, seconds in part:
            cells = [
                f"{value * 1e3:.3g} ({ratio:.1f}×)"
                for value, ratio in zip(seconds.values(), ratios(seconds).values(), strict=True)
            ]
            cells[0] = f"**{next(iter(seconds.values())) * 1e3:.3g}**"
            lines.append(f"| {' | '.join([group, *cells])} |")
        lines.append("")
    return "\n".join(lines)


def page_with_tables(page: str) -> str:
    """The page with the tables of all kept files between its marks."""
    files = sorted(FOLDER.glob("*.json"))
    tables = "\n".join(rendered(json.loads(file.read_text())) for file in files)
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{tables}\n{END}{rest.split(END)[1]}"


def keep(report: dict[str, Any]) -> None:
    """Say what moved, then keep what was measured; groups that did not run stay as they are."""
    name = processor()
    file = FOLDER / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.json"
    old: Groups = json.loads(file.read_text())["groups"] if file.exists() else {}
    new = medians(report)
    print("\n".join(moved(old, new)) or f"no ratio moved by more than {MOVED:.0%}")
    kept = {"processor": name, "torch": torch.__version__, "groups": old | new}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page_with_tables(PAGE.read_text()))


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "benchmarks.json"
        command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), "--benchmark-only"]
        command += ["--override-ini", "addopts=-q", "--benchmark-json", str(report)]
        command += ["--benchmark-timer", "time.process_time", *arguments]
        status = subprocess.run(command, check=False).returncode
        if not status:
            keep(json.loads(report.read_text()))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
