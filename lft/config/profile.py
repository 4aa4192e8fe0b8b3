"""A whole profile, and what follows from it: runs, cells, and what each depends on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from lft.config.base import SHOWN, Fraction, Name, Order, Positive, Rate, Settings, refuse_twice
from lft.config.experiment import Experiment
from lft.config.families import AttackFamily, FamilySettings, Source
from lft.errors import NotApplicable, UsageError, suggestion

ALL = "all"
"""In place of a method: all methods that were trained on a mixture, which one job evaluates."""


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
    #: that an evaluation job measures; ``all`` starts the program once for all methods of a mixture
    methods_per_job: Literal["one", "all"] = "one"
    kernel: Literal["auto", "fused", "torch"] = "auto"  #: see :data:`lft.kernels.build.Kernel`
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
        refuse_twice("seeds", self.seeds)
        for experiment in self.experiments.values():
            for family in experiment.families.values():
                source = family.image_source
                if source is not None and source not in self.sources:
                    raise ValueError(f"unknown source {source!r}{suggestion(source, self.sources)}")
            if ALL in (*experiment.methods, *experiment.variants):
                raise ValueError(f"no method or variant can be called {ALL!r}; rename it")
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

    def evaluation(self, run: Run) -> Run:
        """The job that measures a run: its name, with :data:`ALL` for all methods together."""
        return run._replace(method=ALL) if self.methods_per_job == "all" else run

    def evaluated(self, run: Run) -> list[Run]:
        """The runs of one seed that the job of that name measures."""
        if run.method != ALL:
            return [run]
        runs = self.runs(run.experiment)
        return [other for other in runs if other._replace(method=ALL) == run]

    def training_inputs(self, run: Run) -> dict[str, Any]:
        """Every setting that the outcome of a meta-training depends on, and nothing else."""
        experiment = self.experiment(run.experiment).for_method(run.method)
        method = self.experiment(run.experiment).base_method(run.method)
        used: dict[str, Any] = {
            "training": {"tasks", "meta_batch", "steps", "step_weights", "clip", "validation"},
            "maml": True,
        }
        if method.learns_finetuner:
            used = {"training": True, "finetuner": True}
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
            **experiment.model_dump(mode="json", include=used),
            **self._shared(),
        }

    def evaluation_inputs(self, run: Run) -> dict[str, Any]:
        """Every setting that an evaluation depends on beside the trained weights."""
        if run.method == ALL:
            return {other.method: self.evaluation_inputs(other) for other in self.evaluated(run)}
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
            "source": self.sources[source].model_dump(mode="json", exclude=SHOWN),
            "device": self.device,
        }

    def _families(self, experiment: Experiment, names: list[str]) -> dict[str, Any]:
        """Families with the sources they draw from."""
        result = {}
        for name in names:
            family = experiment.families[name]
            result[name] = family.model_dump(mode="json", exclude=SHOWN)
            if family.image_source is not None:
                source = self.sources[family.image_source]
                result[name]["images"] = source.model_dump(mode="json", exclude=SHOWN)
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


class Run(NamedTuple):
    """Identity of one meta-training; its path below ``runs/`` in a result folder."""

    experiment: str
    trained_on: str
    method: str
    order: Order
    seed: int

    @property
    def evaluation_folder(self) -> Path:
        """Where the test measurements of all seeds go, below a result folder; see
        :meth:`Profile.evaluation`."""
        return Path("runs", self.experiment, self.trained_on, f"{self.method}-{self.order}")

    @property
    def folder(self) -> Path:
        """Where the meta-training goes, below a result folder."""
        return self.evaluation_folder / f"seed{self.seed}"


class Cell(NamedTuple):
    """One cell of a result table: a run, what it is tested on, and why it may not apply."""

    run: Run
    tested_on: str
    not_applicable: str | None
