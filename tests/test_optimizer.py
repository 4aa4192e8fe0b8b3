"""A fine-tuner as an optimizer: the inner loop's steps, and the manners of ``torch.optim``."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import lft
from lft.config import LSTMSettings, SineFamily, ZerothOrderSettings
from lft.errors import UsageError
from lft.finetuners.gradient_descent import SGD
from lft.finetuners.lstm import CoordinateLSTM, init_weights
from lft.meta.adapt import adapt
from lft.meta.gradients import FirstOrder, ZerothOrder
from lft.optimizer import LearnedOptimizer
from lft.seeding import generator
from lft.tasks.sine import Sine
from lft.types import Batch, Params

FAMILY = Sine(SineFamily(support=10, query=5, hidden=(6, 4)))


def lstm(layers: int = 2) -> CoordinateLSTM:
    settings = LSTMSettings(layers=layers, hidden=5)
    weights = init_weights(settings, generator("weights"))
    return CoordinateLSTM(weights | {"out.b": torch.tensor(0.3)}, settings, "torch")


@pytest.fixture
def task() -> tuple[Params, Batch]:
    """θ⁽⁰⁾ and support set of one sine task."""
    return FAMILY.init(1, generator("start")), FAMILY.sample(1, generator("task")).support


def leaves(start: Params) -> list[nn.Parameter]:
    return [nn.Parameter(leaf[0].clone()) for leaf in start.values()]


def loss_of(params: list[nn.Parameter], start: Params, support: Batch) -> Tensor:
    named = {name: p[None] for name, p in zip(start, params, strict=True)}
    return FAMILY.loss(named, support)[0]


def assert_same(params: list[nn.Parameter], expected: Params) -> None:
    for param, leaf in zip(params, expected.values(), strict=True):
        # The same float32 operations, on tensors one by one instead of joined: the order of sums
        # in a matrix product may differ, which six steps multiply up.
        torch.testing.assert_close(param.detach(), leaf[0], rtol=1e-5, atol=1e-6)


def test_steps_are_those_of_the_inner_loop(task: tuple[Params, Batch]) -> None:
    start, support = task
    *_, end = adapt(FAMILY, lstm(), start, support, steps=6, gradient=FirstOrder())
    params = leaves(start)
    optimizer = LearnedOptimizer(params, lstm())
    for _ in range(6):
        optimizer.zero_grad()
        loss_of(params, start, support).backward()
        optimizer.step()
    assert_same(params, end.params)


def test_zeroth_order_steps_are_those_of_the_inner_loop(task: tuple[Params, Batch]) -> None:
    start, support = task
    settings = ZerothOrderSettings(mu=1e-2, directions=3)
    params = leaves(start)
    optimizer = LearnedOptimizer(params, lstm(), zeroth_order=settings, seed=4)
    state = None
    for step in range(3):
        random = generator("optimizer", 4, step)
        gradient = ZerothOrder(settings, random)
        expected = start if state is None else state
        (state,) = adapt(FAMILY, lstm(), expected, support, steps=1, gradient=gradient)
        before = loss_of(params, start, support).item()
        returned = optimizer.step(lambda: loss_of(params, start, support))
        assert float(returned) == pytest.approx(before, rel=1e-6)
        assert_same(params, state.params)


def test_gradient_descent_is_that_of_torch(task: tuple[Params, Batch]) -> None:
    start, support = task
    ours, theirs = leaves(start), leaves(start)
    pairs = [
        (ours, LearnedOptimizer(ours, SGD(1.0), lr=0.05)),
        (theirs, torch.optim.SGD(theirs, lr=0.05)),
    ]
    for params, optimizer in pairs:
        for _ in range(4):
            optimizer.zero_grad()
            loss_of(params, start, support).backward()
            optimizer.step()
    assert_same(ours, {str(i): p.detach()[None] for i, p in enumerate(theirs)})


def test_a_resumed_optimizer_goes_on_as_if_never_stopped(task: tuple[Params, Batch]) -> None:
    start, support = task
    settings = ZerothOrderSettings(directions=2)
    straight = leaves(start)
    optimizer = LearnedOptimizer(straight, lstm(), zeroth_order=settings)
    for _ in range(3):
        optimizer.step(lambda: loss_of(straight, start, support))
    saved = copy.deepcopy(optimizer.state_dict())
    resumed = [nn.Parameter(p.detach().clone()) for p in straight]
    fresh = LearnedOptimizer(resumed, lstm(), zeroth_order=settings)
    fresh.load_state_dict(saved)
    for _ in range(2):
        optimizer.step(lambda: loss_of(straight, start, support))
        fresh.step(lambda: loss_of(resumed, start, support))
    for one, other in zip(straight, resumed, strict=True):
        assert torch.equal(one, other)


def test_a_copied_optimizer_can_step(task: tuple[Params, Batch]) -> None:
    optimizer = copy.deepcopy(LearnedOptimizer(leaves(task[0]), lstm()))
    param = optimizer.param_groups[0]["params"][0]
    before = param.detach().clone()
    param.grad = torch.ones_like(param)
    optimizer.step()
    assert not torch.equal(param, before)


def test_groups_have_rates_of_their_own_and_can_be_added() -> None:
    def moved(make: Callable[[nn.Parameter, nn.Parameter], LearnedOptimizer]) -> tuple[float, ...]:
        a, b = (nn.Parameter(torch.ones(3)) for _ in range(2))
        optimizer = make(a, b)
        (a.sum() + b.sum()).backward()
        optimizer.step()
        return 1 - a[0].item(), 1 - b[0].item()

    def grouped(a: nn.Parameter, b: nn.Parameter) -> LearnedOptimizer:
        return LearnedOptimizer([{"params": [a], "lr": 0.5}, {"params": [b]}], lstm())

    def added(a: nn.Parameter, b: nn.Parameter) -> LearnedOptimizer:
        optimizer = LearnedOptimizer([a], lstm())
        optimizer.add_param_group({"params": [b], "lr": 0.0})
        return optimizer

    half, full = moved(grouped)
    assert half == pytest.approx(full / 2, rel=1e-5)
    assert moved(added) == (full, 0.0)


def test_a_schedule_changes_the_rate() -> None:
    param = nn.Parameter(torch.ones(2))
    optimizer = LearnedOptimizer([param], SGD(1.0))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    for expected in (0.0, -0.1):
        param.grad = torch.ones(2)
        optimizer.step()
        schedule.step()
        assert param[0].item() == pytest.approx(expected)


def test_what_has_no_gradient_is_left_alone() -> None:
    frozen, free = nn.Parameter(torch.ones(2), requires_grad=False), nn.Parameter(torch.ones(2))
    closure = lambda: (free * frozen).sum().detach()  # noqa: E731
    for settings in (None, ZerothOrderSettings()):
        optimizer = LearnedOptimizer([frozen, free], lstm(), zeroth_order=settings)
        free.grad = torch.ones(2)
        optimizer.step(closure)
    assert torch.equal(frozen, torch.ones(2))
    assert not torch.equal(free, torch.ones(2))


def test_a_first_order_closure_is_called_with_gradients_enabled() -> None:
    param = nn.Parameter(torch.tensor(3.0))
    optimizer = LearnedOptimizer([param], SGD(0.5))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = param**2
        loss.backward()
        return loss

    assert float(optimizer.step(closure)) == 9.0
    assert float(param) == 0.0


def test_parameters_are_put_back_where_a_zeroth_order_closure_fails() -> None:
    param = nn.Parameter(torch.ones(2))
    optimizer = LearnedOptimizer([param], lstm(), zeroth_order=ZerothOrderSettings())
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: param.sum() / 0 if torch.equal(param, torch.ones(2)) else 1 / 0)
    assert torch.equal(param, torch.ones(2))


def test_what_a_user_gets_wrong_is_said() -> None:
    param = nn.Parameter(torch.ones(2))
    with pytest.raises(UsageError, match="lr is -1"):
        LearnedOptimizer([param], lstm(), lr=-1)
    with pytest.raises(UsageError, match=r"needs step\(closure\)"):
        LearnedOptimizer([param], lstm(), zeroth_order=ZerothOrderSettings()).step()
    param.grad = torch.ones(2).to_sparse()
    with pytest.raises(UsageError, match="dense gradients"):
        LearnedOptimizer([param], lstm()).step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_shipped_fine_tuner_reduces_the_loss_of_a_small_network(dtype: torch.dtype) -> None:
    random = generator("small network")
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(0.5 * torch.randn(param.shape, generator=random))
    x = torch.randn(64, 4, generator=random).to(dtype)
    y = x[:, :1] * x[:, 1:2]
    optimizer = lft.load("lft-mnist+cifar10").optimizer(model.parameters())
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 3  # of a kind of problem that it was not trained on
