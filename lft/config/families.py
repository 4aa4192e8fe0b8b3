"""Settings of task families; :mod:`lft.tasks` has their tasks and losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

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
    """Base of the settings of task families; profiles name them by ``kind``.

    A subclass defines a field ``kind``, as in ``kind: Literal["my"] = "my"``, the fields
    ``support`` and ``query``, and the methods :meth:`shapes` and :meth:`build`. Its module must not
    import torch.

    Attributes:
        metrics: metrics of its tasks; the first is the primary metric, by which they are judged.
        pictures: whether the report can show the tasks as pictures; see
            :meth:`lft.tasks.base.TaskFamily.pictures`.
    """

    metrics: ClassVar[tuple[Metric, ...]] = ()
    pictures: ClassVar[bool] = False

    kind: str

    @property
    def primary(self) -> str:
        """Name of the primary metric, by which tasks are judged."""
        return self.metrics[0].name

    @property
    def image_source(self) -> str | None:
        """Name of the image source that tasks draw from, if any."""
        return getattr(self, "source", None)

    @property
    def victim_source(self) -> str | None:
        """Name of the image source whose victim the tasks attack, if any."""
        return None

    @property
    def classes_per_task(self) -> int:
        """Number of classes in a task; 1 if examples have no classes.

        Each class has ``support`` and ``query`` examples, which are contiguous in the two sets.
        """
        return 1

    @property
    def chance(self) -> float | None:
        """Primary metric of random guessing among a task's classes; None if that has no meaning."""
        return None

    def resized(self, *, support: int, query: int) -> Self:
        """Copy the settings with other set sizes.

        Args:
            support: examples per class, or points, in the support set.
            query: the same for the query set.

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
        """Check that tasks can be drawn from a source's images.

        Raises:
            ValueError: they cannot; the message begins with the source's key that is at fault.
        """

    def shapes(self, source: Source | None) -> Shapes:
        """Shapes of a task's parameters; congruous families have equal shapes (sec. 2).

        Args:
            source: the image source; None if the family has none.
        """
        raise NotImplementedError

    def build(self, context: Context) -> TaskFamily:
        """Build the task family.

        Args:
            context: the device and the prepared images, pools and victims.

        Raises:
            UsageError: prepared files are missing or damaged, or there are too few images.
        """
        raise NotImplementedError


FAMILIES = Kinds("task family", FamilySettings)
"""Settings of task families by kind; plug-ins add theirs."""

Family = Annotated[SerializeAsAny[FamilySettings], FAMILIES]


def register_family(settings: type[FamilySettings]) -> type[FamilySettings]:
    """Register a task family and its metrics; usable as a decorator.

    Raises:
        UsageError: the class is incomplete, or its kind is taken.
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
    support: Positive  #: points per task
    query: Positive  #: points per task
    amplitude: tuple[float, float] = (0.1, 5.0)  #: range of a
    phase: tuple[float, float] = (0.0, 3.141592653589793)  #: range of b, radians
    hidden: tuple[Positive, ...] = (40, 40)  #: hidden widths of the MLP
    activation: Literal["relu", "tanh"] = "relu"  #: tanh has no native kernel

    def shapes(self, source: Source | None) -> Shapes:
        """See :meth:`FamilySettings.shapes`."""
        return mlp((1, *self.hidden, 1))

    def build(self, context: Context) -> TaskFamily:
        """See :meth:`FamilySettings.build`."""
        from lft.tasks.sine import Sine

        return Sine(self, context.device, context.kernel)


class ImageFamily(FamilySettings):
    """Base of the settings of families whose tasks draw from an image source."""

    label: str | None = None  #: shown in tables and figures instead of the source's label
    source: Name  #: name of the image source

    def check(self, source: Source) -> None:
        """See :meth:`FamilySettings.check`; a task needs enough classes."""
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
    #: whether the network has one output per class of the source or one per way
    outputs: Literal["classes", "ways"] = "classes"
    widths: tuple[Positive, ...]  #: hidden widths of the MLP, or channels of the CNN's convolutions
    standardise: bool = True  #: subtract the mean of the source's pixels, divide by their deviation
    #: normalise the CNN's channels over the images of a task's set, as MAML does; no native kernel
    normalise: bool = False

    @model_validator(mode="after")
    def _normalised(self) -> Self:
        if self.normalise and self.net != "cnn":
            raise ValueError(f"normalise: only a CNN has channels, net is {self.net!r}")
        return self

    @property
    def classes_per_task(self) -> int:
        """See :meth:`FamilySettings.classes_per_task`."""
        return self.ways

    @property
    def chance(self) -> float:
        """Accuracy of random guessing, 1 / ways."""
        return 1 / self.ways

    def shapes(self, source: Source | None) -> Shapes:
        """See :meth:`FamilySettings.shapes`."""
        assert source is not None
        outputs = self.ways if self.outputs == "ways" else source.n_classes
        channels, height, width = source.shape
        if self.net == "mlp":
            return mlp((channels * height * width, *self.widths, outputs))
        return cnn(source.shape, self.widths, outputs)

    def build(self, context: Context) -> TaskFamily:
        """See :meth:`FamilySettings.build`."""
        from lft.tasks.classification import Classification

        images = context.images(self.source)
        return Classification(self, images, context.pools(self.source), context.kernel)


class AttackLoss(Settings):
    """Loss of a universal perturbation (eq. 12) and scale of its random start."""

    distortion_weight: Annotated[float, Field(ge=0)] = 1.0  #: lambda of eq. 12, on mean |delta|
    #: score of which the margin of eq. 12 is a difference
    margin: Literal["probability", "log_probability", "logit"] = "log_probability"
    clip: bool = True  #: keep x + delta in [0, 1]
    start: Literal["normal", "uniform"] = "normal"  #: distribution of delta(0)
    #: standard deviation of a normal delta(0), largest |delta(0)| of a uniform one
    init_scale: Annotated[float, Field(ge=0)] = 0.01


@register_family
class AttackFamily(ImageFamily, AttackLoss):
    """Universal adversarial perturbations against one victim (sec. 4, eq. 12)."""

    metrics = (ASR, DISTORTION, FIRST_FULL)
    pictures = True
    kind: Literal["attack"] = "attack"
    classes: Positive = 2  #: image classes per task
    support: Positive = 2  #: images per class
    query: Positive = 2  #: images per class
    only_correct: bool = True  #: draw only images that the victim classifies correctly

    @property
    def victim_source(self) -> str:
        """See :meth:`FamilySettings.victim_source`."""
        return self.source

    @property
    def classes_per_task(self) -> int:
        """See :meth:`FamilySettings.classes_per_task`."""
        return self.classes

    def shapes(self, source: Source | None) -> Shapes:
        """See :meth:`FamilySettings.shapes`."""
        assert source is not None
        return {"delta": source.shape}

    def build(self, context: Context) -> TaskFamily:
        """See :meth:`FamilySettings.build`."""
        from lft.tasks.attack import Attack

        victim = context.victim(self.source)
        keep = context.correct(self.source) if self.only_correct else None
        return Attack(self, victim, context.pools(self.source, keep))
