"""A method with a fine-tuner of its own. This file does not import torch, to stay light."""

from lft.methods import Method

METHOD = Method(
    name="example-name",
    label="Example name",
    color="#8C564B",
    learns="finetuner",
    tuner=f"{__name__}.tuner:ExampleName",
)
