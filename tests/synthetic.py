"""A complete result folder for the tiny profile, written without training anything.

Every cell has a ``level`` between 0 (useless) and 1 (perfect) from which all its metrics follow, so
tests know the truth behind the numbers. By default the paper's orderings hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tiny import profile_values

from lft.config import Profile, Run
from lft.paths import data_path, theory_path, victim_path
from lft.results.folder import Results
from lft.results.manifest import manifest
from lft.results.schema import HISTORY_COLUMNS, THEORY_COLUMNS, Measurement
from lft.seeding import seed_from
from lft.storage.csv import write_rows
from lft.storage.json import write_json
from lft.storage.tensors import prefixed, save_tensors

Level = Callable[[Run, str], float]

LEVELS = {"maml": 0.5, "l2o": 0.7, "lft": 0.9}
NASTY = "<script>alert(1)</script> 50 % of $\\x_1$ & #2 \\LaTeX{}"
"""A label that must come out inert in HTML, escaped in LaTeX and as it is in figures; as the
figures' own mathematics it would be an error."""


def report_profile(seeds: Collection[int] = (0, 1, 2), *experiments: str) -> Profile:
    """The tiny profile with the paper's sources and mixtures, so that the claims apply.

    Args:
        experiments: some of sine, attack and classification; sine is needed. All by default.
    """
    text = json.dumps(profile_values()).replace("grey", "mnist").replace("colour", "cifar10")
    values = json.loads(text)
    for name, mixture in (("attack", "mnist"), ("classification", "cifar10")):
        values["experiments"][name] |= {
            "train_on": [mixture, "mnist+cifar10"],
            "methods": ["maml", "l2o", "lft", "sgd"],
        }
    values["experiments"]["sine"]["methods"] = ["maml", "l2o", "lft"]
    values["experiments"]["sine"]["variants"] = {
        "lft-nasty": {"method": "lft", "label": NASTY, "set": {"training.segment": 1}}
    }
    for experiment in values["experiments"].values():
        experiment["testing"] = {"tasks": 12, "steps": 10}
    values["theory"]["gap"] |= {"sizes": [2, 4, 8, 16], "tasks": 4}
    kept = experiments or tuple(values["experiments"])
    values["experiments"] = {name: values["experiments"][name] for name in kept}
    return Profile.model_validate(values | {"seeds": list(seeds)})


def paper_level(run: Run, tested_on: str) -> float:
    """The paper's orderings: LFT over L2O over MAML, worse where the test source is unseen."""
    unseen = not set(tested_on.split("+")) <= set(run.trained_on.split("+"))
    return LEVELS.get(run.method, 0.6) - (0.3 if unseen else 0.0)


def write_results(
    profile: Profile,
    results: Path,
    *,
    level: Level = paper_level,
    noise: float = 0.02,
    diverged: Collection[Run] = (),
    missing: Collection[Run] = (),
    theory: dict[str, float] | None = None,
) -> None:
    """Write everything that the commands before ``lft aggregate`` leave behind.

    Args:
        level: how good a run is on a test mixture, 0 to 1.
        noise: standard deviation of a task's level, and of a seed's times 1/4.
        diverged: runs that have a manifest saying so and no rows; ``missing`` have nothing.
        theory: changes to the defaults of :func:`theory_rows`.
    """
    template = manifest({}, run={}, status="", reason="", seconds=0.0)
    for name in profile.experiments:
        for run in profile.runs(name):
            if run in missing:
                continue
            failed = run in diverged
            _write_run(profile, run, results, template, failed)
            rows = () if failed else measurement_rows(profile, run, level, noise)
            pictures = {} if failed else prefixed(run.method, _pictures(profile, name))
            Results(profile, results).write_evaluation(run, rows, pictures)
    for name in profile.theory_experiments:
        rows = list(theory_rows(profile, name, **(theory or {})))
        seed_at = THEORY_COLUMNS.index("seed")
        for seed in profile.seeds:
            path = theory_path(results, name, seed)
            write_rows(path, THEORY_COLUMNS, [row for row in rows if row[seed_at] == seed])
            write_json(path.with_suffix(".json"), template | {"seconds": 0.5})
    for source in profile.sources:
        save_tensors(data_path(results, source), {"labels": torch.arange(3)}, {})
        save_tensors(victim_path(results, source), {"weight": torch.zeros(1)}, {})
        facts = {"source": source, "accuracy_train": 0.999, "accuracy_test": 0.98}
        write_json(victim_path(results, source).with_suffix(".json"), template | facts)


