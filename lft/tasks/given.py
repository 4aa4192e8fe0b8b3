"""Victims other than LeNet-5: torchvision's networks or custom ones, with weights from a file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lft import plugins
from lft.errors import UsageError
from lft.tasks.victim import Victim


class Given(Victim):
    """A network trained elsewhere.

    Args:
        model: ``torchvision/<name>``, or ``module:function``; the function takes the number of
            classes.
        shape: channels, height and width of the images; pixels are in [0, 1].
        n_classes: number of outputs.

    Raises:
        UsageError: there is no such network, or it does not map such images to logits.
    """

    def __init__(self, model: str, shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # keep the global generator's state
            self.network = _built(model, n_classes)
        self.eval()
        size = "x".join(map(str, shape))
        try:
            with torch.no_grad():
                found = tuple(self.network(torch.zeros(2, *shape)).shape)
        except Exception as error:  # the network's code may raise anything
            reason = " ".join(str(error).split())
            raise UsageError(f"victim {model!r} rejects images of {size} ({reason})") from None
        if found != (2, n_classes):
            raise UsageError(
                f"victim {model!r} returns {'x'.join(map(str, found))} for two images of {size}, "
                f"not logits of {n_classes} classes"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) for images (n, C, H, W)."""
        logits: Tensor = self.network(images)
        return logits


def _built(model: str, n_classes: int) -> nn.Module:
    place, _, name = model.partition("/")
    if place == "torchvision":
        from torchvision.models import get_model

        try:
            network: nn.Module = get_model(name, weights=None, num_classes=n_classes)
        except ValueError:
            raise UsageError(f"torchvision has no model {name!r}; correct victim.model") from None
        return network
    make = plugins.load_object(model)
    try:
        found = make(n_classes)
    except Exception as error:  # a plug-in's code may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UsageError(f"victim {model!r} cannot be built ({reason})") from error
    if not isinstance(found, nn.Module):
        raise UsageError(
            f"victim {model!r} returns a {type(found).__name__}, not a torch.nn.Module"
        )
    return found


def read_weights(victim: Given, path: Path) -> None:
    """Load a ``state_dict`` that ``safetensors.torch.save_file`` wrote.

    Raises:
        UsageError: the file is missing, unreadable or not a safetensors file, or its weights do not
            fit the network.
    """
    try:
        victim.network.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise UsageError(f"{path} is missing; victim.weights names the victim's weights") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise UsageError(f"{path} is not a safetensors file ({error})") from None
    except RuntimeError as error:
        _, *problems = str(error).split("\n\t")
        reason = " ".join(problems[0].split()) if problems else str(error)
        raise UsageError(f"{path} holds the weights of another network: {reason:.200}") from None
