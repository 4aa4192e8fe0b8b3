"""N-way k-shot image classification (sec. 5)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lft.config import ClassificationFamily
from lft.data import ImageSet
from lft.data.images import in_unit_range
from lft.kernels.build import Kernel
from lft.tasks.base import Phase
from lft.tasks.networks import CNN, MLP, NetworkFamily
from lft.tasks.pools import Pools
from lft.types import Batch, Params, TaskBatch


class Classification(NetworkFamily):
    """Classify images of a few classes with a network fine-tuned on a few images of each.

    Args:
        settings: shots, ways and the network.
        images: the source; the mean and deviation of its pixels standardise inputs if asked for.
        pools: images of each phase.
        kernel: as for :class:`lft.tasks.networks.Network`.

    Raises:
        UsageError: there are too few classes, or a class has too few images.
    """

    settings: ClassificationFamily

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
        self.device = images.train_images.device
        self.relabel = settings.outputs == "ways"
        outputs = settings.ways if self.relabel else len(images.classes)
        channels, height, width = images.train_images.shape[1:]
        if settings.net == "mlp":
            self.network = MLP((channels * height * width, *settings.widths, outputs), kernel)
        else:
            self.network = CNN(
                (channels, height, width), settings.widths, outputs, kernel, settings.normalise
            )
        self.mean, self.std = 0.0, 1.0
        if not settings.standardise:
            return
        sample = in_unit_range(
            images.train_images[:: max(1, len(images.train_images) // 5000)], torch.float64
        )
        self.mean, self.std = float(sample.mean()), float(sample.std())

    def sample(self, n_tasks: int, generator: Generator, phase: Phase) -> TaskBatch:
        """Draw tasks: images (B, ways · k, C, H, W) and labels (B, ways · k).

        Images are standardised if the settings say so, otherwise in [0, 1].
        """
        tasks = self.pools.sample(
            n_tasks,
            generator,
            phase,
            ways=self.settings.ways,
            support=self.settings.support,
            query=self.settings.query,
            relabel=self.relabel,
            dtype=self.dtype,
        )
        return TaskBatch(*(Batch((part.x - self.mean) / self.std, part.y) for part in tasks))

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean cross-entropy of each task, (B,)."""
        return self.network.cross_entropy(params, batch.x, batch.y)

    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        """``accuracy``: share of images classified correctly; NaN where outputs are not finite."""
        logits = self.network(params, batch.x)
        correct = (logits.argmax(-1) == batch.y).to(logits.dtype).mean(1)
        finite = logits.isfinite().flatten(1).all(1)
        return {"accuracy": correct.where(finite, torch.nan)}

    def score(self, params: Params, batch: Batch) -> Tensor:
        """Error rate of each task, (B,).

        A network that only guesses can have a lower cross-entropy than an overconfident one that
        is right more often, so cross-entropy would select fine-tuners that learn nothing.
        """
        return 1 - self.metrics(params, batch)["accuracy"]
