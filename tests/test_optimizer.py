"""A fine-tuner as an optimizer: the inner loop's steps, and the manners of ``torch.optim``."""

from __future__ import annotations

import copy
import io
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import lft
from lft.config import LSTMSettings, SineFamily, ZerothOrderSettings
from lft.errors import UsageError
from lft.finetuners.base import FineTuner
from lft.finetuners.gradient_descent import SGD, Adam
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
    for zeroth in (None, ZerothOrderSettings()):
        optimizer = LearnedOptimizer([frozen, free], lstm(), zeroth_order=zeroth)
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
    with pytest.warns(
        UserWarning, match="trained on attack tasks; on 7 of 7 small networks Adam is better"
    ):
        optimizer = lft.load("lft-mnist+cifar10").optimizer(model.parameters(), lr=1.0)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 3  # of a kind of problem that it was not trained on


# --- zeroth order asks a closure again and again --------------------------------------------------

ZEROTH = ZerothOrderSettings(directions=3)


def gradient_norm(model: nn.Module) -> float:
    squares = [p.grad.square().sum() for p in model.parameters() if p.grad is not None]
    return float(torch.stack(squares).sum().sqrt())


@pytest.fixture
def seeded() -> Iterator[None]:
    with torch.random.fork_rng([]):
        torch.random.manual_seed(5)
        yield


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("random", ["dropout", "minibatch"])
def test_all_points_of_an_estimate_see_the_same_random_numbers(random: str) -> None:
    """Otherwise the differences of losses are those of masks, divided by mu: tens of times more."""
    model = nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    x = torch.randn(512, 16)
    if random == "minibatch":
        model[1].eval()

    def loss() -> Tensor:
        chosen = torch.randint(512, (32,)) if random == "minibatch" else slice(32)
        squares: Tensor = model(x[chosen]).square().mean()
        return squares

    def repeatable() -> Tensor:
        torch.random.manual_seed(1)
        return loss()

    optimizer = LearnedOptimizer(model.parameters(), SGD(0.0), zeroth_order=ZerothOrderSettings())
    optimizer.step(loss)
    norm, state = gradient_norm(model), torch.random.get_rng_state()
    optimizer.step(repeatable)
    assert 0.5 < norm / gradient_norm(model) < 2  # another mask, the same size
    optimizer.step(loss)
    assert not torch.equal(state, torch.random.get_rng_state())  # the next step has another mask


@pytest.mark.parametrize("answer", [float, Tensor.double, Tensor.bfloat16, torch.detach])
@pytest.mark.parametrize(
    "dtypes", [[torch.float64], [torch.bfloat16], [torch.float32, torch.bfloat16]]
)
def test_parameters_and_losses_of_any_type_serve(
    dtypes: list[torch.dtype], answer: Callable[[Tensor], Any]
) -> None:
    params = [nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in dtypes]
    empty = nn.Parameter(torch.ones(0))
    rough = ZerothOrderSettings(mu=0.1, directions=3)  # above the rounding of bfloat16
    optimizer = LearnedOptimizer([*params, empty], SGD(0.5), zeroth_order=rough)

    def loss() -> Tensor:
        return torch.stack([p.float().square().sum() for p in params]).sum()

    assert float(optimizer.step(lambda: answer(loss()))) == 3 * len(params)
    for param in params:
        assert param.grad is not None
        assert param.grad.dtype == param.dtype
        assert not torch.equal(param, torch.ones_like(param))


def test_where_nothing_can_move_the_loss_is_returned() -> None:
    for param in (nn.Parameter(torch.ones(2), requires_grad=False), nn.Parameter(torch.ones(0))):
        for zeroth in (None, ZEROTH):
            optimizer = LearnedOptimizer([param], lstm(), zeroth_order=zeroth)
            assert float(optimizer.step(lambda: torch.tensor(3.0))) == 3


def test_empty_tensors_stay_and_the_others_move() -> None:
    empty, bias = nn.Parameter(torch.ones(2, 0)), nn.Parameter(torch.zeros(2))
    optimizer = LearnedOptimizer([empty, bias], lstm())
    (empty.sum() + bias.sum()).backward()
    optimizer.step()
    assert bias.abs().min() > 0


