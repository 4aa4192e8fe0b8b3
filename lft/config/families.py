"""The settings of task families: what each is, of which shapes, and how it is built.

Tasks and losses are the modules of :mod:`lft.tasks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny

from lft import metrics as table
from lft.config.base import Name, Positive, Settings
from lft.config.kinds import Kinds
from lft.config.sources import Source
from lft.errors import UsageError
from lft.metrics import ACCURACY, ASR, DISTORTION, FIRST_FULL, MSE, Metric
from lft.shapes import Shapes, cnn, mlp

if TYPE_CHECKING:
    from lft.tasks.base import TaskFamily
    from lft.tasks.build import Context


class FamilySettings(Settings):
    """Base of the settings of a task family, whose ``kind`` names it in profiles.

    A subclass has a field ``kind``, as in ``kind: Literal["my"] = "my"``, the fields ``support``
    and ``query``, and the methods :meth:`shapes` and :meth:`build`. It does not import torch.

    Attributes:
        metrics: what its tasks are measured by. Tasks are judged by the first, the primary metric.
        pictures: whether the tasks can be shown as pictures, see
            :meth:`lft.tasks.base.TaskFamily.pictures`.
    """

    metrics: ClassVar[tuple[Metric, ...]] = ()
    pictures: ClassVar[bool] = False

    kind: str

    @property
    def primary(self) -> str:
        """Name of the metric that tasks are judged by."""
        return self.metrics[0].name

    @property
    def image_source(self) -> str | None:
        """Name of the image source that tasks are drawn from."""
        return getattr(self, "source", None)

    @property
    def victim_source(self) -> str | None:
        """Name of the image source whose victim the tasks attack."""
        return None

    @property
    def classes_per_task(self) -> int:
        """Classes of a task, each with ``support`` and ``query`` examples, which follow each other
        in its sets; 1 where examples have no classes."""
        return 1

    @property
    def chance(self) -> float | None:
        """The primary metric of a guess among a task's classes; None where there is no guessing."""
        return None

    def resized(self, *, support: int, query: int) -> Self:
        """The same tasks with other sets.

        Args:
            support: examples per class, or points, in the support set; ``query`` likewise.

        Raises:
            UsageError: the family has no such fields.
        """
        if not {"support", "query"} <= set(type(self).model_fields):
            raise UsageError(
                f"tasks of kind {self.kind!r} cannot be resized: their settings need the "
                "fields 'support' and 'query'"
            )
        return self.model_copy(update={"support": support, "query": query})

    def check(self, source: Source) -> None:
        """Refuse images that the tasks cannot be made of.

        Raises:
            ValueError: these cannot; the message begins with the source's key that is at fault.
        """

    def shapes(self, source: Source | None) -> Shapes:
        """Shapes of a task's parameters; families are congruous iff they are equal (sec. 2).

        Args:
            source: the image source, None if the family has none.
        """
        raise NotImplementedError

    def build(self, context: Context) -> TaskFamily:
        """The family that tasks are drawn from.

        Args:
            context: the device, and what was prepared: images, their pools and victims.

        Raises:
            UsageError: prepared files are missing or damaged, or there are too few images.
        """
        raise NotImplementedError


FAMILIES = Kinds("task family", FamilySettings)
"""Settings of task families by kind; plug-ins add theirs."""

Family = Annotated[SerializeAsAny[FamilySettings], FAMILIES]


def register_family(settings: type[FamilySettings]) -> type[FamilySettings]:
    """Add a task family, and its metrics; usable as a decorator.

    Raises:
        UsageError: the class is incomplete, or another family has its kind.
    """
    FAMILIES.check(settings)
    if not settings.metrics:
        raise UsageError(
            f"{settings.__name__} needs the class attribute 'metrics', a tuple of "
            "lft.metrics.Metric, the primary one first"
        )
    for metric in settings.metrics:
        table.register(metric)
    return FAMILIES.register(settings)


@register_family
class SineFamily(FamilySettings):
    """Sine regression y = a sin(x + b), x in [-5, 5] (supplement G; MAML, sec. 5.1)."""

    metrics = (MSE,)
    kind: Literal["sine"] = "sine"
    label: str = "sine"
    support: Positive  #: points
    query: Positive  #: points
    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, 3.141592653589793)  #: radians
    hidden: tuple[Positive, ...] = (40, 40)  #: MLP widths

    def shapes(self, source: Source | None) -> Shapes:
        return mlp((1, *self.hidden, 1))

    def build(self, context: Context) -> TaskFamily:
        from lft.tasks.sine import Sine

        return Sine(self, context.device, context.kernel)


class ImageFamily(FamilySettings):
    """Base of families whose tasks are drawn from an image source."""

    label: str | None = None  #: shown in tables and figures in place of the source's
    source: Name

    def check(self, source: Source) -> None:
        classes = source.n_classes
        if isinstance(classes, int) and classes < self.classes_per_task:
            raise ValueError(f"classes: {classes}, but a task needs {self.classes_per_task}")


@register_family
class ClassificationFamily(ImageFamily):
    """N-way k-shot image classification (sec. 5)."""

    metrics = (ACCURACY,)
    kind: Literal["classification"] = "classification"
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

    @property
    def chance(self) -> float:
        return 1 / self.ways

    def shapes(self, source: Source | None) -> Shapes:
        assert source is not None
        outputs = self.ways if self.outputs == "ways" else source.n_classes
        channels, height, width = source.shape
        if self.net == "mlp":
            return mlp((channels * height * width, *self.widths, outputs))
        return cnn(source.shape, self.widths, outputs)

    def build(self, context: Context) -> TaskFamily:
        from lft.tasks.classification import Classification

        images = context.images(self.source)
        return Classification(self, images, context.pools(self.source), context.kernel)


class AttackLoss(Settings):
    """What a universal perturbation minimises (eq. 12), and where it starts."""

    distortion_weight: Annotated[float, Field(ge=0)] = 1.0  #: lambda of eq. 12, on mean |delta|
    margin: Literal["probability", "log_probability", "logit"] = "log_probability"
    clip: bool = True  #: keep x + delta in [0, 1]
    init_scale: Annotated[float, Field(ge=0)] = 0.01  #: standard deviation of the random delta(0)


@register_family
class AttackFamily(ImageFamily, AttackLoss):
    """Universal adversarial perturbation against one victim network (sec. 4, eq. 12)."""

    metrics = (ASR, DISTORTION, FIRST_FULL)
    pictures = True
    kind: Literal["attack"] = "attack"
    classes: Positive = 2  #: image classes per task
    support: Positive = 2  #: images per class
    query: Positive = 2  #: images per class
    only_correct: bool = True  #: attack only images that the victim classifies correctly

    @property
    def victim_source(self) -> str:
        return self.source

    @property
    def classes_per_task(self) -> int:
        return self.classes

    def shapes(self, source: Source | None) -> Shapes:
        assert source is not None
        return {"delta": source.shape}

    def build(self, context: Context) -> TaskFamily:
        from lft.tasks.attack import Attack

        victim = context.victim(self.source)
        keep = context.correct(self.source) if self.only_correct else None
        return Attack(self, victim, context.pools(self.source, keep))
