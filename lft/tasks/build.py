"""Build task families, registered in :mod:`lft.config.families`, from prepared files."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lft.config import LENET, Experiment, FamilySettings, Profile, VictimSettings
from lft.data import ImageSet, load
from lft.errors import UsageError
from lft.kernels.build import Kernel, used
from lft.paths import data_path, victim_path
from lft.results.kept import kept_victim
from lft.results.manifest import manifest
from lft.runtime import device as runtime
from lft.storage.json import write_json
from lft.storage.tensors import load_tensors, save_tensors
from lft.tasks.base import TaskFamily
from lft.tasks.given import Given, read_weights
from lft.tasks.pools import Pools
from lft.tasks.victim import LeNet5, Victim, correct, train_victim


class Context:
    """The device and the prepared files from which task families are built; reads each file once.

    Args:
        profile: gives the kernel and the division of images between phases.
        results: the result folder.
        device: of images and victims.
        seed: the seed whose victims are attacked, if the profile trains victims per seed.
    """

    def __init__(
        self, profile: Profile, results: Path, device: torch.device, seed: int | None = None
    ) -> None:
        self.profile = profile
        self.results = results
        self.device = device
        self.seed = seed
        self.kernel: Kernel = profile.kernel
        self._images: dict[str, ImageSet] = {}
        self._victims: dict[tuple[str, int | None], Victim] = {}

    def of_seed(self, seed: int | None) -> Context:
        """Copy the context for another seed; both share the files already read."""
        other = copy(self)
        other.seed = seed
        return other

    def images(self, source: str) -> ImageSet:
        """Read the images of a source.

        Raises:
            UsageError: they are missing or damaged, or were prepared from another source.
        """
        if source not in self._images:
            self._images[source] = load_images(self.profile, source, self.results, self.device)
        return self._images[source]

    def pools(self, source: str, keep: tuple[Tensor, Tensor] | None = None) -> Pools:
        """The image pools of each phase; ``keep`` as in :class:`lft.tasks.pools.Pools`."""
        shared = self.profile
        return Pools(self.images(source), shared.partition, shared.validation_share, keep)

    def victim(self, source: str) -> Victim:
        """Read the victim that tasks on a source attack.

        Raises:
            UsageError: its weights are missing or damaged, or belong to a network for other images.
        """
        key = source, None if self.seed is None else self.profile.victim_seed(self.seed)
        if key not in self._victims:
            path = victim_path(self.results, *key)
            model = self.profile.victims.model
            found = load_victim(path, source, self.images(source), self.kernel, model)
            self._victims[key] = found.to(self.device)
        return self._victims[key]

    def correct(self, source: str) -> tuple[Tensor, Tensor]:
        """Masks of the training and test images that the source's victim classifies correctly."""
        images, victim = self.images(source), self.victim(source)
        return (
            correct(victim, images.train_images, images.train_labels),
            correct(victim, images.test_images, images.test_labels),
        )


