"""The whole workflow on the smoke profile, run as a user runs it, in a copy of the checkout."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import requests
import rocrate
import yaml
from checkout import SNAKEMAKE, copy_checkout, edit
from rocrate_validator.models import Severity, ValidationSettings
from rocrate_validator.services import validate
from rocrate_validator.utils.http import HttpRequester

from lft.config import Profile, Run, load_profile
from lft.errors import UsageError
from lft.results.cost import measured, weighed
from lft.results.crate import write_crate
from lft.results.digests import SUMS, record
from lft.results.jobs import planned as planned_settings
from lft.results.schema import EVALUATED, TRAINED

RESULTS = Path("results/smoke")
SMOKE = "workflow/config/smoke.yaml"


def snakemake(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake with the smoke profile; its output is in ``stdout``."""
    options = ("--cores", "2", "--max-jobs-per-timespan", "100/1s")  # it ends at once
    command = [str(SNAKEMAKE), *options, "--config", "profile=smoke", *arguments]
    return subprocess.run(
        command,
        cwd=checkout,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def planned(checkout: Path, *arguments: str) -> Counter[str]:
    """Jobs that a dry run would make, by rule; those of one mixture each count as one rule."""
    done = snakemake(checkout, "--dry-run", *arguments)
    assert done.returncode == 0, done.stdout
    found: Counter[str] = Counter()
    # The table stands there twice.
    for name, number in dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.M)).items():
        found["evaluate" if name.startswith("evaluate_") else name] += int(number)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which `snakemake reproduce all` has run."""
    checkout = copy_checkout(tmp_path_factory.mktemp("checkout"))
    done = snakemake(checkout, "--", "reproduce", "all")
    assert done.returncode == 0, done.stdout[-5000:]
    return checkout


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """The finished checkout, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "copy", symlinks=True))


def test_every_planned_cell_is_measured_and_reported(finished: Path) -> None:
    results = finished / RESULTS
    with (results / "cells.csv").open() as file:
        statuses = {row["status"] for row in csv.DictReader(file)}
    assert statuses == {"ok", "not applicable"}
    with (results / "claims.csv").open() as file:
        assert len(list(csv.DictReader(file))) > 25
    page = (results / "report.html").read_text()
    assert "Stand-in data" in page
    for id in ("table-1", "table-2", "figure-2", "figure-3", "figure-4", "figure-a1", "figure-gap"):
        assert f'id="{id}"' in page, id


def test_the_costs_of_every_job_are_found(finished: Path) -> None:
    profile = load_profile(finished / "workflow/config/smoke.yaml")
    files = {
        path.relative_to(finished / RESULTS) for path in finished.glob("**/benchmarks/**/*.tsv")
    }
    assert {job.benchmark for job in weighed(profile)} == files
    assert measured(profile, finished / RESULTS).keys() == set(weighed(profile))


def test_a_finished_workflow_has_nothing_to_do(finished: Path) -> None:
    assert "Nothing to be done" in snakemake(finished, "--dry-run", "--", "reproduce", "all").stdout


def test_a_training_is_checked_by_a_longer_one(copied: Path) -> None:
    run = Run("sine", "sine", "lft", "first", 0).folder
    done = snakemake(copied, "--", f"{RESULTS}/{run}/trained.json")
    assert done.returncode == 0, done.stdout
    found = json.loads((copied / RESULTS / run / "trained.json").read_text())
    assert len(found["checks"]) == 4
    short, long = (
        json.loads((copied / RESULTS / part / "run.json").read_text())["meta_batches"]
        for part in (run, "longer" / run)
    )
    assert long == 3 * short
    assert "Nothing to be done" in snakemake(copied, "--dry-run", "--", "reproduce", "all").stdout


def test_one_hyper_parameter_reruns_only_what_depends_on_it(copied: Path) -> None:
    edit(copied, "maml: {epochs: 1, steps: 2, step_size: {first: 0.1}, learning_rate: 1.0e-2}",
         "maml: {epochs: 1, steps: 3, step_size: {first: 0.1}, learning_rate: 1.0e-2}")  # fmt: skip
    jobs = planned(copied, "--", "reproduce")
    assert jobs["train"] == jobs["evaluate"] == 1
    assert "victim" not in jobs
    assert "data" not in jobs


def test_a_new_seed_trains_only_that_seed(copied: Path) -> None:
    before = len(list((copied / RESULTS / "runs").glob("**/run.json")))
    edit(copied, "seeds: [0]", "seeds: [0, 1]")
    assert planned(copied, "--", "reproduce")["train"] == before


