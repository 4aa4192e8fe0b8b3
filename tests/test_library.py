"""Meta-training, fine-tuning and comparison in a few lines: against jobs, by hand, and misused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from tiny import tiny_profile
from torch import Generator, Tensor

import lft
from lft.config import Run, SineFamily
from lft.errors import NotApplicable, UsageError
from lft.finetuners.base import FineTuner
from lft.finetuners.gradient_descent import SGD, Adam
from lft.meta.train import train
from lft.metrics import MSE, Metric
from lft.pretrained import Pretrained
from lft.seeding import generator
from lft.storage.tensors import below, load_tensors
from lft.tasks.build import Context
from lft.tasks.sine import Sine
from lft.types import Batch, Params, TaskBatch

CURVATURE = torch.tensor([1.0, 4.0])


class Bowls:
    """f(θ; c) = mean_i Σ_j a_j (θ_j − c_ij)² / 2: a family that knows nothing of the package."""

    def sample(self, n_tasks: int, generator: Generator, phase: str) -> Any:
        middle = 3 * torch.randn(n_tasks, 1, 2, generator=generator)
        support, query = (
            middle + 0.1 * torch.randn(n_tasks, 3, 2, generator=generator) for _ in range(2)
        )
        return (support, support), (query, query)

    def init(self, n_tasks: int, generator: Generator) -> Params:
        return {"theta": torch.randn(n_tasks, 2, generator=generator)}

    def loss(self, params: Params, batch: Batch) -> Tensor:
        return (CURVATURE * (params["theta"][:, None] - batch.x) ** 2 / 2).sum(2).mean(1)


def small_sine(hidden: int = 4) -> Sine:
    return Sine(SineFamily(support=4, query=4, hidden=(hidden,)), kernel="torch")


@pytest.fixture(scope="module")
def tuner() -> Pretrained:
    return lft.meta_train(Bowls(), tasks=100, steps=20, training={"learning_rate": 3e-2})


def test_meta_training_beats_its_untrained_start(tuner: Pretrained) -> None:
    """The bowls' curvature is known: a trained rule ends far below its start; φ₀ hardly moves."""
    hardly = {"learning_rate": 1e-12, "validation": {"tasks": 5, "rounds": 1}}
    untrained = lft.meta_train(Bowls(), tasks=5, steps=20, training=hardly)
    ends = {}
    for name, rule in (("trained", tuner), ("untrained", untrained)):
        losses = rule.adapt(Bowls(), 50, steps=20).groupby("step")["loss"].mean()
        ends[name] = losses[20] / losses[0]
    assert ends["trained"] < 0.5 < ends["untrained"]


def test_the_history_has_every_meta_batch(tuner: Pretrained) -> None:
    assert tuner.history is not None
    assert tuner.history["meta_step"].tolist() == [*range(21)]
    assert tuner.history["validation"].notna().sum() == 11  # ten rounds, and before the first


@pytest.mark.parametrize("method", ["lft", "l2o", "maml", "lft-init", "adam"])
@pytest.mark.parametrize("order", ["first", "zeroth"])
def test_it_trains_what_the_job_of_the_same_settings_trains(
    method: str, order: Any, tmp_path: Path
) -> None:
    """Bit for bit: the same draws, the same loop."""
    profile = tiny_profile(threads=torch.get_num_threads(), kernel="auto")
    run = Run("sine", "sine", method, order, 1)
    train(profile, run, tmp_path)
    meta = below("best", load_tensors(tmp_path / run.folder / "weights.safetensors")[0])
    settings = profile.experiments["sine"]
    context = Context(profile, tmp_path, torch.device("cpu"))
    given = settings.training.model_dump(exclude={"tasks", "steps"})
    sections = {
        name: getattr(settings, name)
        for name in ("finetuner", "maml", "zeroth_order", "step_sizes")
    }
    found = lft.meta_train(
        {"sine": settings.families["sine"].build(context)}, method, steps=settings.training.steps,
        tasks=settings.training.tasks, order=order, seed=1, name="sine", training=given, **sections,
    )  # fmt: skip
    expected = {name.removeprefix("lstm/"): leaf for name, leaf in meta.items()}
    if method == "maml":
        step_size = settings.descent.step_size[order]
        expected["step_size"] = torch.tensor(step_size, dtype=torch.float64)
    assert found.weights.keys() == expected.keys()
    assert all(torch.equal(found.weights[name], leaf) for name, leaf in expected.items())


