"""Networks with a task axis against torch.nn, task by task."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lft.seeding import generator
from lft.tasks.networks import CNN, MLP, grouped_convolution, unfolded_convolution
from lft.types import Params

pytestmark = pytest.mark.usefixtures("float64")


def test_mlp_matches_linear_layers() -> None:
    network = MLP((6, 5, 4, 3))
    params = network.init(2, generator("start"), torch.float64)
    params = {name: leaf + 0.1 for name, leaf in params.items()}  # biases start at 0
    x = torch.randn(2, 7, 1, 2, 3, generator=generator("x"))
    result = network(params, x)
    assert result.shape == (2, 7, 3)
    for task in range(2):
        layers: list[nn.Module] = [nn.Flatten()]
        for index, (inputs, outputs) in enumerate(((6, 5), (5, 4), (4, 3))):
            linear = nn.Linear(inputs, outputs)
            linear.weight.data = params[f"w{index}"][task].T
            linear.bias.data = params[f"b{index}"][task, 0]
            layers += [linear, nn.ReLU()]
        # float64: the same sums in another order.
        torch.testing.assert_close(
            result[task], nn.Sequential(*layers[:-1])(x[task]), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize(("shape", "features"), [((3, 8, 8), 5 * 2 * 2), ((1, 7, 5), 5 * 2 * 2)])
def test_cnn_matches_convolutions(shape: tuple[int, int, int], features: int) -> None:
    network = CNN(shape, (4, 5), 3)
    params = network.init(2, generator("start"), torch.float64)
    params = {name: leaf + 0.05 for name, leaf in params.items()}
    x = torch.randn(2, 6, *shape, generator=generator("x"))
    result = network(params, x)
    assert result.shape == (2, 6, 3)
    for task in range(2):
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(((shape[0], 4), (4, 5))):
            conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
            conv.weight.data = params[f"conv{index}"][task]
            conv.bias.data = params[f"bias{index}"][task]
            layers += [conv, nn.ReLU()]
        head = nn.Linear(features, 3)
        head.weight.data = params["head"][task].T
        head.bias.data = params["head_bias"][task, 0]
        expected = nn.Sequential(*layers, nn.Flatten(), head)(x[task])
        torch.testing.assert_close(result[task], expected, rtol=1e-12, atol=1e-12)


def test_a_normalised_cnn_matches_batch_norm_of_each_task() -> None:
    network = CNN((3, 8, 8), (4, 5), 3, normalise=True)
    params = network.init(2, generator("start"), torch.float64)
    params = {name: leaf + 0.05 for name, leaf in params.items()}
    x = torch.randn(2, 6, 3, 8, 8, generator=generator("x"))
    result = network(params, x)
    for task in range(2):
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(((3, 4), (4, 5))):
            conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
            conv.weight.data = params[f"conv{index}"][task]
            norm = nn.BatchNorm2d(outputs)  # in training mode: statistics of the batch
            norm.bias.data = params[f"bias{index}"][task]
            layers += [conv, norm, nn.ReLU()]
        head = nn.Linear(20, 3)
        head.weight.data = params["head"][task].T
        head.bias.data = params["head_bias"][task, 0]
        expected = nn.Sequential(*layers, nn.Flatten(), head)(x[task])
        # float64: the same sums in another order.
        torch.testing.assert_close(result[task], expected, rtol=1e-11, atol=1e-11)


def test_tanh_in_place_of_relu() -> None:
    network = MLP((1, 3, 1), activation="tanh")
    params = network.init(1, generator("start"), torch.float64)
    x = torch.linspace(-2, 2, 5)[None, :, None]
    hidden = torch.tanh(x[0] @ params["w0"][0] + params["b0"][0])
    # float64: the same sums in another order.
    torch.testing.assert_close(
        network(params, x)[0], hidden @ params["w1"][0], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 7, 5), (1, 1, 2)])
def test_a_product_with_patches_is_a_convolution(shape: tuple[int, int, int]) -> None:
    """What a GPU computes against what the CPU does: values, gradients, second derivatives."""
    tasks, images, outputs = 2, 3, 4
    random = generator("convolutions")
    x = torch.randn(images, tasks, *shape, generator=random)
    weight = torch.randn(tasks, outputs, shape[0], 3, 3, generator=random)
    bias = torch.randn(tasks, outputs, generator=random)
    leaves = [leaf.requires_grad_() for leaf in (x, weight, bias)]
    found = []
    for convolve in (grouped_convolution, unfolded_convolution):
        y = convolve(*leaves)
        first = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(leaf.sin().sum() for leaf in first), leaves)
        found.append((y, first, second))
    # float64: the same sums in another order.
    torch.testing.assert_close(found[1], found[0], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("network", [MLP((50, 40, 3)), CNN((2, 8, 8), (30, 20), 3)])
def test_networks_start_as_torch_does_with_zero_biases(network: MLP | CNN) -> None:
    params: Params = network.init(3, generator("start"))
    assert all(len(leaf) == 3 for leaf in params.values())
    for name, leaf in params.items():
        if name.startswith("b") or name.endswith("bias"):
            assert not leaf.any()
            continue
        # Fan-in of (B, inputs, outputs) and of (B, outputs, inputs, 3, 3).
        fan_in = leaf.shape[1] if leaf.dim() == 3 else leaf[0, 0].numel()
        bound = fan_in**-0.5
        assert leaf.abs().max() <= bound
        # Hundreds of uniform draws come within 5 % of the bound but for a chance of 1e-6.
        assert leaf.abs().max() > 0.95 * bound
        assert not torch.equal(leaf[0], leaf[1])
