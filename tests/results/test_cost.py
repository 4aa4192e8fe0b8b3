"""Core- and GPU-hours against sums by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tiny import profile_values, tiny_profile
from typer.testing import CliRunner

from lft.cli import app
from lft.config import Profile
from lft.errors import UsageError
from lft.results.cost import Job, Spent, as_table, expected, measured, weighed

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def write(results: Path, job: Job, seconds: float, load: str = "100.0", rss: str = "1024") -> None:
    path = results / job.benchmark
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}{seconds}\t0:00:01\t{rss}\t1\t1\t1\t1\t1\t{load}\t1\n")


def of(profile: Profile, rule: str, *name: str) -> list[Job]:
    """Jobs of a rule whose name starts so."""
    return [job for job in weighed(profile) if job.rule == rule and job.name[: len(name)] == name]


def hours(found: dict[Job, Spent], rule: str) -> float:
    return sum(spent.core_hours for job, spent in found.items() if job.rule == rule)


@pytest.fixture
def base(tmp_path: Path) -> dict[Job, Spent]:
    """The tiny profile, every job of which took half a core-hour."""
    profile = tiny_profile()
    for job in weighed(profile):
        write(tmp_path, job, 1800)
    return measured(profile, tmp_path)


def test_files_are_found_where_the_rules_put_them() -> None:
    paths = {str(job.benchmark) for job in weighed(tiny_profile())}
    assert "benchmarks/data/grey.tsv" in paths
    assert "benchmarks/train/sine/sine/lft-zeroth/seed1.tsv" in paths
    assert "benchmarks/evaluate/attack/grey+colour/lft-first/seed0.tsv" in paths
    assert "benchmarks/theory/sine/seed1.tsv" in paths
    assert "benchmarks/aggregate.tsv" in paths


def test_only_seconds_that_were_computed_count_on_a_cpu(tmp_path: Path) -> None:
    profile = tiny_profile(threads=2)
    first, second, third = of(profile, "train", "sine")[:3]
    write(tmp_path, first, 3600, "50.0")  # half the time it waited for a core
    write(tmp_path, second, 3600, "180.0", "2048")
    write(tmp_path, third, 3600, "NA", "NA")  # over before it was looked at: its threads count
    found = measured(profile, tmp_path)
    assert found == {
        first: Spent(1, 0.5, 0.0, 1.0, 1.0),
        second: Spent(1, 1.8, 0.0, 1.0, 2.0),
        third: Spent(1, 2.0, 0.0, 1.0, 0.0),
    }


def test_a_gpu_is_taken_for_all_the_time_of_the_rules_that_use_it(tmp_path: Path) -> None:
    profile = tiny_profile(device="cuda", threads=4)
    for rule in ("train", "aggregate"):
        write(tmp_path, of(profile, rule)[0], 1800, "10.0")
    train, aggregate = measured(profile, tmp_path).values()
    assert train == Spent(1, 2.0, 0.5, 0.5, 1.0)
    assert aggregate.gpu_hours == 0


def test_a_profile_is_expected_to_take_what_it_took(base: dict[Job, Spent]) -> None:
    found, unknown = expected(tiny_profile(), base)
    assert not unknown
    for rule in ("data", "victim", "train", "evaluate", "theory", "page"):
        assert hours(found, rule) == pytest.approx(hours(base, rule))


def test_seeds_are_more_jobs_of_the_same_length(base: dict[Job, Spent]) -> None:
    found, _ = expected(tiny_profile(seeds=[0, 1, 2, 3, 4, 5]), base)
    for rule in ("train", "evaluate", "theory"):
        assert hours(found, rule) == pytest.approx(3 * hours(base, rule))
        number = sum(job.rule == rule for job in found)
        assert number == 3 * sum(job.rule == rule for job in base)
        assert max(s.longest for job, s in found.items() if job.rule == rule) == pytest.approx(0.5)
    assert hours(found, "victim") == pytest.approx(hours(base, "victim"))


def test_seeds_of_one_job_cost_what_they_do_apart(base: dict[Job, Spent]) -> None:
    profile = tiny_profile(seeds_per_job="all")
    assert {len(job.name) for job in of(profile, "train")} == {3}
    assert 2 * len(of(profile, "train")) == len(of(tiny_profile(), "train"))
    found, unknown = expected(profile, base)
    assert not unknown
    assert hours(found, "train") == pytest.approx(hours(base, "train"))


def test_methods_of_one_evaluation_cost_what_they_do_apart(base: dict[Job, Spent]) -> None:
    profile = tiny_profile(methods_per_job="all")
    names = [job.name for job in of(profile, "evaluate")]
    assert {name[2] for name in names} == {"all-first", "all-zeroth"}
    assert len(names) == len(set(names)) < len(of(tiny_profile(), "evaluate"))
    found, unknown = expected(profile, base)
    assert not unknown
    assert hours(found, "evaluate") == pytest.approx(hours(base, "evaluate"))


def test_test_tasks_lengthen_evaluations_and_nothing_else(base: dict[Job, Spent]) -> None:
    found, _ = expected(tiny_profile(experiments__sine__testing__tasks=40), base)
    n_sine = len(of(tiny_profile(), "evaluate", "sine"))
    assert hours(found, "evaluate") - hours(base, "evaluate") == pytest.approx(9 * 0.5 * n_sine)
    assert hours(found, "train") == pytest.approx(hours(base, "train"))


def test_the_work_of_a_training_by_hand() -> None:
    """sine: an MLP 1-4-1 with 13 weights and biases; 12 tasks, 3 validation rounds of 3 tasks."""
    work = {job.name[2]: job.work for job in of(tiny_profile(), "train", "sine")}
    validation = 3 * 3 * 4  # rounds, tasks, steps
    assert work["lft-first"] == 13 * (3 * 12 * 4 + validation)
    assert work["lft-zeroth"] == 3 * work["lft-first"]  # directions
    assert work["maml-first"] == 13 * (3 * 12 * 2 + validation)
    assert work["sgd-first"] == 13 * 2 * 3 * 4  # two step sizes, tasks, steps


def test_the_longest_job_is_that_of_one_core(base: dict[Job, Spent]) -> None:
    profile = tiny_profile(threads=2, experiments__sine__testing__tasks=40)
    found, _ = expected(profile, base)
    assert max(s.longest for job, s in found.items() if job.rule == "evaluate") == pytest.approx(
        2.5
    )


def test_what_was_not_measured_costs_what_its_experiment_does_or_is_named(
    base: dict[Job, Spent],
) -> None:
    variant = {"lft-exact": {"method": "lft", "label": "x", "set": {}}}
    values = profile_values()
    values["experiments"]["sine"]["variants"] = variant
    values["experiments"]["new"] = values["experiments"]["sine"]
    found, unknown = expected(Profile.model_validate(values), base)
    assert found[of(Profile.model_validate(values), "train", "sine", "sine", "lft-exact-first")[0]]
    assert {job.name[0] for job in unknown} == {"new"}
    caption = as_table("", found, unknown).caption
    assert caption and "train new sine lft-exact-first" in caption


def test_a_damaged_benchmark_is_named(tmp_path: Path) -> None:
    profile = tiny_profile()
    path = tmp_path / next(weighed(profile)).benchmark
    path.parent.mkdir(parents=True)
    for text in ("", HEADER, "s\tmean_load\n1\n", "s\tmean_load\tmax_rss\nx\t1\t1\n"):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"grey\.tsv is no benchmark file"):
            measured(profile, tmp_path)


def test_nothing_measured_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no job of profile tiny has run in"):
        measured(tiny_profile(), tmp_path)


def test_the_command(tmp_path: Path) -> None:
    results, file = tmp_path / "results", tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(profile_values()))
    for job in weighed(tiny_profile()):
        write(results, job, 36000)
    more = tmp_path / "more.yaml"
    more.write_text("extends: tiny.yaml\nname: more\nseeds: [0, 1, 2, 3]\n")
    arguments = ["cost", str(results), "--profile", str(file), "--expect", str(more)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    n_train = len(of(tiny_profile(), "train"))
    assert f"{10 * n_train:,}" in done.stdout
    assert f"{20 * n_train:,}" in done.stdout
    more.write_text("extends: tiny.yaml\nname: more\ndevice: cuda\n")
    failed = CliRunner().invoke(app, arguments)
    assert isinstance(failed.exception, UsageError)
    assert "measure on the same" in str(failed.exception)
