"""docs/gpu.md, from the files of results of `make gpu-check`.

python tests/gpu/tables.py        # writes it again
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PAGE = ROOT / "results" / "gpu", ROOT / "docs" / "gpu.md"
BEGIN = "<!-- From here on written by tests/gpu/tables.py. -->\n"
MULTIPLY_ADDS, FUNCTIONS = 1880, 100
"""Of one coordinate and step at hidden size 10, forward and back (docs/performance.md)."""
MODES = ("eager", "graph", "compile", "graph+compile")
NOTHING = "No GPU has been measured yet.\n"


def render(documents: list[dict[str, Any]]) -> str:
    """The measured part of the page."""
    sections = ["\n".join(_section(document)) + "\n" for document in documents]
    return "\n".join(sections) or NOTHING


def _section(document: dict[str, Any]) -> Iterator[str]:
    parts = document["parts"]
    machine = {k: v for row in parts.get("machine", {"rows": []})["rows"] for k, v in row.items()}
    gpu = machine.get("gpu", "no GPU")
    yield f"## {gpu}, {document['began'][:10]}"
    yield ""
    yield (
        f"{gpu}, {machine.get('cores')} cores of {machine.get('processor')} "
        f"({machine.get('simd')}), Python {machine.get('python')}, torch {machine.get('torch')}."
    )
    yield ""
    yield "| part | outcome | seconds |"
    yield "|---|---|---:|"
    for name, part in parts.items():
        yield f"| {name} | {_outcome(part)} | {part.get('seconds', 0):.0f} |"
    yield ""
    yield from _parity(parts)
    if "functions_per_second" in machine:
        yield from _limits(machine)
        yield ""
    yield from _steps(parts, machine)
    yield ""
    yield from _trainings(parts)


def _outcome(part: dict[str, Any]) -> str:
    tests = Counter(row["outcome"] for row in part.get("rows", []) if "test" in row)
    counts = ", ".join(f"{n:,} {what}" for what, n in sorted(tests.items()))
    return part["status"] + (f": {counts}" if counts else "")


def _parity(parts: dict[str, Any]) -> Iterator[str]:
    """Tests that failed, and how far apart numbers are."""
    rows = [row for part in parts.values() for row in part.get("rows", []) if "test" in row]
    failed = [f"- {row['test']}: failed" for row in rows if row["outcome"] == "failed"]
    yield from [*failed, ""] if failed else []
    apart: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if "distance" in row:
            name, _, kind = row["test"].partition("[")[2].rstrip("]").partition("-")
            apart.setdefault((name, kind.rsplit("-", 1)[-1]), []).append(row["distance"])
    if not apart:
        return
    yield "Largest relative distance from the CPU over methods and orders:"
    yield ""
    yield "| family | float32 | float64 |"
    yield "|---|---:|---:|"
    for name in dict.fromkeys(name for name, _ in apart):
        largest = (
            max(apart.get((name, kind), []), default=None) for kind in ("float32", "float64")
        )
        yield f"| {name} | {' | '.join('' if x is None else f'{x:.0e}' for x in largest)} |"
    yield ""


def _limits(machine: dict[str, Any]) -> Iterator[str]:
    yield "| limit, measured | |"
    yield "|---|---:|"
    yield f"| copying, GB/s read and written | {machine['copied_bytes_per_second'] / 1e9:,.0f} |"
    adds = machine["multiply_adds_per_second"]
    yield f"| float32 products, multiply-adds in 10⁹/s | {adds / 1e9:,.0f} |"
    yield f"| tanh and sigmoid, 10⁹/s | {machine['functions_per_second'] / 1e9:,.0f} |"
    yield f"| a call that does next to nothing, µs | {machine['small_call_seconds'] * 1e6:.1f} |"
    yield f"| so a coordinate's step, forward and back, ns | {_limit(machine):.3f} |"


def _limit(machine: dict[str, Any]) -> float:
    """Nanoseconds that the LSTM's arithmetic takes at least, products and functions in turn."""
    products = MULTIPLY_ADDS / machine["multiply_adds_per_second"]
    return 1e9 * (products + FUNCTIONS / machine["functions_per_second"])


def _steps(parts: dict[str, Any], machine: dict[str, Any]) -> Iterator[str]:
    cells: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for part in parts.values():
        for row in part["rows"]:
            if "problem" not in row:
                continue
            on = "CPU" if row["device"] == "cpu" else row["mode"]
            cells.setdefault((row["problem"], row["tasks"]), {})[on] = row
    yield (
        "Milliseconds per meta-gradient, and nanoseconds per coordinate and step in the fastest "
        "mode; the number of kernels that the GPU runs for it in eager mode, and the share of the "
        "time in which one is running:"
    )
    yield ""
    yield (
        f"| problem | tasks | CPU | GPU {' | GPU '.join(MODES)} | ns CPU | ns GPU | × limit "
        "| kernels | busy |"
    )
    yield "|---|---:" + "|---:" * (len(MODES) + 6) + "|"
    for (problem, tasks), found in cells.items():
        shown = " | ".join(_milliseconds(found.get(on)) for on in ("CPU", *MODES))
        cpu = found.get("CPU", {}).get("ns_per_coordinate_step")
        on_gpu = [
            row["ns_per_coordinate_step"]
            for on, row in found.items()
            if on != "CPU" and "ns_per_coordinate_step" in row
        ]
        best = min(on_gpu, default=None)
        times = ""
        if (
            best is not None
            and "functions_per_second" in machine
            and not problem.startswith("maml")
        ):
            times = f"{best / _limit(machine):,.0f}"
        launched = _launched(found.get("eager", {}))
        numbers = f"{_number(cpu)} | {_number(best)} | {times} | {launched}"
        yield f"| {problem} | {tasks:,} | {shown} | {numbers} |"


def _launched(row: dict[str, Any]) -> str:
    if "kernels" not in row:
        return " | "
    return f"{row['kernels']:,} | {100 * row['busy_seconds'] / row['seconds']:.0f} %"


def _milliseconds(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if "seconds" in row:
        return _number(1e3 * row["seconds"])
    return "memory" if "memory" in row["error"] else "failed" if "left" not in row["error"] else "–"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _trainings(parts: dict[str, Any]) -> Iterator[str]:
    yield (
        "Trainings of the profile quick on attacks and sine with the first seed, in this many "
        "parallel processes:"
    )
    yield ""
    yield "| device | processes | trainings ended | seconds, all | seconds, median training |"
    yield "|---|---:|---:|---:|---:|"
    for name, part in parts.items():
        if not name.startswith("trainings-"):
            continue
        ended = sorted(row["seconds"] for row in part["rows"] if "method" in row)
        whole = next((row for row in part["rows"] if "workers" in row), {})
        wall = f"{whole['wall_seconds']:.0f}" if whole else "cut off"
        median = _number(ended[len(ended) // 2]) if ended else ""
        device = name.removeprefix("trainings-")
        yield f"| {device} | {whole.get('workers', '')} | {len(ended)} | {wall} | {median} |"


def page() -> str:
    """The whole page: what is written by hand, then what was measured."""
    documents = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    by_hand = PAGE.read_text().split(BEGIN)[0]
    return f"{by_hand}{BEGIN}\n{render(documents)}"


if __name__ == "__main__":
    PAGE.write_text(page())