@pytest.mark.parametrize("method", ["lft", "maml", "lft-init", "sgd"])
def test_saved_and_loaded_it_does_the_same(method: str, tmp_path: Path) -> None:
    sine = small_sine()
    made = lft.meta_train(sine, method, tasks=10, steps=4, order="zeroth", progress=False)
    made.save(tmp_path / "mine.safetensors", licence="MIT")
    loaded = lft.load(tmp_path / "mine.safetensors")
    assert loaded.card.licence == "MIT"
    assert loaded.weights.keys() == made.weights.keys()
    before, after = (rule.adapt(sine, 6, steps=3) for rule in (made, loaded))
    pd.testing.assert_frame_equal(before, after, check_exact=True)


def test_a_step_of_gradient_descent_is_that_by_hand() -> None:
    """θ¹ = θ⁰ − α a (θ⁰ − mean c), and the loss of a bowl in closed form."""
    centres = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    tasks = TaskBatch(Batch(centres, centres), Batch(centres + 1, centres + 1))
    frame, _ = lft.compare({"by hand": SGD(0.1)}, Bowls(), tasks, steps=1, seed=5)
    theta = Bowls().init(1, generator("adapt start", 5))["theta"][0]
    expected = []
    for _ in range(2):
        expected.append(float((CURVATURE * (theta - centres[0] - 1) ** 2 / 2).sum(1).mean()))
        theta = theta - 0.1 * CURVATURE * (theta - centres[0].mean(0))
    assert frame["loss"].tolist() == pytest.approx(expected, rel=1e-6)  # float32
    assert frame["step"].tolist() == [0, 1]


def test_a_comparison_is_what_each_does_alone(tuner: Pretrained) -> None:
    rules: dict[str, FineTuner] = {"LFT": tuner, "Adam": Adam(0.03), "B": tuner}
    frame, figure = lft.compare(rules, Bowls(), 7, steps=6, every=3, seed=2)
    assert list(frame["tuner"].unique()) == list(rules)
    alone = tuner.adapt(Bowls(), 7, steps=6, every=3, seed=2)
    for name in ("LFT", "B"):
        rows = frame[frame["tuner"] == name].drop(columns="tuner").reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone, check_exact=True)
    starts = frame[frame["step"] == 0].groupby("task")["loss"].nunique()
    assert (starts == 1).all()  # the same tasks, the same θ⁽⁰⁾
    (axis,) = figure.axes
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert list(lines) == list(rules)
    assert len({to_hex(line.get_color()) for line in lines.values()}) == 3
    means = frame[frame["tuner"] == "Adam"].groupby("step")["loss"].mean()
    assert np.asarray(lines["Adam"].get_ydata()).tolist() == pytest.approx(means.tolist())


def test_a_metric_of_a_whole_trajectory_stands_at_the_last_step() -> None:
    class Settings(SineFamily):
        metrics: ClassVar[tuple[Metric, ...]] = (MSE, Metric("full", "full", first_of="mse"))  # type: ignore[assignment]

    frame, _ = lft.compare({"SGD": SGD(0.01)}, Sine(Settings(support=4, query=4)), 3, steps=4)
    there = frame["full"].notna()
    assert (frame[there]["step"] == 4).all()
    assert there.any()


def test_a_meta_learned_start_is_where_fine_tuning_starts() -> None:
    maml = lft.meta_train(Bowls(), "maml", tasks=10, steps=5)
    frame = maml.adapt(Bowls(), 3, steps=1)
    tasks = Bowls().sample(3, generator("adapt tasks", 0), "test")
    theta = maml.weights["init/theta"].expand(3, 2)
    expected = Bowls().loss({"theta": theta}, Batch(*tasks[1])).tolist()
    assert frame[frame["step"] == 0]["loss"].tolist() == pytest.approx(expected, rel=1e-6)


def test_several_families_are_trained_on_in_turn() -> None:
    found = lft.meta_train([small_sine(), small_sine(3)], tasks=10, steps=2)
    assert found.card.trained_on == "sine-1+sine-2"
    assert found.history is not None
    assert found.history["family"].tolist()[1:] == ["sine-1", "sine-2"]