def test_one_job_trains_all_seeds_if_asked_to(copied: Path) -> None:
    """A cell of two seeds for real; it needs no images."""
    edit(copied, "seeds: [0]", "seeds: [0, 1]\nseeds_per_job: all")
    cell = RESULTS / "runs/sine/sine/lft-first"
    targets = [str(cell / f"seed{seed}/measurements.csv") for seed in (0, 1)]
    done = snakemake(copied, "--", *targets)
    assert done.returncode == 0, done.stdout
    assert [path.name for path in sorted((copied / cell).glob("seed*/*"))] == 2 * sorted(
        (*EVALUATED, *TRAINED, SUMS)
    )
    log = (copied / RESULTS / "logs/train/sine/sine/lft-first.log").read_text()
    assert [log.count(f"seed {seed}: 4/4") for seed in (0, 1)] == [1, 1]
    edit(copied, "seeds: [0, 1]", "seeds: [0, 1, 2]")
    third = str(cell / "seed2/measurements.csv")
    assert planned(copied, "--", third)["train"] == 4  # an evaluation holds all methods
    profile = load_profile(copied / SMOKE)
    assert copied / RESULTS / "benchmarks/train/sine/sine/lft-first.tsv" in {
        copied / RESULTS / job.benchmark for job in weighed(profile)
    }


def test_an_edit_of_code_computes_again_what_imports_it(copied: Path) -> None:
    def touched(*names: str) -> set[str]:
        paths = [copied / "lft" / name for name in names]
        contents = [path.read_bytes() for path in paths]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content + b"\n")
        rules = set(planned(copied, "--", "reproduce"))
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return rules - {"total", "reproduce"}

    report = {"tables", "figures", "page"}
    measured = {"train", "evaluate", "theory", "aggregate"} | report
    assert touched("kernels/csrc/operators.h") == measured | {"victim"}
    assert touched("data/embedded.py") == measured | {"victim", "data"}
    assert touched("meta/evaluate.py") == {"evaluate", "aggregate"} | report
    assert touched("report/templates.py") == report - {"figures"}
    assert touched("cli.py", "commands/jobs.py") == set()


def test_what_is_gone_is_made_again_and_damage_is_named(copied: Path) -> None:
    """What the line advises helps: delete the file and run the workflow again."""
    results, run = copied / RESULTS, "runs/sine/sine/sgd-first/seed0"
    names = ["cells.csv", "measurements.csv", f"{run}/history.csv", "theory/sine-seed0.json"]
    before = {name: (results / name).read_bytes() for name in names}
    for name in names:
        (results / name).unlink()
    rows = results / "runs/sine/sine/lft-first/seed0/measurements.csv"
    good = rows.read_bytes()
    rows.write_bytes(good + b"damaged\n")
    done = snakemake(copied, "--", "report")
    assert done.returncode == 1
    assert f"{RESULTS / rows.relative_to(results)} line" in done.stdout
    rows.unlink()
    done = snakemake(copied, "--", "reproduce", "all")
    assert done.returncode == 0, done.stdout[-5000:]
    assert rows.read_bytes() == good
    for name in names:
        if name.endswith(".csv"):
            assert (results / name).read_bytes() == before[name]
    assert "Nothing to be done" in snakemake(copied, "--dry-run", "--", "reproduce", "all").stdout


def test_a_profile_that_is_edited_while_jobs_run_is_refused_by_them(copied: Path) -> None:
    """The edit comes between planning and training: a job's own settings are others by then."""
    edit(copied, "seeds: [0]", "seeds: [0, 1]")
    seeded = str(RESULTS / "runs/sine/sine/sgd-first/seed1/run.json")
    profile = load_profile(copied / SMOKE)
    run = Run("sine", "sine", "sgd", "first", 1)
    digest = planned_settings(profile, "train", runs=[run])
    edit(copied, "step_sizes: {sgd: [0.001, 0.01], adam: [0.01]}",
         "step_sizes: {sgd: [0.5], adam: [0.01]}")  # fmt: skip
    command = [sys.executable, "-m", "lft", "train", "sine", "sine", "sgd", "--seed", "1"]
    options = ["-p", SMOKE, "-r", str(RESULTS), "--settings", digest]
    done = subprocess.run([*command, *options], cwd=copied, capture_output=True, text=True)
    assert done.returncode == 2
    assert "was changed after this job was planned" in done.stderr
    assert not (copied / seeded).exists()


def test_report_never_trains_and_shows_what_is_missing(copied: Path) -> None:
    (copied / RESULTS / "report.html").unlink()
    shutil.rmtree(copied / ".snakemake" / "metadata")
    (copied / "lft/meta/adapt.py").touch()
    runs = copied / RESULTS / "runs/attack/mnist"
    shutil.rmtree(runs / "lft-first")
    (runs / "l2o-first/seed0/measurements.csv").unlink()
    shutil.rmtree(copied / RESULTS / "theory")
    assert planned(copied, "--", "report") == {"report": 1, "total": 1}
    done = snakemake(copied, "--", "report")
    assert done.returncode == 0, done.stdout
    page = (copied / RESULTS / "report.html").read_text()
    assert "not meta-trained yet" in page
    assert "not evaluated yet" in page
    assert "The theory has not been measured" in page


