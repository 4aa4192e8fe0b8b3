"""Shapes of an optimizee's parameters, as data.

Two task families are congruous if and only if their parameters' shapes are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

Shape = tuple[int | str, ...]
"""Sizes of a tensor without its task axis. A size that only the images tell is a text."""

Shapes = dict[str, Shape]
"""Shape of every parameter by its name."""


def mlp(widths: tuple[int | str, ...]) -> Shapes:
    """An MLP's weights ``w<l>`` (inputs, outputs) and biases ``b<l>`` (1, outputs).

    Args:
        widths: input, hidden and output widths.
    """
    shapes: Shapes = {}
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        shapes |= {f"w{layer}": (inputs, outputs), f"b{layer}": (1, outputs)}
    return shapes


def cnn(image: tuple[int, int, int], channels: tuple[int, ...], outputs: int | str) -> Shapes:
    """A CNN of 3×3 convolutions of stride 2 and a linear layer: ``conv<l>`` (outputs, inputs, 3,
    3), ``bias<l>`` (outputs,), ``head`` (features, outputs), ``head_bias`` (1, outputs).

    Args:
        image: channels, height and width.
        channels: output channels of each convolution.
    """
    first, height, width = image
    shapes: Shapes = {}
    for layer, (inputs, made) in enumerate(pairwise((first, *channels))):
        shapes |= {f"conv{layer}": (made, inputs, 3, 3), f"bias{layer}": (made,)}
        height, width = (height + 1) // 2, (width + 1) // 2
    features = channels[-1] * height * width
    return shapes | {"head": (features, outputs), "head_bias": (1, outputs)}


def differences(families: Mapping[str, Shapes]) -> str:
    """In what the parameters of several families differ, in words; empty if they are congruous."""
    first = next(iter(families.values()))
    if all(shapes == first for shapes in families.values()):
        return ""
    same = {
        name
        for name in first
        if all(shapes.get(name) == first[name] for shapes in families.values())
    }
    return "; ".join(
        f"{family} has {_words({n: s for n, s in shapes.items() if n not in same})}"
        for family, shapes in families.items()
    )


def _words(shapes: Shapes, most: int = 3) -> str:
    words = [f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items()]
    return ", ".join(words[:most] + ["…"] * (len(words) > most)) or "no other"
