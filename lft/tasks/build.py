"""From settings and prepared files to task families that tasks can be drawn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from lft.config import AttackFamily, ClassificationFamily, Experiment, Profile, SineFamily
from lft.data import ImageSet, load
from lft.errors import UsageError
from lft.kernels.build import Kernel
from lft.paths import data_path, victim_path
from lft.plugins import load_object
from lft.results.records import manifest, write_json
from lft.runtime.device import use_device
from lft.storage.tensors import load_tensors, save_tensors
from lft.tasks.attack import Attack
from lft.tasks.base import TaskFamily
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.tasks.sine import Sine
from lft.tasks.victim import LeNet5, correct, train_victim


def build_families(
    profile: Profile, experiment: Experiment, names: list[str], results: Path
) -> dict[str, TaskFamily]:
    """Task families by name, on the profile's device.

    Raises:
        UsageError: prepared files are missing or damaged, or a class has too few images.
    """
    device = use_device(profile)
    return {name: _build(profile, experiment, name, results, device) for name in names}


def _build(
    profile: Profile, experiment: Experiment, name: str, results: Path, device: torch.device
) -> TaskFamily:
    family = experiment.families[name]
    if isinstance(family, SineFamily):
        return Sine(family, device, profile.kernel)
    source = family.image_source
    if source is None:
        made: TaskFamily = load_object(family.tasks)(family, device)
        return made
    images = on_device(load(data_path(results, source)), device)
    if not isinstance(family, AttackFamily):
        pools = Pools(images, profile.partition, profile.validation_share)
        if isinstance(family, ClassificationFamily):
            return Classification(family, images, pools, profile.kernel)
        made = load_object(family.tasks)(family, images, pools)
        return made
    victim = load_victim(results, family.source, images, profile.kernel).to(device)
    keep = None
    if family.only_correct:
        keep = (
            correct(victim, images.train_images, images.train_labels),
            correct(victim, images.test_images, images.test_labels),
        )
    pools = Pools(images, profile.partition, profile.validation_share, keep)
    return Attack(family, victim, pools)


def make_victim(profile: Profile, source: str, results: Path) -> None:
    """Train the victim of an image source; write its weights and its clean accuracy."""
    device = use_device(profile)
    images = on_device(load(data_path(results, source)), device)
    victim = train_victim(images, profile.victim, source, device)
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


def on_device(images: ImageSet, device: torch.device) -> ImageSet:
    """The same images there."""
    return replace(
        images,
        train_images=images.train_images.to(device),
        train_labels=images.train_labels.to(device),
        test_images=images.test_images.to(device),
        test_labels=images.test_labels.to(device),
    )
