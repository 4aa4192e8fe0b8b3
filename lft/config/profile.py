"""A complete profile, its runs and cells, and the settings on which each of them depends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from lft.config.base import SHOWN, Fraction, Name, Order, Settings, refuse_twice
from lft.config.experiment import Experiment
from lft.config.families import FamilySettings
from lft.config.sources import Source
from lft.config.theory import GapSettings, TheorySettings, VanishingSettings
from lft.config.universes import UniverseSettings
from lft.config.victims import VictimSettings
from lft.errors import NotApplicable, UsageError, suggestion
from lft.methods import get_method
from lft.shapes import Shapes

ALL = "all"
"""Used instead of a method's name when one job evaluates all methods trained on a mixture."""


#: JavaScript, which reads seeds in the page, represents integers exactly only below 2^53.
Seed = Annotated[int, Field(ge=0, lt=2**53, strict=True)]


class Plugins(Settings):
    """Fine-tuners, methods, families and figures from outside the package, as ``module:name``."""

    finetuners: tuple[str, ...] = ()  #: subclasses of LearnedTuner or HandDesignedTuner
    methods: tuple[str, ...] = ()  #: instances of lft.methods.Method
    tasks: tuple[str, ...] = ()  #: subclasses of FamilySettings
    figures: tuple[str, ...] = ()  #: functions like those of lft.report.figures


