"""Profiles: YAML -> validated, frozen settings. Keys, units and bounds are defined here.

A profile is complete: it names every hyper-parameter once. :func:`load_profile` refuses unknown,
duplicate, mistyped and out-of-range keys with one line that names the key and the nearest valid
key or the bound. This module does not import torch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import re
import reprlib
import types
import typing
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    WrapValidator,
    model_validator,
)

from lft import methods, plugins
from lft.errors import NotApplicable, UsageError, suggestion
from lft.methods import METHODS, Method, get_method
from lft.paths import shipped

#: An integer of at least 1.
Positive = Annotated[int, Field(ge=1, strict=True)]
#: A number above 0, at most 100.
Rate = Annotated[float, Field(gt=0, le=100)]
#: A number between 0 and 1, both excluded.
Fraction = Annotated[float, Field(gt=0, lt=1)]
#: A word of lower-case letters, digits and hyphens.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
#: Names of families, joined by ``+``.
Mixture = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*(\+[a-z0-9][a-z0-9-]*)*$")]
Order = Literal["first", "zeroth"]


_SHOWN = {"label", "note", "stands_in_for"}
"""Settings that change how results are shown, and nothing that is computed."""


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys and numbers that are not finite refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _refuse_twice(what: str, values: Sequence[Any]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{what}: {value!r} is listed twice")


def digest(settings: dict[str, Any]) -> str:
    """SHA-256 of settings, to tell whether a checkpoint or an output belongs to them."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


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


class LSTMSettings(Settings):
    """The coordinate-wise LSTM fine-tuner m_phi (eq. 3)."""

    layers: Annotated[int, Field(ge=1, le=2)] = 1
    #: cells per layer
    hidden: Annotated[int, Field(ge=1, le=1024, strict=True)] = 10
    #: log-magnitude range (Andrychowicz et al.)
    preprocess_p: Annotated[float, Field(gt=0, le=80)] = 10.0
    output_scale: Rate = 0.1  #: multiplies the output, in units of the optimizee


class ZerothOrderSettings(Settings):
    """The gradient estimate of eq. 6."""

    mu: Rate = 1e-3  #: smoothing, in units of the optimizee
    directions: Positive = 20  #: q
    shared_directions: bool = False  #: the same u_j for every task of a batch


class Validation(Settings):
    tasks: Positive  #: meta-validation tasks, per family
    rounds: Positive  #: equally spaced validations during meta-training


class Training(Settings):
    """Meta-training of L2O and LFT fine-tuners; what MAML-like methods share of it."""

    tasks: Positive  #: distinct training tasks
    epochs: Positive = 1  #: passes over them
    meta_batch: Positive  #: tasks per meta-batch
    steps: Positive  #: fine-tuning steps per task
    segment: Positive  #: steps per truncated segment; each segment gives one meta-update
    step_weights: Literal["uniform", "linear", "final"] = "uniform"  #: w_k of eq. 4, in a segment
    second_order: Literal["exact", "dropped"] = "dropped"  #: the term with dg/dtheta of eq. 8
    learning_rate: Rate  #: Adam on phi, decayed to 0 along a cosine
    clip: Annotated[float, Field(gt=0)] = 1.0  #: largest norm of the meta-gradient
    validation: Validation

    @model_validator(mode="after")
    def _whole_batches(self) -> Training:
        if self.tasks % self.meta_batch:
            raise ValueError(
                f"tasks ({self.tasks}) must be a multiple of meta_batch ({self.meta_batch})"
            )
        if self.steps % self.segment:
            raise ValueError(f"steps ({self.steps}) must be a multiple of segment ({self.segment})")
        return self

    @property
    def batches(self) -> int:
        return self.tasks // self.meta_batch


class MamlSettings(Settings):
    """Inner gradient descent of MAML, FOMAML and Reptile (eq. 2)."""

    epochs: Positive  #: passes over the training tasks
    steps: Positive  #: K during meta-training
    step_size: dict[Order, Rate]  #: alpha, for first- and zeroth-order gradients
    learning_rate: Rate  #: Adam on theta(0), decayed to 0 along a cosine


class StepSizes(Settings):
    """Grid from which SGD's and Adam's step size is picked on meta-validation tasks."""

    sgd: Annotated[tuple[Rate, ...], Field(min_length=1)]
    adam: Annotated[tuple[Rate, ...], Field(min_length=1)]


