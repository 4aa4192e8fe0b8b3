"""Meta-training: determinism, interruption at any point, divergence, and what is written."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import changed, profile_values, tiny_profile, write_images

import lft.meta.outer_loop
import lft.meta.selection
from lft.config import Profile, Run
from lft.errors import Interrupted, UsageError
from lft.meta.estimators import meta_gradient
from lft.meta.learner import Learner
from lft.meta.selection import Validated, validate
from lft.meta.state import TrainingState
from lft.meta.train import train, train_seeds
from lft.methods import METHODS
from lft.results.schema import HISTORY_COLUMNS
from lft.runtime.progress import HEARTBEAT
from lft.seeding import generator
from lft.storage.json import read_json
from lft.storage.tensors import below, load_tensors
from lft.tasks.build import build_families, make_victim
from lft.tasks.pools import Pools
from lft.tasks.sine import Sine

META_TRAINED = {"maml", "fomaml", "reptile", "l2o", "lft", "lft-init"}
Stopper = Callable[..., list[tuple[int, int]]]


def outputs(results: Path, run: Run) -> dict[str, Any]:
    """All that a run leaves behind, but for the seconds and the memory that it took."""
    folder = results / run.folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.csv",
        "run.json",
        "weights.safetensors",
    ]
    return {
        "weights.safetensors": (folder / "weights.safetensors").read_bytes(),
        "history.csv": (folder / "history.csv").read_bytes(),
        "run.json": read_json(folder / "run.json")
        | dict.fromkeys(("seconds", "cpu_seconds", "memory_mb")),
    }


def sine_run(method: str = "lft", order: Any = "first", seed: int = 0) -> Run:
    return Run("sine", "sine", method, order, seed)


def trained(profile: Profile, run: Run, results: Path) -> dict[str, Any]:
    train(profile, run, results)
    return outputs(results, run)


def history(results: Path, run: Run) -> list[list[str]]:
    lines = (results / run.folder / "history.csv").read_text().splitlines()
    assert lines[0] == ",".join(HISTORY_COLUMNS)
    return [line.split(",") for line in lines[1:]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder with images and victims."""
    results = tmp_path_factory.mktemp("prepared")
    write_images(results)
    for source in ("grey", "colour"):
        make_victim(tiny_profile(), source, results)
    return results


# ---------------------------------------------------------------- determinism


