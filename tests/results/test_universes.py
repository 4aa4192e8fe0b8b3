"""Readings of the paper: how they are drawn, and what their profiles are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny_multiverse
from tiny_multiverse import QUESTIONS, level, multiverse, question

from lft.config import Profile, forks, load_profile, load_questions
from lft.config.base import put
from lft.errors import NotApplicable, UsageError
from lft.results import jobs, universes

SHIPPED = load_profile("multiverse")


@pytest.mark.parametrize("experiment", SHIPPED.experiments)
def test_every_level_is_taken_as_often_as_its_weight_says(experiment: str) -> None:
    """A block is a Latin hypercube: of 24 universes a level with share w has 24 w, give or take the
    two strata that it cuts."""
    planned = universes.settings(SHIPPED)
    found = [
        universes.universe(SHIPPED, experiment, number) for number in range(1, planned.block + 1)
    ]
    for fork in forks(load_questions(), experiment):
        counts = Counter(fork.group(one.levels[fork.name]) for one in found)
        for name, share in fork.groups.items():
            assert abs(counts[name] - planned.block * share) < 2


@pytest.mark.parametrize("experiment", SHIPPED.experiments)
def test_every_level_fits_the_shipped_profile(experiment: str) -> None:
    """Each is taken by one of some universes; these are valid, and their YAML says the same."""
    left = {
        (fork.name, name) for fork in forks(load_questions(), experiment) for name in fork.groups
    }
    for number in range(1, 49):
        one = universes.universe(SHIPPED, experiment, number)
        taken = {
            (fork.name, fork.group(one.levels[fork.name]))
            for fork in forks(load_questions(), experiment)
        }
        if taken & left:
            found = universes.searched(SHIPPED, one)
            assert len(found.experiments[experiment].variants) == 9  # three draws, three methods
            left -= taken
    assert not left


def test_a_universe_stays_when_there_are_more_and_when_another_fork_is_found() -> None:
    few, many = multiverse(), multiverse(universes__experiments__sine=40)
    more = (*QUESTIONS, question(9, {"name": "rounds", "experiments": ["sine"], "sets":
            ["training.validation.rounds"], "levels": [level(1), level(3)]}))  # fmt: skip
    for number in range(1, 4):
        first = universes.universe(few, "sine", number, QUESTIONS)
        assert universes.universe(many, "sine", number, QUESTIONS) == first
        other = universes.universe(few, "sine", number, more)
        assert dict(other.levels) | first.levels == other.levels


def test_some_universes_have_two_seeds_and_all_seeds_are_used() -> None:
    found = [universes.universe(multiverse(), "sine", n, QUESTIONS).seeds for n in range(1, 4)]
    assert found == [(0, 1), (1,), (0,)]


def test_a_universe_is_a_profile_that_can_be_run_alone(tmp_path: Path) -> None:
    profile = multiverse()
    one = next(
        found
        for number in range(1, 4)
        if (found := universes.universe(profile, "sine", number, QUESTIONS)).levels["l2o-data"]
        == "l2o-support"
    )
    path = tmp_path / "one.yaml"
    path.write_text(universes.as_yaml(profile, one))
    searched = load_profile(path)
    assert searched == universes.searched(profile, one)
    assert searched.experiments["sine"].variants["l2o-1"].method == "l2o-support"
    steps = int(one.levels["unroll"])
    assert searched.experiments["sine"].training.steps == steps
    chosen = {"maml": {}, "l2o": {"training.learning_rate": 0.02}, "lft": {}}
    path.write_text(universes.as_yaml(profile, one, chosen))
    alone = load_profile(path)
    assert alone.experiments["sine"].methods == ("maml", "l2o-support", "lft")
    assert alone.experiments["sine"].for_method("l2o-support").training.learning_rate == 0.02
    assert alone.experiments["sine"].for_method("lft").training.learning_rate == 0.01
    assert alone.seeds == one.seeds


def test_forks_of_the_profile_and_of_the_judgement_are_told_apart() -> None:
    profile = multiverse()
    for number in (1, 2):
        one = universes.universe(profile, "attack", number, QUESTIONS)
        found = universes.searched(profile, one)
        assert found.victims.epochs == int(one.levels["victim"])
        assert one.judged_set == one.levels["measured-on"]
        weight = found.experiments["attack"].families["mnist"].distortion_weight
        assert weight == float(one.levels["lambda"])


def test_levels_that_do_not_go_together_are_refused() -> None:
    bad = question(8, {"name": "segment", "experiments": ["sine"], "sets": ["training.segment"],
                       "levels": [level(3), level(5)]})  # fmt: skip
    one = universes.universe(multiverse(), "sine", 1, (*QUESTIONS, bad))
    with pytest.raises(NotApplicable, match="must be a multiple of segment"):
        universes.searched(multiverse(), one)


def test_a_fork_of_an_unknown_key_is_one_line() -> None:
    bad = question(8, {"name": "steps", "experiments": ["sine"], "sets": ["training.step"],
                       "levels": [level(3), level(5)]})  # fmt: skip
    one = universes.universe(multiverse(), "sine", 1, (*QUESTIONS, bad))
    with pytest.raises(UsageError, match=r"unknown key 'training\.step'; did you mean 'steps'"):
        universes.searched(multiverse(), one)


@pytest.mark.parametrize(
    ("experiment", "where", "what", "fixed"),
    [
        ("sine", "experiments.sine.overrides", "overrides", {"lft": {"training.steps": 4}}),
        (
            "attack",
            "universes.tuning.ranges.attack.lft",
            r"tuning\.ranges",
            {"families.mnist.distortion_weight": [0.1, 1.0]},
        ),
    ],
)
def test_what_a_fork_varies_cannot_be_fixed_for_one_method(
    experiment: str, where: str, what: str, fixed: dict[str, Any]
) -> None:
    values = multiverse().model_dump(mode="json", exclude_none=True)
    put(values, where, fixed)
    with pytest.raises(UsageError, match=f"{what} of lft in {experiment} set "):
        universes.universe(Profile.model_validate(values), experiment, 1, QUESTIONS)


@pytest.mark.parametrize(
    ("profile", "experiment", "number", "message"),
    [
        (multiverse(), "sine", 4, "universes of sine are numbered 1 to 3, not 4"),
        (multiverse(), "sin", 1, "there are no universes of 'sin'; did you mean 'sine'"),
        (load_profile("smoke"), "sine", 1, "profile 'smoke' has no universes"),
    ],
)
def test_a_universe_that_is_not_there_is_one_line(
    profile: Profile, experiment: str, number: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        universes.universe(profile, experiment, number, QUESTIONS)


def test_jobs_of_a_multiverse(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_multiverse.use(monkeypatch)
    profile = multiverse()
    found = list(jobs.jobs(profile))
    assert [job.rule for job in found] == ["data", *["universe"] * 5, "multiverse"]
    assert jobs.outputs(found[1]) == ["universes/sine/1.csv"]
    assert list(universes.names(SHIPPED, pilot=True))[-1] == ("classification", 24)
    before = {name: jobs.planned(profile, "universe", name) for name in ("sine", "attack")}
    other = multiverse(experiments__sine__testing__tasks=8, universes__experiments__attack=3)
    assert jobs.planned(other, "universe", "sine") != before["sine"]
    assert jobs.planned(other, "universe", "attack") == before["attack"]
