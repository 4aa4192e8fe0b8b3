"""lft status: what the files of a run say about its jobs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_profile

from lft.commands import status
from lft.config import Profile, Run
from lft.meta.train import train
from lft.results.jobs import Job, jobs, outputs
from lft.runtime.progress import HEARTBEAT
from lft.storage.json import write_json

NOW = 1_800_000_000.0
RUN = Run("attack", "mnist", "lft", "first", 1)


def write(results: Path, job: Job, last: str = "", ago: float = 0.0) -> None:
    """A log that ended a while ago."""
    path = results / job.log
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(last)
    os.utime(path, (NOW - ago, NOW - ago))


def beat(results: Path, done: int, ago: float) -> None:
    content = {"done": done, "total": 40, "loss": 0.25, "seconds_left": 300.0, "time": NOW - ago}
    path = results / RUN.folder / HEARTBEAT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def of(profile: Profile, results: Path) -> status.Standing:
    """The meta-training of RUN."""
    found = status.standings(profile, results, NOW)
    return next(s for s in found if s.job.rule == "train" and RUN in s.job.runs)


@pytest.fixture
def job(profile: Profile) -> Job:
    return next(job for job in jobs(profile) if job.rule == "train" and RUN in job.runs)


def test_a_measured_folder_has_only_its_report_to_make(profile: Profile, results: Path) -> None:
    rules = {s.job.rule: s.state for s in status.standings(profile, results, NOW)}
    report = {"tables", "figures", "page"}
    assert {rule for rule, state in rules.items() if state == "waiting"} == report
    assert {state for rule, state in rules.items() if rule not in report} == {"done"}


def test_the_life_of_a_meta_training(profile: Profile, job: Job, tmp_path: Path) -> None:
    assert of(profile, tmp_path).state == "waiting"
    write(tmp_path, job, ago=5)
    assert of(profile, tmp_path)[1:3] == ("running", "started")
    beat(tmp_path, 12, ago=60)
    found = of(profile, tmp_path)
    assert found.state == "running"
    assert found.text == "seed 1, meta-batch 12 of 40, loss 0.25, 4 min left"
    beat(tmp_path, 12, ago=1200)
    found = of(profile, tmp_path)
    assert found.state == "silent"
    assert "nothing for 20 min; it is still computing or was killed" in found.text
    (tmp_path / RUN.folder / HEARTBEAT).unlink()
    line = "2026-11-27 10:00:00,123 INFO LFT: 39/40, 3 s left\n"
    write(tmp_path, job, line + "lft: no space\n", ago=1200)
    assert of(profile, tmp_path)[1:3] == ("failed", f"lft: no space ({tmp_path / job.log})")
    write(tmp_path, job, line, ago=1200)
    assert of(profile, tmp_path).state == "silent"
    for name in outputs(job):
        (tmp_path / name).touch()
    assert of(profile, tmp_path).state == "done"


def test_the_lines_count_and_name_what_is_not_as_it_should_be(
    profile: Profile, job: Job, tmp_path: Path
) -> None:
    write(tmp_path, job, "Killed\n")
    first, second, last = status.lines(profile, tmp_path, NOW)
    total = sum(1 for _ in jobs(profile))
    assert first == f"Profile tiny, {total} jobs: 1 failed, {total - 1} waiting"
    assert second.startswith("  failed   train attack/mnist/lft-first/seed1: Killed (")
    assert last == "No estimate until a job has ended"


def test_the_estimate_is_what_like_jobs_took(profile: Profile, tmp_path: Path) -> None:
    """Two seeds took 100 and 140 s, so the third takes 120; a running one says 300 itself."""
    mine = [j for j in jobs(profile) if j.rule == "train" and j.runs[0][:4] == RUN[:4]]
    others = [j for j in jobs(profile) if j.rule != "train" or j.runs[0][0] != RUN[0]]
    for training, seconds in ((mine[0], 100), (mine[2], 140)):
        path = tmp_path / training.benchmark
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tmean_load\tmax_rss\n{seconds}\t100\t100\n")
    found = [
        *(status.Standing(j, "done") for j in (mine[0], mine[2])),
        status.Standing(mine[1], "waiting"),
        status.Standing(others[0], "waiting"),
    ]
    text = status.estimate(profile, tmp_path, found)
    assert text == "About 2 min left with 1 at a time, and 1 jobs unlike any finished one"
    found[2] = status.Standing(mine[1], "running", "", 300.0)
    assert status.estimate(profile, tmp_path, found).startswith("About 5 min left with 1 at a time")


def test_a_training_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into the file that the status reads, which is gone when it has ended."""
    written: list[Path] = []

    def keep(path: Path, content: dict[str, Any]) -> None:
        written.append(path)
        write_json(path, content)

    monkeypatch.setattr("lft.runtime.progress.write_json", keep)
    run = Run("sine", "sine", "lft", "first", 0)
    train(tiny_profile(), run, tmp_path)
    assert set(written) == {tmp_path / run.folder / HEARTBEAT}
    assert not (tmp_path / run.folder / HEARTBEAT).exists()


def test_watching_ends_when_everything_is_done(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(seconds: float) -> None:
        for job in jobs(profile):
            for name in outputs(job):
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).touch()

    monkeypatch.setattr(time, "sleep", finish)
    status.watch(profile, tmp_path)
    assert {s.state for s in status.standings(profile, tmp_path)} == {"done"}
