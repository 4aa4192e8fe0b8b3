"""Fully connected networks with weights of their own for every task, as native kernels.

For the networks of :class:`lft.tasks.networks.MLP`, h⁽ˡ⁾ = relu(z⁽ˡ⁾) with z⁽ˡ⁾ = h⁽ˡ⁻¹⁾ W + b, and
d⁽ˡ⁾ = ∂f/∂z⁽ˡ⁾ of a mean loss f of the outputs z⁽ᴸ⁾:

    d⁽ˡ⁾ = 1[h⁽ˡ⁾ > 0] d⁽ˡ⁺¹⁾ Wᵀ        ∂f/∂W = h⁽ˡ⁻¹⁾ᵀ d⁽ˡ⁾        ∂f/∂b = Σ d⁽ˡ⁾

The Hessian times a vector, which MAML's meta-gradient needs once a step, is the derivative of these
lines along the vector (Pearlmutter, 1994).

Parameters are in the order and shapes of ``MLP.init``, inputs (B, n, in). Labels (B, n) ask for the
mean cross-entropy, targets (B, n, out) for the mean squared error. float32, CPU; any number of
threads gives the same numbers.
"""

from lft.kernels.autograd import NetworkKernel

_KERNEL = NetworkKernel("mlp")

loss = _KERNEL.loss
loss_and_gradients = _KERNEL.loss_and_gradients
descend = _KERNEL.descend