class Testing(Settings):
    tasks: Positive  #: meta-test tasks per family
    steps: Positive  #: fine-tuning steps
    every: Positive = 1  #: steps between those whose metrics are written

    @model_validator(mode="after")
    def _whole_strides(self) -> Testing:
        if self.steps % self.every:
            raise ValueError(f"steps ({self.steps}) must be a multiple of every ({self.every})")
        return self

    def written(self, step: int) -> int:
        """The last step up to ``step`` whose metrics are written."""
        return min(step, self.steps) // self.every * self.every


class Variant(Settings):
    """A method under changed settings, e.g. an ablation; a row of its own in the results."""

    method: str
    label: str
    set: dict[str, Any]  #: dotted key of the experiment, e.g. training.second_order -> value


class Experiment(Settings):
    title: str
    families: dict[Name, Family]
    train_on: Annotated[tuple[Mixture, ...], Field(min_length=1)]
    test_on: Annotated[tuple[Mixture, ...], Field(min_length=1)]
    methods: tuple[str, ...] = ()
    variants: dict[Name, Variant] = {}
    #: method -> dotted key of the experiment -> value where it differs from the others'
    overrides: dict[str, dict[str, Any]] = {}
    search: dict[str, dict[str, list[Any]]] = {}  #: method -> dotted key -> values to try
    orders: Annotated[tuple[Order, ...], Field(min_length=1)] = ("first",)
    finetuner: LSTMSettings
    zeroth_order: ZerothOrderSettings = ZerothOrderSettings()
    training: Training
    maml: MamlSettings
    step_sizes: StepSizes
    testing: Testing

    @model_validator(mode="before")
    @classmethod
    def _search_in_variants(cls, values: Any) -> Any:
        """Add a variant for each combination of the values in ``search``."""
        grids = values.get("search") if isinstance(values, dict) else None
        if not isinstance(grids, dict) or not all(isinstance(g, dict) for g in grids.values()):
            return values
        variants = dict(values.get("variants") or {})
        for method, grid in grids.items():
            if not all(isinstance(tried, list) for tried in grid.values()):
                return values
            for number, combination in enumerate(product(*grid.values()), start=1):
                chosen = dict(zip(grid, combination, strict=True))
                label = ", ".join(f"{key} {value}" for key, value in chosen.items())
                variants[f"{method}-{number}"] = {"method": method, "label": label, "set": chosen}
        return {**values, "variants": variants}

    @model_validator(mode="after")
    def _any_method(self) -> Experiment:
        if not (self.methods or self.variants):
            raise ValueError("methods must name at least one method")
        return self

    @model_validator(mode="after")
    def _step_size_for_each_order(self) -> Experiment:
        for order in self.orders:
            if order not in self.maml.step_size:
                raise ValueError(f"maml.step_size has no value for order {order!r}")
        return self

    @model_validator(mode="after")
    def _nothing_twice(self) -> Experiment:
        for key in ("train_on", "test_on", "methods", "orders"):
            _refuse_twice(key, getattr(self, key))
        for mixture in self.train_on + self.test_on:
            _refuse_twice(mixture, mixture.split("+"))
        return self

    @model_validator(mode="after")
    def _one_primary_metric(self) -> Experiment:
        primaries = {name: family.primary for name, family in self.families.items()}
        if len(set(primaries.values())) > 1:
            raise ValueError(
                f"families of one experiment need the same primary metric: {primaries}"
            )
        return self

    @property
    def primary(self) -> str:
        """The metric by which the experiment's families are judged."""
        return next(iter(self.families.values())).primary

    @model_validator(mode="after")
    def _known_names(self) -> Experiment:
        for mixture in self.train_on + self.test_on:
            names = mixture.split("+")
            if self.testing.tasks < len(names):
                raise ValueError(f"testing.tasks must be at least {len(names)}, for {mixture!r}")
            for name in names:
                if name not in self.families:
                    raise ValueError(f"unknown family {name!r}{suggestion(name, self.families)}")
        used = (*self.methods, *(variant.method for variant in self.variants.values()))
        for name in (*used, *self.overrides):
            if name not in METHODS:
                raise ValueError(f"unknown method {name!r}{suggestion(name, METHODS)}")
        for name in self.variants:
            if name in METHODS:
                raise ValueError(f"variant {name!r} has the name of a method; choose another")
        for name in (*self.variants, *self.overrides):
            self.for_method(name)
        return self

    def base_method(self, name: str) -> Method:
        """The row of the method table behind a method or variant name."""
        return get_method(self.variants[name].method if name in self.variants else name)

    def label(self, name: str) -> str:
        return self.variants[name].label if name in self.variants else get_method(name).label

    def for_method(self, name: str) -> Experiment:
        """The experiment as a method or variant sees it, its overrides applied and validated.

        Raises:
            ValueError: an override has an unknown key or a value that does not fit.
        """
        method = self.variants[name].method if name in self.variants else name
        changes = dict(self.overrides.get(method, {}))
        if name in self.variants:
            changes |= self.variants[name].set
        if not changes:
            return self
        what = f"variant {name!r}" if name in self.variants else f"overrides of {name!r}"
        values = self.model_dump() | {"variants": {}, "overrides": {}, "search": {}}
        values["methods"] = self.methods or (method,)
        for dotted, value in changes.items():
            *parents, last = dotted.split(".")
            target: Any = values
            for key in (*parents, last):
                if not isinstance(target, dict) or key not in target:
                    hint = suggestion(key, target) if isinstance(target, dict) else ""
                    raise ValueError(f"{what}: unknown key {dotted!r}{hint}")
                parent, target = target, target[key]
            parent[last] = value
        try:
            return Experiment.model_validate(values)
        except ValidationError as error:
            raise ValueError(f"{what}: {explain(error, Experiment)}") from None