def draws(*parts: str | int) -> np.random.Generator:
    return np.random.default_rng(seed_from("synthetic", *parts))


def measurement_rows(
    profile: Profile, run: Run, level: Level, noise: float
) -> Iterator[Measurement]:
    """Rows of one run; a task's difficulty is the same for every method, as with real tasks."""
    testing = profile.experiment(run.experiment).testing
    of_seed = noise / 4 * draws(*run).standard_normal()
    for tested_on in profile.experiment(run.experiment).test_on:
        if profile.why_not(run, tested_on):
            continue
        for task in _tasks(tested_on, testing.tasks):
            of_task = noise * draws(run.experiment, run.seed, task).standard_normal()
            own = noise / 4 * draws(*run, tested_on, task).standard_normal()
            reached = float(np.clip(level(run, tested_on) + of_seed + of_task + own, 0.01, 0.99))
            primary = profile.experiment(run.experiment).primary
            for metric, values in curves(primary, reached, testing.steps).items():
                steps = range(len(values)) if len(values) > 1 else [testing.steps]
                for step, value in zip(steps, values, strict=True):
                    yield Measurement(
                        *(run.experiment, run.trained_on, tested_on, run.method, run.order),
                        *(run.seed, task, step, metric, float(value)),
                    )


def curves(primary: str, level: float, steps: int) -> dict[str, NDArray[np.float64]]:
    """Each metric at steps 0 … ``steps``; a better level learns sooner and ends better."""
    learned = 1 - np.exp(-8 * level * np.arange(steps + 1) / steps)
    if primary == "asr":
        asr = level * learned
        first = np.ceil(steps * (1.1 - level)) if level > 0.4 else np.nan
        return {
            "asr": asr,
            "distortion": 0.3 - 0.2 * level * learned,
            "asr_support": (1 + asr) / 2,
            "first_full": np.array([first]),
        }
    if primary == "accuracy":
        return {"accuracy": 0.5 + 0.5 * level * learned, "accuracy_support": 0.5 + 0.5 * learned}
    return {"mse": 4 * (1 - level * learned), "mse_support": 3 * (1 - level * learned)}


def theory_rows(
    profile: Profile,
    experiment: str,
    *,
    slack: float = 4.0,
    exponent: float = 0.5,
    frozen_exponent: float = 0.5,
    sigma_effect: float = 1.0,
    jacobian_effect: float = 1.0,
    steps_effect: float = 0.5,
    lft_grows: float = 0.1,
    maml_grows: float = -1.0,
    statement1_error: float = 1e-12,
    derivative_order: float = 1.0,
) -> Iterator[tuple[Any, ...]]:
    """Rows of THEORY_COLUMNS.

    Args:
        slack: bound over gap, at the expected gap.
        exponent: the gap is proportional to |D_tr|^-exponent + |D_val|^-exponent.
        frozen_exponent: the same for D_new on the frozen trajectory.
        sigma_effect: power of σ in the gap; ``jacobian_effect`` of G, ``steps_effect`` of K.
        lft_grows: LFT's meta-gradient norm is K^lft_grows; MAML's likewise.
    """
    settings = profile.theory.gap
    both = [(size, size) for size in settings.sizes]
    largest, fixed, longest = max(settings.sizes), settings.fixed_size, max(settings.steps)
    fitted = both + [(size, largest) for size in settings.sizes]
    fitted += [(fixed, size) for size in settings.sizes]
    frozen = both + [(size, largest) for size in settings.sizes]
    frozen += [(largest, size) for size in settings.sizes]
    points = [("lft", *sizes, longest, exponent) for sizes in fitted]
    points += [("lft", fixed, fixed, steps, exponent) for steps in settings.steps]
    points += [("lft frozen", *sizes, longest, frozen_exponent) for sizes in frozen]
    for seed in profile.seeds:
        for order in ("first", "zeroth"):
            where = (experiment, "initial")
            method = f"lft {order} exact", seed, 3, 0, 0, experiment
            yield *where, "statement1_error", *method, statement1_error
            needed = derivative_order if order == "zeroth" else 2.0
            yield *where, "derivative_order", *method, needed
        for stage in ("initial", "halfway", "best"):
            for method, support, query, steps, power in dict.fromkeys(points):
                for task in range(settings.tasks):
                    where = (experiment, stage, seed, method, support, query, steps, task)
                    random = draws("theory", *where)
                    sigma = np.exp(0.5 * draws("sigma", seed, task).standard_normal())
                    jacobian = np.exp(0.5 * draws("jacobian", seed, task).standard_normal())
                    decay, bound = support**-power + query**-power, support**-0.5 + query**-0.5
                    size = sigma**sigma_effect * jacobian**jacobian_effect * steps**steps_effect
                    gap = size * decay * np.exp(0.02 * random.standard_normal())
                    values = {
                        "variance_part": 0.8 * gap,
                        "sigma": sigma,
                        "jacobian": jacobian,
                        "bound": slack * size * bound,
                    }
                    if method == "lft":
                        values |= {
                            "gap": gap,
                            "fitting_square": 0.36 * gap**2,
                            "gradient_square": 2.0 + 0.1 * random.standard_normal(),
                            "gradient_kept": 1.5 + 0.1 * random.standard_normal(),
                        }
                    for quantity, value in values.items():
                        yield (
                            *(experiment, stage, quantity, method, seed, steps),
                            *(support, query, f"{experiment}-{task}", float(value)),
                        )
        if experiment in profile.theory.vanishing.experiments:
            for method, power in (("maml", maml_grows), ("lft", lft_grows)):
                for stage in ("initial", "best"):
                    for steps in profile.theory.vanishing.steps:
                        for task in range(profile.theory.vanishing.tasks):
                            random = draws("vanishing", experiment, method, seed, steps, task)
                            norm = steps**power * np.exp(0.01 * random.standard_normal())
                            yield (
                                *(experiment, stage, "meta_gradient_norm", method, seed, steps),
                                *(0, 0, f"{experiment}-{task}", float(norm)),
                            )