class Profile(Settings):
    """A profile: every setting of a run of the suite."""

    name: Name
    title: str
    #: profile with whose kept run this profile's methods are compared, e.g. ``reference``; its
    #: settings are used, and only the methods named here are trained and measured
    against: Name | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    device: str = "cpu"  #: cpu, cuda (a free GPU) or ``cuda:N``; never silently another
    threads: Annotated[int, Field(ge=1, le=1024, strict=True)] = 1  #: threads per job
    #: seeds per job: ``one`` spreads seeds over a cluster; ``all`` starts the program only once for
    #: all seeds of a cell, but recomputes them all when a seed is added or removed
    seeds_per_job: Literal["one", "all"] = "one"
    #: methods per evaluation job; ``all`` starts the program once for all methods of a mixture
    methods_per_job: Literal["one", "all"] = "one"
    kernel: Literal["auto", "fused", "torch"] = "auto"  #: see :data:`lft.kernels.build.Kernel`
    #: division of images between phases; see :class:`lft.tasks.pools.Pools`
    partition: Literal["disjoint", "paper"] = "disjoint"
    #: share of the training images for meta-validation (``disjoint``)
    validation_share: Fraction = 0.2
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0  #: seconds between checkpoints
    sources: dict[Name, Source] = Field(default={})
    victim: VictimSettings | None = None  #: needed if tasks attack victims
    experiments: dict[Name, Experiment]
    theory: TheorySettings = TheorySettings()
    universes: UniverseSettings | None = None  #: run many readings of the paper instead of one
    #: numbers to which the settings were fitted; such a profile gives no verdicts
    fitted: str | None = None
    plugins: Plugins = Plugins()

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise ValueError(f"{device!r}; use cpu, cuda or cuda:N")
        return device

    @model_validator(mode="after")
    def _known_references(self) -> Profile:
        refuse_twice("seeds", self.seeds)
        for name, experiment in self.experiments.items():
            if ALL in (*experiment.methods, *experiment.variants):
                raise ValueError(f"no method or variant can be called {ALL!r}; rename it")
            for family in experiment.families.values():
                self._check_family(name, family)
        for section in ("gap", "vanishing"):
            self._check_theory(section)
        if self.universes is not None:
            self.universes.check(self.experiments, len(self.seeds))
        return self

    def _check_theory(self, section: str) -> None:
        """Check that the profile trains every run that a section of ``theory`` measures."""
        measured: GapSettings | VanishingSettings = getattr(self.theory, section)
        for name in measured.experiments:
            if name not in self.experiments:
                raise ValueError(f"unknown experiment {name!r}{suggestion(name, self.experiments)}")
            for method in measured.methods:
                advice = self._how_to_train(name, method)
                if advice is not None:
                    raise ValueError(
                        f"theory.{section} needs {method!r} trained in experiment {name!r}: "
                        f"{advice}, or take {name!r} out of theory.{section}.experiments"
                    )

    def _how_to_train(self, name: str, method: str) -> str | None:
        """Return advice if a method has no first-order run on the first mixture, else None."""
        experiment = self.experiments[name]
        if method not in experiment.methods:
            return "add it to 'methods'"
        if method in experiment.measurements:
            return "take it out of 'measurements'"
        if "first" not in experiment.orders:
            return "add 'first' to 'orders'"
        run = Run(name, experiment.train_on[0], method, "first", self.seeds[0])
        if self.why_not(run) is not None:
            return "list a mixture of congruous families first in 'train_on'"
        return None

    def _check_family(self, experiment: str, family: FamilySettings) -> None:
        source = family.image_source
        if source is not None and source not in self.sources:
            raise ValueError(f"unknown source {source!r}{suggestion(source, self.sources)}")
        if family.victim_source is not None and self.victim is None:
            raise ValueError(f"key 'victim' is missing, which experiment {experiment!r} needs")
        images = self._images(family)
        if images is not None:
            try:
                family.check(images)
                if family.victim_source is not None:
                    self.victims.check(images)
            except ValueError as error:
                raise ValueError(f"sources.{source}.{error} (experiment {experiment!r})") from None

    @property
    def victims(self) -> VictimSettings:
        """The section ``victim``.

        Raises:
            UsageError: the profile has none.
        """
        if self.victim is None:
            raise UsageError(f"profile {self.name!r} needs the section 'victim'")
        return self.victim

    def experiment(self, name: str) -> Experiment:
        """Look up an experiment by name.

        Raises:
            UsageError: no experiment has that name; the message suggests the nearest one.
        """
        if name not in self.experiments:
            raise UsageError(f"unknown experiment {name!r}{suggestion(name, self.experiments)}")
        return self.experiments[name]

    def shapes(self, family: FamilySettings) -> Shapes:
        """Shapes of a family's parameters; congruous families have equal shapes."""
        return family.shapes(self._images(family))

    def _images(self, family: FamilySettings) -> Source | None:
        return None if family.image_source is None else self.sources[family.image_source]

    def cells(self) -> Iterator[Cell]:
        """Yield every cell of the result tables, applicable or not."""
        for experiment_name, experiment in self.experiments.items():
            for run in self.runs(experiment_name, applicable_only=False):
                for tested_on in experiment.test_on:
                    yield Cell(run, tested_on, self.why_not(run, tested_on))

    def runs(self, experiment_name: str, *, applicable_only: bool = True) -> Iterator[Run]:
        """Yield one run per training mixture, method or variant, order and seed."""
        experiment = self.experiment(experiment_name)
        for trained_on in experiment.train_on:
            for method in (*experiment.methods, *experiment.variants):
                for order in experiment.orders:
                    for seed in self.seeds:
                        run = Run(experiment_name, trained_on, method, order, seed)
                        if not applicable_only or self.why_not(run) is None:
                            yield run

    def own_runs(self, experiment_name: str) -> Iterator[Run]:
        """Yield the runs that have jobs: all whose measurements were not made elsewhere."""
        given = self.experiment(experiment_name).measurements
        return (run for run in self.runs(experiment_name) if run.method not in given)

    def is_kept(self, run: Run) -> bool:
        """Whether a run comes from the kept run that the profile is ``against``."""
        return self.against is not None and run.method in self.experiment(run.experiment).kept

    def victim_seed(self, seed: int) -> int | None:
        """Seed of the victims that a run with this seed attacks; None if all seeds share them."""
        return seed if self.victims.per_seed else None

    @property
    def victim_seeds(self) -> tuple[int | None, ...]:
        """Seeds of the victims to train; a single None if all seeds share them."""
        return self.seeds if self.victim is not None and self.victim.per_seed else (None,)

    def training_inputs(self, run: Run) -> dict[str, Any]:
        """Exactly the settings on which the outcome of a meta-training depends."""
        experiment = self.experiment(run.experiment).for_method(run.method)
        method = self.experiment(run.experiment).base_method(run.method)
        used: dict[str, Any] = {
            "training": {"tasks", "meta_batch", "steps", "step_weights", "clip", "validation"},
            "maml": True,
        }
        if method.learns_finetuner:
            used = {"training": True}
        elif method.learns == "step_size":
            used = {
                "training": {"steps", "step_weights", "validation"},
                "step_sizes": {method.tuner},
            }
        if run.order == "zeroth":
            used["zeroth_order"] = True
        return {
            "run": run._asdict(),
            "method": method.name,
            "families": self._families(experiment, run.trained_on.split("+")),
            "finetuner": experiment.tuner(method).model_dump(mode="json"),
            **experiment.model_dump(mode="json", include=used),
            **self._shared(),
        }

    def evaluation_inputs(self, run: Run) -> dict[str, Any]:
        """The settings, besides the trained weights, on which an evaluation depends."""
        experiment = self.experiment(run.experiment).for_method(run.method)
        return {
            "families": self._families(experiment, list(experiment.families)),
            **experiment.model_dump(mode="json", include={"testing", "test_on", "zeroth_order"}),
            **self._shared(),
        }

    def victim_inputs(self, source: str) -> dict[str, Any]:
        """The settings on which a victim depends."""
        return {
            "victim": self.victims.model_dump(mode="json"),
            "source": self.sources[source].model_dump(mode="json", exclude=SHOWN),
            "device": self.device,
        }

    def _families(self, experiment: Experiment, names: list[str]) -> dict[str, Any]:
        """Settings of families, with those of their image sources and victims."""
        result = {}
        for name in names:
            family = experiment.families[name]
            result[name] = family.model_dump(mode="json", exclude=SHOWN)
            images = self._images(family)
            if images is not None:
                result[name]["images"] = images.model_dump(mode="json", exclude=SHOWN)
            if family.victim_source is not None:
                result[name]["victim"] = self.victims.model_dump(mode="json")
        return result

    def _shared(self) -> dict[str, Any]:
        return self.model_dump(
            mode="json", include={"partition", "validation_share", "device", "threads", "kernel"}
        )

    def tested_families(self, run: Run) -> list[str]:
        """Families of the test mixtures to which a run's method applies."""
        mixtures = [
            m for m in self.experiment(run.experiment).test_on if self.why_not(run, m) is None
        ]
        return list(dict.fromkeys(name for mixture in mixtures for name in mixture.split("+")))

    @property
    def theory_experiments(self) -> list[str]:
        """Experiments on which the theory is measured."""
        return list(
            dict.fromkeys((*self.theory.gap.experiments, *self.theory.vanishing.experiments))
        )

    def theory_families(self, experiment: str) -> list[str]:
        """Families on which the theory is measured: those of the first training mixture."""
        return self.experiment(experiment).train_on[0].split("+")

    def theory_runs(self, experiment: str) -> list[Run]:
        """Runs on which the theory is measured: LFT, and MAML if needed, on the first mixture."""
        trained_on = self.experiment(experiment).train_on[0]
        sections = (self.theory.gap, self.theory.vanishing)
        methods = dict.fromkeys(
            method
            for section in sections
            if experiment in section.experiments
            for method in section.methods
        )
        return [
            Run(experiment, trained_on, method, "first", seed)
            for method in methods
            for seed in self.seeds
        ]

    def theory_inputs(self, experiment: str) -> dict[str, Any]:
        """The settings, besides the trained weights, on which measurements of the theory depend."""
        used = self.experiment(experiment).for_method("lft")
        return {
            "theory": self.theory.model_dump(mode="json"),
            "families": self._families(used, self.theory_families(experiment)),
            "finetuner": used.tuner(get_method("lft")).model_dump(mode="json"),
            **used.model_dump(mode="json", include={"training", "maml"}),
            **self._shared(),
        }

    def why_not(self, run: Run, tested_on: str | None = None) -> str | None:
        """Why a method does not apply to a training mixture and a test mixture; None if it does."""
        experiment = self.experiment(run.experiment)
        names = run.trained_on.split("+") + (tested_on.split("+") if tested_on else [])
        shapes = {name: self.shapes(experiment.families[name]) for name in names}
        try:
            experiment.base_method(run.method).check_applicable(shapes)
        except NotApplicable as refusal:
            return str(refusal)
        return None


class Run(NamedTuple):
    """Identity of one meta-training."""

    experiment: str
    trained_on: str
    method: str
    order: Order
    seed: int

    @property
    def evaluation_folder(self) -> Path:
        """Folder of the runs of all seeds, relative to the result folder."""
        return Path("runs", self.experiment, self.trained_on, f"{self.method}-{self.order}")

    @property
    def folder(self) -> Path:
        """Folder of the meta-training, relative to the result folder."""
        return self.evaluation_folder / f"seed{self.seed}"


class Cell(NamedTuple):
    """One cell of a result table: a run, its test mixture, and the reason if it does not apply."""

    run: Run
    tested_on: str
    not_applicable: str | None
