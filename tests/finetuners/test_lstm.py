"""The plain path of the coordinate-wise LSTM against torch.nn.LSTMCell and Andrychowicz et al."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lft.config import LSTMSettings
from lft.finetuners import lstm
from lft.finetuners.lstm import CoordinateLSTM, init_weights, preprocess
from lft.seeding import generator
from lft.types import Params

pytestmark = pytest.mark.usefixtures("float64")


def settings(layers: int = 1, hidden: int = 5) -> LSTMSettings:
    return LSTMSettings(layers=layers, hidden=hidden, preprocess_p=8.0, output_scale=0.3)


def tuner(layers: int = 1, hidden: int = 5) -> CoordinateLSTM:
    chosen = settings(layers, hidden)
    drawn = init_weights(chosen, generator("phi", layers, hidden))
    weights = {name: leaf.double() for name, leaf in drawn.items()}
    weights["out.b"] = torch.tensor(0.4)  # starts at 0, which would hide a forgotten bias
    return CoordinateLSTM(weights, chosen, "torch")


def gradients(steps: int, *shape: int) -> Tensor:
    """Of magnitudes around e⁻ᵖ, on both sides."""
    random = generator("gradients", steps, *shape)
    size = 10 ** (2 * torch.randn(steps, *shape, generator=random) - 3)
    return size * torch.randn(steps, *shape, generator=random)


def run(rule: CoordinateLSTM, grads: Tensor) -> tuple[Tensor, Tensor]:
    """Start at θ = 0: the final state and parameters."""
    params: Params = {"theta": torch.zeros(grads.shape[1:])}
    state = rule.start(params)
    for grad in grads:
        state, params = rule.step(state, params, {"theta": grad})
    return state, params["theta"]


def by_hand(gradient: float, p: float) -> tuple[float, float]:
    """Andrychowicz et al. (2016), appendix A, one number at a time."""
    if abs(gradient) >= math.exp(-p):
        return math.log(abs(gradient)) / p, math.copysign(1.0, gradient)
    return -1.0, math.exp(p) * gradient


@given(
    gradient=st.floats(-1e30, 1e30),
    p=st.floats(0.5, 20),
)
def test_preprocessing_is_the_published_formula(gradient: float, p: float) -> None:
    result = preprocess(torch.tensor([gradient], dtype=torch.float64), p)
    assert result.shape == (2, 1)
    # float64; exp and log are good to an ulp, which division by e⁻ᵖ keeps.
    assert result[:, 0].tolist() == pytest.approx(by_hand(gradient, p), rel=1e-12, abs=1e-14)


def test_preprocessing_at_the_borders() -> None:
    p = 3.0
    edge = math.exp(-p)
    result = preprocess(torch.tensor([0.0, edge, -edge, 1.0, -1.0]), p)
    assert result[0].tolist() == pytest.approx([-1, -1, -1, 0, 0])
    assert result[1].tolist() == pytest.approx([0, 1, -1, 1, -1])


@given(gradient=st.floats(1e-2, 1e2), factor=st.floats(1.5, 1e3), p=st.floats(5, 15))
def test_scaling_a_large_gradient_moves_only_its_log_magnitude(
    gradient: float, factor: float, p: float
) -> None:
    both = preprocess(torch.tensor([gradient, factor * gradient], dtype=torch.float64), p)
    assert both[1, 0] == both[1, 1] == 1
    # float64: a difference of logarithms of size one.
    assert float(both[0, 1] - both[0, 0]) == pytest.approx(math.log(factor) / p, rel=1e-9)


@given(share=st.floats(0.01, 0.3), factor=st.floats(0.1, 3), p=st.floats(1, 15))
def test_scaling_a_small_gradient_scales_only_its_direction(
    share: float, factor: float, p: float
) -> None:
    small = share * math.exp(-p)
    both = preprocess(torch.tensor([small, factor * small], dtype=torch.float64), p)
    assert both[0].tolist() == [-1, -1]
    assert float(both[1, 1]) == pytest.approx(factor * float(both[1, 0]), rel=1e-12)


@given(steps=st.integers(1, 4), n=st.integers(1, 6), factor=st.floats(1.5, 1e3))
def test_scaling_moves_updates_through_the_preprocessing_alone(
    steps: int, n: int, factor: float
) -> None:
    """A network without weights for log|g| does not notice how large a large gradient is."""
    rule = tuner()
    rule.weights["layer0.w_ih"][:, 0] = 0.0
    grads = gradients(steps, 1, n)
    large = grads.sign() * (grads.abs() + math.exp(-8.0))  # above e⁻ᵖ
    assert torch.equal(run(rule, large)[1], run(rule, factor * large)[1])
    # It does notice one that becomes large.
    small = large.sign() * math.exp(-9.0)
    assert not torch.equal(run(rule, small)[1], run(rule, 10 * small)[1])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("hidden", [1, 5])
def test_matches_lstm_cells(layers: int, hidden: int) -> None:
    rule = tuner(layers, hidden)
    grads = gradients(6, 2, 4)
    state, theta = run(rule, grads)
    cells = []
    for layer in range(layers):
        cell = torch.nn.LSTMCell(hidden if layer else 2, hidden)
        cell.weight_ih.data = rule.weights[f"layer{layer}.w_ih"]
        cell.weight_hh.data = rule.weights[f"layer{layer}.w_hh"]
        cell.bias_ih.data = rule.weights[f"layer{layer}.b"]
        cell.bias_hh.data = torch.zeros(4 * hidden)
        cells.append(cell)
    memory = [(torch.zeros(8, hidden), torch.zeros(8, hidden)) for _ in cells]
    moved = torch.zeros(8)
    with torch.no_grad():
        for grad in grads:
            x = torch.tensor([by_hand(float(g), 8.0) for g in grad.flatten()])
            for layer, cell in enumerate(cells):
                memory[layer] = cell(x, memory[layer])
                x = memory[layer][0]
            moved -= 0.3 * (x @ rule.weights["out.w"] + 0.4)
    # float64, six steps: a few dozen roundings of numbers of size one.
    torch.testing.assert_close(theta.flatten(), moved, rtol=1e-12, atol=1e-12)
    for layer, (h, c) in enumerate(memory):
        torch.testing.assert_close(state[0, layer], h.T, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(state[1, layer], c.T, rtol=1e-12, atol=1e-12)


@given(
    layers=st.integers(1, 2),
    hidden=st.integers(1, 6),
    n_tasks=st.integers(1, 4),
    n=st.integers(1, 6),
    steps=st.integers(1, 4),
)
def test_permuting_coordinates_permutes_updates_and_states(
    layers: int, hidden: int, n_tasks: int, n: int, steps: int
) -> None:
    rule, grads = tuner(layers, hidden), gradients(steps, n_tasks, n)
    order = torch.randperm(n_tasks * n, generator=generator("order"))
    state, theta = run(rule, grads)
    permuted = grads.flatten(1)[:, order].reshape(grads.shape)
    moved_state, moved = run(rule, permuted)
    # float64: a coordinate's place decides how a matrix product's sums are vectorised.
    torch.testing.assert_close(moved.flatten(), theta.flatten()[order], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved_state, state[..., order], rtol=1e-12, atol=1e-12)


@given(n_tasks=st.integers(1, 4), n=st.integers(1, 6), steps=st.integers(1, 4))
def test_a_batch_of_tasks_is_as_many_batches_of_one(n_tasks: int, n: int, steps: int) -> None:
    rule, grads = tuner(), gradients(steps, n_tasks, n)
    _, together = run(rule, grads)
    for task in range(n_tasks):
        _, alone = run(rule, grads[:, task : task + 1])
        # float64, as above.
        torch.testing.assert_close(together[task], alone[0], rtol=1e-12, atol=1e-12)


def test_every_leaf_gets_its_own_updates() -> None:
    """Leaves of several shapes: as if each were fine-tuned alone."""
    rule = tuner()
    shapes = {"w": (2, 3, 4), "b": (2, 1, 4), "scalar": (2, 1)}
    params = {name: torch.zeros(shape) for name, shape in shapes.items()}
    grads = {name: gradients(1, *shape)[0] for name, shape in shapes.items()}
    _, moved = rule.step(rule.start(params), params, grads)
    for name, shape in shapes.items():
        alone = {name: params[name]}
        _, expected = rule.step(rule.start(alone), alone, {name: grads[name]})
        assert moved[name].shape == shape
        torch.testing.assert_close(moved[name], expected[name], rtol=1e-12, atol=1e-12)


def test_initial_weights() -> None:
    weights = init_weights(LSTMSettings(layers=2, hidden=16), generator("phi"))
    shapes = {name: tuple(leaf.shape) for name, leaf in weights.items()}
    assert shapes == {
        "layer0.w_ih": (64, 2),
        "layer0.w_hh": (64, 16),
        "layer0.b": (64,),
        "layer1.w_ih": (64, 16),
        "layer1.w_hh": (64, 16),
        "layer1.b": (64,),
        "out.w": (16,),
        "out.b": (),
    }
    for name, leaf in weights.items():
        bound = 0.025 if name == "out.w" else 0.25
        assert leaf.abs().max() <= bound
        # 1,024 uniform draws come within 2 % of the bound but for a chance of 1e-9.
        assert leaf.numel() < 1000 or leaf.abs().max() > 0.98 * bound


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("at_once", [1, 12, 10**6])
def test_the_derivative_of_a_segment_is_that_of_its_steps(
    layers: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinates one by one, in parts of three with one left over, and all together; in float64,
    which no native kernel serves."""
    monkeypatch.setattr(lstm, "DIFFERENTIATED", at_once)
    rule = tuner(layers)
    grads, cotangents = gradients(4, 7), torch.randn(4, 7, generator=generator("cotangents"))
    start = torch.randn(2, layers, 5, 7, generator=generator("state"))
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in rule.weights.items()}
    traced, state = CoordinateLSTM(leaves, rule.settings), start
    total, before = torch.zeros(()), {"theta": torch.zeros(1, 7)}
    for grad, cotangent in zip(grads, cotangents, strict=True):
        state, after = traced.step(state, before, {"theta": grad[None]})
        total = total + (cotangent * (before["theta"] - after["theta"])[0]).sum()
        before = after
    expected = torch.autograd.grad(total, list(leaves.values()))
    found = CoordinateLSTM(rule.weights, rule.settings, "auto").segment_vjp(
        start, grads, cotangents
    )
    assert found.keys() == leaves.keys()
    for one, other in zip(found.values(), expected, strict=True):
        # float64: the order of the sums over coordinates and steps is another.
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
