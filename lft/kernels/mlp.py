"""Native kernels for batches of per-task fully connected networks.

They serve :class:`lft.tasks.networks.MLP`: h⁽ˡ⁾ = relu(z⁽ˡ⁾) with z⁽ˡ⁾ = h⁽ˡ⁻¹⁾ W + b. For a mean
loss f of the outputs z⁽ᴸ⁾, with d⁽ˡ⁾ = ∂f/∂z⁽ˡ⁾:

    d⁽ˡ⁾ = 1[h⁽ˡ⁾ > 0] d⁽ˡ⁺¹⁾ Wᵀ        ∂f/∂W = h⁽ˡ⁻¹⁾ᵀ d⁽ˡ⁾        ∂f/∂b = Σ d⁽ˡ⁾

MAML's meta-gradient needs one Hessian-vector product per step: the derivative of the gradient along
the vector (Pearlmutter, 1994).

Parameters have the order and shapes of ``MLP.init``; inputs are (B, n, in). Labels (B, n) select
the mean cross-entropy, targets (B, n, out) the mean squared error. float32 on the CPU; results do
not depend on the number of threads.
"""

from lft.kernels.autograd import NetworkKernel

_KERNEL = NetworkKernel("mlp")

loss = _KERNEL.loss
loss_and_gradients = _KERNEL.loss_and_gradients
descend = _KERNEL.descend
