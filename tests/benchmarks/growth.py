"""How the cost of LFT's meta-gradient grows: a CSV file and a figure with fitted slopes.

    python tests/benchmarks/growth.py docs/images

One segment of sine tasks, forward and backward, second-order terms dropped, one core. From a base
of ten tasks, an MLP 1-40-40-1, 20 steps and an LSTM of hidden size 10, one size varies at a time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from lft.config import load_profile
from lft.meta.estimators import meta_gradient
from lft.meta.learner import Learner
from lft.runtime.memory import MemoryMeter
from lft.seeding import generator
from lft.storage.csv import write_rows
from lft.tasks.sine import Sine

BASE = {"tasks": 10, "width": 40, "steps": 20, "hidden": 10}
RANGES = {
    "tasks": (2, 5, 10, 20, 50, 100),
    "width": (10, 20, 40, 80, 160),
    "steps": (5, 10, 20, 40, 80),
    "hidden": (5, 10, 20, 40),
}
LABELS = {
    "tasks": "tasks",
    "coordinates": "coordinates of a task",
    "steps": "steps of the segment",
    "hidden": "hidden size of the LSTM",
}
COLUMNS = ("varied", "value", "seconds", "megabytes")


def segment(tasks: int, width: int, steps: int, hidden: int) -> Callable[[], object]:
    """A function that computes the meta-gradient of one segment."""
    experiment = load_profile("quick").experiment("sine").for_method("lft")
    training = experiment.training.model_copy(update={"steps": steps, "segment": steps})
    finetuner = experiment.finetuner.model_copy(update={"hidden": hidden})
    experiment = experiment.model_copy(update={"training": training, "finetuner": finetuner})
    settings = experiment.families["sine"].model_copy(update={"hidden": (width, width)})
    family, rule = Sine(settings), Learner(experiment.base_method("lft"), experiment)
    batch = family.sample(tasks, generator("tasks"))
    meta = rule.initial(family, generator("meta"))
    return lambda: meta_gradient(rule, meta, family, batch, None, generator("start"))


def measured(run: Callable[[], object], rounds: int = 7) -> tuple[float, float]:
    """CPU seconds, the least of some rounds, and the memory in MB that one round adds."""
    run()
    meter = MemoryMeter()
    run()
    megabytes = meter.peak_mb() or float("nan")
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return min(seconds), megabytes


def growth() -> pd.DataFrame:
    rows = []
    for varied, values in RANGES.items():
        for value in values:
            seconds, megabytes = measured(segment(**(BASE | {varied: value})))
            name, size = (varied, value)
            if varied == "width":
                name, size = "coordinates", value**2 + 4 * value + 1
            rows.append((name, size, seconds, megabytes))
    return pd.DataFrame(rows, columns=COLUMNS)


def slope(part: pd.DataFrame, of: str) -> float:
    """Least squares of log cost on log size."""
    return float(np.polyfit(np.log(part["value"]), np.log(part[of]), 1)[0])


def drawn(frame: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(2, len(LABELS), sharex="col", sharey="row")
    for column, (varied, label) in enumerate(LABELS.items()):
        part = frame[frame["varied"] == varied]
        for row, of in enumerate(("seconds", "megabytes")):
            axis, power = axes[row, column], slope(part, of)
            center = np.exp(np.log(part[["value", of]]).mean())
            axis.loglog(part["value"], part[of], "o")
            axis.loglog(part["value"], center[of] * (part["value"] / center["value"]) ** power)
            axis.set_title(f"slope {power:.2f}")
            axis.set_xticks(part["value"], [f"{value:,}" for value in part["value"]])
            axis.minorticks_off()
        axes[1, column].set_xlabel(label)
    axes[0, 0].set_ylabel("CPU seconds")
    axes[1, 0].set_ylabel("peak memory, MB")
    return figure


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    folder = Path(sys.argv[1])
    result = growth()
    write_rows(folder / "growth.csv", COLUMNS, result.itertuples(index=False))
    mpl.rcParams["svg.hashsalt"] = "lft"
    drawn(result).savefig(folder / "growth.svg", metadata={"Date": None})