@pytest.mark.parametrize("zeroth", [None, ZEROTH])
def test_a_complex_number_is_two_real_ones(zeroth: ZerothOrderSettings | None) -> None:
    start = torch.tensor([3 + 4j, 0.5 - 1j])

    def moved(param: nn.Parameter, real: Callable[[Tensor], Tensor]) -> Tensor:
        optimizer = LearnedOptimizer([param], lstm(), zeroth_order=zeroth)
        for _ in range(3):
            optimizer.zero_grad()
            real(param).square().sum().backward()
            optimizer.step(lambda: real(param).square().sum())
        return real(param.detach())

    pair = moved(nn.Parameter(torch.view_as_real(start)), lambda p: p)
    assert torch.equal(moved(nn.Parameter(start), torch.view_as_real), pair)


@pytest.mark.parametrize("zeroth", [None, ZEROTH])
def test_the_callers_modes_do_not_matter(zeroth: ZerothOrderSettings | None) -> None:
    def moved(each_step: Callable[[Callable[[], Any]], Any]) -> Tensor:
        param = nn.Parameter(torch.ones(3, device="cpu"))
        optimizer = LearnedOptimizer([param], lstm(), zeroth_order=zeroth)
        for _ in range(2):
            param.grad = torch.full((3,), 0.1, device="cpu")
            closure = (lambda: param.square().sum()) if zeroth else None
            each_step(lambda closure=closure: optimizer.step(closure))
        return param.detach()

    def inferring(step: Callable[[], Any]) -> None:
        with torch.inference_mode():
            step()

    def elsewhere(step: Callable[[], Any]) -> None:
        try:
            torch.set_default_device("meta")
            step()
        finally:
            torch.set_default_device(None)

    expected = moved(lambda step: step())
    assert torch.equal(moved(inferring), expected)
    assert torch.equal(moved(elsewhere), expected)


def test_a_closure_that_gives_no_number_is_refused() -> None:
    param = nn.Parameter(torch.ones(2))
    optimizer = LearnedOptimizer([param], lstm(), zeroth_order=ZEROTH)
    for answer in (None, "x", param, torch.tensor(1j)):
        with pytest.raises(UsageError, match="must return the loss, one number, not"):
            optimizer.step(lambda answer=answer: answer)
    assert torch.equal(param, torch.ones(2))


# --- state dicts and rates ------------------------------------------------------------------------


class Counting:
    """A plug-in's fine-tuner whose state has every form: a tuple, a list, numbers, no tensor."""

    def start(self, params: dict[str, Tensor]) -> Any:
        return (torch.zeros((), dtype=torch.float64), [dict(params), None], 0)

    def step(self, state: Any, params: dict[str, Tensor], grads: dict[str, Tensor]) -> Any:
        count, (last, _), n = state
        moved = {name: params[name] - grads[name] / (1 + n) - 0.01 * last[name] for name in params}
        return (count + 1, [grads, None], n + 1), moved


TUNERS: dict[str, FineTuner] = {
    "adam": Adam(0.1),
    "sgd": SGD(0.1),
    "counting": Counting(),
    "shipped": lft.load("lft-mnist+cifar10"),
}


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(TUNERS)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.complex64]),
    shapes=st.lists(st.sampled_from([(), (3,), (2, 2), (0,)]), min_size=1, max_size=3),
    zeroth=st.booleans(),
    stop=st.integers(0, 2),
    file=st.booleans(),
)
@example(name="shipped", dtype=torch.float32, shapes=[(3,)], zeroth=False, stop=1, file=False)
def test_a_saved_optimizer_goes_on_with_the_same_bits(
    name: str,
    dtype: torch.dtype,
    shapes: list[tuple[int, ...]],
    zeroth: bool,
    stop: int,
    file: bool,
) -> None:
    def fresh() -> tuple[list[nn.Parameter], LearnedOptimizer]:
        params = [nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in shapes]
        return params, LearnedOptimizer(
            params, TUNERS[name], zeroth_order=ZEROTH if zeroth else None
        )

    def go_on(params: list[nn.Parameter], optimizer: LearnedOptimizer, steps: int) -> None:
        for _ in range(steps):
            for param in params:
                param.grad = 0.3 * param.detach()
            optimizer.step(lambda: sum(p.abs().sum().float() for p in params))

    straight, optimizer = fresh()
    go_on(straight, optimizer, stop)
    saved = optimizer.state_dict()
    if file:
        buffer = io.BytesIO()
        torch.save(saved, buffer)
        buffer.seek(0)
        saved = torch.load(buffer, weights_only=True)
    resumed, other = fresh()
    with torch.no_grad():
        for mine, theirs in zip(resumed, straight, strict=True):
            mine.copy_(theirs)
    other.load_state_dict(saved)
    go_on(straight, optimizer, 2)  # must not reach the copy
    go_on(resumed, other, 2)
    for mine, theirs in zip(resumed, straight, strict=True):
        assert torch.equal(mine, theirs)


