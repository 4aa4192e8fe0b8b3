"""Victims other than LeNet-5: networks of torchvision or of one's own, with weights from a file."""

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
    """A network that was trained elsewhere.

    Args:
        model: ``torchvision/<name>``, or ``module:function``, which is called with the number of
            classes.
        shape: channels, height and width of the images, which it sees in [0, 1].
        n_classes: outputs.

    Raises:
        UsageError: there is no such network, or it does not turn such images into logits.
    """

    def __init__(self, model: str, shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # its random weights are replaced
            self.network = _built(model, n_classes)
        self.eval()
        size = "x".join(map(str, shape))
        try:
            with torch.no_grad():
                found = tuple(self.network(torch.zeros(2, *shape)).shape)
        except Exception as error:  # whatever the network's own code raises
            reason = " ".join(str(error).split())
            raise UsageError(f"victim {model!r} takes no images of {size} ({reason})") from None
        if found != (2, n_classes):
            raise UsageError(
                f"victim {model!r} makes {'x'.join(map(str, found))} of two images of {size}, not "
                f"logits of {n_classes} classes"
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
    except Exception as error:  # whatever a plug-in's own code raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UsageError(f"victim {model!r} cannot be built ({reason})") from error
    if not isinstance(found, nn.Module):
        raise UsageError(f"victim {model!r} makes a {type(found).__name__}, not a torch.nn.Module")
    return found


def read_weights(victim: Given, path: Path) -> None:
    """Give a network the weights of a safetensors file, as ``safetensors.torch.save_file`` writes
    a ``state_dict``.

    Raises:
        UsageError: the file is missing or no safetensors file, or holds other weights.
    """
    try:
        victim.network.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise UsageError(f"{path} is missing; victim.weights names the victim's weights") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise UsageError(f"{path} is no safetensors file ({error})") from None
    except RuntimeError as error:
        _, *problems = str(error).split("\n\t")
        reason = " ".join(problems[0].split()) if problems else str(error)
        raise UsageError(f"{path} holds weights of another network: {reason:.200}") from None
