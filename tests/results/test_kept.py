"""Methods set beside a kept run: what is taken over, what is computed, and that nothing differs."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tiny import changed, profile_values, write_images

import lft.config.loading
import lft.meta.train
import lft.tasks.build
from lft.commands.jobs import trained
from lft.config import Profile, Run, load_profile
from lft.errors import UsageError
from lft.meta.evaluate import evaluate_runs
from lft.meta.train import train_seeds
from lft.paths import victim_path
from lft.results.aggregate import aggregate
from lft.results.jobs import jobs
from lft.storage.json import read_json, write_json
from lft.tasks.build import make_victim

KEPT, OWN = ["maml", "lft", "adam"], "l2o"


def values(name: str, methods: list[str]) -> dict[str, Any]:
    found = changed(profile_values(), name=name)
    attack = changed(found["experiments"]["attack"], methods=methods, train_on=["grey"])
    found["experiments"] = {"attack": changed(attack, test_on=["grey"])}
    return {key: value for key, value in found.items() if key != "theory"}


def compute(profile: Profile, results: Path) -> Path:
    """Every job of a profile, in the folder that the workflow takes."""
    folder = results / profile.name
    write_images(folder)
    for job in jobs(profile):
        if job.rule == "victim":
            make_victim(profile, job.name[0], folder)
        elif job.rule == "train":
            train_seeds(profile, job.runs, folder)
        elif job.rule == "evaluate":
            evaluate_runs(profile, job.runs, folder)
    aggregate(profile, folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kept run and the profile that is against it; beside them a run of all methods."""
    folder = tmp_path_factory.mktemp("place")
    for name, methods in (("tiny", KEPT), ("full", [*KEPT, OWN])):
        text = yaml.safe_dump(values(name, methods))
        (folder / f"{name}.yaml").write_text(text)
        compute(load_profile(folder / f"{name}.yaml"), folder / "results")
    write_mine(folder, {"methods": [OWN]})
    return folder


def write_mine(folder: Path, attack: dict[str, Any], **others: Any) -> Path:
    mine = {"name": "mine", "against": "tiny.yaml", "experiments": {"attack": attack}} | others
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(mine))
    return path


def test_only_the_own_method_is_trained_and_every_row_is_that_of_a_full_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, original = [], lft.meta.train._train

    def spy(profile: Profile, run: Run, *arguments: Any) -> None:
        done.append(run.method)
        original(profile, run, *arguments)

    def never(*arguments: Any) -> None:
        pytest.fail("a victim whose weights were kept was trained again")

    monkeypatch.setattr(lft.meta.train, "_train", spy)
    monkeypatch.setattr(lft.tasks.build, "train_victim", never)
    mine = compute(load_profile(write_mine(place, {"methods": [OWN]})), place / "results")
    assert done == [OWN] * 2  # two seeds
    for name in ("measurements.csv", "summary.csv", "cells.csv"):
        full = pd.read_csv(place / "results/full" / name)
        ours = pd.read_csv(mine / name)
        order = list(full.columns)[: list(full.columns).index("seed") + 1]
        order += [name for name in ("task", "metric", "step") if name in full.columns]
        full, ours = (frame.sort_values(order, ignore_index=True) for frame in (full, ours))
        pd.testing.assert_frame_equal(full, ours, check_exact=True)
    run = Run("attack", "grey", "lft", "first", 0).folder / "run.json"
    assert (mine / run).read_bytes() == (place / "results/tiny" / run).read_bytes()


def test_measurements_of_all_seeds_in_one_packed_file_are_taken_too(place: Path) -> None:
    """As results/reference keeps them."""
    kept = place / "results/tiny/runs/attack/grey/lft-first"
    files = [kept / f"seed{seed}/measurements.csv" for seed in (0, 1)]
    before = [file.read_bytes() for file in files]
    rows = before[0] + before[1].partition(b"\n")[2]
    (kept / "measurements.csv.gz").write_bytes(gzip.compress(rows))
    (kept / "examples.safetensors").write_bytes((kept / "seed0/examples.safetensors").read_bytes())
    try:
        for file in files:
            file.unlink()
        profile = load_profile(write_mine(place, {"methods": [OWN]}))
        runs = [Run("attack", "grey", "lft", "first", seed) for seed in (0, 1)]
        evaluate_runs(profile, runs, place / "results/packed")
        for run, expected in zip(runs, before, strict=True):
            found = place / "results/packed" / run.folder / "measurements.csv"
            assert found.read_bytes() == expected
    finally:
        for file, content in zip(files, before, strict=True):
            file.write_bytes(content)


def test_a_victim_without_weights_is_trained_again_and_compared(place: Path) -> None:
    profile, results = load_profile(write_mine(place, {"methods": [OWN]})), place / "results/mine"
    write_images(results)
    kept = victim_path(place / "results/tiny", "grey")
    content, record = kept.read_bytes(), read_json(kept.with_suffix(".json"))
    try:
        kept.unlink()
        make_victim(profile, "grey", results)
        again = read_json(victim_path(results, "grey").with_suffix(".json"))
        assert abs(again["accuracy_test"] - record["accuracy_test"]) <= 0.01
        write_json(kept.with_suffix(".json"), record | {"accuracy_test": 0.5})
        with pytest.raises(UsageError, match="other images; take those of the kept run"):
            make_victim(profile, "grey", results)
        write_json(kept.with_suffix(".json"), record | {"settings": {"victim": {"epochs": 99}}})
        with pytest.raises(UsageError, match=r"trained with victim\.epochs 99"):
            make_victim(profile, "grey", results)
        kept.with_suffix(".json").unlink()
        with pytest.raises(UsageError, match=r"keeps no record grey\.json of a victim"):
            make_victim(profile, "grey", results)
    finally:
        kept.write_bytes(content)
        write_json(kept.with_suffix(".json"), record)


