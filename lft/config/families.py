"""Image sources, and the task families that draw from them."""

from __future__ import annotations

import functools
import operator
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, TypeAdapter, WrapValidator, model_validator

from lft.config.base import Name, Positive, Settings
from lft.errors import UsageError


class Source(Settings):
    """Where images come from. Every kind ends in the same checked array file."""

    kind: Literal["embedded", "torchvision", "folder"]
    name: str  #: mnist5k or photos; a torchvision class; free text for a folder
    label: str  #: shown in tables and figures
    shape: tuple[Positive, Positive, Positive]  #: channels, height, width (pixels)
    #: directory or tar of a folder source; download folder of a torchvision one
    path: Path | None = None
    stands_in_for: str | None = None  #: the paper's data set that this one replaces
    note: str | None = None  #: shown with every result, e.g. how the pixels were obtained

    @model_validator(mode="after")
    def _folder_has_path(self) -> Source:
        if self.kind == "folder" and self.path is None:
            raise ValueError("kind 'folder' needs the key 'path'")
        return self


class FamilySettings(Settings):
    """Base of the settings of a task family, whose ``kind`` names it in profiles.

    Attributes:
        tasks: ``module:class`` of the :class:`lft.tasks.base.TaskFamily`, for those of plug-ins. It
            is called with the settings and the device; if the settings have a key ``source``, with
            the settings, the :class:`lft.data.ImageSet` and its :class:`lft.tasks.pools.Pools`.
        primary: the metric by which the family is judged.
    """

    tasks: ClassVar[str] = ""
    primary: ClassVar[str]

    @property
    def image_source(self) -> str | None:
        """Name of the image source that tasks are drawn from."""
        return getattr(self, "source", None)

    def optimizee(self, image: tuple[int, int, int] | None) -> str:
        """Describes the shapes of the parameters; families are congruous iff it is equal.

        Args:
            image: channels, height and width of the source's images.
        """
        raise NotImplementedError

    @property
    def classes_per_task(self) -> int:
        """Classes of a task, whose examples follow each other in its sets; 1 without classes."""
        return 1

    def resized(self, support: int, query: int) -> Self:
        """The same tasks with sets of other sizes.

        Args:
            support: examples per class; ``query`` likewise.

        Raises:
            UsageError: the settings have no such sizes.
        """
        if not {"support", "query"} <= type(self).model_fields.keys():
            raise UsageError(
                f"{type(self).__name__} has no keys 'support' and 'query', so its tasks cannot be "
                "drawn in other sizes; override resized, or measure no theory on it"
            )
        return self.model_copy(update={"support": support, "query": query})


class SineFamily(FamilySettings):
    """Sine regression y = a sin(x + b), x in [-5, 5] (supplement G; MAML, sec. 5.1)."""

    primary = "mse"
    kind: Literal["sine"] = "sine"
    label: str = "sine"
    support: Positive  #: points
    query: Positive  #: points
    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, 3.141592653589793)  #: radians
    hidden: tuple[Positive, ...] = (40, 40)  #: MLP widths

    def optimizee(self, image: tuple[int, int, int] | None) -> str:
        return f"an MLP of widths 1-{'-'.join(map(str, self.hidden))}-1"


class ClassificationFamily(FamilySettings):
    """N-way k-shot image classification (sec. 5)."""

    primary = "accuracy"
    kind: Literal["classification"] = "classification"
    label: str | None = None  #: shown in tables and figures in place of the source's
    source: Name
    net: Literal["mlp", "cnn"]
    ways: Annotated[int, Field(ge=2)] = 2  #: classes per task
    support: Positive = 5  #: images per class
    query: Positive = 15  #: images per class
    #: one output per class of the source, or per way
    outputs: Literal["classes", "ways"] = "classes"
    widths: tuple[Positive, ...]  #: hidden widths of the mlp, channels of the cnn's conv layers

    @property
    def classes_per_task(self) -> int:
        return self.ways

    def optimizee(self, image: tuple[int, int, int] | None) -> str:
        widths = "-".join(map(str, self.widths))
        return f"{self.net} {widths} on {_size(image)} images with one output per {self.outputs}"


class AttackLoss(Settings):
    """What a universal perturbation minimises (eq. 12), and where it starts."""

    distortion_weight: Annotated[float, Field(ge=0)] = 1.0  #: lambda of eq. 12, on mean |delta|
    margin: Literal["probability", "log_probability", "logit"] = "log_probability"
    clip: bool = True  #: keep x + delta in [0, 1]
    init_scale: Annotated[float, Field(ge=0)] = 0.01  #: standard deviation of the random delta(0)


class AttackFamily(FamilySettings, AttackLoss):
    """Universal adversarial perturbation against one victim network (sec. 4, eq. 12)."""

    primary = "asr"
    kind: Literal["attack"] = "attack"
    label: str | None = None  #: shown in tables and figures in place of the source's
    source: Name
    classes: Positive = 2  #: image classes per task
    support: Positive = 2  #: images per class
    query: Positive = 2  #: images per class
    only_correct: bool = True  #: attack only images that the victim classifies correctly

    @property
    def classes_per_task(self) -> int:
        return self.classes

    def optimizee(self, image: tuple[int, int, int] | None) -> str:
        return f"a perturbation of {_size(image)} pixels"


def _size(image: tuple[int, int, int] | None) -> str:
    return "x".join(map(str, image or ()))


FAMILIES: dict[str, type[FamilySettings]] = {
    "sine": SineFamily,
    "classification": ClassificationFamily,
    "attack": AttackFamily,
}
"""Settings of task families by kind; plug-ins add theirs."""


def register_family(settings: type[FamilySettings]) -> None:
    """Add a task family of one's own.

    Raises:
        UsageError: the class is incomplete, or another family has its kind.
    """
    if not (isinstance(settings, type) and issubclass(settings, FamilySettings)):
        raise UsageError(f"a task family is a subclass of FamilySettings, not {settings!r}")
    field = settings.model_fields.get("kind")
    kind = field.default if field else None
    if not isinstance(kind, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", kind):
        raise UsageError(f"{settings.__name__} needs a field like kind: Literal['my'] = 'my'")
    for name in ("tasks", "primary"):
        if not isinstance(getattr(settings, name, None) or None, str):
            raise UsageError(f"{settings.__name__} needs a class attribute {name!r}, a text")
    if FAMILIES.setdefault(kind, settings) is not settings:
        raise UsageError(f"there is another task family of kind {kind!r}; choose another name")


def _known_family(value: Any, _handler: Any) -> Any:
    return _by_kind(tuple(FAMILIES.values())).validate_python(value)


@functools.cache
def _by_kind(families: tuple[type[FamilySettings], ...]) -> TypeAdapter[FamilySettings]:
    any_of: Any = functools.reduce(operator.or_, families)
    annotation: Any = Annotated[any_of, Field(discriminator="kind")]
    return TypeAdapter(annotation)


Family = Annotated[SerializeAsAny[FamilySettings], WrapValidator(_known_family)]
