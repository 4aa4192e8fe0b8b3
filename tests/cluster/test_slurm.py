"""The workflow on a real Slurm of one node, through the shipped profiles, with faults on the way.

Needs root and Debian's packages slurm-wlm and munge; `make test-cluster` runs it. What is said of
jobs comes from Slurm's own records.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import ROOT, SNAKEMAKE, copy_checkout

from lft.storage.tensors import load_tensors

SCRIPT = Path(__file__).with_name("slurm")
SUBMIT = [SNAKEMAKE, "--profile", "site", "--config", "profile=test.yaml"]
PATIENCE = 600
"""Seconds after which a wait has failed; the whole suite takes a few minutes on two cores."""
RESUMED = r"resuming after meta-batch \d+ from"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Slurm, running."""
    started = subprocess.run([SCRIPT, "start"], text=True, stderr=subprocess.PIPE)
    if started.returncode:
        pytest.fail(started.stderr, pytrace=False)
    yield
    subprocess.run([SCRIPT, "stop"], check=True)


def command(*arguments: str) -> str:
    """What a command of Slurm prints."""
    return subprocess.run(arguments, check=True, text=True, stdout=subprocess.PIPE).stdout


def jobs(name: str) -> list[dict[str, str]]:
    """Slurm's records of the jobs whose comment holds a text, oldest first."""
    lines = command("scontrol", "--oneliner", "show", "jobs").splitlines()
    records = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
    found = [record for record in records if name in record.get("Comment", "")]
    return sorted(found, key=lambda record: int(record["JobId"]))


def wait_until(what: str, condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.2)


class Master:
    """A Snakemake that submits to Slurm; what it says goes to a file."""

    def __init__(self, checkout: Path, *arguments: str) -> None:
        self.log = checkout / "master.log"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [*SUBMIT, *arguments],
                cwd=checkout,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(PATIENCE)


