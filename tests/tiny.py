"""A profile so small that a run takes a fraction of a second, and images to go with it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from lft.config import Experiment, Profile
from lft.data import ImageSet
from lft.paths import data_path
from lft.seeding import generator
from lft.storage.tensors import save_tensors

CLASSES = ("bar", "cross", "dot")


def _experiment(title: str, families: dict[str, Any], **changes: Any) -> dict[str, Any]:
    mixture = "+".join(families)
    return {
        "title": title,
        "families": families,
        "train_on": [mixture],
        "test_on": [*families] if len(families) == 1 else [*families, mixture],
        "methods": ["maml", "fomaml", "reptile", "l2o", "lft", "lft-init", "sgd", "adam"],
        "orders": ["first"],
        "finetuner": {"layers": 1, "hidden": 3},
        "training": {
            "tasks": 12,
            "meta_batch": 2,
            "steps": 4,
            "segment": 2,
            "learning_rate": 0.01,
            "validation": {"tasks": 3, "rounds": 3},
        },
        "maml": {"epochs": 1, "steps": 2, "step_size": {"first": 0.05}, "learning_rate": 0.01},
        "step_sizes": {"sgd": [0.01, 0.1], "adam": [0.01]},
        "testing": {"tasks": 4, "steps": 3},
        **changes,
    }


def profile_values() -> dict[str, Any]:
    """The tiny profile as it would stand in a YAML file; change it at will."""
    attack = {"kind": "attack", "classes": 2, "support": 2, "query": 2}
    sine = {"kind": "sine", "support": 4, "query": 4, "hidden": [4]}
    classification = {"kind": "classification", "ways": 2, "support": 2, "query": 3}
    experiments = {
        "sine": _experiment(
            "Sine regression",
            {"sine": sine},
            orders=["first", "zeroth"],
            zeroth_order={"mu": 1.0e-3, "directions": 3},
        ),
        "attack": _experiment(
            "Attacks",
            {"grey": {**attack, "source": "grey"}, "colour": {**attack, "source": "colour"}},
        ),
        "classification": _experiment(
            "Classification",
            {
                "grey": {**classification, "source": "grey", "net": "mlp", "widths": [5]},
                "colour": {**classification, "source": "colour", "net": "cnn", "widths": [3, 3]},
            },
        ),
    }
    experiments["sine"]["maml"]["step_size"]["zeroth"] = 0.01
    source = {"kind": "folder", "name": "mnist5k", "path": "images", "classes": len(CLASSES)}
    return {
        "name": "tiny",
        "title": "Tiny",
        "seeds": [0, 1],
        "kernel": "torch",
        "sources": {
            "grey": {**source, "label": "grey", "shape": [1, 28, 28]},
            "colour": {**source, "label": "colour", "shape": [3, 32, 32]},
        },
        "victim": {"epochs": 3, "batch": 16, "learning_rate": 3.0e-3},
        "experiments": experiments,
        "theory": {
            "gap": {
                "experiments": ["sine"],
                "sizes": [2, 4],
                "fixed_size": 2,
                "steps": [1, 2],
                "tasks": 2,
            },
            "vanishing": {"experiments": ["sine"], "steps": [1, 2], "tasks": 2},
        },
    }


def changed(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with other values; a key's dots are written as two underscores."""
    result = copy.deepcopy(values)
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        target = result
        for key in parents:
            target = target[key]
        target[last] = value
    return result


def tiny_profile(**changes: Any) -> Profile:
    return Profile.model_validate(changed(profile_values(), **changes))


def experiment_settings(
    name: str, *, maml_steps: int = 2, step_size: float = 0.05, **training: Any
) -> Experiment:
    """An experiment of the tiny profile with other ``training`` or ``maml`` settings."""
    values = profile_values()["experiments"][name]
    values["training"] |= training
    values["maml"] |= {"steps": maml_steps}
    values["maml"]["step_size"]["first"] = step_size
    return Experiment.model_validate(values)


def tiny_images(channels: int = 1, side: int = 28, per_class: int = 30) -> ImageSet:
    """Noisy pictures of three shapes, which a LeNet-5 learns in seconds."""
    random = generator("tiny images", channels, side)
    patterns = torch.zeros(len(CLASSES), channels, side, side)
    middle = side // 2
    patterns[0, :, :, middle - 3 : middle + 3] = 1
    patterns[1, :, middle - 2 : middle + 2] = 1
    patterns[1, :, :, middle - 2 : middle + 2] = 1
    patterns[2, :, middle - 6 : middle + 6, middle - 6 : middle + 6] = 1

    def split(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(len(CLASSES)).repeat(n)
        noise = torch.rand(len(labels), channels, side, side, generator=random)
        pixels = 0.6 * patterns[labels] + 0.4 * noise
        return (255 * pixels).to(torch.uint8), labels

    train_images, train_labels = split(per_class)
    test_images, test_labels = split(per_class)
    return ImageSet(
        train_images, train_labels, test_images, test_labels, CLASSES, "tiny", None, None
    )


def write_images(results: Path) -> None:
    """The tiny profile's image files."""
    for name, images in {"grey": tiny_images(1, 28), "colour": tiny_images(3, 32)}.items():
        tensors = {
            "train_images": images.train_images,
            "train_labels": images.train_labels,
            "test_images": images.test_images,
            "test_labels": images.test_labels,
        }
        info = {"classes": CLASSES, "label": name, "stands_in_for": None, "note": None}
        save_tensors(data_path(results, name), tensors, info)
