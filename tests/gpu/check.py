"""`make gpu-check`: do numbers on this machine's GPU agree, and how fast is it?

Needs no network, no git and no Snakemake: Python 3.11 or newer with torch; packages that are
missing come from a folder of wheels. Every part is a process with a time limit of its own, and what
it has found is in the file of results before the next line of it is read: a check that is cut off
has lost nothing. Without a GPU the same runs on the CPU.

    python tests/gpu/check.py --wheels wheels --out results/gpu
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tables import render

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LSTM, CNN = ("lstm", "lft-attack", "lft-sine", "maml-sine"), ("lft-cnn", "maml-cnn")
MINUTES = 6.0
"""For which the parts' limits are meant."""


class Part(NamedTuple):
    """A process of the check.

    Attributes:
        name: key in the results.
        limit: seconds after which it is ended.
        command: arguments of Python.
    """

    name: str
    limit: float
    command: list[str]


class Document:
    """The file of results, replaced as a whole at every change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {"began": _now(), "seconds": 0.0, "parts": {}}
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def part(self, name: str, **values: Any) -> None:
        """Set values of a part, which is there from then on."""
        with self._lock:
            self.content["parts"].setdefault(name, {"rows": []}).update(values)
            self._write()

    def row(self, name: str, row: dict[str, Any]) -> None:
        with self._lock:
            self.content["parts"][name]["rows"].append(row)
            self._write()

    def _write(self) -> None:
        self.content["seconds"] = round(time.monotonic() - self._began, 1)
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n")
        temporary.replace(self.path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def install(wheels: Path, site: Path) -> None:
    """Install wheels into a folder."""
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        sys.exit(f"gpu-check: there are no wheels in {wheels}")
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(site)]
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options]
    if subprocess.run([*command, *files]).returncode:
        sys.exit(f"gpu-check: the wheels in {wheels} could not be installed")


def run(
    part: Part, document: Document, until: float, environment: dict[str, str], pace: float = 1.0
) -> None:
    """Run a part to its end or its limit; lines of JSON that it prints are its rows.

    Args:
        until: when the check ends, on time.monotonic's clock.
        environment: variables of the process.
        pace: factor of the limit, for machines that are slower.
    """
    began = time.monotonic()
    limit = min(part.limit * pace, until - began)
    if limit < 5:
        document.part(part.name, status="left out: no time left")
        return
    document.part(part.name, status="running", limit=round(limit))
    log = document.path.with_suffix(".log")
    with log.open("a") as errors:
        errors.write(f"---- {part.name}\n")
        errors.flush()
        process = subprocess.Popen(
            [sys.executable, "-u", *part.command],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        timer = threading.Timer(limit, _end, [process])
        timer.start()
        lines = []
        assert process.stdout
        for line in process.stdout:
            if line.startswith("{") and line.endswith("}\n"):
                document.row(part.name, json.loads(line))
                continue
            lines.append(line.rstrip())
            errors.write(line)
            errors.flush()
        process.wait()
        timer.cancel()
    spent = time.monotonic() - began
    status = "ok" if not process.returncode else f"failed with status {process.returncode}"
    if spent >= limit:
        status = "ended by its time limit"
    found = _of_pytest(lines) if part.name == "parity" else {}
    document.part(part.name, status=status, seconds=round(spent, 1), **found)
    print(f"{part.name}: {status}, {spent:.0f} s", flush=True)


def _end(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has just ended by itself
        return


def _of_pytest(lines: list[str]) -> dict[str, Any]:
    """Counts, and the tests that failed, with pytest's reason."""
    counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b",
                                                     lines[-1] if lines else "")}  # fmt: skip
    return {"tests": counts, "failed": [x for x in lines if x.startswith(("FAILED", "ERROR"))]}


