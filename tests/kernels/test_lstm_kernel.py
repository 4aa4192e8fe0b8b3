"""The native LSTM against torch.nn.LSTMCell and autograd in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from lft.kernels import lstm
from tests.kernels.parity import TOLERANCE, assert_close

pytestmark = pytest.mark.usefixtures("compiler")

P, SCALE = 10.0, 0.1


class Case:
    """Random weights, start state, gradients of all magnitudes, and cotangents."""

    def __init__(self, layers: int, hidden: int, n: int, steps: int, seed: int = 0) -> None:
        generator = Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        self.weights = {"out.w": normal(hidden), "out.b": normal()}
        for layer in range(layers):
            self.weights[f"layer{layer}.w_ih"] = normal(4 * hidden, hidden if layer else 2) / 2
            self.weights[f"layer{layer}.w_hh"] = normal(4 * hidden, hidden) / hidden**0.5
            self.weights[f"layer{layer}.b"] = normal(4 * hidden) / 2
        self.start = torch.stack([normal(layers, hidden, n).tanh(), normal(layers, hidden, n)])
        self.inputs = normal(steps, n) * 10 ** (3 * normal(steps, n) - 4)
        # Of either sign, but not of mean zero: their sum must not cancel, see TOLERANCE.
        self.cotangents = 1 + normal(steps, n)

    def fused(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """State after the segment, updates (K, N), weight gradients."""
        state, updates = self.start.clone(), []
        for gradient in self.inputs:
            updates.append(lstm.step_(self.weights, state, gradient, p=P, scale=SCALE))
        gradients = lstm.segment_vjp(
            self.weights, self.start, self.inputs, self.cotangents, p=P, scale=SCALE
        )
        return state, torch.stack(updates), gradients

    def reference(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The same in float64, by LSTMCell and autograd."""
        layers, hidden = self.start.shape[1:3]
        cells = [
            torch.nn.LSTMCell(hidden if layer else 2, hidden, dtype=torch.float64)
            for layer in range(layers)
        ]
        weights = {name: leaf.double().requires_grad_() for name, leaf in self.weights.items()}
        zero = torch.zeros(4 * hidden, dtype=torch.float64)
        state = [(h.T, c.T) for h, c in zip(*self.start.double(), strict=True)]
        updates = []
        for gradient in self.inputs.double():
            x = preprocess(gradient)
            for layer, cell in enumerate(cells):
                parameters = {
                    "weight_ih": weights[f"layer{layer}.w_ih"],
                    "weight_hh": weights[f"layer{layer}.w_hh"],
                    "bias_ih": weights[f"layer{layer}.b"],
                    "bias_hh": zero,
                }
                state[layer] = torch.func.functional_call(cell, parameters, (x, state[layer]))
                x = state[layer][0]
            updates.append(SCALE * (x @ weights["out.w"] + weights["out.b"]))
        stacked = torch.stack(updates)
        gradients = torch.autograd.grad(
            (stacked * self.cotangents.double()).sum(), list(weights.values())
        )
        end = torch.stack([torch.stack([part[k].T for part in state]) for k in (0, 1)])
        return end.detach(), stacked.detach(), dict(zip(weights, gradients, strict=True))


def preprocess(gradient: Tensor) -> Tensor:
    """Appendix A of Andrychowicz et al., one number at a time; (N, 2)."""
    rows = []
    for g in gradient.tolist():
        if abs(g) >= math.exp(-P):
            rows.append([math.log(abs(g)) / P, math.copysign(1.0, g)])
        else:
            rows.append([-1.0, math.exp(P) * g])
    return torch.tensor(rows, dtype=torch.float64)


@given(
    layers=st.integers(1, 2),
    hidden=st.sampled_from([1, 3, 7, 10, 14, 20, 33]),
    n=st.integers(1, 200),
    steps=st.integers(1, 25),
    seed=st.integers(0, 1000),
)
def test_agrees_with_float64(layers: int, hidden: int, n: int, steps: int, seed: int) -> None:
    case = Case(layers, hidden, n, steps, seed)
    state, updates, gradients = case.fused()
    expected_state, expected_updates, expected_gradients = case.reference()
    assert_close(state, expected_state)
    assert_close(updates, expected_updates)
    assert gradients.keys() == case.weights.keys()
    for name, gradient in gradients.items():
        assert_close(gradient, expected_gradients[name])


def test_many_tiles_in_one_chunk_of_partial_sums() -> None:
    case = Case(layers=1, hidden=3, n=9000, steps=2)
    for name, expected in case.reference()[2].items():
        assert_close(case.fused()[2][name], expected)