class GapSettings(Settings):
    """Measurement of Theorem 1's gradient gap (:mod:`lft.theory`)."""

    experiments: tuple[Name, ...]
    #: |D_tr| and |D_val|, examples per class
    sizes: Annotated[tuple[Positive, ...], Field(min_length=2)]
    fixed_size: Positive  #: size of the other set while one varies
    steps: Annotated[tuple[Positive, ...], Field(min_length=1)]  #: fine-tuning steps K
    tasks: Positive  #: tasks per point
    draws: Annotated[int, Field(ge=2, le=100, strict=True)] = 3  #: of each task's data


class VanishingSettings(Settings):
    """Norms of MAML's and LFT's meta-gradients against K (sec. 3, remark after Statement 1)."""

    experiments: tuple[Name, ...]
    steps: Annotated[tuple[Positive, ...], Field(min_length=2)]
    tasks: Positive


class TheorySettings(Settings):
    gap: GapSettings
    vanishing: VanishingSettings


class VictimSettings(Settings):
    """Training of the LeNet-5 victims."""

    epochs: Positive
    batch: Positive = 128
    learning_rate: Rate = 1e-3  #: Adam, decayed to 0 along a cosine


class Plugins(Settings):
    """Methods, task families and figures from outside the package, each ``module:name``."""

    methods: tuple[str, ...] = ()  #: instances of lft.methods.Method
    tasks: tuple[str, ...] = ()  #: subclasses of FamilySettings
    figures: tuple[str, ...] = ()  #: functions like those of lft.report.figures


