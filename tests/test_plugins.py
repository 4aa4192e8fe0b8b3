"""Plug-ins, named by path or installed, and what is wrong with one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Literal

import pytest
import torch
import yaml
from interpreter import install, python

from lft import config, methods, plugins
from lft.config import FamilySettings, load_profile
from lft.errors import UsageError
from lft.meta.evaluate import evaluate
from lft.meta.train import train
from lft.methods import METHODS, Method
from lft.metrics import MSE, Metric
from lft.scaffold import create
from lft.storage.tensors import load_tensors
from lft.testing import check_fine_tuner


def test_an_installed_plug_in_needs_no_mention(tmp_path: Path) -> None:
    folder = create("task", "lines", tmp_path)
    path = folder / "profile.yaml"
    path.write_text(path.read_text().replace("plugins:\n  tasks:", "_unused:\n  tasks:"))
    load = "from lft.config import load_profile as l; print(l('profile.yaml').name)"
    installed = install(tmp_path, "lines", tasks="lines:LinesSettings")
    assert python("-c", load, cwd=folder, PYTHONPATH=installed) == "lines\n"
    with pytest.raises(UsageError, match="unknown kind 'lines'; did you mean 'sine'"):
        load_profile(path)


def test_the_workflow_depends_on_the_source_of_plug_ins(tmp_path: Path, registry: None) -> None:
    folder = create("method", "momentum", tmp_path)
    profile = load_profile(folder / "profile.yaml")
    (reference,) = profile.plugins.methods
    assert reference == "momentum:METHOD"
    names = [path.name for path in plugins.source_files(reference)]
    assert names == ["__init__.py", "tuner.py"]
    assert plugins.source_files("lft.results:manifest")


def test_loading_a_profile_does_not_import_torch(tmp_path: Path) -> None:
    for kind in ("method", "task", "figure"):
        folder = create(kind, f"my-{kind}", tmp_path)  # type: ignore[arg-type]
        code = "import sys; from lft.config import load_profile as l; l('profile.yaml')"
        check = "print({'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
        assert python("-c", f"{code}; {check}", cwd=folder) == "set()\n"


WRONG = {
    "no colon": ("methods: [momentum]", "plug-in 'momentum' must be module:name or path:name"),
    "no file": ("methods: ['./absent.py:METHOD']", "there is no /"),
    "no module": ("methods: ['absent_module:METHOD']", "cannot be imported (ModuleNotFoundError"),
    "no attribute": ("methods: ['good.py:METHOT']", "has no attribute 'METHOT'"),
    "error inside": ("methods: ['bad.py:METHOD']", "cannot be imported (ZeroDivisionError"),
    "no method": ("methods: ['good.py:NUMBER']", "an instance of lft.methods.Method, not 3"),
    "name taken": ("methods: ['good.py:TAKEN']", "a method named 'lft' already exists"),
    "no family": ("tasks: ['good.py:METHOD']", "a task family is a subclass of FamilySettings"),
    "no fine-tuner": (
        "finetuners: ['good.py:METHOD']",
        "a fine-tuner is a subclass of TunerSettings",
    ),
    "unknown fine-tuner": ("methods: ['good.py:LOST']", "'good': unknown fine-tuner 'good'"),
    "nothing to learn": ("methods: ['good.py:ODD']", "does not go with learns 'step_size'"),
    "module taken": ("methods: ['json.py:METHOD']", "has the same name as the module"),
    "unknown group": ("method: []", "unknown key 'method'; did you mean 'methods'?"),
}
GOOD = """
from lft.methods import Method
METHOD = Method("good", "Good", "#000001", "finetuner", "lstm")
TAKEN = Method("lft", "Mine", "#000001", "finetuner", "lstm")
LOST = Method("good", "Good", "#000001", "finetuner", "good")
ODD = Method("good", "Good", "#000001", "step_size", "lstm")
NUMBER = 3
"""


@pytest.mark.parametrize("case", sorted(WRONG))
def test_a_wrong_plug_in_is_one_line(case: str, tmp_path: Path, registry: None) -> None:
    named, message = WRONG[case]
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text("1 / 0")
    (tmp_path / "json.py").write_text(GOOD)
    path = tmp_path / "profile.yaml"
    path.write_text(f"plugins: {{{named}}}")
    with pytest.raises(UsageError) as caught:
        load_profile(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_row_of_the_method_table_must_make_sense() -> None:
    good = Method("good", "Good", "#000001", "finetuner", "lstm")
    for change, message in (
        ({"name": "Good"}, "lowercase letters"),
        ({"color": "red"}, "color 'red' must look like"),
    ):
        with pytest.raises(UsageError, match=message):
            Method(**{**vars(good), **change})


def test_registering_twice_is_harmless(registry: None) -> None:
    row = Method("good", "Good", "#000001", "finetuner", "lstm")
    methods.register(row)
    methods.register(row)
    assert METHODS["good"] is row


def test_an_incomplete_family_is_refused(registry: None) -> None:
    class Nameless(FamilySettings):
        metrics = (MSE,)

    class Unmeasured(FamilySettings):
        kind: Literal["unmeasured"] = "unmeasured"

    class Taken(FamilySettings):
        metrics = (MSE,)
        kind: Literal["sine"] = "sine"

    class Renamed(FamilySettings):
        metrics = (Metric("mse", "mine"),)
        kind: Literal["renamed"] = "renamed"

    class Misspelt(FamilySettings):
        metrics = (Metric("Regret", "regret"),)
        kind: Literal["misspelt"] = "misspelt"

    for family, message in (
        (Nameless, "Nameless needs a field like kind"),
        (Unmeasured, "Unmeasured needs the class attribute 'metrics'"),
        (Taken, "another task family of kind 'sine'"),
        (Renamed, "a metric named 'mse' already exists"),
        (Misspelt, "metric 'Regret': use only lowercase letters"),
    ):
        with pytest.raises(UsageError, match=message):
            config.register_family(family)


HAND_DESIGNED = """
from typing import Literal
from lft.config import Fraction, HandDesignedTuner
from lft.methods import Method

