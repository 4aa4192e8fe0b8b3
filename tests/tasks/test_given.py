"""Victims with weights from elsewhere: the same logits, attacks on them, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from tiny import changed, profile_values, tiny_images
from torchvision.models import get_model

from lft.config import Profile, Run, load_profile
from lft.errors import UsageError
from lft.meta.gradients import value_and_grad
from lft.meta.train import train
from lft.paths import data_path, victim_path
from lft.seeding import generator
from lft.storage.json import read_json
from lft.storage.tensors import save_tensors
from lft.tasks.build import build_families, load_victim, make_victim

SIDE = 20
MODULE = """
import torch

def make(n_classes):
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(400, 8), torch.nn.Tanh(), torch.nn.Linear(8, n_classes)
    )

def wrong(n_classes):
    return "a network"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of 20x20 grey pixels, a module that makes a network, and its weights."""
    images = tiny_images(1, SIDE)
    tensors = {
        f"{split}_{what}": getattr(images, f"{split}_{what}")
        for split in ("train", "test")
        for what in ("images", "labels")
    }
    info = {"classes": images.classes, "label": "grey", "stands_in_for": None, "note": None}
    save_tensors(data_path(tmp_path, "grey"), tensors, info)
    (tmp_path / f"{tmp_path.name}.py").write_text(MODULE)
    random = generator("weights")
    weights = {"1.weight": (8, 400), "1.bias": (8,), "3.weight": (3, 8), "3.bias": (3,)}
    drawn = {name: 0.1 * torch.randn(size, generator=random) for name, size in weights.items()}
    save_file(drawn, tmp_path / "grey.safetensors")
    return tmp_path


def profile(folder: Path, victim: dict[str, Any]) -> Profile:
    found = changed(profile_values(), victim=victim, sources__grey__shape=[1, SIDE, SIDE])
    attack = found["experiments"]["attack"]
    attack |= {"families": {"grey": attack["families"]["grey"]}, "methods": ["lft"]}
    attack["families"]["grey"]["only_correct"] = False
    found["experiments"] = {"attack": attack | {"train_on": ["grey"], "test_on": ["grey"]}}
    del found["theory"], found["sources"]["colour"]
    (folder / "own.yaml").write_text(yaml.safe_dump(found))
    return load_profile(folder / "own.yaml")


def own(folder: Path, function: str = "make", **others: Any) -> dict[str, Any]:
    weights = str(folder / "{source}.safetensors")
    return {"model": f"{folder.name}.py:{function}", "weights": weights, **others}


def test_a_network_of_ones_own_is_attacked(folder: Path) -> None:
    settings = profile(folder, own(folder))
    before = torch.get_rng_state()
    make_victim(settings, "grey", folder)
    assert torch.equal(before, torch.get_rng_state())
    family = build_families(settings, settings.experiments["attack"], ["grey"], folder)["grey"]
    tasks = family.sample(2, generator("tasks"), "test")
    start = family.init(2, generator("start"))
    # By hand: two matrix products.
    from safetensors.torch import load_file

    weights = load_file(folder / "grey.safetensors")
    shifted = (tasks.query.x + start["delta"][:, None]).clamp(0, 1).flatten(2)
    hidden = torch.tanh(shifted @ weights["1.weight"].T + weights["1.bias"])
    logits = hidden @ weights["3.weight"].T + weights["3.bias"]
    fooled = logits.argmax(-1) != tasks.query.y
    expected = fooled.float().mean(1)
    torch.testing.assert_close(family.metrics(start, tasks.query)["asr"], expected)
    losses, grads = value_and_grad(family, start, tasks.support)
    assert grads["delta"].shape == (2, 1, SIDE, SIDE)
    assert losses.shape == (2,)
    train(settings, Run("attack", "grey", "lft", "first", 0), folder)
    assert read_json(folder / "runs/attack/grey/lft-first/seed0/run.json")["status"] == "ok"


def test_torchvision_gives_the_logits_of_its_own_network(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        network = get_model("resnet18", weights=None, num_classes=3).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    images = tiny_images(3, 32, per_class=2)
    from lft.tasks.given import Given, read_weights

    victim = Given("torchvision/resnet18", (3, 32, 32), 3)
    read_weights(victim, tmp_path / "weights.safetensors")
    save_tensors(victim_path(tmp_path, "colour"), victim.state_dict(), {})
    loaded = load_victim(
        victim_path(tmp_path, "colour"), "colour", images, model="torchvision/resnet18"
    )
    pixels = torch.rand(4, 3, 32, 32, generator=generator("pixels"))
    assert torch.equal(loaded(pixels), network(pixels))
    assert not any(leaf.requires_grad for leaf in loaded.parameters())


def test_what_does_not_fit_is_one_line(folder: Path) -> None:
    def refuse(message: str, victim: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=message) as raised:
            make_victim(profile(folder, victim), "grey", folder)
        assert "\n" not in str(raised.value)
        assert not victim_path(folder, "grey").exists()

    refuse("needs the key 'weights'", {"model": "torchvision/resnet18"})
    refuse("key 'epochs' is missing", {})
    refuse("is not like torchvision/resnet18", own(folder) | {"model": "resnet18"})
    refuse(r"there is no .*absent\.py", own(folder) | {"model": "absent.py:make"})
    refuse("torchvision has no model 'resnet1'", own(folder) | {"model": "torchvision/resnet1"})
    refuse(r"rejects images of 1x20x20 \(", own(folder) | {"model": "torchvision/resnet18"})
    refuse("returns a str, not a torch.nn.Module", own(folder, "wrong"))
    refuse("cannot be imported", own(folder, "absent"))
    refuse("is missing; victim.weights names", own(folder, weights=str(folder / "no")))
    refuse("not a safetensors file", own(folder, weights=str(folder / "own.yaml")))
    other = folder / "other.safetensors"
    save_file({"1.weight": torch.zeros(8, 9)}, other)
    refuse("holds the weights of another network: Missing key", own(folder, weights=str(other)))
    lenet = {"epochs": 1}
    refuse("images of 20x20; LeNet-5 takes 28x28 or 32x32", lenet)
