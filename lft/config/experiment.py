"""Settings of an experiment: families, methods and hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from lft.config.base import Mixture, Name, Order, Rate, Settings, put, refuse_twice
from lft.config.families import Family
from lft.config.finetuners import FINETUNERS, Tuner, TunerSettings
from lft.config.problems import explain
from lft.config.training import MamlSettings, Testing, Training, ZerothOrderSettings
from lft.errors import UsageError, suggestion
from lft.methods import METHODS, Method, get_method
from lft.metrics import Metric

FORMER = {"training.second_order": "training.estimator"}
"""Former dotted keys, which kept runs still use -> their present names."""

OF_ONE_METHOD = ("families", "finetuner", "zeroth_order", "training", "maml", "step_sizes")
"""Keys of an experiment that an override or a variant can change; methods share the others."""


class Variant(Settings):
    """A method with changed settings; a separate row in the results."""

    method: str
    label: str
    #: dotted key of the experiment, e.g. training.estimator -> value
    set: dict[str, Any] = Field(default={})


class Experiment(Settings):
    """One experiment: methods that are meta-trained and meta-tested on mixtures of families."""

    title: str
    families: dict[Name, Family]
    train_on: Annotated[tuple[Mixture, ...], Field(min_length=1)]
    test_on: Annotated[tuple[Mixture, ...], Field(min_length=1)]
    methods: tuple[str, ...] = ()
    variants: dict[Name, Variant] = Field(default={})
    #: method -> dotted key of the experiment -> value for this method only
    overrides: dict[str, dict[str, Any]] = Field(default={})
    #: method or variant -> CSV file of measurements that were made elsewhere
    measurements: dict[str, Path] = Field(default={})
    #: methods and variants of the run that the profile is ``against``; set by that key
    kept: tuple[str, ...] = ()
    #: method -> dotted key -> values to try; every combination becomes a variant
    search: dict[str, dict[str, list[Any]]] = Field(default={})
    orders: Annotated[tuple[Order, ...], Field(min_length=1)] = ("first",)
    #: settings of one kind of fine-tuner; methods with another kind use its defaults
    finetuner: Tuner | None = None
    zeroth_order: ZerothOrderSettings = ZerothOrderSettings()
    training: Training
    maml: MamlSettings | None = None  #: needed if a method learns an initialisation
    #: kind of a hand-designed fine-tuner -> step sizes to try on meta-validation tasks
    step_sizes: dict[Name, Annotated[tuple[Rate, ...], Field(min_length=1)]] = Field(default={})
    testing: Testing

    @model_validator(mode="before")
    @classmethod
    def _search_in_variants(cls, values: Any) -> Any:
        """Add a variant for every combination of the values in ``search``."""
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
    def _nothing_twice(self) -> Experiment:
        for key in ("train_on", "test_on", "methods", "orders"):
            refuse_twice(key, getattr(self, key))
        for mixture in self.train_on + self.test_on:
            refuse_twice(mixture, mixture.split("+"))
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
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics of the experiment's families, the primary metric first."""
        return next(iter(self.families.values())).metrics

    @property
    def primary(self) -> str:
        """Name of the primary metric, by which every family is judged."""
        return self.metrics[0].name

    @property
    def judged_by(self) -> tuple[str, ...]:
        """Names of the metrics that are measured after every step, the primary one first."""
        return tuple(metric.name for metric in self.metrics if not metric.first_of)

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
        for name in self.measurements:
            if name not in (*self.methods, *self.variants):
                raise ValueError(
                    f"measurements: {name!r} is not a method here; add it to 'methods'"
                )
        for name in self.variants:
            if name in METHODS:
                raise ValueError(f"variant {name!r} has the name of a method; choose another")
        return self

    @model_validator(mode="after")
    def _sections_that_methods_use(self) -> Experiment:
        for kind in self.step_sizes:
            if kind not in FINETUNERS:
                raise ValueError(f"step_sizes: unknown kind {kind!r}{suggestion(kind, FINETUNERS)}")
        for name in (*self.methods, *self.variants):
            method = self.base_method(name)
            tuner_class(method)
            if method.learns == "step_size" and method.tuner not in self.step_sizes:
                raise ValueError(f"method {name!r} needs the key 'step_sizes.{method.tuner}'")
            if method.learns == "initialisation":
                if self.maml is None:
                    raise ValueError(f"method {name!r} needs the section 'maml'")
                for order in self.orders:
                    if order not in self.maml.step_size:
                        raise ValueError(f"maml.step_size has no value for order {order!r}")
        return self

    @model_validator(mode="after")
    def _changes_that_fit(self) -> Experiment:
        for name in (*self.variants, *self.overrides):
            self.for_method(name)
        return self

    def base_method(self, name: str) -> Method:
        """Row of the method table for the name of a method or variant."""
        return get_method(self.variants[name].method if name in self.variants else name)

    def tuner(self, method: Method) -> TunerSettings:
        """Settings of a method's fine-tuner.

        Returns:
            The section ``finetuner`` if it is of the method's kind, otherwise the kind's defaults.

        Raises:
            UsageError: the kind has no defaults.
        """
        kind = tuner_class(method)
        if isinstance(self.finetuner, kind):
            return self.finetuner
        try:
            return kind.model_validate({})
        except ValidationError as error:
            raise UsageError(
                f"method {method.name!r} needs the section 'finetuner' with kind: {method.tuner} "
                f"({explain(error)})"
            ) from None

    @property
    def descent(self) -> MamlSettings:
        """The section ``maml``.

        Raises:
            UsageError: the experiment has none.
        """
        if self.maml is None:
            raise UsageError(f"experiment {self.title!r} needs the section 'maml'")
        return self.maml

    def label(self, name: str) -> str:
        """Label of a method or variant in tables and figures."""
        return self.variants[name].label if name in self.variants else get_method(name).label

    def for_method(self, name: str) -> Experiment:
        """Apply and validate the settings that a method or variant changes.

        Raises:
            ValueError: a change has an unknown key or a value that does not fit.
        """
        method = self.variants[name].method if name in self.variants else name
        changes = dict(self.overrides.get(method, {}))
        if name in self.variants:
            changes |= self.variants[name].set
        if not changes:
            return self
        what = f"variant {name!r}" if name in self.variants else f"overrides of {name!r}"
        try:
            return self.with_changes(changes, method)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None

    def with_changes(self, changes: Mapping[str, Any], method: str) -> Experiment:
        """Change settings for one method, and validate them.

        Args:
            changes: dotted key -> value.
            method: the method that they are for, in case the experiment lists none.

        Raises:
            ValueError: a key is unknown, or a value does not fit.
        """
        values = self.model_dump() | {"variants": {}, "overrides": {}, "search": {}}
        values["methods"] = self.methods or (method,)
        for dotted, value in changes.items():
            try:
                put(values, dotted, value)
            except ValueError:
                if dotted not in FORMER:
                    raise
                raise ValueError(
                    f"unknown key {dotted!r}; it is now called {FORMER[dotted]!r}"
                ) from None
            if dotted.partition(".")[0] not in OF_ONE_METHOD:
                raise ValueError(
                    f"all methods share {dotted!r}; set it in the experiment, or in an experiment "
                    "of its own"
                )
        try:
            return Experiment.model_validate(values)
        except ValidationError as error:
            raise ValueError(explain(error)) from None


def tuner_class(method: Method) -> type[TunerSettings]:
    """Settings class of a method's fine-tuner.

    Raises:
        UsageError: there is no such fine-tuner, or it does not fit what the method learns.
    """
    if method.tuner not in FINETUNERS:
        hint = suggestion(method.tuner, FINETUNERS)
        raise UsageError(f"method {method.name!r}: unknown fine-tuner {method.tuner!r}{hint}")
    kind = FINETUNERS[method.tuner]
    if kind.learned != method.learns_finetuner:
        raise UsageError(
            f"method {method.name!r}: tuner {method.tuner!r} does not go with learns "
            f"{method.learns!r}; only a learned fine-tuner has something to learn"
        )
    return kind