def test_gradients_at_the_edges_of_the_preprocessing() -> None:
    edge = math.exp(-P)
    values = [0.0, edge, edge * 0.999, edge * 1.001, 1e-42, 1e-38, 1.0, 1.5, 3e38]
    case = Case(layers=1, hidden=10, n=2 * len(values), steps=1)
    case.inputs = torch.tensor([values + [-value for value in values]])
    actual, expected = case.fused()[1], case.reference()[1]
    torch.testing.assert_close(actual.double(), expected, rtol=TOLERANCE, atol=1e-6)


def test_saturated_gates_stay_finite() -> None:
    case = Case(layers=1, hidden=3, n=20, steps=3)
    for name in ("layer0.w_ih", "layer0.b"):
        case.weights[name] *= 1e4
    state, updates, gradients = case.fused()
    expected_state, expected_updates, _ = case.reference()
    assert_close(state, expected_state)
    assert_close(updates, expected_updates)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_nan_stays_in_its_coordinate_and_reaches_the_weights() -> None:
    case = Case(layers=2, hidden=3, n=70, steps=3)
    clean = case.fused()[1]
    case.inputs[0, 7] = math.nan
    _, updates, gradients = case.fused()
    assert updates[:, 7].isnan().all()
    others = torch.arange(70) != 7
    assert torch.equal(updates[:, others], clean[:, others])
    assert all(gradient.isnan().any() for name, gradient in gradients.items() if name != "out.b")


@pytest.mark.parametrize("infinity", [math.inf, -math.inf])
def test_infinite_gradient_acts_as_in_plain_pytorch(infinity: float) -> None:
    case = Case(layers=1, hidden=3, n=2, steps=2)
    case.inputs[0, 1] = infinity
    _, expected, _ = case.reference()
    _, updates, _ = case.fused()
    torch.testing.assert_close(updates.double(), expected, rtol=TOLERANCE, atol=1e-6)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n", [200, 9000])
def test_bits_do_not_depend_on_the_run_or_the_threads(n: int) -> None:
    case = Case(layers=1, hidden=10, n=n, steps=5)
    results = []
    for n_threads in (1, 1, 2, 3):
        torch.set_num_threads(n_threads)
        results.append(case.fused())
    for state, updates, gradients in results[1:]:
        assert torch.equal(state, results[0][0])
        assert torch.equal(updates, results[0][1])
        assert all(torch.equal(gradients[name], results[0][2][name]) for name in gradients)


def test_arguments_are_left_alone_and_no_graph_is_recorded() -> None:
    case = Case(layers=1, hidden=3, n=9, steps=2)
    case.weights = {name: leaf.requires_grad_() for name, leaf in case.weights.items()}
    before = (case.start.clone(), case.inputs.clone(), case.cotangents.clone())
    state, updates, gradients = case.fused()
    assert not any(tensor.requires_grad for tensor in (state, updates, *gradients.values()))
    for tensor, copy in zip((case.start, case.inputs, case.cotangents), before, strict=True):
        assert torch.equal(tensor, copy)


def test_strided_arguments() -> None:
    case = Case(layers=1, hidden=3, n=9, steps=4)
    expected = case.fused()
    case.inputs = case.inputs.T.contiguous().T
    case.cotangents = case.cotangents.T.contiguous().T
    case.weights["layer0.w_hh"] = case.weights["layer0.w_hh"].T.contiguous().T
    actual = case.fused()
    assert torch.equal(actual[1], expected[1])
    assert torch.equal(actual[2]["layer0.w_hh"], expected[2]["layer0.w_hh"])


def test_nothing_to_do() -> None:
    for n, steps in ((0, 3), (5, 0)):
        case = Case(layers=1, hidden=3, n=n, steps=steps)
        gradients = lstm.segment_vjp(
            case.weights, case.start, case.inputs, case.cotangents, p=P, scale=SCALE
        )
        assert all((gradient == 0).all() for gradient in gradients.values())
    update = lstm.step_(case.weights, torch.zeros(2, 1, 3, 0), torch.zeros(0), p=P, scale=SCALE)
    assert update.shape == (0,)


def test_arguments_that_do_not_fit_are_refused() -> None:
    case = Case(layers=1, hidden=3, n=9, steps=2)
    gradient = case.inputs[0]
    with pytest.raises(RuntimeError, match="gradient must be"):
        lstm.step_(case.weights, case.start, gradient[:8], p=P, scale=SCALE)
    with pytest.raises(RuntimeError, match="state must be"):
        lstm.step_(case.weights, case.start.double(), gradient, p=P, scale=SCALE)
    with pytest.raises(RuntimeError, match="cotangents must be"):
        lstm.segment_vjp(case.weights, case.start, case.inputs, gradient, p=P, scale=SCALE)
    with pytest.raises(RuntimeError, match="p must"):
        lstm.step_(case.weights, case.start, gradient, p=100.0, scale=SCALE)
    case.weights["layer0.b"] = torch.zeros(5)
    with pytest.raises(RuntimeError, match="b must be"):
        lstm.step_(case.weights, case.start, gradient, p=P, scale=SCALE)