def run(checkout: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a Snakemake that is expected to end at once."""
    done = subprocess.run(
        [*SUBMIT, *arguments],
        cwd=checkout,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout


def smoke(**changes: Any) -> dict[str, Any]:
    """The smoke profile with other top-level settings."""
    values = yaml.safe_load((ROOT / "workflow/config/smoke.yaml").read_text())
    return {key: value for key, value in (values | changes).items() if key[0] != "_"}


def prepare(folder: Path, profile: dict[str, Any], site: str, **train: Any) -> Path:
    """A checkout with a profile, and a shipped Slurm profile filled in for this cluster."""
    checkout = copy_checkout(folder)
    (checkout / "test.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    settings = yaml.safe_load((ROOT / "workflow/profiles" / site / "config.yaml").read_text())
    settings["set-resources"]["train"] |= train
    settings |= {
        "latency-wait": 10,
        "slurm-status-command": "squeue",  # there is no slurmdbd
        "slurm-init-seconds-before-status-checks": 1,
    }
    (checkout / "site").mkdir()
    (checkout / "site/config.yaml").write_text(yaml.safe_dump(settings))
    return checkout


# ---------------------------------------------------------------- the workflow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which a small workflow has run, every rule of it."""
    profile = smoke(name="normal", methods_per_job="one")
    attack = profile["experiments"]["attack"]
    attack |= {"families": {"mnist": attack["families"]["mnist"]}, "methods": ["maml", "lft"]}
    attack |= {"train_on": ["mnist"], "test_on": ["mnist"]}
    profile["experiments"] = {"attack": attack}
    profile["sources"] = {"mnist": profile["sources"]["mnist"]}
    for part in profile["theory"].values():
        part["experiments"] = ["attack"]
    # The profile's device is the CPU, but one of the pretended GPUs is asked for.
    checkout = prepare(tmp_path_factory.mktemp("normal"), profile, "slurm", gpu=1)
    master = Master(checkout, "--", "reproduce")
    assert master.wait() == 0, master.log.read_text()[-5000:]
    return checkout


def test_every_heavy_job_ran_on_slurm_with_what_it_asked_for(finished: Path) -> None:
    assert (finished / "results/normal/report.html").is_file()
    asked = {
        # rule: jobs, partition, cores, MB, minutes; groups ask for all that runs side by side
        "rule_victim": (1, "gpu", 1, 3000, 60),
        "rule_train": (2, "gpu", 1, 3000, 240),
        "rule_evaluate_evaluate": (1, "gpu", 2, 8000, 60),
        "rule_theory": (1, "gpu", 1, 4000, 60),
        "rule_report_aggregate_figures_page_tables": (1, "cpu", 2, 8000, 45),
    }
    for name, (number, partition, cores, megabytes, minutes) in asked.items():
        records = jobs(name)
        assert len(records) == number, name
        for record in records:
            assert record["JobState"] == "COMPLETED", name
            assert record["Partition"] == partition, name
            assert record["NumCPUs"] == str(cores), name
            assert _megabytes(record["MinMemoryNode"]) == megabytes, name
            assert _minutes(record["TimeLimit"]) == minutes, name
            assert record["WorkDir"] == str(finished), name
    assert {record["TresPerJob"] for record in jobs("rule_train")} == {"gres:gpu:1"}
    assert not any("TresPerJob" in record for record in jobs("rule_report"))
    assert len(jobs("rule_")) == sum(row[0] for row in asked.values())  # light rules ran here


def test_jobs_are_in_the_log_of_completed_jobs(finished: Path) -> None:
    ids = {record["JobId"] for record in jobs("rule_") if record["WorkDir"] == str(finished)}
    log = Path("/run/lft-slurm/jobcomp.log").read_text()
    assert set(re.findall(r"JobId=(\d+) .* JobState=COMPLETED", log)) >= ids


def test_a_finished_run_has_nothing_to_do(finished: Path) -> None:
    status, output = run(finished, "--dry-run", "--", "reproduce")
    assert status == 0
    assert "Nothing to be done" in output


def _megabytes(text: str) -> int:
    return round(float(text[:-1]) * {"M": 1, "G": 1024}[text[-1]])


def _minutes(text: str) -> int:
    hours, minutes, _ = text.split(":")
    return 60 * int(hours) + int(minutes)


# ---------------------------------------------------------------- faults

DISTURBED = ("killed", "cancelled", "limited", "requeued")


@pytest.fixture(scope="module")
def sine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout for trainings that are all the same but for their names and what befalls them."""
    profile = smoke(name="faults", sources={}, checkpoint_seconds=1.0)
    sine = profile["experiments"]["sine"] | {"methods": ["lft"], "orders": ["first"]}
    # Meta-batches of some seconds, because a job that is told to stop needs time to save; sixteen,
    # because Slurm may take half a minute to tell it.
    sine["training"] |= {"tasks": 32000, "meta_batch": 2000}
    sine["variants"] = {
        name: {"method": "lft", "label": name, "set": {}} for name in (*DISTURBED, "orphaned")
    }
    profile["experiments"] = {"sine": sine}
    for part in profile["theory"].values():
        part["experiments"] = []
    return prepare(tmp_path_factory.mktemp("faults"), profile, "slurm-cpu")


def weights(name: str) -> str:
    return f"results/faults/runs/sine/sine/{name}-first/seed0/weights.safetensors"


def log(checkout: Path, name: str) -> str:
    path = checkout / f"results/faults/logs/train/sine/sine/{name}-first/seed0.log"
    return path.read_text()


def has_checkpoint(checkout: Path, name: str) -> bool:
    return any((checkout / weights(name)).parent.glob("checkpoints/step-*"))


def job_of(name: str) -> str:
    """The id of the first Slurm job of a training."""
    return jobs(f"rule_train_wildcards_sine_sine_{name}_")[0]["JobId"]


def process_of(name: str) -> int:
    """The training process inside a job."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
        except OSError:  # it has ended
            continue
        if words[1:7] == ["-m", "lft", "train", "sine", "sine", name]:
            return int(folder.name)
    raise AssertionError(f"no process trains {name}")


def parent_of(process: int) -> str:
    """What started a process."""
    status = Path(f"/proc/{process}/status").read_text()
    parent = re.search(r"PPid:\s(\d+)", status)
    assert parent
    return Path(f"/proc/{parent[1]}/cmdline").read_text()


@pytest.fixture(scope="module")
def disturbed(sine: Path) -> Path:
    """Trainings that all met with something, and one that was left alone, in one workflow."""
    master = Master(sine, "--", *(weights(name) for name in ("lft", *DISTURBED)))
    for name in DISTURBED:
        wait_until(f"{name} runs", lambda name=name: has_checkpoint(sine, name))
    killed = process_of("killed")
    # A shell in between would die of SIGTERM, and its end would be that of the training.
    assert "snakemake" in parent_of(killed).split("\0")
    os.kill(killed, signal.SIGKILL)
    command("scancel", job_of("cancelled"))
    command("scontrol", "requeue", job_of("requeued"))
    # Slurm looks at limits every half minute; it warns a training two minutes before.
    command("scontrol", "update", f"JobId={job_of('limited')}", "TimeLimit=2")
    second_status, second_output = run(sine, "--", weights("lft"))
    (sine / "second.log").write_text(f"{second_status}\n{second_output}")
    assert master.wait() == 0, master.log.read_text()[-5000:]
    return sine


@pytest.mark.parametrize("name", DISTURBED)
def test_a_disturbed_training_ends_bit_equal_to_an_undisturbed_one(
    disturbed: Path, name: str
) -> None:
    expected, _ = load_tensors(disturbed / weights("lft"))
    tensors, _ = load_tensors(disturbed / weights(name))
    assert tensors.keys() == expected.keys()
    for key, leaf in tensors.items():
        assert leaf.equal(expected[key]), key
    assert re.search(RESUMED, log(disturbed, name))
    assert not re.search(RESUMED, log(disturbed, "lft"))


def test_a_job_that_dies_once_succeeds_on_retry_with_more_memory_and_time(disturbed: Path) -> None:
    first, second = jobs("rule_train_wildcards_sine_sine_killed_")
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    assert _megabytes(second["MinMemoryNode"]) == 2 * _megabytes(first["MinMemoryNode"]) == 6000
    assert _minutes(second["TimeLimit"]) == 2 * _minutes(first["TimeLimit"]) == 480
    assert (first["Partition"], second["Partition"]) == ("short", "long")


@pytest.mark.parametrize("name", ["cancelled", "limited"])
def test_a_training_told_to_stop_finishes_its_meta_batch_and_saves_it(
    disturbed: Path, name: str
) -> None:
    """What the log of the first attempt says, as Snakemake shows it when the job has failed."""
    shown = (
        (disturbed / "master.log")
        .read_text()
        .split(f"Logfile results/faults/logs/train/sine/sine/{name}-first/")[1]
    )
    assert re.search(r"lft: stopped after meta-batch \d+ of 16; checkpoint saved", shown[:2000])


def test_a_cancelled_training_is_submitted_again(disturbed: Path) -> None:
    first, second = jobs("rule_train_wildcards_sine_sine_cancelled_")
    assert (first["JobState"], second["JobState"]) == ("CANCELLED", "COMPLETED")


def test_a_training_near_its_time_limit_is_warned(disturbed: Path) -> None:
    first, second = jobs("rule_train_wildcards_sine_sine_limited_")
    assert first["JobState"] in ("FAILED", "TIMEOUT")
    assert second["JobState"] == "COMPLETED"


def test_a_requeued_training_goes_on_in_the_same_job(disturbed: Path) -> None:
    (job,) = jobs("rule_train_wildcards_sine_sine_requeued_")
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")


def test_a_second_master_is_refused(disturbed: Path) -> None:
    status, output = (disturbed / "second.log").read_text().split("\n", 1)
    assert status != "0"
    assert "Directory cannot be locked" in output
    assert len(jobs("rule_train_wildcards_sine_sine_lft_")) == 1


def test_a_master_killed_and_started_again(disturbed: Path) -> None:
    master = Master(disturbed, "--", weights("orphaned"))
    wait_until("the training runs", lambda: has_checkpoint(disturbed, "orphaned"))
    master.process.kill()
    master.process.wait()
    status, output = run(disturbed, "--", weights("orphaned"))
    assert status != 0
    assert "--unlock" in output
    # As docs/cluster.md says: cancel the orphans by their name, unlock, start again.
    orphans = [line.split() for line in command("squeue", "--me", "-h", "-o", "%i %j").splitlines()]
    command("scancel", *(id for id, name in orphans if name.startswith("lft_")))
    wait_until("they are gone", lambda: not command("squeue", "--me", "-h"))
    assert run(disturbed, "--unlock")[0] == 0
    assert Master(disturbed, "--", weights("orphaned")).wait() == 0
    states = [job["JobState"] for job in jobs("rule_train_wildcards_sine_sine_orphaned_")]
    assert states == ["CANCELLED", "COMPLETED"]
    test_a_disturbed_training_ends_bit_equal_to_an_undisturbed_one(disturbed, "orphaned")