class Decaying(HandDesignedTuner):
    kind: Literal["decaying"] = "decaying"
    decay: Fraction = 0.5

    def build(self, step_size):
        import torch
        decay = self.decay

        class Rule:
            def start(self, params):
                return torch.ones(())

            def step(self, state, params, grads):
                moved = {k: params[k] - step_size * state * grads[k] for k in params}
                return state * decay, moved

        return Rule()

METHOD = Method("decaying", "Decaying", "#000001", "step_size", "decaying")
"""


def test_a_fine_tuner_can_be_hand_designed(tmp_path: Path, registry: None) -> None:
    """With a grid of its own, and without the sections that it does not use."""
    (tmp_path / "decaying.py").write_text(HAND_DESIGNED)
    values = yaml.safe_load((create("task", "lines", tmp_path) / "profile.yaml").read_text())
    values["plugins"] = {
        "finetuners": ["decaying.py:Decaying"],
        "methods": ["decaying.py:METHOD"],
        "tasks": ["lines/lines:LinesSettings"],
    }
    demo = values["experiments"]["demo"]
    del demo["maml"]
    demo |= {"methods": ["decaying"], "step_sizes": {"decaying": [0.01, 0.1, 90.0]}}
    demo["finetuner"] = {"kind": "decaying", "decay": 0.25}
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(values))
    profile, results = load_profile(tmp_path / "profile.yaml"), tmp_path / "results"
    check_fine_tuner(profile.experiments["demo"].tuner(METHODS["decaying"]))
    run = config.Run("demo", "points", "decaying", "first", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(profile, run, results)
        evaluate(profile, run, results)
        assert torch.get_num_threads() == 2, "a call puts torch's settings back"
        assert float(torch.full((1,), 1e-30) * 1e-10) > 0
    finally:
        torch.set_num_threads(threads)
    settings = json.loads((results / run.folder / "run.json").read_text())["settings"]
    assert settings["finetuner"] == {"kind": "decaying", "decay": 0.25}
    assert settings["step_sizes"] == {"decaying": [0.01, 0.1, 90.0]}
    with (results / run.folder / "history.csv").open() as file:
        scores = [float(row["validation"]) for row in csv.DictReader(file)]
    assert len(scores) == 3
    weights, _ = load_tensors(results / run.folder / "weights.safetensors")
    assert float(weights["best/step_size"]) == [0.01, 0.1, 90.0][scores.index(min(scores))]


def test_a_plug_in_is_not_written_over(tmp_path: Path) -> None:
    create("method", "mine", tmp_path)
    with pytest.raises(UsageError, match="mine exists; choose another name"):
        create("method", "mine", tmp_path)
    for name in ("My", "2x", "a_b", "../x", ""):
        with pytest.raises(UsageError, match="use small letters"):
            create("task", name, tmp_path)


@pytest.mark.parametrize("kind", ["method", "task", "figure"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("class", "'class' is a Python keyword"),
        ("none", "'none' is a Python keyword"),
        ("random", "'random' is a Python module"),
        ("torch", "'torch' is a Python module"),
        ("lft", "'lft' is this package"),
        ("maml", "'maml' is the name of a method"),
        ("smoke", "'smoke' is a profile that comes with lft"),
        ("sine", "'sine' is the name of a method, family or fine-tuner"),
    ],
)
def test_a_plug_in_has_a_name_that_works(
    kind: str, name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        create(kind, name, tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "name"), [("method", "params"), ("task", "family"), ("figure", "drawing")]
)
def test_a_plug_in_hides_nothing_that_its_template_imports(
    kind: str, name: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is a name that the template imports"):
        create(kind, name, tmp_path)  # type: ignore[arg-type]
