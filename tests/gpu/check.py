"""`make gpu-check`: do numbers on this machine's GPU agree, and how fast is it?

Needs no network, no git and no Snakemake: Python 3.11 or newer with torch; packages that are
missing come from a folder of wheels. Parts of a stage run side by side, stages one after the other.
Every part is a process with a time limit of its own, and what it has found is in the file of
results before the next line of it is read: a check that is cut off has lost nothing. Without a GPU
the same runs on the CPU.

    python tests/gpu/check.py --wheels wheels --out results/gpu
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
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
FAMILIES = ("sine", "mlp", "logits", "probabilities", "cnn")
MINUTES = 6.5
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
        path.with_suffix(".log").unlink(missing_ok=True)
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

    def log(self, name: str, text: str) -> None:
        """Add what a part has said besides its rows to a file beside this one."""
        with self._lock, self.path.with_suffix(".log").open("a") as file:
            file.write(f"---- {name}\n{text}\n")

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
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", *part.command],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        timer = threading.Timer(limit, _end, [process])
        timer.start()
        assert process.stdout
        for line in process.stdout:
            if line.startswith("{") and line.endswith("}\n"):
                document.row(part.name, json.loads(line))
            else:
                log.write(line)
                log.flush()
        process.wait()
        timer.cancel()
        log.seek(0)
        document.log(part.name, log.read())
    spent = time.monotonic() - began
    status = "ok" if not process.returncode else f"failed with status {process.returncode}"
    if spent >= limit:
        status = "ended by its time limit"
    document.part(part.name, status=status, seconds=round(spent, 1))
    print(f"{part.name}: {status}, {spent:.0f} s", flush=True)


def _end(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has just ended by itself
        return


def stages(device: str, folder: Path) -> list[list[Part]]:
    """What is done, most urgent first.

    Args:
        folder: with data and victims of the profile quick, or for them.
    """
    steps, trainings = str(HERE / "steps.py"), str(HERE / "trainings.py")
    build = "from lft.kernels import build; build.used('auto', 'cpu')"
    threads = ["--threads", str(max(1, (os.cpu_count() or 1) - 2))]
    steps_cpu = Part(
        "steps-cpu", 75, [steps, "--device", "cpu", *threads, "--problems", *LSTM, *CNN]
    )
    prepare = Part("prepare", 90, [trainings, "prepare", "quick", str(folder)])
    profile = ["quick", str(folder), "--experiments", "attack", "sine"]
    on_cpu = Part("trainings-cpu", 60, [trainings, "cpu", *profile])
    kernels = Part("kernels", 150, ["-c", build])
    if device == "cpu":
        machine = Part("machine", 45, [str(HERE / "machine.py")])
        return [[machine, kernels], [tests("parity", 110)], [steps_cpu], [prepare], [on_cpu]]
    on_gpu = [steps, "--device", device, "--modes"]
    eager = [*on_gpu, "eager", "graph", "--problems"]
    compiled = [*on_gpu, "compile", "graph+compile", "--sizes", "50", "500", "--problems"]
    machine = Part("machine", 45, [str(HERE / "machine.py"), "--device", device])
    families = [tests(f"parity-{name}", 110, "-m", "gpu", "-k", name) for name in FAMILIES]
    jobs = [
        tests("parity-smoke", 110, "-m", "gpu", "-k", "smoke"),
        tests("parity-jobs", 110, "-m", "gpu", "-k", "jobs and not smoke and not fills"),
    ]
    return [
        [machine, kernels],
        [*families, *jobs],
        [Part("steps-cnn", 45, [*eager, *CNN]), prepare],
        [Part("steps", 70, [*eager, *LSTM]), steps_cpu],
        [Part("trainings-cuda", 90, [trainings, device, *profile])],
        # Whatever else is on the GPU would find no memory.
        [tests("parity-full-gpu", 40, "-m", "gpu", "-k", "fills"), on_cpu],
        [Part(f"compiled-{name}", 80, [*compiled, name]) for name in ("lft-sine", "maml-sine")],
    ]


def tests(name: str, limit: float, *chosen: str) -> Part:
    """Tests of this folder, a line of JSON for each as it ends."""
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "told"]
    return Part(name, limit, ["-m", "pytest", str(HERE), *options, *chosen])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu")
    parser.add_argument("--name", help="of the file of results; by default that of the GPU")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install first")
    parser.add_argument(
        "--prepared", type=Path, help="folder that trainings.py prepare quick FOLDER has filled"
    )
    parser.add_argument("--device", help="cuda:0 where there is a GPU, else cpu")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="lft-check-") as scratch:
        folder, site = Path(scratch), Path(scratch, "site")
        if options.wheels:
            install(options.wheels, site)
        if options.prepared:
            shutil.copytree(options.prepared, folder, dirs_exist_ok=True)
        paths = [str(site), str(ROOT), str(ROOT / "tests"), str(HERE)]
        paths += filter(None, [os.environ.get("PYTHONPATH")])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        device, name = options.device, options.name
        if device is None or name is None:
            found, its_name = _first_gpu(environment)
            device = device or found
            name = name or its_name
        options.out.mkdir(parents=True, exist_ok=True)
        document = Document(options.out / f"{name}.json")
        pace = options.minutes / MINUTES
        for stage in stages(device, folder):
            threads = [
                threading.Thread(target=run, args=(part, document, until, environment, pace))
                for part in stage
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    print(f"{document.path}\n\n{render([document.content])}")
    parts = document.content["parts"].values()
    sys.exit(0 if all(part["status"] == "ok" for part in parts) else 1)


def _first_gpu(environment: dict[str, str]) -> tuple[str, str]:
    """cuda:0 and nvidia-h100-80gb-hbm3, or cpu and cpu-<machine>, of a Python that has torch."""
    question = "import torch; print(torch.cuda.is_available() and torch.cuda.get_device_name(0))"
    done = subprocess.run(
        [sys.executable, "-c", question], env=environment, text=True, capture_output=True
    )
    if done.returncode:
        sys.exit(f"gpu-check: {done.stderr.strip().splitlines()[-1]}")
    found = done.stdout.strip()
    device = "cpu" if found == "False" else "cuda:0"
    name = f"cpu-{platform.machine()}" if found == "False" else found
    return device, re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
