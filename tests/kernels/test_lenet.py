"""The native convolutions of LeNet-5 against the plain ones in float64."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from lft.kernels import lenet
from lft.tasks.victim import LeNet5
from tests.kernels.parity import assert_close

pytestmark = pytest.mark.usefixtures("compiler")


def victim(channels: int, side: int) -> LeNet5:
    network = LeNet5((channels, side, side), 10)
    network.initialise(channels)
    return network.requires_grad_(False).eval()


def pixels(n: int, channels: int, side: int) -> Tensor:
    return torch.rand(n, channels, side, side, generator=Generator().manual_seed(n))


def features_and_gradient(network: LeNet5, images: Tensor) -> tuple[Tensor, Tensor]:
    """The features, and the gradient of a fixed random combination of them."""
    images = images.clone().requires_grad_()
    features = network.features(images)
    weights = torch.randn(features.shape, generator=Generator().manual_seed(0))
    return features, torch.autograd.grad((weights * features).sum(), images)[0]


def plain(network: LeNet5) -> LeNet5:
    copied = copy.deepcopy(network).double()
    copied.kernel = "torch"
    return copied


@given(n=st.integers(1, 5), channels=st.integers(1, 9), side=st.sampled_from((28, 32)))
def test_features_and_gradients(n: int, channels: int, side: int) -> None:
    network, images = victim(channels, side), pixels(n, channels, side)
    features, gradient = features_and_gradient(network, images)
    expected, expected_gradient = features_and_gradient(plain(network), images.double())
    assert features.shape == (n, 400)
    assert_close(features, expected)
    assert_close(gradient, expected_gradient)
    with torch.no_grad():
        assert torch.equal(network.features(images), features)


def test_pixels_that_are_equally_large_share_the_gradient() -> None:
    """With whole numbers, so that float32 and float64 agree on what is equal."""
    network, images = victim(2, 32), (3 * pixels(2, 2, 32)).floor()
    images[:, :, :16] = 1
    for layer in (network.conv1, network.conv2):
        for parameter in layer.parameters():
            parameter.copy_((20 * parameter).round())
    features, gradient = features_and_gradient(network, images)
    expected, expected_gradient = features_and_gradient(plain(network), images.double())
    assert torch.equal(features.double(), expected)
    assert_close(gradient, expected_gradient)


def test_the_kernel_serves_constant_weights_only() -> None:
    network, images = victim(1, 28), pixels(2, 1, 28)
    assert "_Features" in str(network.features(images.requires_grad_()).grad_fn)
    network.requires_grad_(True)
    network(images).sum().backward()
    assert network.conv1.weight.grad is not None


def test_second_derivatives_are_those_of_the_plain_path() -> None:
    network, start = victim(1, 28), pixels(2, 1, 28)

    def curvature(network: LeNet5, images: Tensor) -> Tensor:
        """∇ ‖∇ Σ logits²‖²."""
        images = images.clone().requires_grad_()
        score = network(images).square().sum()
        (gradient,) = torch.autograd.grad(score, images, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), images)[0]

    actual = curvature(network, start)
    assert actual.norm() > 0
    assert_close(actual, curvature(plain(network), start.double()))


def test_nan_is_seen_in_the_features_of_its_image() -> None:
    network, images = victim(1, 32), pixels(2, 1, 32)
    images[0, 0, 16, 16] = math.nan
    features = network.features(images)
    expected = plain(network).features(images.double())
    assert torch.equal(features.isnan(), expected.isnan())
    assert features[1].isfinite().all()


@pytest.mark.usefixtures("threads")
def test_results_do_not_depend_on_threads_or_on_where_tensors_lie() -> None:
    network, images = victim(3, 32), pixels(7, 3, 32)
    torch.set_num_threads(1)
    expected = features_and_gradient(network, images)
    kept = []  # so that every copy lies elsewhere
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        for size in range(1, 500, 50):
            kept.append(torch.empty(size))
            actual = features_and_gradient(copy.deepcopy(network), images.clone())
            assert all(map(torch.equal, actual, expected))


def test_arguments_that_do_not_fit_are_refused() -> None:
    network, images = victim(1, 28), pixels(2, 1, 28)
    weights = [*network.conv1.parameters(), *network.conv2.parameters()]
    with pytest.raises(RuntimeError, match="images must be contiguous"):
        lenet.features(weights, images.double(), network.features)
    with pytest.raises(RuntimeError, match=r"images must be \(n, C, S, S\)"):
        lenet.features(weights, images[0], network.features)
    with pytest.raises(RuntimeError, match="28x28 or 32x32"):
        lenet.features(weights, images[..., :20], network.features)
    with pytest.raises(RuntimeError, match=r"conv2\.bias must be"):
        lenet.features([*weights[:3], torch.zeros(3)], images, network.features)
