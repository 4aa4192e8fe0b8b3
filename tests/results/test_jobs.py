"""Names, settings and profiles of the workflow's jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import profile_values, tiny_profile

from lft.config import Profile, Run, load_profile
from lft.errors import UsageError
from lft.results import jobs

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "workflow/config/smoke.yaml"


def test_every_run_is_trained_and_measured_once_however_jobs_are_cut() -> None:
    for seeds in ("one", "all"):
        for methods in ("one", "all"):
            profile = tiny_profile(seeds_per_job=seeds, methods_per_job=methods)
            expected = sorted(run for name in profile.experiments for run in profile.runs(name))
            for found in (jobs.trainings(profile), jobs.evaluations(profile)):
                parts = list(found)
                assert sorted(run for job in parts for run in job.runs) == expected
                assert len({job.log for job in parts}) == len(parts)


@pytest.mark.parametrize(
    ("seeds", "methods", "name"),
    [
        ("one", "one", "attack/grey+colour/lft-first/seed1"),
        ("all", "one", "attack/grey+colour/lft-first"),
        ("one", "all", "attack/grey+colour/all-first/seed1"),
        ("all", "all", "attack/grey+colour/all-first"),
    ],
)
def test_an_evaluation_is_named_by_what_it_holds(seeds: str, methods: str, name: str) -> None:
    profile = tiny_profile(seeds_per_job=seeds, methods_per_job=methods)
    run = Run("attack", "grey+colour", "lft", "first", 1)
    (job,) = (job for job in jobs.evaluations(profile) if run in job.runs)
    assert job.log == Path(f"logs/evaluate/{name}.log")
    assert job.benchmark == Path(f"benchmarks/evaluate/{name}.tsv")


def test_every_seed_has_a_victim_of_its_own_where_the_profile_says_so() -> None:
    shared = tiny_profile()
    own = tiny_profile(victim__per_seed=True)
    for profile, names in (
        (shared, [("grey",), ("colour",)]),
        (own, [(source, f"seed{seed}") for source in ("grey", "colour") for seed in (0, 1)]),
    ):
        assert [job.name for job in jobs.jobs(profile) if job.rule == "victim"] == names


def test_the_shipped_profiles_say_what_a_seed_is() -> None:
    own = {name: load_profile(name).victims.per_seed for name in ("paper", "reference", "quick")}
    assert own == {"paper": True, "reference": True, "quick": False}


CHANGES: dict[str, tuple[tuple[str, ...], Any, set[str]]] = {
    "learning rate": (("experiments", "sine", "training", "learning_rate"), 0.5, {"train"}),
    "test tasks": (("experiments", "sine", "testing", "tasks"), 8, {"evaluate"}),
    "theory": (("theory", "gap", "tasks"), 3, {"theory"}),
    "title": (("title",), "Another", set()),
    "victims": (("victim", "epochs"), 4, {"victim"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_job_is_planned_anew_if_a_setting_of_its_own_changes(change: str) -> None:
    """And no other job. All steps of the report depend on the whole profile."""
    path, value, rules = CHANGES[change]
    values = profile_values()
    target = values
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    run = Run("sine", "sine", "lft", "first", 0)
    digests = [
        {
            "data": jobs.planned(profile, "data", "grey"),
            "victim": jobs.planned(profile, "victim", "grey"),
            "train": jobs.planned(profile, "train", runs=[run]),
            "evaluate": jobs.planned(profile, "evaluate", runs=[run]),
            "theory": jobs.planned(profile, "theory", "sine"),
            "page": jobs.planned(profile, "page"),
        }
        for profile in (tiny_profile(), Profile.model_validate(values))
    ]
    changed = {rule for rule in digests[0] if digests[0][rule] != digests[1][rule]}
    # The theory looks at trained fine-tuners, whose settings are among its own.
    assert changed - {"theory"} == (rules | {"page"}) - {"theory"}
    assert ("theory" in changed) == (change in ("learning rate", "theory"))


def test_the_profile_is_found_as_the_command_line_finds_it(tmp_path: Path) -> None:
    assert jobs.profile_of({}, []).stem == "quick"
    assert jobs.profile_of({"profile": "smoke"}, []) == SMOKE
    mine = tmp_path / "my {file}.yml"
    mine.write_text("extends: smoke\nname: mine\n")
    assert jobs.profile_of({"profile": str(mine)}, []) == mine


@pytest.mark.parametrize(
    ("config", "files", "message"),
    [
        ({"profle": "smoke"}, [], "unknown key 'profle'; did you mean 'profile'"),
        ({"profile": "smoke", "seeds": [7]}, [], "'seeds' belongs in a profile"),
        ({"profile": 2024}, [], "there is neither a file 2024 nor a profile of that name"),
        ({"profile": None}, [], "a profile is a file or one of"),
        (
            {"name": "smoke", "seeds": [0]},
            ["smoke.yaml"],
            "smoke.yaml is a profile; give it as --config profile=smoke.yaml",
        ),
    ],
)
def test_a_wrong_setting_of_the_workflow_is_one_line(
    config: dict[str, Any], files: list[str], message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        jobs.profile_of(config, files)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
