"""Shapes of an optimizee's parameters, as plain data.

Two task families are congruous if and only if their parameters have the same names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

Shape = tuple[int | str, ...]
"""Sizes of a tensor without its task axis. A size that depends on the images is a string."""

Shapes = dict[str, Shape]
"""Shape of every parameter, by name."""


def mlp(widths: tuple[int | str, ...]) -> Shapes:
    """Return the shapes of an MLP.

    Args:
        widths: input, hidden and output widths.

    Returns:
        Weights ``w<l>`` (inputs, outputs) and biases ``b<l>`` (1, outputs).
    """
    shapes: Shapes = {}
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        shapes |= {f"w{layer}": (inputs, outputs), f"b{layer}": (1, outputs)}
    return shapes


def cnn(image: tuple[int, int, int], channels: tuple[int, ...], outputs: int | str) -> Shapes:
    """Return the shapes of a CNN: 3×3 convolutions with stride 2, then a linear layer.

    Args:
        image: channels, height and width.
        channels: output channels of each convolution.
        outputs: width of the linear layer.

    Returns:
        ``conv<l>`` (outputs, inputs, 3, 3), ``bias<l>`` (outputs,), ``head`` (features, outputs)
        and ``head_bias`` (1, outputs).
    """
    first, height, width = image
    shapes: Shapes = {}
    for layer, (inputs, made) in enumerate(pairwise((first, *channels))):
        shapes |= {f"conv{layer}": (made, inputs, 3, 3), f"bias{layer}": (made,)}
        height, width = (height + 1) // 2, (width + 1) // 2
    features = channels[-1] * height * width
    return shapes | {"head": (features, outputs), "head_bias": (1, outputs)}


def differences(families: Mapping[str, Shapes]) -> str:
    """Describe how the parameters of families differ; empty if the families are congruous.

    Args:
        families: parameter shapes by family name.
    """
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