class Profile(Settings):
    name: Name
    title: str
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1)]
    device: str = "cpu"  #: cpu, cuda (a free GPU) or ``cuda:N``; never silently another
    threads: Annotated[int, Field(ge=1, le=1024, strict=True)] = 1  #: per job
    #: that a training job holds: ``one`` spreads seeds over a cluster; ``all`` starts the program
    #: once for all seeds of a cell, and trains them all again when one is added or removed
    seeds_per_job: Literal["one", "all"] = "one"
    kernel: Literal["auto", "fused", "torch"] = "auto"  #: see :data:`lft.native.Kernel`
    partition: Literal["disjoint", "paper"] = "disjoint"
    validation_share: Fraction = 0.2  #: of the training images, for meta-validation (disjoint)
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0
    sources: dict[Name, Source]
    victim: VictimSettings
    experiments: dict[Name, Experiment]
    theory: TheorySettings
    plugins: Plugins = Plugins()

    @model_validator(mode="after")
    def _known_references(self) -> Profile:
        _refuse_twice("seeds", self.seeds)
        for experiment in self.experiments.values():
            for family in experiment.families.values():
                source = family.image_source
                if source is not None and source not in self.sources:
                    raise ValueError(f"unknown source {source!r}{suggestion(source, self.sources)}")
        for name in (*self.theory.gap.experiments, *self.theory.vanishing.experiments):
            if name not in self.experiments:
                raise ValueError(f"unknown experiment {name!r}{suggestion(name, self.experiments)}")
        return self

    def experiment(self, name: str) -> Experiment:
        """Look up an experiment.

        Raises:
            UsageError: there is none of that name; the nearest one is suggested.
        """
        if name not in self.experiments:
            raise UsageError(f"unknown experiment {name!r}{suggestion(name, self.experiments)}")
        return self.experiments[name]

    def optimizee(self, family: FamilySettings) -> str:
        """Describes the shapes of a family's parameters; families are congruous iff it is equal."""
        source = family.image_source
        return family.optimizee(None if source is None else self.sources[source].shape)

    def cells(self) -> Iterator[Cell]:
        """Every cell of the result tables, applicable or not."""
        for experiment_name, experiment in self.experiments.items():
            for run in self.runs(experiment_name, applicable_only=False):
                for tested_on in experiment.test_on:
                    yield Cell(run, tested_on, self.why_not(run, tested_on))

    def runs(self, experiment_name: str, *, applicable_only: bool = True) -> Iterator[Run]:
        """One run per training mixture, method or variant, order and seed."""
        experiment = self.experiment(experiment_name)
        for trained_on in experiment.train_on:
            for method in (*experiment.methods, *experiment.variants):
                for order in experiment.orders:
                    for seed in self.seeds:
                        run = Run(experiment_name, trained_on, method, order, seed)
                        if not applicable_only or self.why_not(run) is None:
                            yield run

    def training_inputs(self, run: Run) -> dict[str, Any]:
        """Every setting that the outcome of a meta-training depends on, and nothing else."""
        experiment = self.experiment(run.experiment).for_method(run.method)
        method = self.experiment(run.experiment).base_method(run.method)
        used: dict[str, Any] = {
            "training": {"tasks", "meta_batch", "steps", "clip", "validation"},
            "maml": True,
        }
        if method.learns_finetuner:
            used = {"training": True, "finetuner": True}
        elif method.learns == "step_size":
            used = {"training": {"steps", "validation"}, "step_sizes": {method.tuner}}
        if run.order == "zeroth":
            used["zeroth_order"] = True
        return {
            "run": run._asdict(),
            "method": method.name,
            "families": self._families(experiment, run.trained_on.split("+")),
            **experiment.model_dump(mode="json", include=used),
            **self._shared(),
        }

    def evaluation_inputs(self, run: Run) -> dict[str, Any]:
        """Every setting that an evaluation depends on beside the trained weights."""
        experiment = self.experiment(run.experiment).for_method(run.method)
        return {
            "families": self._families(experiment, list(experiment.families)),
            **experiment.model_dump(mode="json", include={"testing", "test_on", "zeroth_order"}),
            **self._shared(),
        }

    def victim_inputs(self, source: str) -> dict[str, Any]:
        """Every setting that a victim depends on."""
        return {
            "victim": self.victim.model_dump(mode="json"),
            "source": self.sources[source].model_dump(mode="json", exclude=_SHOWN),
            "device": self.device,
        }

    def _families(self, experiment: Experiment, names: list[str]) -> dict[str, Any]:
        """Families with the sources they draw from."""
        result = {}
        for name in names:
            family = experiment.families[name]
            result[name] = family.model_dump(mode="json", exclude=_SHOWN)
            if family.image_source is not None:
                source = self.sources[family.image_source]
                result[name]["images"] = source.model_dump(mode="json", exclude=_SHOWN)
            if isinstance(family, AttackFamily):
                result[name]["victim"] = self.victim.model_dump(mode="json")
        return result

    def _shared(self) -> dict[str, Any]:
        return self.model_dump(
            mode="json", include={"partition", "validation_share", "device", "threads", "kernel"}
        )

    def tested_families(self, run: Run) -> list[str]:
        """Families that a run is tested on, in the mixtures that its method applies to."""
        mixtures = [
            m for m in self.experiment(run.experiment).test_on if self.why_not(run, m) is None
        ]
        return list(dict.fromkeys(name for mixture in mixtures for name in mixture.split("+")))

    @property
    def theory_experiments(self) -> list[str]:
        """Experiments that the theory is measured on."""
        return list(
            dict.fromkeys((*self.theory.gap.experiments, *self.theory.vanishing.experiments))
        )

    def theory_families(self, experiment: str) -> list[str]:
        """Families that the theory is measured on: those of the first training mixture."""
        return self.experiment(experiment).train_on[0].split("+")

    def theory_runs(self, experiment: str) -> list[Run]:
        """Runs that the theory looks at: LFT and MAML on the first training mixture."""
        trained_on = self.experiment(experiment).train_on[0]
        vanishing = experiment in self.theory.vanishing.experiments
        methods = ("lft", "maml") if vanishing else ("lft",)
        return [
            Run(experiment, trained_on, method, "first", seed)
            for method in methods
            for seed in self.seeds
        ]

    def theory_inputs(self, experiment: str) -> dict[str, Any]:
        """Every setting that the theory measurements depend on beside the trained weights."""
        used = self.experiment(experiment).for_method("lft")
        return {
            "theory": self.theory.model_dump(mode="json"),
            "families": self._families(used, self.theory_families(experiment)),
            **used.model_dump(mode="json", include={"training", "maml", "finetuner"}),
            **self._shared(),
        }

    def why_not(self, run: Run, tested_on: str | None = None) -> str | None:
        """Why a method cannot be trained on a mixture, or tested on another; None if it can."""
        experiment = self.experiment(run.experiment)
        names = run.trained_on.split("+") + (tested_on.split("+") if tested_on else [])
        optimizees = {name: self.optimizee(experiment.families[name]) for name in names}
        try:
            experiment.base_method(run.method).check_applicable(optimizees)
        except NotApplicable as refusal:
            return str(refusal)
        return None