def test_a_finished_run_becomes_a_valid_crate(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Valid by all that the Workflow Run Crate profile and those below it require."""
    output = tmp_path / "smoke.crate.zip"
    write_crate(load_profile(finished / SMOKE), finished / RESULTS, output)
    monkeypatch.setattr(HttpRequester, "get", context_1_1, raising=False)
    result = validate(
        ValidationSettings(
            rocrate_uri=str(output),
            profile_identifier="workflow-run-crate",
            requirement_severity=Severity.REQUIRED,
        )
    )
    assert not [issue.message for issue in result.get_issues()]
    with zipfile.ZipFile(output) as archive:
        packed = set(archive.namelist())
        settings = yaml.safe_load(archive.read("profile.yaml"))
    assert Profile.model_validate(settings) == load_profile(finished / SMOKE)
    assert {"report.html", "runs/sine/sine/lft-first/seed0/run.json"} <= packed
    assert not [name for name in packed if name.startswith(("data/", "logs/"))]


def context_1_1(self: HttpRequester, url: str, **options: object) -> requests.Response:
    """The JSON-LD context of RO-Crate 1.1, without a network: the rocrate package ships that of
    1.3, in which these four terms have other addresses."""
    assert url == "https://w3id.org/ro/crate/1.1/context"
    content = json.loads((Path(rocrate.__file__).parent / "data/ro-crate.jsonld").read_text())
    workflow = "https://bioschemas.org/ComputationalWorkflow"
    content["@context"] |= {
        "ComputationalWorkflow": workflow,
        "FormalParameter": "https://bioschemas.org/FormalParameter",
        "input": f"{workflow}#input",
        "output": f"{workflow}#output",
    }
    response = requests.Response()
    response.status_code = 200
    response.headers["Content-Type"] = "application/ld+json"
    response._content = json.dumps(content).encode()
    return response


def test_an_unfinished_run_becomes_no_crate(copied: Path, tmp_path: Path) -> None:
    output = tmp_path / "smoke.crate.zip"
    profile = load_profile(copied / SMOKE)
    cells = copied / RESULTS / "cells.csv"
    complete = cells.read_text()
    cells.write_text(complete.replace(",ok,", ",missing,", 1))
    record(cells.parent, [cells.name])
    with pytest.raises(UsageError, match=r"1 of \d+ cells .* are missing, the first is maml"):
        write_crate(profile, copied / RESULTS, output)
    cells.write_text(complete)
    record(cells.parent, [cells.name])
    with pytest.raises(UsageError, match="not a run of the profile smoke as it is now"):
        write_crate(profile.model_copy(update={"seeds": (0, 1)}), copied / RESULTS, output)
    (copied / RESULTS / "report.html").unlink()
    with pytest.raises(UsageError, match=r"report\.html is missing: the run is incomplete"):
        write_crate(profile, copied / RESULTS, output)
    assert not list(tmp_path.glob("*crate*"))


def test_bad_setting_stops_before_the_dag(copied: Path) -> None:
    edit(copied, "meta_batch: 5", "meta_bach: 5")
    done = snakemake(copied, "--", "reproduce")
    assert done.returncode != 0
    assert "did you mean 'meta_batch'?" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_second_run_in_the_directory_is_refused(copied: Path) -> None:
    """The first is one that was killed, or that still runs: Snakemake cannot tell them apart."""
    (copied / RESULTS / "report.html").unlink()
    holder = textwrap.dedent("""
        rule hold:
            output: "results/smoke/report.html"
            shell: "touch held; sleep 600"
    """)
    (copied / "hold.smk").write_text(holder)
    command = [SNAKEMAKE, "--snakefile", "hold.smk", "--cores", "1", "--workflow-profile", "none"]
    with subprocess.Popen(command, cwd=copied, start_new_session=True) as first:
        try:
            deadline = time.monotonic() + 60
            while not (copied / "held").exists():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            second = snakemake(copied, "--", "reproduce")
            assert second.returncode != 0
            assert "Directory cannot be locked" in second.stdout
        finally:
            os.killpg(first.pid, signal.SIGKILL)
    assert "--unlock" in snakemake(copied, "--", "reproduce").stdout
    assert snakemake(copied, "--unlock").returncode == 0
    done = snakemake(copied, "--", "reproduce")
    assert done.returncode == 0, done.stdout[-5000:]


AGAIN = (
    *(f"runs/{mixed}/mnist+cifar10/{method}-first/seed0/measurements.csv"
      for mixed in ("attack", "classification") for method in ("l2o", "lft")),
    *(f"runs/sine/sine/{method}-zeroth/seed0/measurements.csv"
      for method in ("maml", "l2o", "lft", "sgd")),
)  # fmt: skip
"""Measurements that rest on all data and victims, of all methods, in both orders."""


def test_same_numbers_from_another_job_order(finished: Path, tmp_path: Path) -> None:
    """Bit-identical CSVs from jobs that run in another order, in another checkout."""
    checkout = copy_checkout(tmp_path)
    targets = [f"{RESULTS}/{name}" for name in AGAIN]
    options = ("--scheduler", "greedy", "--prioritize", targets[-1])
    done = snakemake(checkout, *options, "--", *targets)
    assert done.returncode == 0, done.stdout[-5000:]
    found = {path.relative_to(checkout): path for path in (checkout / RESULTS).glob("**/*.csv")}
    assert len(found) == 2 * len(AGAIN)  # histories as well
    for name, path in found.items():
        assert path.read_bytes() == (finished / name).read_bytes(), name