def test_a_kept_run_is_checked_by_a_longer_one_that_is_trained_here(place: Path) -> None:
    path = write_mine(place, {"methods": [OWN]})
    profile, run = load_profile(path), Run("attack", "grey", "lft", "first", 0)
    results = place / "results/checked"
    write_images(results)
    make_victim(profile, "grey", results)
    train_seeds(profile, [run], results)
    trained("attack", "grey", "lft", profile=path, results=results)
    checks = read_json(results / run.folder / "trained.json")["checks"]
    assert "longer does not help" in {check["name"] for check in checks}
    done, longer = (
        read_json(folder / run.folder / "run.json")["meta_batches"]
        for folder in (results, results / "longer")
    )
    assert longer == 3 * done


def test_what_does_not_fit_the_kept_run_is_one_line(place: Path) -> None:
    run = Run("attack", "grey", "lft", "first", 0)

    def refuse(message: str, **others: Any) -> None:
        attack = others.pop("attack", {"methods": [OWN]})
        with pytest.raises(UsageError, match=message) as raised:
            profile = load_profile(write_mine(place, attack, **others))
            train_seeds(profile, [run._replace(seed=profile.seeds[0])], place / "results/wrong")
        assert "\n" not in str(raised.value)
        assert not (place / "results/wrong/runs").exists()

    refuse("name at least one method of your own", attack={"overrides": {}})
    refuse("'lft' is in the kept run; call yours by another name", attack={"methods": ["lft"]})
    refuse("testing is settled by the run that it is against", attack={"testing": {"tasks": 9}})
    refuse("unknown experiment 'atack'; did you mean 'attack'", experiments={"atack": {}})
    refuse("key 'experiments' must name methods", experiments={})
    refuse("keeps no run .*seed7; take seeds", seeds=[7])
    refuse("partition disjoint, the profile says paper", partition="paper")
    refuse("give one of the keys 'extends' and 'against'", extends="tiny.yaml")
    refuse("against: there is neither a file", against="nothing")
    (place / "absent.yaml").write_text(yaml.safe_dump(values("absent", KEPT)))
    refuse("against: .*results/absent keeps no runs", against="absent.yaml")


def with_csv(place: Path, frame: pd.DataFrame) -> Profile:
    frame.to_csv(place / "given.csv", index=False, na_rep="nan")
    attack = {"methods": [OWN], "measurements": {OWN: str(place / "given.csv")}}
    return load_profile(write_mine(place, attack))


def test_measurements_made_elsewhere_are_set_beside_the_kept_ones(place: Path) -> None:
    full = pd.read_csv(place / "results/full/measurements.csv")
    given = full[full["method"] == OWN]
    profile = with_csv(place, given)
    assert OWN not in {run.method for job in jobs(profile) for run in job.runs}
    folder = compute(profile, place / "results")
    summary, expected = (
        pd.read_csv(path / "summary.csv").sort_values(["method", "metric", "seed", "step"])
        for path in (folder, place / "results/full")
    )
    pd.testing.assert_frame_equal(
        summary.reset_index(drop=True), expected.reset_index(drop=True), check_exact=True
    )
    asr, first = given["metric"] == "asr", given.index == given.index[0]
    for wrong, message in (
        (given.assign(task="grey-99"), "task 'grey-[0-9]+' is not in both"),
        (given.assign(step=77), "step 77 is none of the profile's"),
        (given.assign(metric="speed"), "metric 'speed' is none"),
        (given.assign(tested_on="mars"), "is no cell of profile 'mine'"),
        (given.assign(method="l2p"), "l2p first 0 is no cell of profile 'mine'"),
        (pd.concat([given, given.assign(seed=99)]), "first 99 is no cell of profile 'mine'"),
        (given[given["seed"] != given["seed"].max()], "there are no rows of .* first 1; add"),
        (given[:0], "there are no rows of .* first 0; add"),
        (given[~asr], "there are no rows of the metric 'asr'"),
        (given[~first], "is missing; a missing number is nan"),
        (given[~asr | (given["step"] == 0)], "is missing; a missing number is nan"),
        (pd.concat([given, given[first]]), "is there twice"),
        (given.assign(value=2.0), "asr is a share, from 0 to 1"),
        (given.drop(columns="task"), "line 1: expected the columns .*; correct the file"),
    ):
        with pytest.raises(UsageError, match=message):
            aggregate(with_csv(place, wrong), folder)
    with pytest.raises(UsageError, match="measurements: 'lfd' is not a method here"):
        load_profile(write_mine(place, {"methods": [OWN], "measurements": {"lfd": "x.csv"}}))
