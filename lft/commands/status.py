"""State of the workflow, from its files alone: outputs, logs and heartbeats.

It works while Snakemake runs, afterwards, and on another machine that sees the same files.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from rich.live import Live
from rich.text import Text

from lft.config import Profile
from lft.errors import UsageError
from lft.results import cost
from lft.results.jobs import Job, jobs, outputs
from lft.runtime.progress import HEARTBEAT, Heartbeat

State = Literal["done", "running", "silent", "failed", "waiting"]
STATES: tuple[State, ...] = ("done", "running", "silent", "failed", "waiting")
SILENT_SECONDS = 600.0
"""A job that has written nothing for this long may have been killed."""
WATCH_SECONDS = 2.0
"""Time between two looks."""
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")
"""Start of each line of :mod:`lft.cli`'s log; the last line of an error starts differently."""


class Standing(NamedTuple):
    """State of a job.

    Attributes:
        job: the job.
        state: ``silent`` is a job that started but has written nothing for a while.
        text: its progress, or the last line of its log.
        seconds_left: of the run in training; None if unknown.
    """

    job: Job
    state: State
    text: str = ""
    seconds_left: float | None = None


def standings(profile: Profile, results: Path, now: float | None = None) -> list[Standing]:
    """Return every job of a profile with its state.

    Args:
        profile: settings.
        results: the profile's result folder.
        now: seconds since 1970; the present by default.
    """
    moment = time.time() if now is None else now
    return [_standing(job, results, moment) for job in jobs(profile)]


def lines(profile: Profile, results: Path, now: float | None = None) -> Iterator[str]:
    """Yield the output of ``lft status``, line by line."""
    found = standings(profile, results, now)
    counts = Counter(standing.state for standing in found)
    parts = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    yield f"Profile {profile.name}, {len(found)} jobs: {parts}"
    for state in ("running", "silent", "failed"):
        for standing in found:
            if standing.state == state:
                name = "/".join(standing.job.name)
                yield f"  {state:<8} {standing.job.rule} {name}: {standing.text}"
    if counts["done"] < len(found):
        yield estimate(profile, results, found)


def watch(profile: Profile, results: Path) -> None:
    """Refresh the output until every job is done or the user presses Ctrl-C."""
    try:
        with Live(Text(""), auto_refresh=False) as live:
            while True:
                live.update(Text("\n".join(lines(profile, results))), refresh=True)
                if all(standing.state == "done" for standing in standings(profile, results)):
                    return
                time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return


def estimate(profile: Profile, results: Path, found: Sequence[Standing]) -> str:
    """Predict the remaining time from similar finished jobs of this run, as a sentence."""
    if all(standing.state != "done" for standing in found):
        return "No estimate until a job has ended"
    try:
        known, _ = cost.expected(profile, cost.measured(profile, results))
    except UsageError as error:
        return f"No estimate: {error}"
    seconds = {(job.rule, job.name): 3600 * spent.longest for job, spent in known.items()}
    total, unknown = 0.0, 0
    for standing in found:
        whole = seconds.get((standing.job.rule, standing.job.name))
        if standing.state == "done":
            continue
        if standing.seconds_left is not None:
            runs = max(1, len(standing.job.runs))
            begun = sum((results / name).is_file() for name in _manifests(standing.job)) + 1
            total += standing.seconds_left + (whole or 0.0) * max(0, runs - begun) / runs
        elif whole is None:
            unknown += 1
        else:
            total += whole
    side = max(1, sum(standing.state == "running" for standing in found))
    text = f"About {duration(total / side)} left with {side} at a time"
    return text + f", and {unknown} jobs unlike any finished one" * bool(unknown)


def duration(seconds: float) -> str:
    """Format seconds as seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _standing(job: Job, results: Path, now: float) -> Standing:
    if all((results / name).exists() for name in outputs(job)):
        return Standing(job, "done")
    log = _log(job, results)
    for run in job.runs if job.rule == "train" else ():
        beat = Heartbeat.read(results / run.folder / HEARTBEAT)
        if beat is not None:
            left = max(0.0, beat.seconds_left - (now - beat.time))
            text = (
                f"seed {run.seed}, meta-batch {beat.done} of {beat.total}, loss {beat.loss:.4g}, "
                f"{duration(left)} left"
            )
            return _heard(job, text, left, now - beat.time)
    if log is None:
        return Standing(job, "waiting")
    last = _last_line(log)
    if last and not LOG_LINE.match(last):
        return Standing(job, "failed", f"{last} ({log})")
    return _heard(job, last or "started", None, now - log.stat().st_mtime)


def _heard(job: Job, text: str, left: float | None, ago: float) -> Standing:
    if ago < SILENT_SECONDS:
        return Standing(job, "running", text, left)
    text = f"nothing for {duration(ago)}; it is still computing or was killed; {text}"
    return Standing(job, "silent", text, left)


def _log(job: Job, results: Path) -> Path | None:
    """Return the log of a job, or of the one job for all seeds; None if it has not started."""
    together = job.log.parent.with_name(f"{job.log.parent.name}.log")
    paths = [results / job.log] + [results / together] * (len(job.name) > 1)
    return next((path for path in paths if path.is_file()), None)


def _last_line(log: Path) -> str:
    texts = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(texts) if line.strip()), "")


def _manifests(job: Job) -> list[str]:
    return [name for name in outputs(job) if name.endswith("run.json")]