@pytest.mark.parametrize("order", ["first", "zeroth"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_same_seed_gives_the_same_files_whatever_the_global_generator_says(
    method: str, order: str, tmp_path: Path
) -> None:
    run = sine_run(method, order)
    results = []
    for attempt in ("one", "two"):
        torch.manual_seed(hash(attempt))
        before = torch.get_rng_state()
        results.append(trained(tiny_profile(), run, tmp_path / attempt))
        assert torch.equal(before, torch.get_rng_state())
    assert results[0] == results[1]
    other_seed = trained(tiny_profile(), run._replace(seed=1), tmp_path / "one")
    assert other_seed["history.csv"] != results[0]["history.csv"]


def test_the_order_of_runs_changes_nothing(tmp_path: Path) -> None:
    runs = [sine_run(method, seed=seed) for method in ("lft", "maml", "adam") for seed in (0, 1)]
    forwards = [trained(tiny_profile(), run, tmp_path / "one") for run in runs]
    backwards = [trained(tiny_profile(), run, tmp_path / "two") for run in reversed(runs)]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize("experiment", ["attack", "classification"])
def test_incongruous_training_takes_turns_and_repeats(experiment: str, prepared: Path) -> None:
    run = Run(experiment, "grey+colour", "lft", "first", 0)
    one = trained(tiny_profile(), run, prepared)
    assert [row[1] for row in history(prepared, run)[1:]] == ["grey", "colour"] * 3
    assert trained(tiny_profile(), run, prepared) == one


@pytest.mark.parametrize(
    ("experiment", "method", "order"),
    [
        ("sine", "lft", "zeroth"),
        ("sine", "maml", "first"),
        ("sine", "adam", "first"),
        ("attack", "lft", "first"),
        ("classification", "l2o", "first"),
    ],
)
def test_seeds_of_one_process_have_the_bits_of_processes_of_their_own(
    experiment: str, method: str, order: Any, prepared: Path, tmp_path: Path
) -> None:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    profile = tiny_profile(kernel="auto")
    mixture = "sine" if experiment == "sine" else "grey+colour"
    runs = [Run(experiment, mixture, method, order, seed) for seed in (0, 1)]
    train_seeds(profile, runs, tmp_path)
    together = [outputs(tmp_path, run) for run in runs]
    assert together == [trained(profile, run, tmp_path) for run in reversed(runs)][::-1]
    assert together[0]["history.csv"] != together[1]["history.csv"]


# ---------------------------------------------------------------- what training does


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("method", ["lft", "maml"])
def test_meta_training_is_algorithm_1(method: str, seed: int, tmp_path: Path) -> None:
    """The outer loop written out with torch.optim, from the meta-gradients of segments."""
    run = sine_run(method, seed=seed)
    profile = tiny_profile(
        experiments__sine__training__epochs=2,
        experiments__sine__training__clip=0.05,
        experiments__sine__training__learning_rate=0.1,
        experiments__sine__training__validation={"tasks": 3, "rounds": 6},
        experiments__sine__maml__epochs=2,
        experiments__sine__maml__learning_rate=0.1,
    )
    train(profile, run, tmp_path)
    learner = Learner.of(profile, run)
    family = build_families(profile, learner.experiment, ["sine"], tmp_path)["sine"]

    initial = learner.initial(family, generator("meta", "sine", seed))
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in initial.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=0.1)
    segments = 2 if method == "lft" else 1
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12 * segments)
    losses, scores, stages = [], {}, {}
    for step in range(12):
        tasks = family.sample(2, generator("train tasks", "sine", "sine", seed, step % 6), "train")
        random, point = generator("train", "sine", "first", seed, step), None
        of_segments = []
        for _ in range(segments):
            meta = {name: leaf.detach().clone() for name, leaf in leaves.items()}
            segment = meta_gradient(learner, meta, family, tasks, point, random)
            point = segment.end
            for name, leaf in leaves.items():
                leaf.grad = segment.grads[name].clone()
            torch.nn.utils.clip_grad_norm_(leaves.values(), 0.05)
            optimizer.step()
            schedule.step()
            of_segments.append(float(segment.loss))
        losses.append(sum(of_segments) / segments)
        stages[step + 1] = {name: leaf.detach().clone() for name, leaf in leaves.items()}
        if step % 2:
            found = validate(learner, stages[step + 1], run, {"sine": family})
            scores[step + 1] = found.score
    best = min(scores, key=lambda step: scores[step])

    rows = history(tmp_path, run)[1:]
    # float32: two dozen updates of Adam, whose quotients carry on a rounding of 1e-7.
    assert [float(row[2]) for row in rows] == pytest.approx(losses, rel=1e-3)
    written = {int(row[0]): float(row[3]) for row in rows if row[3]}
    assert written == pytest.approx(scores, rel=1e-3)
    assert read_json(tmp_path / run.folder / "run.json")["best_meta_batch"] == best
    flat, _ = load_tensors(tmp_path / run.folder / "weights.safetensors")
    for stage, expected in (("initial", initial), ("halfway", stages[6]), ("best", stages[best])):
        for name, leaf in expected.items():
            torch.testing.assert_close(flat[f"{stage}/{name}"], leaf, rtol=1e-3, atol=1e-4)