def _write_run(
    profile: Profile, run: Run, results: Path, template: dict[str, Any], failed: bool
) -> None:
    folder = results / run.folder
    facts = {
        "run": run._asdict(),
        "status": "diverged" if failed else "ok",
        "reason": "outer loss nan at meta-batch 3, segment 1" if failed else "",
        "seconds": 2.0 + run.seed,
        "cpu_seconds": 1.5 + run.seed,
        "memory_mb": 500.0,
        "device": "cpu",
        "threads": 1,
        "kernel": "torch",
    }
    settings = {"settings": profile.training_inputs(run)}
    write_json(folder / "run.json", template | settings | facts)
    loss = [1.0, 0.5, 0.25]
    history = [
        (step, run.trained_on, value, *([value, 0.1, value] if step > 1 else [""] * 3))
        for step, value in enumerate(loss, start=1)
    ]
    write_rows(folder / "history.csv", HISTORY_COLUMNS, history)
    save_tensors(folder / "weights.safetensors", {"best/x": torch.zeros(1)}, {})


def write_history(
    results: Path, run: Run, scores: Sequence[float], *, outer: Sequence[float] = (), error: float
) -> None:
    """A history with meta-validations after every tenth meta-batch, on from a start at 1."""
    values = zip(scores, outer or scores, strict=True)
    rows = [(0, run.trained_on, 1.0, 1.0, error, 1.0)]
    rows += [
        (10 * number, run.trained_on, score, score, error, loss)
        for number, (score, loss) in enumerate(values, start=1)
    ]
    write_rows(results / run.folder / "history.csv", HISTORY_COLUMNS, rows)


TRAINED = [1 - 0.04 * number for number in range(20)]
"""Meta-validation scores that pass the checks for trained."""


def _tasks(tested_on: str, n_tasks: int) -> list[str]:
    names = tested_on.split("+")
    return [f"{name}-{task}" for name in names for task in range(n_tasks // len(names))]


def _pictures(profile: Profile, experiment: str) -> dict[str, torch.Tensor]:
    """Examples of three attacks of every family, as evaluation keeps them."""
    tensors = {}
    for name, family in profile.experiment(experiment).families.items():
        if not family.pictures:
            continue
        shape = profile.sources[family.source].shape
        random = torch.Generator().manual_seed(seed_from("pictures", name))
        images = torch.randint(0, 256, (3, 4, *shape), generator=random, dtype=torch.uint8)
        labels = torch.randint(0, 3, (3, 4), generator=random)
        tensors |= {
            f"{name}/images": images,
            f"{name}/perturbation": 0.1 * torch.randn(3, *shape, generator=random),
            f"{name}/labels": labels,
            f"{name}/clean": labels,
            f"{name}/attacked": (labels + 1) % 3,
        }
    return tensors
