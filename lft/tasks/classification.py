"""N-way k-shot image classification (sec. 5)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lft.config import ClassificationFamily
from lft.data import ImageSet
from lft.kernels.build import Kernel
from lft.tasks.base import Differentiated, Phase
from lft.tasks.networks import CNN, MLP, Network
from lft.tasks.pools import Pools
from lft.types import Batch, Params, TaskBatch


class Classification(Differentiated):
    """Classify images of a few classes with a network trained on a few images of each.

    Args:
        settings: shots, ways and the network.
        images: the source; its pixel mean and deviation standardise the network's inputs.
        pools: images of each phase.
        kernel: path of the network.
    """

    primary = "accuracy"

    def __init__(
        self,
        settings: ClassificationFamily,
        images: ImageSet,
        pools: Pools,
        kernel: Kernel = "auto",
    ) -> None:
        pools.check(settings.ways, settings.support, settings.query)
        self.settings = settings
        self.pools = pools
        self.relabel = settings.outputs == "ways"
        outputs = settings.ways if self.relabel else len(images.classes)
        shape = tuple(images.train_images.shape[1:])
        self.network: Network
        if settings.net == "mlp":
            self.network = MLP((shape[0] * shape[1] * shape[2], *settings.widths, outputs), kernel)
        else:
            self.network = CNN((shape[0], shape[1], shape[2]), settings.widths, outputs, kernel)
        sample = images.train_images[:: max(1, len(images.train_images) // 5000)].double() / 255
        self.mean, self.std = float(sample.mean()), float(sample.std())

    def sample(self, n_tasks: int, generator: Generator, phase: Phase) -> TaskBatch:
        """Standardised images (B, ways · k, C, H, W) and labels (B, ways · k)."""
        tasks = self.pools.sample(
            n_tasks,
            generator,
            phase,
            ways=self.settings.ways,
            support=self.settings.support,
            query=self.settings.query,
            relabel=self.relabel,
        )
        return TaskBatch(*(Batch((part.x - self.mean) / self.std, part.y) for part in tasks))

    def init(self, n_tasks: int, generator: Generator) -> Params:
        device = self.pools.by_phase["train"][0].images.device
        params = self.network.init(n_tasks, generator)
        return {name: leaf.to(device) for name, leaf in params.items()}

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean cross-entropy of each task, (B,)."""
        return self.network.cross_entropy(params, batch.x, batch.y)

    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params] | None:
        """See :class:`lft.tasks.base.Differentiated`."""
        return self.network.loss_and_gradients(params, batch)

    def descend(
        self, params: Params, tasks: TaskBatch, steps: int, step_size: float
    ) -> tuple[Tensor, Params, Params] | None:
        """See :class:`lft.tasks.base.Differentiated`."""
        return self.network.descend(params, tasks, steps, step_size)

    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        """``accuracy``: share of images classified correctly; NaN where outputs are not finite."""
        logits = self.network(params, batch.x)
        correct = (logits.argmax(-1) == batch.y).to(logits.dtype).mean(1)
        finite = logits.isfinite().flatten(1).all(1)
        return {"accuracy": correct.where(finite, torch.nan)}