def test_training_never_sees_test_images(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases, original = [], Pools.sample

    def spy(pools: Pools, n_tasks: int, random: torch.Generator, phase: Any, **rest: Any) -> Any:
        phases.append((n_tasks, phase))
        return original(pools, n_tasks, random, phase, **rest)

    monkeypatch.setattr(Pools, "sample", spy)
    train(tiny_profile(), Run("attack", "grey+colour", "lft", "first", 1), prepared)
    # 6 meta-batches of 2 tasks; of the start and in 3 rounds 3 tasks for each of two families.
    assert sorted(phases) == 6 * [(2, "train")] + 8 * [(3, "validation")]


def test_what_is_written(tmp_path: Path) -> None:
    run = sine_run()
    train(tiny_profile(), run, tmp_path)
    rows = history(tmp_path, run)
    assert [int(row[0]) for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    scores = {int(row[0]): float(row[3]) for row in rows[1:] if row[3]}
    assert sorted(scores) == [2, 4, 6]  # three rounds, the last at the end
    manifest = read_json(tmp_path / run.folder / "run.json")
    assert manifest["status"] == "ok"
    assert manifest["run"] == run._asdict()
    assert manifest["meta_batches"] == 6
    assert manifest["validation_score"] == pytest.approx(min(scores.values()), rel=1e-6)
    assert scores[manifest["best_meta_batch"]] == min(scores.values())
    flat, _ = load_tensors(tmp_path / run.folder / "weights.safetensors")
    assert {name.split("/")[0] for name in flat} == {
        "initial", "halfway", "best", "last"
    }  # fmt: skip


def test_the_best_stage_has_the_validation_score_that_is_written(tmp_path: Path) -> None:
    run, profile = sine_run("l2o"), tiny_profile()
    train(profile, run, tmp_path)
    flat, _ = load_tensors(tmp_path / run.folder / "weights.safetensors")
    learner = Learner.of(profile, run)
    families = build_families(profile, learner.experiment, ["sine"], tmp_path)
    found = validate(learner, below("best", flat), run, families)
    assert found.score == read_json(tmp_path / run.folder / "run.json")["validation_score"]


@pytest.mark.parametrize("method", sorted(META_TRAINED))
def test_meta_training_improves_on_unseen_tasks(method: str, tmp_path: Path) -> None:
    run = sine_run(method)
    profile = tiny_profile(
        experiments__sine__training__tasks=400,
        experiments__sine__training__meta_batch=4,
        experiments__sine__training__steps=6,
        experiments__sine__training__segment=6,
        experiments__sine__training__validation={"tasks": 50, "rounds": 2},
        experiments__sine__maml__epochs=2,
        experiments__sine__families__sine={
            "kind": "sine",
            "support": 10,
            "query": 10,
            "hidden": [10],
        },
        experiments__sine__finetuner__hidden=8,
    )
    train(profile, run, tmp_path)
    flat, _ = load_tensors(tmp_path / run.folder / "weights.safetensors")
    learner = Learner.of(profile, run)
    families = build_families(profile, learner.experiment, ["sine"], tmp_path)
    other_tasks = run._replace(seed=99)
    before, after = (
        validate(learner, below(stage, flat), other_tasks, families).score
        for stage in ("initial", "best")
    )
    # 5 % of the loss averaged over the first six steps: half of what is found, and much more than
    # two validations on the same 50 tasks and starts differ by chance.
    assert after < 0.95 * before


def test_step_sizes_are_picked_from_the_grid_by_validation(tmp_path: Path) -> None:
    run = sine_run("sgd")
    profile = tiny_profile(experiments__sine__step_sizes__sgd=[1e-4, 1e-2, 50.0])
    train(profile, run, tmp_path)
    rows = history(tmp_path, run)
    scores = [float(row[3]) for row in rows]
    flat, _ = load_tensors(tmp_path / run.folder / "weights.safetensors")
    assert [row[1] for row in rows] == ["sine"] * 3
    assert float(flat["best/step_size"]) == [1e-4, 1e-2, 50.0][scores.index(min(scores))]
    assert float(flat["best/step_size"]) != 50.0


def test_an_updated_rate_decays_along_a_cosine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    class Spy(lft.meta.outer_loop.Adam):
        def step(self, *arguments: Any) -> Any:
            rates.append(self.step_size)
            return super().step(*arguments)

    monkeypatch.setattr(lft.meta.outer_loop, "Adam", Spy)
    train(tiny_profile(), sine_run(), tmp_path)
    # 6 meta-batches of 2 segments: cos from 0 to just before π, computed by hand.
    expected = [0.01 * torch.cos(torch.tensor(torch.pi * k / 24)).item() ** 2 for k in range(12)]
    assert rates == pytest.approx(expected, rel=1e-6)


def test_a_method_that_does_not_apply_is_refused(prepared: Path) -> None:
    run = Run("attack", "grey+colour", "maml", "first", 0)
    with pytest.raises(UsageError, match="MAML meta-learns one initialisation"):
        train(tiny_profile(), run, prepared)
    assert not (prepared / run.folder).exists()


def test_absent_data_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    run = Run("classification", "grey+colour", "lft", "first", 0)
    with pytest.raises(UsageError, match=r"grey\.safetensors is missing"):
        train(tiny_profile(), run, tmp_path)
    assert not (tmp_path / run.folder).exists()


# ---------------------------------------------------------------- interruption


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Stopper:
    """Have SIGTERM arrive while a given meta-batch of a seed, counted from 1, is computed.

    Returns:
        Seed and step of every meta-batch from now on, as it begins.
    """
    original = lft.meta.outer_loop._meta_batch

    def arrange(number: int, seed: int = 0) -> list[tuple[int, int]]:
        steps = []

        def stopping(*arguments: Any) -> float:
            run, state = arguments[1], arguments[4]
            steps.append((run.seed, state.step))
            if steps[-1] == (seed, number - 1):
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*arguments)

        monkeypatch.setattr(lft.meta.outer_loop, "_meta_batch", stopping)
        return steps

    return arrange


@pytest.mark.parametrize("method", ["lft", "maml", "lft-init"])
@pytest.mark.parametrize("number", [1, 3, 4, 6])
def test_stopped_and_resumed_is_uninterrupted(
    method: str, number: int, tmp_path: Path, stop_at: Stopper
) -> None:
    run, profile = sine_run(method, "zeroth"), tiny_profile()
    whole = trained(profile, run, tmp_path / "whole")
    stop_at(number)
    with pytest.raises(Interrupted, match=f"stopped after meta-batch {number} of 6; checkpoint"):
        train(profile, run, tmp_path / "parts")
    folder = tmp_path / "parts" / run.folder
    assert [path.name for path in folder.iterdir()] == ["checkpoints"]
    stop_at(0)
    assert trained(profile, run, tmp_path / "parts") == whole


def test_time_counts_over_all_processes(
    tmp_path: Path, stop_at: Stopper, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, profile, info = sine_run(), tiny_profile(), TrainingState.info
    spent = {"seconds": 500.0, "cpu_seconds": 300.0}
    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "info", lambda state: info(state) | spent)
        stop_at(3)
        with pytest.raises(Interrupted):
            train(profile, run, tmp_path)
    stop_at(0)
    train(profile, run, tmp_path)
    manifest = read_json(tmp_path / run.folder / "run.json")
    assert 500 < manifest["seconds"] < 600
    assert 300 < manifest["cpu_seconds"] < 400


def test_stopped_again_and_again(tmp_path: Path, stop_at: Stopper) -> None:
    run, profile = sine_run(), tiny_profile()
    whole = trained(profile, run, tmp_path / "whole")
    for number in (2, 3, 5):
        stop_at(number)
        with pytest.raises(Interrupted):
            train(profile, run, tmp_path / "parts")
    stop_at(0)
    assert trained(profile, run, tmp_path / "parts") == whole


def test_a_seed_that_was_done_before_the_stop_is_not_trained_again(
    tmp_path: Path, stop_at: Stopper
) -> None:
    """Its outputs are those of a failed job, which Snakemake removes."""
    profile, runs = tiny_profile(), [sine_run(seed=seed) for seed in (0, 1)]
    whole = [trained(profile, run, tmp_path / "whole") for run in runs]
    steps = stop_at(4, seed=1)
    with pytest.raises(Interrupted):
        train_seeds(profile, runs, tmp_path / "parts")
    assert steps == [(0, step) for step in range(6)] + [(1, step) for step in range(4)]
    for path in (tmp_path / "parts" / runs[0].folder).iterdir():
        if path.is_file():
            path.unlink()

    steps = stop_at(0)
    train_seeds(profile, runs, tmp_path / "parts")
    assert steps == [(1, 4), (1, 5)]
    assert [outputs(tmp_path / "parts", run) for run in runs] == whole


def test_a_damaged_checkpoint_costs_steps_and_changes_nothing(
    tmp_path: Path, stop_at: Stopper, caplog: pytest.LogCaptureFixture
) -> None:
    run, profile = sine_run(), tiny_profile()
    whole = trained(profile, run, tmp_path / "whole")
    for number in (2, 4):
        stop_at(number)
        with pytest.raises(Interrupted):
            train(profile, run, tmp_path / "parts")
    newest = tmp_path / "parts" / run.folder / "checkpoints" / "step-00000004.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    stop_at(0)
    with caplog.at_level(logging.INFO):
        assert trained(profile, run, tmp_path / "parts") == whole
    assert str(newest) in caplog.text
    assert "resuming after meta-batch 2" in caplog.text


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path, stop_at: Stopper) -> None:
    run = sine_run()
    stop_at(3)
    with pytest.raises(Interrupted):
        train(tiny_profile(), run, tmp_path)
    stop_at(0)
    with pytest.raises(UsageError, match="made under other settings"):
        train(tiny_profile(experiments__sine__training__learning_rate=0.02), run, tmp_path)
    train(tiny_profile(checkpoint_seconds=1.0), run, tmp_path)  # does not matter to the outcome


