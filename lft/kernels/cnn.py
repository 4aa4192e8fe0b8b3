"""Native kernels for batches of per-task convolutional networks.

They serve :class:`lft.tasks.networks.CNN`: convolutions with kernel 3, stride 2, padding 1 and
ReLU, then a linear layer. One image at a time passes forward and back through all layers, so that
its activations stay in cache. The gradient of the mean cross-entropy is computed with the loss.
MAML's Hessian-vector product is the derivative of this gradient along the vector (Pearlmutter,
1994).

Parameters have the order and shapes of ``CNN.init``; images are (B, n, C, H, W), labels (B, n).
float32 on the CPU; results do not depend on the number of threads.
"""

from torch import Tensor

from lft.kernels.autograd import NetworkKernel
from lft.types import Params

_KERNEL = NetworkKernel("cnn")

cross_entropy = _KERNEL.loss
loss_and_gradients = _KERNEL.loss_and_gradients
descend = _KERNEL.descend


def logits(params: Params, x: Tensor) -> Tensor:
    """Logits (B, n, outputs) for images (B, n, C, H, W); autograd records nothing.

    Raises:
        RuntimeError: a shape or dtype does not fit.
    """
    outputs: Tensor = _KERNEL.operator("logits", params.values(), [x])
    return outputs
