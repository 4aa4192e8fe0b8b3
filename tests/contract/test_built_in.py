"""Every built-in family, method, fine-tuner, metric and estimator keeps its contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from tiny import experiment_settings, tiny_profile, write_images

from lft.config import FAMILIES, FINETUNERS, Order, SineFamily, Training
from lft.meta.estimators import ESTIMATORS, Estimate, meta_gradient
from lft.meta.learner import Learner
from lft.methods import METHODS
from lft.metrics import COSTS, METRICS
from lft.seeding import generator
from lft.tasks.build import Context, make_victim
from lft.tasks.sine import Sine
from lft.testing import check_fine_tuner, check_method, check_task_family

PROFILE = tiny_profile(victim__epochs=1)
ORDERS: tuple[Order, ...] = get_args(Order)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Everything that families of the tiny profile are built from."""
    results = tmp_path_factory.mktemp("results")
    write_images(results)
    make_victim(PROFILE, "grey", results)
    return Context(PROFILE, results, torch.device("cpu"))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods(name: str) -> None:
    check_method(METHODS[name])


@pytest.mark.parametrize("kind", sorted(FINETUNERS))
def test_fine_tuners(kind: str) -> None:
    check_fine_tuner(FINETUNERS[kind].model_validate({}))


FAMILY: dict[str, list[dict[str, Any]]] = {
    "sine": [
        {"support": 3, "query": 4, "hidden": (4,)},
        {"support": 3, "query": 4, "hidden": (4,), "activation": "tanh"},
    ],
    "classification": [
        {"source": "grey", "widths": (2, 3), "support": 2, "query": 2} | net
        for net in ({"net": "mlp"}, {"net": "cnn"}, {"net": "cnn", "normalise": True})
    ],
    "attack": [
        {"source": "grey", "margin": "logit", "only_correct": False},
        {"source": "grey", "margin": "logit", "only_correct": False, "start": "uniform"},
    ],
}


@pytest.mark.parametrize(
    ("kind", "settings"), [(kind, one) for kind in sorted(FAMILIES) for one in FAMILY[kind]]
)
def test_families(kind: str, settings: dict[str, Any], context: Context) -> None:
    family = FAMILIES[kind].model_validate(settings)
    source = None if family.image_source is None else PROFILE.sources[family.image_source]
    check_task_family(family.build(context), source)


def test_metrics() -> None:
    """Families measure all that are no costs; a first step is that of a share."""
    measured = {metric for kind in FAMILIES.values() for metric in kind.metrics}
    assert measured | {*COSTS} == {*METRICS.values()}
    assert len({metric.title for metric in measured}) == len(measured)
    for metric in measured:
        assert metric.first_of is None or METRICS[metric.first_of].share


def estimated() -> Iterator[tuple[str, str]]:
    """Estimators, each with every method that may be meta-trained with it."""
    configured = get_args(Training.model_fields["estimator"].annotation)
    for name in ESTIMATORS:
        for method in METHODS.values():
            chosen = method.meta_gradient == "configured" and method.learns_finetuner
            if method.meta_gradient == name or (chosen and name in configured):
                yield name, method.name


def trajectory(learner: Learner, family: Sine) -> list[Estimate]:
    """The segments of a meta-batch of two tasks, all from the same draws."""
    meta = learner.initial(family, generator("meta"))
    tasks = family.sample(2, generator("tasks"), "train")
    random = generator("run")
    found: list[Estimate] = []
    while not found or found[-1].end.step < learner.plan.steps:
        state = found[-1].end if found else None
        found.append(meta_gradient(learner, meta, family, tasks, state, random))
    return found


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("name", "method"), list(estimated()))
def test_estimators(name: str, method: str, order: Order) -> None:
    """A finite number and a gradient of every meta-parameter, segment by segment to the end, from
    the generator alone."""
    settings = experiment_settings(
        "sine", estimator=name if name != "reptile" else "dropped", steps=4, segment=2,
        evolution={"pairs": 2, "sigma": 0.05},
    )  # fmt: skip
    learner = Learner(METHODS[method], settings, order, "torch")
    assert learner.plan.estimator == name
    family = Sine(SineFamily(support=3, query=4, hidden=(4,)), kernel="torch")
    before = torch.random.get_rng_state()
    found, again = trajectory(learner, family), trajectory(learner, family)
    assert torch.equal(before, torch.random.get_rng_state())
    meta = learner.initial(family, generator("meta"))
    steps = range(learner.plan.segment, learner.plan.steps + 1, learner.plan.segment)
    assert [one.end.step for one in found] == [*steps]
    for one, other in zip(found, again, strict=True):
        assert one.loss.shape == ()
        assert one.loss.isfinite() and one.loss.equal(other.loss)
        assert {k: leaf.shape for k, leaf in one.grads.items()} == {
            k: leaf.shape for k, leaf in meta.items()
        }
        for key, leaf in one.grads.items():
            assert leaf.isfinite().all() and leaf.equal(other.grads[key]), key
        assert any(leaf.any() for leaf in one.grads.values())


def test_every_estimator_is_tried() -> None:
    assert {name for name, _ in estimated()} == set(ESTIMATORS)
