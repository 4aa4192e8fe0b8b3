"""The section ``theory`` of a profile: measurements of the paper's theory."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from lft.config.base import Name, Positive, Settings


class GapSettings(Settings):
    """Measurement of Theorem 1's gradient gap (:mod:`lft.theory`)."""

    methods: ClassVar = ("lft",)  #: methods whose runs are measured

    experiments: tuple[Name, ...]
    #: |D_tr|, |D_new| and |D_val| in examples per class; slopes need a factor of eight or more
    #: between the smallest and the largest
    sizes: Annotated[tuple[Positive, ...], Field(min_length=2)]
    #: |D_tr| of the frozen trajectory, and size of both sets while K varies, in examples per class
    fixed_size: Positive
    steps: Annotated[tuple[Positive, ...], Field(min_length=1)]  #: fine-tuning steps K
    tasks: Positive  #: tasks per seed and point
    draws: Annotated[int, Field(ge=2, le=100, strict=True)] = 2  #: draws of each task's data
    #: examples per class that are used only to estimate sigma
    sigma_size: Annotated[int, Field(ge=2, strict=True)] = 8


class VanishingSettings(Settings):
    """Norms of MAML's and LFT's meta-gradients against K (sec. 3, remark after Statement 1)."""

    methods: ClassVar = ("lft", "maml")  #: methods whose runs are measured

    experiments: tuple[Name, ...]
    steps: Annotated[tuple[Positive, ...], Field(min_length=2)]
    tasks: Positive  #: tasks per seed


class TheorySettings(Settings):
    """Measurements of the paper's theory, made after meta-training."""

    gap: GapSettings = GapSettings(experiments=(), sizes=(1, 2), fixed_size=1, steps=(1,), tasks=1)
    vanishing: VanishingSettings = VanishingSettings(experiments=(), steps=(1, 2), tasks=1)