def test_what_is_wrong_is_said_in_one_line(tuner: Pretrained) -> None:
    sine, maml = small_sine(), lft.meta_train(small_sine(), "maml", tasks=5, steps=2)
    wrong: list[tuple[str, Any]] = [
        ("3 is not a task family: it has no method 'sample'", lambda: lft.meta_train(3)),
        ("unknown method 'lfd'; did you mean 'lft'", lambda: lft.meta_train(sine, "lfd")),
        (r"tasks \(7\) must be a multiple of", lambda: lft.meta_train(sine, tasks=7)),
        ("unknown key 'training.rate'", lambda: lft.meta_train(sine, training={"rate": 1})),
        ("unknown key 'lr'", lambda: lft.meta_train(sine, lr=1)),
        ("unknown key 'orders'", lambda: lft.meta_train(sine, orders=["zeroth"])),
        ("unknown key 'finetunr'; did you mean", lambda: lft.meta_train(sine, finetunr={})),
        ("seed is None; it must be a whole", lambda: lft.meta_train(sine, seed=None)),
        ("seed is 0.5; it must be a whole", lambda: tuner.adapt(sine, seed=0.5)),
        ("seed is <torch", lambda: tuner.optimizer([torch.ones(1)], seed=Generator())),
        ("name must be text, not a NoneType", lambda: lft.meta_train(sine, name=None)),
        ("training.steps: input should", lambda: lft.meta_train(sine, steps="2")),
        ("Sine is a class", lambda: lft.meta_train(Sine)),
        ("a whole number or a TaskBatch, not a float", lambda: tuner.adapt(sine, 2.5)),
        ("at least one fine-tuner", lambda: lft.compare([tuner], sine)),
        ("'a' is 'lft', no fine-tuner", lambda: lft.compare({"a": "lft"}, sine)),
        ("families.My Tasks", lambda: lft.meta_train({"My Tasks": sine})),
        ("at least one task family", lambda: lft.meta_train([])),
        ("adapt: steps", lambda: tuner.adapt(sine, steps=0)),
        (r"adapt: .*multiple of every", lambda: tuner.adapt(sine, steps=5, every=2)),
        ("at least one fine-tuner", lambda: lft.compare({}, sine)),
    ]
    for message, call in wrong:
        with pytest.raises(UsageError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
    with pytest.raises(NotApplicable, match="meta-learns one initialisation"):
        maml.adapt(Bowls())
    with pytest.raises(NotApplicable, match="meta-learns one initialisation"):
        lft.meta_train([small_sine(), small_sine(3)], "maml")


@pytest.mark.parametrize(
    "mode", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)]
)
@pytest.mark.parametrize("method", ["lft", "maml"])
def test_the_callers_modes_change_no_bit(method: str, mode: Any) -> None:
    """MAML's history and a fine-tuned network go through matrix products, which autocast rounds."""
    sine = small_sine()

    def both() -> tuple[Pretrained, pd.DataFrame]:
        made = lft.meta_train(sine, method, tasks=10, steps=2, progress=False)
        return made, made.adapt(sine, 3, steps=3)

    plain = both()
    with mode():
        other = both()
    pd.testing.assert_frame_equal(plain[0].history, other[0].history, check_exact=True)
    pd.testing.assert_frame_equal(plain[1], other[1], check_exact=True)
    for name, leaf in other[0].weights.items():
        assert torch.equal(plain[0].weights[name], leaf)
        assert not leaf.is_inference()


def pairs(n_tasks: int) -> Any:
    return Bowls().sample(n_tasks, Generator(), "train")


WRONG = {
    "a loss of all tasks": ("loss", lambda _, params, batch: batch.x.mean()),
    "a loss of each point": ("loss", lambda _, params, batch: batch.x.mean(2)),
    "a loss of one task": ("loss", lambda _, params, batch: params["theta"][:1].sum(1)),
    "a number as loss": ("loss", lambda _, params, batch: 1.0),
    "one pair": ("sample", lambda _, n, *rest: pairs(n)[0]),
    "three pairs": ("sample", lambda _, n, *rest: (*pairs(n), 1)),
    "no pair": ("sample", lambda _, n, *rest: None),
    "a task too many": ("sample", lambda _, n, *rest: pairs(n + 1)),
    "arrays": (
        "sample",
        lambda _, n, *rest: [[x.numpy() for x in pair] for pair in pairs(n)],
    ),
    "a list": ("init", lambda _, n, generator: [torch.zeros(n, 2)]),
    "nothing": ("init", lambda _, n, generator: {}),
    "no axis of tasks": ("init", lambda _, n, generator: {"theta": torch.zeros(2)}),
    "integers": ("init", lambda _, n, generator: {"theta": torch.zeros(n, 2, dtype=torch.int64)}),
}
"""What a family returns by mistake -> the method, and how it does."""


@pytest.mark.parametrize("what", sorted(WRONG))
def test_what_a_family_returns_by_mistake_is_said(what: str, tuner: Pretrained) -> None:
    name, mistake = WRONG[what]
    mistaken = type("Mistaken", (Bowls,), {name: mistake})()
    for call in (lft.meta_train, tuner.adapt):
        with pytest.raises(UsageError, match=f"^{name} of <.*> must return") as raised:
            call(mistaken, tasks=5, steps=2)
        assert "\n" not in str(raised.value)


def test_the_global_generator_and_denormals_are_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    lft.meta_train(Bowls(), tasks=5, steps=2)
    assert torch.equal(before, torch.get_rng_state())
    assert math.isclose(float(torch.tensor(1e-40) * 1), 1e-40, rel_tol=1e-3)