def lanes(device: str, folder: Path) -> tuple[list[Part], list[Part]]:
    """What is done one after the other beside each other: on the device, and by the processor."""
    steps, trainings = str(HERE / "steps.py"), str(HERE / "trainings.py")
    build = "from lft.kernels import build; build.used('auto', 'cpu')"
    threads = ["--threads", str(max(1, (os.cpu_count() or 1) - 2))]
    cpu = [
        Part("kernels", 150, ["-c", build]),
        Part("steps-cpu", 90, [steps, "--device", "cpu", *threads, "--problems", *LSTM, *CNN]),
        Part("prepare", 60, [trainings, "prepare", "quick", str(folder)]),
    ]
    pytest = ["-m", "pytest", "tests/gpu", "-q", "-rfE", "--tb=short", "-p", "no:cacheprovider"]
    if device == "cpu":
        return [Part("machine", 45, [str(HERE / "machine.py")]), Part("parity", 110, pytest)], cpu
    on_gpu = [steps, "--device", device, "--modes", "eager", "graph", "--problems"]
    gpu = [
        Part("machine", 45, [str(HERE / "machine.py"), "--device", device]),
        Part("parity", 110, [*pytest, "-m", "gpu"]),
        Part("steps", 60, [*on_gpu, "lstm-seeds", *LSTM]),
        Part("steps-cnn", 40, [*on_gpu, *CNN]),
    ]
    return gpu, cpu


def afterwards(device: str, folder: Path) -> list[Part]:
    """What takes all cores, and what is least urgent."""
    trainings, where = str(HERE / "trainings.py"), ["quick", str(folder)]
    if device == "cpu":
        return [Part("trainings-cpu", 80, [trainings, "cpu", *where])]
    modes = ["--modes", "compile", "graph+compile", "--sizes", "50", "5000"]
    return [
        Part("trainings-cuda", 70, [trainings, device, *where]),
        Part("trainings-cpu", 40, [trainings, "cpu", *where]),
        Part("steps-compiled", 90, [str(HERE / "steps.py"), "--device", device, *modes]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu")
    parser.add_argument("--name", help="of the file of results; by default that of the GPU")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install first")
    parser.add_argument("--device", help="cuda:0 where there is a GPU, else cpu")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="lft-check-") as scratch:
        folder, site = Path(scratch), Path(scratch, "site")
        if options.wheels:
            install(options.wheels, site)
        paths = [str(site), str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        device = options.device or _device(environment)
        name = options.name or _name(device, environment)
        options.out.mkdir(parents=True, exist_ok=True)
        document = Document(options.out / f"{name}.json")
        document.path.with_suffix(".log").unlink(missing_ok=True)

        def lane(parts: list[Part]) -> None:
            for part in parts:
                run(part, document, until, environment, options.minutes / MINUTES)

        threads = [threading.Thread(target=lane, args=[p]) for p in lanes(device, folder)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lane(afterwards(device, folder))
    print(f"{document.path}\n\n{render([document.content])}")
    parts = document.content["parts"].values()
    sys.exit(0 if all(part["status"] == "ok" for part in parts) else 1)


def _ask(question: str, environment: dict[str, str]) -> str:
    """What a Python that imports torch prints."""
    done = subprocess.run(
        [sys.executable, "-c", f"import torch; {question}"],
        env=environment,
        text=True,
        capture_output=True,
    )
    if done.returncode:
        sys.exit(f"gpu-check: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


def _device(environment: dict[str, str]) -> str:
    return _ask("print('cuda:0' if torch.cuda.is_available() else 'cpu')", environment)


def _name(device: str, environment: dict[str, str]) -> str:
    """nvidia-h100-80gb-hbm3, or cpu-<machine>."""
    if device == "cpu":
        return f"cpu-{platform.machine()}".replace("_", "-")
    found = _ask(f"print(torch.cuda.get_device_name({device!r}))", environment)
    return re.sub(r"[^a-z0-9]+", "-", found.lower()).strip("-")


if __name__ == "__main__":
    main()