class Families:
    """Task families of several runs, each built once.

    Args:
        context: images and victims; its seed is ignored.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._built: dict[tuple[str, int | None], TaskFamily] = {}

    def of(
        self, experiment: Experiment, names: Iterable[str], seed: int | None
    ) -> dict[str, TaskFamily]:
        """Build task families by name for a seed.

        Raises:
            UsageError: prepared files are missing or damaged, or a class has too few images.
        """
        return {name: self._of(experiment.families[name], seed) for name in names}

    def _of(self, family: FamilySettings, seed: int | None) -> TaskFamily:
        attacks = family.victim_source is not None and seed is not None
        whose = self.context.profile.victim_seed(seed) if attacks and seed is not None else None
        key = family.model_dump_json(), whose
        if key not in self._built:
            self._built[key] = family.build(self.context.of_seed(whose))
        return self._built[key]


def build_families(
    profile: Profile,
    experiment: Experiment,
    names: Iterable[str],
    results: Path,
    device: torch.device | None = None,
    seed: int | None = None,
) -> dict[str, TaskFamily]:
    """Build task families by name.

    Args:
        device: where they compute; the profile's by default.
        seed: the seed whose victims are attacked; needed if the profile trains victims per seed.

    Raises:
        UsageError: prepared files are missing or damaged, or a class has too few images.
    """
    context = Context(profile, results, device or torch.device(profile.device))
    return Families(context).of(experiment, names, seed)


def make_victim(profile: Profile, source: str, results: Path, seed: int | None = None) -> None:
    """Train or read the victim of an image source; write its weights and clean accuracy.

    A profile that compares itself with a kept run (``against``) takes that run's weights if they
    were kept, and checks the accuracy against the record.

    Args:
        seed: the victim's seed; None for a victim that all seeds share.

    Raises:
        UsageError: prepared files are missing or damaged, or the accuracy differs from the record.
    """
    path = victim_path(results, source, seed)
    kept = kept_victim(profile, source, results, seed)
    with runtime.settings(profile) as device:
        images = load_images(profile, source, results, device)
        if kept is not None and kept.weights is not None:
            settings = profile.victims
            victim = load_victim(kept.weights, source, images, profile.kernel, settings.model)
            victim.to(device)
        else:
            victim = _made(profile.victims, source, images, path.stem, device)
        accuracy = {
            split: float(correct(victim, pixels, labels).double().mean())
            for split, pixels, labels in (
                ("train", images.train_images, images.train_labels),
                ("test", images.test_images, images.test_labels),
            )
        }
    if kept is not None:
        kept.check(accuracy)
    save_tensors(path, dict(victim.state_dict()), {"source": source})
    write_json(
        path.with_suffix(".json"),
        manifest(
            profile.victim_inputs(source),
            source=source,
            seed=seed,
            label=images.label,
            device=profile.device,
            kernel=used(profile.kernel, profile.device),
            accuracy_train=accuracy["train"],
            accuracy_test=accuracy["test"],
        ),
    )


def _made(
    settings: VictimSettings, source: str, images: ImageSet, name: str, device: torch.device
) -> Victim:
    """Train a LeNet-5, or build another network and read the weights that the settings name."""
    if settings.model == LENET:
        return train_victim(images, settings, name, device)
    victim = Given(settings.model, _shape(images), len(images.classes))
    read_weights(victim, settings.weights_of(source))
    return victim.to(device).requires_grad_(False)


def _shape(images: ImageSet) -> tuple[int, int, int]:
    channels, height, width = images.train_images.shape[1:]
    return channels, height, width


def load_images(profile: Profile, source: str, results: Path, device: torch.device) -> ImageSet:
    """Read the prepared images of a source onto a device.

    Raises:
        UsageError: they are missing or damaged, or were prepared from another source.
    """
    return on_device(load(data_path(results, source), profile.sources[source]), device)


def on_device(images: ImageSet, device: torch.device) -> ImageSet:
    """Copy the images to a device."""
    return replace(
        images,
        train_images=images.train_images.to(device),
        train_labels=images.train_labels.to(device),
        test_images=images.test_images.to(device),
        test_labels=images.test_labels.to(device),
    )


def load_victim(
    path: Path, source: str, images: ImageSet, kernel: Kernel = "auto", model: str = LENET
) -> Victim:
    """Read a trained victim for a source's images; its weights are constants.

    Raises:
        UsageError: the weights are missing or damaged, or belong to a network for other images.
    """
    tensors, _ = load_tensors(path)
    n_classes = len(images.classes)
    victim = (
        LeNet5(_shape(images), n_classes, kernel)
        if model == LENET
        else Given(model, _shape(images), n_classes)
    )
    try:
        victim.load_state_dict(tensors)
    except RuntimeError:
        raise UsageError(
            f"{path} holds a network for other images than those of {source!r}; delete it and run "
            "the workflow again"
        ) from None
    return victim.requires_grad_(False).eval()
