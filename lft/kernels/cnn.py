"""Convolutional networks with weights of their own for every task, as native kernels.

For the networks of :class:`lft.tasks.networks.CNN`: convolutions of kernel 3, stride 2 and padding
1 with ReLU, then a linear layer. One image at a time goes forward and back through all layers while
its activations stay in cache; the gradient of the mean cross-entropy is computed with the loss. The
Hessian times a vector, for MAML, is the derivative of all that along the vector.

Parameters are in the order and shapes of ``CNN.init``, images (B, n, C, H, W) and labels (B, n).
float32, CPU; results do not depend on the number of threads.
"""

from torch import Tensor

from lft.kernels.autograd import NetworkKernel
from lft.types import Params

_KERNEL = NetworkKernel("cnn")

cross_entropy = _KERNEL.loss
loss_and_gradients = _KERNEL.loss_and_gradients
descend = _KERNEL.descend


def logits(params: Params, x: Tensor) -> Tensor:
    """Outputs (B, n, outputs) for images (B, n, C, H, W); no derivative is recorded.

    Raises:
        RuntimeError: a shape or dtype does not fit.
    """
    outputs: Tensor = _KERNEL.operator("logits", params.values(), [x])
    return outputs
