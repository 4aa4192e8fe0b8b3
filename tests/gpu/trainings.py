"""Meta-trainings of a profile, as many at once as there are workers, on one device.

They are those of the first seed that train by meta-gradients. One line of JSON for each on stdout
as it ends, and one about all of them at the end.

    python tests/gpu/trainings.py prepare quick FOLDER
    python tests/gpu/trainings.py cuda:0 quick FOLDER --experiments attack sine --workers 16
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from jobs import prepare_sources

from lft.config import Profile, Run, load_profile
from lft.meta.train import train
from lft.methods import METHODS
from lft.results.cost import training_work
from lft.storage.json import read_json


def trained(profile: Profile, run: Run, results: Path) -> dict[str, Any]:
    """One meta-training, in a worker's process."""
    train(profile, run, results)
    found = read_json(results / run.folder / "run.json", status=str, seconds=float)
    keys = ("status", "seconds", "meta_batches", "validation_score")
    return run._asdict() | {key: found[key] for key in keys}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("device")
    parser.add_argument("profile", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--experiments", nargs="+", help="all by default")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    profile = load_profile(options.profile)
    began = time.perf_counter()
    if options.device == "prepare":
        prepare_sources(profile, options.folder)
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
        return
    profile = profile.model_copy(update={"device": options.device})
    results = options.folder / options.device.replace(":", "-")
    shutil.rmtree(results, ignore_errors=True)
    for prepared in ("data", "victims"):
        shutil.copytree(options.folder / prepared, results / prepared)
    runs = [
        run
        for name in options.experiments or profile.experiments
        for run in profile.runs(name)
        if run.seed == profile.seeds[0] and METHODS[run.method].learns != "step_size"
    ]
    runs.sort(key=lambda run: training_work(profile, run), reverse=True)
    done = 0
    # Not forked: CUDA does not survive that.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        for future in as_completed(pool.submit(trained, profile, run, results) for run in runs):
            print(json.dumps(future.result()), flush=True)
            done += 1
    seconds = time.perf_counter() - began
    print(json.dumps({"runs": done, "workers": options.workers, "wall_seconds": seconds}))


if __name__ == "__main__":
    main()