def command(profile: Path, results: Path) -> list[str]:
    arguments = ["train", "sine", "sine", "lft", "--profile", str(profile), "-r", str(results)]
    return [sys.executable, "-c", "from lft.cli import main; main()", *arguments]


def killed_after_a_checkpoint(
    arguments: list[str], checkpoints: Path, number: signal.Signals
) -> subprocess.CompletedProcess[str]:
    """Send a signal to a training process as soon as it has written a checkpoint."""
    before = set(checkpoints.glob("step-*"))
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while set(checkpoints.glob("step-*")) <= before:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, stderr=errors)


def test_a_process_killed_twice_goes_on_where_it_was(tmp_path: Path) -> None:
    """The real thing, through the command line: SIGKILL, then SIGTERM."""
    values = changed(
        profile_values(),
        experiments__sine__training__tasks=400,
        experiments__sine__training__validation__rounds=5,
        checkpoint_seconds=0.1,
    )
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    run = sine_run()
    folder = tmp_path / "parts" / run.folder
    arguments = command(path, tmp_path / "parts")
    killed = killed_after_a_checkpoint(arguments, folder / "checkpoints", signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert {entry.name for entry in folder.iterdir()} == {"checkpoints", HEARTBEAT}
    stopped = killed_after_a_checkpoint(arguments, folder / "checkpoints", signal.SIGTERM)
    assert stopped.returncode == 143
    assert "resuming after meta-batch" in stopped.stderr
    assert stopped.stderr.splitlines()[-1].startswith("lft: stopped after meta-batch")
    assert "Traceback" not in stopped.stderr
    assert [entry.name for entry in folder.iterdir()] == ["checkpoints"]
    whole = trained(Profile.model_validate(values), run, tmp_path / "whole")
    assert trained(Profile.model_validate(values), run, tmp_path / "parts") == whole


# ---------------------------------------------------------------- divergence


def test_a_training_that_diverges_is_recorded_as_such(tmp_path: Path) -> None:
    run = sine_run("maml")
    profile = tiny_profile(experiments__sine__maml__step_size={"first": 100.0, "zeroth": 0.1})
    train(profile, run, tmp_path)
    manifest = read_json(tmp_path / run.folder / "run.json")
    if manifest["status"] == "ok":
        pytest.fail("a step size of 100 should diverge")
    assert "at meta-batch" in manifest["reason"]
    json.dumps(manifest, allow_nan=False)


def test_nan_in_the_middle_keeps_what_was_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, original = sine_run(), lft.meta.outer_loop.meta_gradient
    calls = []

    def poisoned(*arguments: Any) -> Any:
        calls.append(None)
        segment = original(*arguments)
        if len(calls) < 8:
            return segment
        return segment._replace(loss=torch.tensor(float("nan")))

    monkeypatch.setattr(lft.meta.outer_loop, "meta_gradient", poisoned)
    written = trained(tiny_profile(), run, tmp_path)
    assert b"nan" not in written["history.csv"]
    manifest = read_json(tmp_path / run.folder / "run.json")
    assert manifest["status"] == "diverged"
    assert manifest["reason"].startswith("outer loss nan, meta-gradient norm ")
    assert manifest["reason"].endswith(" at meta-batch 4, segment 2")
    assert manifest["meta_batches"] == 3
    flat, info = load_tensors(tmp_path / run.folder / "weights.safetensors")
    assert info["status"] == "diverged"
    assert all(leaf.isfinite().all() for leaf in flat.values())
    assert "best" in {name.split("/")[0] for name in flat}


def test_validation_that_is_never_finite_is_divergence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = Validated(*3 * [float("nan")])
    for module in (lft.meta.outer_loop, lft.meta.selection):
        monkeypatch.setattr(module, "validate", lambda *arguments: never)
    for method in ("lft", "adam"):
        train(tiny_profile(), sine_run(method), tmp_path)
        manifest = read_json(tmp_path / sine_run(method).folder / "run.json")
        assert manifest["status"] == "diverged"
        assert manifest["validation_score"] is None


def test_classifiers_are_selected_by_their_errors_and_other_tasks_by_their_loss(
    prepared: Path,
) -> None:
    profile = tiny_profile()
    grey = build_families(profile, profile.experiments["classification"], ["grey"], prepared)
    family = grey["grey"]
    params, tasks = family.init(2, generator("a")), family.sample(2, generator("b"), "test")
    wrong = (family.network(params, tasks.query.x).argmax(-1) != tasks.query.y).float().mean(1)
    torch.testing.assert_close(family.score(params, tasks.query), wrong)
    sine = Sine(profile.experiments["sine"].families["sine"])
    params, tasks = sine.init(2, generator("a")), sine.sample(2, generator("b"), "test")
    assert torch.equal(sine.score(params, tasks.query), sine.loss(params, tasks.query))


def test_tensorboard_shows_the_history_once_also_after_a_stop(
    tmp_path: Path, stop_at: Stopper
) -> None:
    profile, run, events = tiny_profile(), sine_run(), tmp_path / "events"
    stop_at(3)
    with pytest.raises(Interrupted):
        train(profile, run, tmp_path, events)
    train(profile, run, tmp_path, events)
    shown = EventAccumulator(str(events / run.folder)).Reload()
    steps = {
        name: [(point.step, point.value) for point in shown.Scalars(name)]
        for name in shown.Tags()["scalars"]
    }
    rows = history(tmp_path, run)[1:]
    assert steps == {  # event files hold float32
        "outer loss/sine": [(int(row[0]), pytest.approx(float(row[2]), rel=1e-6)) for row in rows],
        "meta-validation": [
            (int(row[0]), pytest.approx(float(row[3]), rel=1e-6)) for row in rows if row[3]
        ],
    }


def test_without_tensorboard_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    train(tiny_profile(), sine_run(), tmp_path)
    with pytest.raises(UsageError, match=r"this needs tensorboard.*lft\[tensorboard\]"):
        train(tiny_profile(), sine_run(), tmp_path, tmp_path / "events")
    assert not (tmp_path / "events").exists()