class Run(typing.NamedTuple):
    """Identity of one meta-training; its path below ``runs/`` in a result folder."""

    experiment: str
    trained_on: str
    method: str
    order: Order
    seed: int

    @property
    def evaluation_folder(self) -> Path:
        """Where the test measurements of all seeds go, below a result folder."""
        return Path("runs", self.experiment, self.trained_on, f"{self.method}-{self.order}")

    @property
    def folder(self) -> Path:
        """Where the meta-training goes, below a result folder."""
        return self.evaluation_folder / f"seed{self.seed}"


class Cell(typing.NamedTuple):
    """One cell of a result table: a run, what it is tested on, and why it may not apply."""

    run: Run
    tested_on: str
    not_applicable: str | None


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe loader that refuses a key written twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise UsageError(f"line {line}: a key must be a plain word")
            if key in seen:
                raise UsageError(f"line {line}: key {key!r} is given twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_profile(path: Path | str) -> Profile:
    """Read and validate a profile.

    Args:
        path: a YAML file, or the name of a profile that comes with the package, e.g. ``quick``.
            Top-level keys that start with ``_`` hold YAML anchors and are dropped. With
            ``extends: other.yaml``, a path from the file's own folder, or ``extends: quick`` it
            holds only what differs from that profile; ``null`` removes a key.

    Raises:
        UsageError: a file is missing or not YAML, or a key is unknown, duplicate, mistyped or
            out of range; the message names the key and the nearest valid key or the bound.
    """
    register_installed()
    path = _profile_path(Path(path))
    try:
        return Profile.model_validate(_profile_values(path))
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error, Profile)}") from None


