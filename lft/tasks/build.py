"""From settings and prepared files to task families that tasks can be drawn from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lft.config import Experiment, Profile
from lft.data import ImageSet, load
from lft.errors import UsageError
from lft.kernels.build import Kernel
from lft.paths import data_path, victim_path
from lft.results.records import manifest, write_json
from lft.runtime import device as runtime
from lft.storage.tensors import load_tensors, save_tensors
from lft.tasks.base import TaskFamily
from lft.tasks.pools import Pools
from lft.tasks.victim import LeNet5, correct, train_victim


class Context:
    """What task families are built from: a device, and the files prepared in a result folder.

    Args:
        profile: its kernel and its division of images between phases.
        results: the result folder.
        device: where everything goes.
    """

    def __init__(self, profile: Profile, results: Path, device: torch.device) -> None:
        self.profile = profile
        self.results = results
        self.device = device
        self.kernel: Kernel = profile.kernel
        self._images: dict[str, ImageSet] = {}
        self._victims: dict[str, LeNet5] = {}

    def images(self, source: str) -> ImageSet:
        """The images of a source.

        Raises:
            UsageError: they are missing or damaged.
        """
        if source not in self._images:
            self._images[source] = load_images(self.results, source, self.device)
        return self._images[source]

    def pools(self, source: str, keep: tuple[Tensor, Tensor] | None = None) -> Pools:
        """The images that each phase draws from; ``keep`` as in :class:`lft.tasks.pools.Pools`."""
        shared = self.profile
        return Pools(self.images(source), shared.partition, shared.validation_share, keep)

    def victim(self, source: str) -> LeNet5:
        """The network that tasks on a source attack.

        Raises:
            UsageError: its weights are missing, damaged, or those of a network for other images.
        """
        if source not in self._victims:
            found = load_victim(self.results, source, self.images(source), self.kernel)
            self._victims[source] = found.to(self.device)
        return self._victims[source]

    def correct(self, source: str) -> tuple[Tensor, Tensor]:
        """Which training and test images of a source its victim classifies correctly."""
        images, victim = self.images(source), self.victim(source)
        return (
            correct(victim, images.train_images, images.train_labels),
            correct(victim, images.test_images, images.test_labels),
        )


def build_families(
    profile: Profile,
    experiment: Experiment,
    names: Iterable[str],
    results: Path,
    device: torch.device | None = None,
) -> dict[str, TaskFamily]:
    """Task families by name.

    Args:
        device: where they compute; the profile's by default.

    Raises:
        UsageError: prepared files are missing or damaged, or a class has too few images.
    """
    context = Context(profile, results, device or torch.device(profile.device))
    return {name: experiment.families[name].build(context) for name in names}


def make_victim(profile: Profile, source: str, results: Path) -> None:
    """Train the victim of an image source; write its weights and its clean accuracy."""
    with runtime.settings(profile) as device:
        images = load_images(results, source, device)
        victim = train_victim(images, profile.victims, source, device)
        accuracy = {
            split: float(correct(victim, pixels, labels).double().mean())
            for split, pixels, labels in (
                ("train", images.train_images, images.train_labels),
                ("test", images.test_images, images.test_labels),
            )
        }
    path = victim_path(results, source)
    save_tensors(path, dict(victim.state_dict()), {"source": source})
    write_json(
        path.with_suffix(".json"),
        manifest(
            profile.victim_inputs(source),
            source=source,
            label=images.label,
            accuracy_train=accuracy["train"],
            accuracy_test=accuracy["test"],
        ),
    )


def load_images(results: Path, source: str, device: torch.device) -> ImageSet:
    """The prepared images of a source, on a device.

    Raises:
        UsageError: they are missing or damaged.
    """
    images = load(data_path(results, source))
    return replace(
        images,
        train_images=images.train_images.to(device),
        train_labels=images.train_labels.to(device),
        test_images=images.test_images.to(device),
        test_labels=images.test_labels.to(device),
    )


def load_victim(results: Path, source: str, images: ImageSet, kernel: Kernel = "auto") -> LeNet5:
    """A trained victim for images of this shape; its weights are constants.

    Raises:
        UsageError: the weights are missing, damaged, or those of a network for other images.
    """
    path = victim_path(results, source)
    tensors, _ = load_tensors(path)
    channels, height, width = images.train_images.shape[1:]
    victim = LeNet5((channels, height, width), len(images.classes), kernel)
    try:
        victim.load_state_dict(tensors)
    except RuntimeError:
        raise UsageError(
            f"{path} holds a network for other images than those of {source!r}; delete it and run "
            "the workflow again"
        ) from None
    return victim.requires_grad_(False).eval()