def test_a_counter_keeps_its_type_beside_parameters_of_another() -> None:
    param = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = LearnedOptimizer([param], Counting())
    for _ in range(2):
        param.grad = torch.zeros_like(param)
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
    count = optimizer.state[param]["tuner"][0]
    assert (count.dtype, float(count)) == (torch.float64, 2)


def state_dicts(param: nn.Parameter) -> dict[str, Any]:
    """By what is wrong with them for an LSTM on one tensor of two."""
    narrow = LearnedOptimizer([param], CoordinateLSTM(*small(4)))
    adam, two = (
        torch.optim.Adam([param]),
        LearnedOptimizer([param, nn.Parameter(param + 1)], lstm()),
    )
    foreign = LearnedOptimizer([param], Adam(0.1))
    for optimizer in (narrow, adam, foreign):
        optimizer.step()
    rate = LearnedOptimizer([param], lstm()).state_dict()
    rate["param_groups"][0]["lr"] = math.nan
    return {
        "not this fine-tuner's": narrow.state_dict(),
        r"not this fine-tuner's \(dict instead of a tensor": foreign.state_dict(),
        "not the state dict of a learned": adam.state_dict(),
        "groups of 2 tensors": two.state_dict(),
        "lr is nan": rate,
        "this is not the state dict": {"state": {}},
    }


def small(hidden: int) -> tuple[dict[str, Tensor], LSTMSettings]:
    settings = LSTMSettings(hidden=hidden)
    return init_weights(settings, generator("weights")), settings


def test_a_state_dict_of_another_kind_is_refused_and_changes_nothing() -> None:
    param = nn.Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    optimizer = LearnedOptimizer([param], CoordinateLSTM(*small(5)))
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    for words, wrong in state_dicts(param).items():
        with pytest.raises(UsageError, match=words):
            optimizer.load_state_dict(wrong)
        assert str(optimizer.state_dict()) == str(before)
    optimizer.load_state_dict(before)


ANYTHING = st.recursive(
    st.none() | st.integers() | st.floats() | st.sampled_from(["lr", "x", torch.ones(2)]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["params", "lr", "tuner", "state"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=75, deadline=None)
@given(data=st.data())
def test_any_damage_to_a_state_dict_is_refused_in_one_line_or_harmless(data: st.DataObject) -> None:
    param = nn.Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    optimizer = LearnedOptimizer([param], lstm())
    optimizer.step()
    damaged = copy.deepcopy(optimizer.state_dict())
    target: Any = damaged
    while True:
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(target[key], dict | list) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = data.draw(ANYTHING)
    try:
        optimizer.load_state_dict(damaged)
    except UsageError as error:
        assert "\n" not in str(error)
    optimizer.step()
    assert param.isfinite().all()


@pytest.mark.parametrize("lr", [-1, math.nan, math.inf, "x", None, 1j])
def test_a_rate_that_is_no_rate_is_refused_wherever_it_is_given(lr: Any) -> None:
    param = nn.Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    words = "lr is .*; it must be a finite number, 0 or more"
    with pytest.raises(UsageError, match=words):
        LearnedOptimizer([param], lstm(), lr=lr)
    with pytest.raises(UsageError, match=words):
        LearnedOptimizer([{"params": [param], "lr": lr}], lstm())
    optimizer = LearnedOptimizer([param], lstm())
    with pytest.raises(UsageError, match=words):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": lr})
    optimizer.param_groups[0]["lr"] = lr
    with pytest.raises(UsageError, match=words):
        optimizer.step()
    assert torch.equal(param, torch.ones(2))


def test_a_fine_tuner_in_place_is_stepped_in_place() -> None:
    param = nn.Parameter(torch.ones(4))
    optimizer = LearnedOptimizer([param], lft.load("lft-mnist+cifar10"))
    param.grad = torch.ones(4)
    optimizer.step()
    state = optimizer.state[param]["tuner"]
    optimizer.step()
    kept = optimizer.state[param]["tuner"]
    fused = lft.kernels.build.available(torch.device("cpu"), torch.float32)
    assert (kept.data_ptr() == state.data_ptr()) == fused


def test_one_tensor_is_no_network_and_brings_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lft.load("lft-mnist+cifar10").optimizer([nn.Parameter(torch.zeros(1, 8, 8))])