def _profile_values(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a profile file, merged into those of the profile that it extends."""
    values = read_yaml(path, "profile")
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a profile is a mapping of settings")
    values = {key: value for key, value in values.items() if not str(key).startswith("_")}
    if values.get("plugins") is not None:
        values["plugins"] = _plugins(values["plugins"], path)
    if "extends" not in values:
        return values
    named = Path(str(values.pop("extends")))
    base = (path.parent / named if named.suffix else _profile_path(named)).resolve()
    if base in (path.resolve(), *extended_by):
        raise UsageError(f"{path}: profile {base.name} extends itself; correct its key 'extends'")
    return _merged(_profile_values(base, (path.resolve(), *extended_by)), values)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``changes`` merged into ``base``, mapping by mapping; a key set to None is removed."""
    merged = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merged(old, value)
        merged[key] = value
    return {key: value for key, value in merged.items() if key not in changes or value is not None}


@functools.cache
def register_installed() -> None:
    """Make methods and task families of installed packages known.

    Raises:
        UsageError: one of them is broken.
    """
    _register(plugins.installed("methods"), plugins.installed("tasks"))


def _plugins(named: Any, profile: Path) -> dict[str, tuple[str, ...]]:
    """A profile's plug-ins, now known; their references hold module names in place of paths."""
    try:
        references = Plugins.model_validate(named).model_dump().items()
        located = {
            group: tuple(
                plugins.located(reference, profile.parent) for reference in group_references
            )
            for group, group_references in references
        }
        _register(located["methods"], located["tasks"])
    except ValidationError as error:
        raise UsageError(f"{profile}: plugins.{explain(error, Plugins)}") from None
    except UsageError as error:
        raise UsageError(f"{profile}: {error}") from None
    return located


def _register(rows: Iterable[str], families: Iterable[str]) -> None:
    for reference in rows:
        methods.register(plugins.load_object(reference))
    for reference in families:
        register_family(plugins.load_object(reference))


def _profile_path(path: Path) -> Path:
    """The file of a profile given by name or by path."""
    if path.suffix or path.exists() or len(path.parts) > 1:
        return path
    known = {file.stem: file for file in sorted(shipped("workflow", "config").glob("*.yaml"))}
    if path.name not in known:
        hint = suggestion(path.name, known)
        raise UsageError(f"there is neither a file {path} nor a profile of that name{hint}")
    return known[path.name]


def read_yaml(path: Path, what: str) -> Any:
    """Read a YAML file; ``what`` names it in errors.

    Raises:
        UsageError: the file is missing or not YAML, or a key is given twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except OSError as error:
        raise UsageError(f"cannot read {what} {path}: {error.strerror}") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (yaml.YAMLError, AttributeError, LookupError, RecursionError, ValueError) as error:
        # PyYAML lets errors of its constructors through, e.g. ValueError for the date 2020-13-01.
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def explain(error: ValidationError, validated: type[BaseModel]) -> str:
    """The first problem of a validation, in one line, with the nearest key for a misspelt one."""
    problem = min(error.errors(), key=lambda item: item["type"] == "missing")
    location = [
        str(part)
        for index, part in enumerate(problem["loc"])
        if index < 2 or problem["loc"][index - 2] != "families"  # pydantic inserts the kind there
    ]
    where = " ".join(".".join(location).split()) or validated.__name__.lower()
    if problem["type"] == "extra_forbidden":
        model = _model_at(validated, problem["loc"][:-1])
        return (
            f"unknown key {where!r}{suggestion(location[-1], model.model_fields if model else ())}"
        )
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    if problem["type"] == "union_tag_not_found":
        return f"key '{where}.kind' is missing"
    if problem["type"] == "union_tag_invalid":
        kinds = problem["ctx"]["expected_tags"].replace("'", "").split(", ")
        kind = problem["ctx"]["tag"]
        return f"{where}.kind: unknown kind {kind!r}{suggestion(kind, kinds)}"
    message = problem["msg"].removeprefix("Value error, ")
    given = (
        "" if problem["type"] == "value_error" else f" (given: {reprlib.repr(problem['input'])})"
    )
    return f"{where}: {message[0].lower()}{message[1:]}{given}"


def _model_at(annotation: Any, location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The settings class at a location of a validation error."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _model_at(typing.get_args(annotation)[0], location)
    if annotation is FamilySettings and location:
        return _model_at(FAMILIES.get(str(location[0])), location[1:])
    if origin in (types.UnionType, typing.Union):
        members = [member for member in typing.get_args(annotation) if isinstance(member, type)]
        return next((found for m in members if (found := _model_at(m, location))), None)
    if origin is dict:
        return _model_at(typing.get_args(annotation)[1], location[1:])
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return None
    if not location:
        return annotation
    field = annotation.model_fields.get(str(location[0]))
    return _model_at(field.annotation, location[1:]) if field else None
