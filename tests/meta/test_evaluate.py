"""Evaluation: rows against a loop written out here, determinism, and diverged or absent runs."""

from __future__ import annotations

import logging
import math
import shutil
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny import profile_values, tiny_profile, write_images

from lft.commands import jobs
from lft.config import Profile, Run
from lft.errors import UsageError
from lft.meta.evaluate import evaluate, evaluate_runs
from lft.meta.learner import Learner
from lft.meta.measured import first_full
from lft.meta.train import train
from lft.paths import data_path, victim_path
from lft.results.schema import EVALUATED, TRAINED, Measurement
from lft.seeding import generator
from lft.storage.csv import read_rows
from lft.storage.json import read_json, write_json
from lft.storage.tensors import below, load_tensors, save_tensors
from lft.tasks.build import build_families, make_victim

ATTACK = Run("attack", "grey+colour", "lft", "first", 0)
SINE = Run("sine", "sine", "maml", "first", 0)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both runs trained with both seeds, and evaluated."""
    folder = tmp_path_factory.mktemp("results")
    profile = tiny_profile()
    write_images(folder)
    for source in ("grey", "colour"):
        make_victim(profile, source, folder)
    for run in (ATTACK, SINE):
        for seed in profile.seeds:
            train(profile, run._replace(seed=seed), folder)
        measure(profile, run, folder)
    return folder


def measure(profile: Profile, run: Run, results: Path) -> None:
    """Evaluate the runs of all seeds."""
    evaluate_runs(profile, [run._replace(seed=seed) for seed in profile.seeds], results)


def rows(results: Path, run: Run) -> Any:
    """The measurements of all seeds."""
    paths = sorted((results / run.evaluation_folder).glob("seed*/measurements.csv"))
    frames = [read_rows(path, Measurement._fields) for path in paths]
    return pd.concat([frame for frame in frames if len(frame)], ignore_index=True)


def written(results: Path, run: Run) -> dict[str, bytes]:
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for name in EVALUATED
        for path in sorted((results / run.evaluation_folder).glob(f"seed*/{name}"))
    }


def copied(results: Path, run: Run, target: Path, profile: Profile) -> None:
    """The trained runs of all seeds, without evaluation."""
    for seed in profile.seeds:
        folder = run._replace(seed=seed).folder
        (target / folder).mkdir(parents=True)
        for name in TRAINED:
            (target / folder / name).write_bytes((results / folder / name).read_bytes())


def test_sine_rows_are_those_of_a_plain_loop(results: Path) -> None:
    """MAML: gradient descent from the learned start, by autograd, one task at a time."""
    profile = tiny_profile()
    frame = rows(results, SINE)
    assert len(frame) == 2 * 2 * 4 * 4  # seeds, metrics, steps 0 … 3, tasks
    for seed in profile.seeds:
        run = SINE._replace(seed=seed)
        flat, _ = load_tensors(results / run.folder / "weights.safetensors")
        start = below("best/init", flat)
        family = build_families(profile, profile.experiment("sine"), ["sine"], results)["sine"]
        tasks = family.sample(4, generator("test", "sine", "sine", seed), "test")
        for task in range(4):
            params = {name: leaf[None].clone().requires_grad_() for name, leaf in start.items()}
            support, query = (
                type(part)(part.x[task : task + 1], part.y[task : task + 1]) for part in tasks
            )
            for step in range(4):
                here = frame[
                    (frame.seed == seed) & (frame.task == f"sine-{task}") & (frame.step == step)
                ].set_index("metric")["value"]
                support_loss, query_loss = family.loss(params, support), family.loss(params, query)
                # float32 and seven digits written; tasks are batched there and alone here.
                assert here["mse_support"] == pytest.approx(support_loss.item(), rel=1e-4)
                assert here["mse"] == pytest.approx(query_loss.item(), rel=1e-4)
                grads = torch.autograd.grad(support_loss.sum(), list(params.values()))
                params = {
                    name: (leaf - 0.05 * grad).detach().requires_grad_()
                    for (name, leaf), grad in zip(params.items(), grads, strict=True)
                }


def test_attack_rows_cover_mixtures_metrics_and_steps(results: Path) -> None:
    frame = rows(results, ATTACK)
    trajectory = frame[frame.metric != "first_full"]
    sizes = trajectory.groupby(["tested_on", "seed", "metric", "step"], observed=True).size()
    assert (sizes == 4).all()
    assert len(sizes) == 3 * 2 * 3 * 4  # mixtures, seeds, metrics, steps
    assert set(frame.metric) == {"asr", "asr_support", "distortion", "first_full"}
    assert set(frame.method) == {"lft"}
    mixed = frame[frame.tested_on == "grey+colour"]
    assert set(mixed.task) == {"grey-0", "grey-1", "colour-0", "colour-1"}


def test_a_mixture_has_an_equal_share_of_tasks_of_its_own(results: Path) -> None:
    """Distortions of random starts are real numbers: no two tasks have the same."""
    frame = rows(results, ATTACK)
    start = frame[(frame.metric == "distortion") & (frame.step == 0)]
    mixed = start[start.tested_on == "grey+colour"]
    assert mixed.groupby("seed").size().tolist() == [4, 4]
    assert start.value.nunique() == len(start)


def test_a_seed_is_measured_by_itself(results: Path, tmp_path: Path) -> None:
    profile = tiny_profile()
    for name in ("data", "victims"):
        (tmp_path / name).symlink_to(results / name)
    copied(results, ATTACK, tmp_path, profile)
    evaluate(profile, ATTACK._replace(seed=1), tmp_path)
    found = written(tmp_path, ATTACK)
    assert list(found) == ["seed1/measurements.csv", "seed1/examples.safetensors"]
    assert found == {key: written(results, ATTACK)[key] for key in found}


def test_the_first_step_of_full_success_is_that_of_the_rows(results: Path) -> None:
    frame = rows(results, ATTACK)
    keys = ["tested_on", "seed", "task"]
    asr = frame[frame.metric == "asr"]
    by_hand = asr[asr.value == 1].groupby(keys, observed=True)["step"].min()
    first = frame[frame.metric == "first_full"].set_index(keys)["value"]
    assert len(first) == 3 * 2 * 4
    for key, value in first.items():
        assert value == by_hand[key] if key in by_hand.index else math.isnan(value)


def test_first_full_by_hand() -> None:
    asr = torch.tensor([[0.0, 1.0, 0.5, 0.0], [0.99, 0.0, 1.0, 0.9], [1.0, 1.0, 1.0, torch.nan]])
    assert first_full(asr)[0, :3].tolist() == [2, 0, 1]
    assert math.isnan(first_full(asr)[0, 3])
    assert first_full(asr).shape == (1, 4)


@pytest.mark.parametrize("run", [ATTACK, SINE], ids=lambda run: run.experiment)
def test_rows_at_strides_are_those_of_every_step(results: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    strided = tiny_profile(**{f"experiments__{run.experiment}__testing__every": 3})
    measure(strided, run, tmp_path)
    expected = rows(results, run)
    expected = expected[expected["step"].isin([0, 3])].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows(tmp_path, run), expected)


def test_pictures_fit_the_rows(results: Path) -> None:
    flat, _ = load_tensors(results / ATTACK.folder / "examples.safetensors")
    frame = rows(results, ATTACK)
    last = frame[(frame.seed == 0) & (frame.step == 3)]
    for name, channels, side in (("grey", 1, 28), ("colour", 3, 32)):
        kept = below(f"lft/{name}", flat)
        assert kept["images"].shape == (3, 4, channels, side, side)
        assert kept["images"].dtype == torch.uint8
        assert torch.equal(kept["clean"], kept["labels"])  # only correct ones are attacked
        for task in range(3):
            values = last[(last.task == f"{name}-{task}") & (last.tested_on == name)]
            values = values.set_index("metric")["value"]
            attacked = float((kept["attacked"][task] != kept["labels"][task]).float().mean())
            assert values["asr"] == pytest.approx(attacked)
            size = float(kept["perturbation"][task].abs().mean())
            assert values["distortion"] == pytest.approx(size, rel=1e-6)
    empty, _ = load_tensors(results / SINE.folder / "examples.safetensors")
    assert empty == {}


def test_runs_of_one_job_are_measured_as_one_by_one(results: Path, tmp_path: Path) -> None:
    profile = tiny_profile(experiments__attack__methods=("sgd", "lft"))
    for name in ("data", "victims"):
        (tmp_path / name).symlink_to(results / name)
    runs = [ATTACK._replace(method=method) for method in ("sgd", "lft")]
    copied(results, ATTACK, tmp_path, profile)
    for seed in profile.seeds:
        train(profile, runs[0]._replace(seed=seed), tmp_path)
    for run in runs:
        measure(profile, run, tmp_path)
    alone = [written(tmp_path, run) for run in runs]
    both = [run._replace(seed=seed) for seed in profile.seeds for run in runs]
    evaluate_runs(profile, both, tmp_path)
    assert [written(tmp_path, run) for run in runs] == alone
    assert alone[1] == written(results, ATTACK)


def test_the_command_measures_all_methods_and_seeds_or_those_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tiny_profile(experiments__sine__methods=("sgd", "adam"), theory={})
    for run in profile.runs("sine"):
        train(profile, run, tmp_path)
    monkeypatch.setattr("lft.commands.jobs.load", lambda profile_file, results: (profile, tmp_path))

    def found() -> set[str]:
        paths = tmp_path.glob("runs/*/*/*/*/measurements.csv")
        return {"/".join(path.parts[-3:-1]) for path in paths}

    jobs.evaluate("sine", "sine", "sgd", seed=[1])
    assert found() == {"sgd-first/seed1"}
    jobs.evaluate("sine", "sine")
    assert found() == {f"{m}-first/seed{n}" for m in ("sgd", "adam") for n in (0, 1)}


def test_every_seed_attacks_its_own_victim_where_it_has_one(tmp_path: Path) -> None:
    values = profile_values()
    values["victim"]["per_seed"] = True
    values["experiments"]["attack"] |= {"train_on": ["grey"], "test_on": ["grey"]}
    profile, run = Profile.model_validate(values), ATTACK._replace(trained_on="grey", method="sgd")
    write_images(tmp_path)
    for seed in (0, 1):
        make_victim(profile, "grey", tmp_path, seed)
        train(profile, run._replace(seed=seed), tmp_path)
    victims = [load_tensors(victim_path(tmp_path, "grey", seed))[0] for seed in (0, 1)]
    assert not torch.equal(victims[0]["conv1.weight"], victims[1]["conv1.weight"])
    measure(profile, run, tmp_path)
    before = written(tmp_path, run)
    shutil.copy(victim_path(tmp_path, "grey", 0), victim_path(tmp_path, "grey", 1))
    measure(profile, run, tmp_path)
    after = written(tmp_path, run)
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"seed1/measurements.csv", "seed1/examples.safetensors"}


def test_all_methods_meet_the_same_tasks_and_starts(results: Path, tmp_path: Path) -> None:
    """Before the first step every method without a learned start has the same metrics."""
    profile, at_start = tiny_profile(), []
    for method in ("lft", "l2o", "sgd", "adam"):
        for order in ("first", "zeroth"):
            run = Run("sine", "sine", method, order, 0)
            for seed in profile.seeds:
                train(profile, run._replace(seed=seed), tmp_path)
            measure(profile, run, tmp_path)
            frame = rows(tmp_path, run)
            at_start.append(frame[frame.step == 0].drop(columns=["method", "order"]))
    assert all(frame.equals(at_start[0]) for frame in at_start)


@pytest.mark.parametrize("run", [ATTACK, SINE], ids=["attack", "sine"])
def test_evaluation_repeats_bit_by_bit_whatever_the_global_generator_says(
    run: Run, results: Path
) -> None:
    before = written(results, run)
    torch.manual_seed(1234)
    measure(tiny_profile(), run, results)
    assert written(results, run) == before
    assert len(before) == 4


@pytest.mark.parametrize("run", [ATTACK, SINE], ids=["attack", "sine"])
def test_tasks_one_by_one_give_the_same_rows(
    run: Run, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, expected = tiny_profile(), rows(results, run)
    for name in ("data", "victims"):
        (tmp_path / name).symlink_to(results / name)
    copied(results, run, tmp_path, profile)
    monkeypatch.setattr("lft.meta.adapt.SIDE_BY_SIDE", 1)
    measure(profile, run, tmp_path)
    frame = rows(tmp_path, run)
    keys = list(Measurement._fields[:-1])
    assert frame[keys].equals(expected[keys])
    # float32: products of other sizes are summed in another order.
    torch.testing.assert_close(
        torch.tensor(frame.value),
        torch.tensor(expected.value),
        rtol=1e-4,
        atol=1e-6,
        equal_nan=True,
    )


def test_a_diverged_seed_is_left_out_and_the_others_go_on(
    results: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profile = tiny_profile()
    copied(results, SINE, tmp_path, profile)
    path = tmp_path / SINE._replace(seed=0).folder / "run.json"
    write_json(path, {**read_json(path), "status": "diverged"})
    with caplog.at_level(logging.WARNING):
        measure(profile, SINE, tmp_path)
    frame = rows(tmp_path, SINE)
    assert set(frame.seed) == {1}
    expected = rows(results, SINE)
    expected = expected[expected.seed == 1].reset_index(drop=True)
    assert frame.astype(str).equals(expected.astype(str))
    assert f"{path.parent} diverged and is left out" in caplog.text


def test_a_test_task_that_explodes_is_measured_as_nan(tmp_path: Path) -> None:
    profile = tiny_profile()
    run = Run("sine", "sine", "sgd", "first", 0)
    for seed in profile.seeds:
        train(profile, run._replace(seed=seed), tmp_path)
        path = tmp_path / run._replace(seed=seed).folder / "weights.safetensors"
        save_tensors(path, {"best/step_size": torch.tensor(1e30, dtype=torch.float64)}, {})
    measure(profile, run, tmp_path)
    last = rows(tmp_path, run).query("step == 3")["value"]
    assert len(last) == 2 * 2 * 4
    assert last.isna().all()


def test_absent_and_damaged_weights_are_one_line(results: Path, tmp_path: Path) -> None:
    profile = tiny_profile()
    with pytest.raises(UsageError, match=r"run\.json"):
        measure(profile, SINE, tmp_path)
    copied(results, SINE, tmp_path, profile)
    weights = tmp_path / SINE._replace(seed=1).folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"weights\.safetensors is damaged"):
        measure(profile, SINE, tmp_path)
    weights.unlink()
    with pytest.raises(UsageError, match=r"weights\.safetensors is missing"):
        measure(profile, SINE, tmp_path)
    weights.with_name("run.json").write_text("{}")
    with pytest.raises(UsageError, match=r"run\.json: 'commit' is missing"):
        measure(profile, SINE, tmp_path)
    assert not (tmp_path / SINE._replace(seed=1).folder / "measurements.csv").exists()


def test_a_thread_trains_and_measures_and_leaves_torch_as_it_was(tmp_path: Path) -> None:
    profile, run = tiny_profile(threads=1), Run("sine", "sine", "lft", "first", 0)
    torch.set_num_threads(2)

    def work() -> None:
        train(profile, run, tmp_path)
        evaluate(profile, run, tmp_path)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (tmp_path / run.folder / "measurements.csv").exists()
    train(profile, run._replace(seed=1), tmp_path)
    assert torch.get_num_threads() == 2
    # A number below 1e-38 is one, and no zero.
    assert (torch.tensor([1e-40]) * 1.0).item() > 0


def test_a_run_trained_under_other_settings_is_refused(results: Path, tmp_path: Path) -> None:
    """Else the rows would be those of a fine-tuner that nobody trained."""
    copied(results, ATTACK, tmp_path, tiny_profile())
    edited = tiny_profile(experiments__attack__finetuner__output_scale=1.0)
    expected = (
        r"seed0/run\.json was trained with finetuner\.output_scale 0\.1, the profile says 1\.0; "
        "restore it, or train again"
    )
    with pytest.raises(UsageError, match=expected):
        evaluate(edited, ATTACK, tmp_path)
    assert not (tmp_path / ATTACK.folder / "measurements.csv").exists()


def test_a_method_is_tested_where_it_applies(results: Path) -> None:
    profile = tiny_profile(experiments__attack__train_on=["grey"])
    run = Run("attack", "grey", "maml", "first", 0)
    for seed in profile.seeds:
        train(profile, run._replace(seed=seed), results)
    measure(profile, run, results)
    assert set(rows(results, run).tested_on) == {"grey"}


def test_a_source_that_nothing_was_trained_on_is_attacked_on_its_own_victim(
    results: Path, tmp_path: Path
) -> None:
    values = profile_values()
    values["sources"]["unseen"] = values["sources"]["colour"] | {"label": "unseen"}
    attack = values["experiments"]["attack"]
    attack["families"]["unseen"] = attack["families"]["colour"] | {"source": "unseen"}
    attack |= {"train_on": ["grey"], "test_on": ["grey", "unseen"], "methods": ["lft"]}
    profile, run = Profile.model_validate(values), ATTACK._replace(trained_on="grey")
    for path in (data_path, victim_path):
        source = path(tmp_path, "grey")
        source.parent.mkdir()
        shutil.copy(path(results, "grey"), source)
    for seed in profile.seeds:
        train(profile, run._replace(seed=seed), tmp_path)  # neither its images nor its victim exist
    shutil.copy(data_path(results, "colour"), data_path(tmp_path, "unseen"))
    make_victim(profile, "unseen", tmp_path)
    measure(profile, run, tmp_path)
    found = rows(tmp_path, run)
    assert set(found["tested_on"]) == {"grey", "unseen"}
    unseen = found[found["tested_on"] == "unseen"]
    assert set(unseen["task"].str.removeprefix("unseen-").astype(int)) == set(range(4))
    assert unseen.loc[unseen["metric"] == "asr", "value"].between(0, 1).all()


def test_a_variant_is_measured_under_its_own_settings(tmp_path: Path) -> None:
    variant = {"method": "sgd", "label": "Wide", "set": {"families.sine.query": 50}}
    profile = tiny_profile(experiments__sine__variants={"wide": variant})
    run = Run("sine", "sine", "wide", "first", 0)
    for seed in profile.seeds:
        train(profile, run._replace(seed=seed), tmp_path)
    measure(profile, run, tmp_path)
    settings = Learner.of(profile, run).experiment
    family = build_families(profile, settings, ["sine"], tmp_path)["sine"]
    random = generator("test", "sine", "sine", 1)
    tasks = family.sample(4, random, "test")
    assert tasks.query.size == 50
    expected = family.loss(family.init(4, random), tasks.query).tolist()
    frame = rows(tmp_path, run)
    assert set(frame.method) == {"wide"}
    before = frame[(frame.seed == 1) & (frame.step == 0) & (frame.metric == "mse")]["value"]
    # Seven digits are written.
    assert before.tolist() == pytest.approx(expected, rel=1e-6)
