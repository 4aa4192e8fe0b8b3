"""Profiles: every kind of bad input gives one line that names the key and what would be right."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from checkout import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny import changed, profile_values, tiny_profile
from tiny_multiverse import multiverse

from lft import config
from lft.config import Profile, Run, digest, find_profile, load_profile, shipped_profiles
from lft.config.sources import KNOWN
from lft.data import embedded, published
from lft.errors import UsageError
from lft.methods import METHODS

SHIPPED = sorted((ROOT / "workflow/config").glob("*.yaml"))
TRAINING = "experiments__sine__training"


def refusal(text: str, folder: Path) -> str:
    """The one line that a profile is refused with, the file's name taken off."""
    path = folder / "profile.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_profile(path)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert line.startswith(str(path))
    return line.removeprefix(str(path)).lstrip(": ")


def test_there_are_shipped_profiles() -> None:
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_profiles_load(path: Path) -> None:
    profile = load_profile(path)
    assert profile.name == path.stem
    assert list(profile.cells())


def test_shipped_profiles_are_known_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_profile("smoke").name == "smoke"
    with pytest.raises(UsageError, match=r"neither a file smok nor .* did you mean 'smoke'"):
        load_profile("smok")
    Path("smoke").write_text("name: mine")
    with pytest.raises(UsageError, match=r"^smoke: key 'title' is missing"):
        load_profile("smoke")


def test_a_folder_is_never_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("quick", "paper", "mine"):
        Path(name).mkdir()
    assert find_profile("quick") == shipped_profiles()["quick"]
    Path("own.yml").write_text("extends: paper\nname: own")
    assert load_profile("own.yml").name == "own"
    with pytest.raises(UsageError, match="mine is a folder, and a profile is a file"):
        load_profile("mine")


def test_a_profile_is_a_file_as_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("mine.YAML", "2024", "with space.yml"):
        Path(name).write_text(yaml.safe_dump(profile_values()))
        assert find_profile(name) == Path(name)
    assert load_profile("~/mine.YAML") == tiny_profile()
    with pytest.raises(UsageError, match="neither a file 2023 nor a profile of that name"):
        find_profile(2023)  # type: ignore[arg-type]  # as Snakemake reads --config profile=2023
    with pytest.raises(UsageError, match="a profile is a file or one of ablation"):
        find_profile("")


def test_a_profile_of_ones_own_needs_a_name_of_its_own(tmp_path: Path) -> None:
    assert refusal("extends: smoke", tmp_path).startswith("key 'name' is missing; a profile ")
    copied = shipped_profiles()["smoke"].read_text()
    assert refusal(copied, tmp_path) == (
        "name 'smoke' is that of a profile that comes with the package; choose another"
    )
    (tmp_path / "smoke.yaml").write_text(copied)
    assert load_profile(tmp_path / "smoke.yaml").name == "smoke"


def test_a_profile_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump({**profile_values(), "_anchors": {"free": "form"}}))
    assert load_profile(path) == tiny_profile()


BAD_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt": (
        {f"{TRAINING}__leraning_rate": 0.1},
        "unknown key 'experiments.sine.training.leraning_rate'; did you mean 'learning_rate'?",
    ),
    "misspelt at the top": ({"sedes": [1]}, "unknown key 'sedes'; did you mean 'seeds'?"),
    "misspelt in a family": (
        {"experiments__attack__families__grey__suport": 2},
        "unknown key 'experiments.attack.families.grey.suport'; did you mean 'support'?",
    ),
    "text for a number": (
        {f"{TRAINING}__tasks": "many"},
        "experiments.sine.training.tasks: input should be a valid integer (given: 'many')",
    ),
    "true for a number": (
        {f"{TRAINING}__tasks": True},
        "experiments.sine.training.tasks: input should be a valid integer (given: True)",
    ),
    "a fraction for a count": (
        {f"{TRAINING}__tasks": 2.5},
        "experiments.sine.training.tasks: input should be a valid integer (given: 2.5)",
    ),
    "below the bound": (
        {"seeds": [0, -1]},
        "seeds.1: input should be greater than or equal to 0 (given: -1)",
    ),
    "above the bound": (
        {"experiments__sine__finetuner__layers": 3},
        "experiments.sine.finetuner.layers: input should be less than or equal to 2 (given: 3)",
    ),
    "infinite": (
        {f"{TRAINING}__clip": float("inf")},
        "experiments.sine.training.clip: input should be a finite number (given: inf)",
    ),
    "not a number": (
        {"experiments__attack__families__grey__distortion_weight": float("nan")},
        "experiments.attack.families.grey.distortion_weight: input should be a finite number"
        " (given: nan)",
    ),
    "not among the choices": (
        {"experiments__attack__families__grey__margin": "logits"},
        "experiments.attack.families.grey.margin: input should be 'probability',"
        " 'log_probability' or 'logit' (given: 'logits')",
    ),
    "unknown kind": (
        {"experiments__attack__families__grey__kind": "atack"},
        "experiments.attack.families.grey.kind: unknown kind 'atack'; did you mean 'attack'?",
    ),
    "no kind": (
        {"experiments__attack__families__grey": {"source": "grey"}},
        "key 'experiments.attack.families.grey.kind' is missing",
    ),
    "unknown method": (
        {"experiments__attack__methods": ["lft", "mamml"]},
        "experiments.attack: unknown method 'mamml'; did you mean 'maml'?",
    ),
    "unknown family": (
        {"experiments__attack__train_on": ["gray+colour"]},
        "experiments.attack: unknown family 'gray'; did you mean 'grey'?",
    ),
    "a reserved name": (
        {"experiments__sine__variants": {"all": {"method": "lft", "label": "A", "set": {}}}},
        "profile: no method or variant can be called 'all'; rename it",
    ),
    "unknown source": (
        {"experiments__attack__families__grey__source": "gray"},
        "profile: unknown source 'gray'; did you mean 'grey'?",
    ),
    "unknown experiment": (
        {"theory__gap__experiments": ["sin"]},
        "profile: unknown experiment 'sin'; did you mean 'sine'?",
    ),
    "steps not in whole segments": (
        {f"{TRAINING}__steps": 5},
        "experiments.sine.training: steps (5) must be a multiple of segment (2)",
    ),
    "tasks not in whole batches": (
        {f"{TRAINING}__tasks": 13},
        "experiments.sine.training: tasks (13) must be a multiple of meta_batch (2)",
    ),
    "no step size": (
        {"experiments__attack__orders": ["zeroth"]},
        "experiments.attack: maml.step_size has no value for order 'zeroth'",
    ),
    "too few test tasks": (
        {"experiments__attack__testing__tasks": 1},
        "experiments.attack: testing.tasks must be at least 2, for 'grey+colour'",
    ),
    "a method twice": (
        {"experiments__sine__methods": ["lft", "lft"]},
        "experiments.sine: methods: 'lft' is listed twice",
    ),
    "a mixture twice": (
        {"experiments__sine__test_on": ["sine", "sine"]},
        "experiments.sine: test_on: 'sine' is listed twice",
    ),
    "a family twice": (
        {"experiments__attack__train_on": ["grey+grey"]},
        "experiments.attack: grey+grey: 'grey' is listed twice",
    ),
    "a seed twice": ({"seeds": [3, 3]}, "profile: seeds: 3 is listed twice"),
    "a path for a name": (
        {"sources__../x": {"kind": "embedded"}},
        "sources.../x.[key]: string should match pattern '^[a-z0-9][a-z0-9-]*$' (given: '../x')",
    ),
    "a name of two lines": (
        {"experiments__sine__families": {"a\nb": {"kind": "sine", "support": 1, "query": 1}}},
        "experiments.sine.families.a b.[key]: string should match pattern",
    ),
}


@pytest.mark.parametrize("case", sorted(BAD_VALUES))
def test_bad_values_are_named(case: str, tmp_path: Path) -> None:
    changes, expected = BAD_VALUES[case]
    line = refusal(yaml.safe_dump(changed(profile_values(), **changes)), tmp_path)
    assert line.startswith(expected)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    values = profile_values()
    del values["experiments"]["sine"]["training"]["meta_batch"]
    line = refusal(yaml.safe_dump(values), tmp_path)
    assert line == "key 'experiments.sine.training.meta_batch' is missing"


BAD_OVERRIDES = {
    "training.estimatr": (
        "exact",
        ": unknown key 'training.estimatr'; did you mean 'estimator'?",
    ),
    "training.second_order": (
        "exact",
        ": unknown key 'training.second_order'; it is now called 'training.estimator'",
    ),
    "trainin.steps": (4, ": unknown key 'trainin.steps'; did you mean 'training'?"),
    "training.steps.more": (4, ": unknown key 'training.steps.more'"),
    "title.0": ("x", ": unknown key 'title.0'"),
    "training.steps": (3, ": training: steps (3) must be a multiple of segment (2)"),
    "training.estimator": (
        "exakt",
        ": training.estimator: input should be 'exact', 'dropped', 'evolution', 'pes' or 'mixed' "
        "(given: 'exakt')",
    ),
    "training.curriculum": ([2, 6], ": training: curriculum must end with steps (4), not with 6"),
    "training": (5, ": training: input should be a valid dictionary"),
    "families.sine.hidden": ([0], ": families.sine.hidden.0: input should be greater than or"),
}


def test_the_former_name_of_the_estimator_is_explained(tmp_path: Path) -> None:
    values = changed(profile_values(), experiments__sine__training__second_order="exact")
    assert refusal(yaml.safe_dump(values), tmp_path) == (
        "experiments.sine.training: second_order is now called estimator; write estimator: exact"
    )


@pytest.mark.parametrize("key", sorted(BAD_OVERRIDES))
def test_bad_overrides_name_variant_and_key(key: str, tmp_path: Path) -> None:
    value, expected = BAD_OVERRIDES[key]
    variant = {"method": "lft", "label": "x", "set": {key: value}}
    values = changed(profile_values(), experiments__sine__variants={"bold": variant})
    line = refusal(yaml.safe_dump(values), tmp_path)
    assert line.startswith(f"experiments.sine: variant 'bold'{expected}")


def test_a_variant_with_the_name_of_a_method_is_refused(tmp_path: Path) -> None:
    variant = {"method": "lft", "label": "x", "set": {}}
    values = changed(profile_values(), experiments__sine__variants={"l2o": variant})
    assert "variant 'l2o' has the name of a method" in refusal(yaml.safe_dump(values), tmp_path)


def test_a_variant_changes_what_it_says_and_nothing_else() -> None:
    changes = {"training.estimator": "exact", "families.sine.support": 9}
    variant = {"method": "lft", "label": "Bold", "set": changes}
    experiment = tiny_profile(experiments__sine__variants={"bold": variant}).experiment("sine")
    bold = experiment.for_method("bold")
    assert bold.training.estimator == "exact"
    assert bold.families["sine"].support == 9
    assert experiment.base_method("bold") is METHODS["lft"]
    restored = changed(
        bold.model_dump(),
        training__estimator="dropped",
        families__sine__support=4,
        variants=experiment.model_dump()["variants"],
    )
    assert restored == experiment.model_dump()
    assert experiment.for_method("lft") is experiment


def test_an_override_is_seen_by_its_method_and_the_variants_of_it() -> None:
    variants = {
        "linear": {"method": "lft", "label": "x", "set": {"training.step_weights": "linear"}},
        "other": {"method": "lft", "label": "y", "set": {"training.segment": 1}},
    }
    profile = tiny_profile(
        experiments__sine__variants=variants,
        experiments__sine__overrides={"lft": {"training.segment": 4}},
    )
    experiment = profile.experiment("sine")
    segments = {name: experiment.for_method(name).training.segment for name in METHODS}
    assert segments == {name: 4 if name == "lft" else 2 for name in METHODS}
    assert experiment.for_method("linear").training.segment == 4
    assert experiment.for_method("linear").training.step_weights == "linear"
    assert experiment.for_method("other").training.segment == 1
    before, run = tiny_profile(), Run("sine", "sine", "lft", "first", 0)
    assert profile.training_inputs(run) != before.training_inputs(run)
    assert profile.theory_inputs("sine") != before.theory_inputs("sine")
    run = run._replace(method="l2o")
    assert profile.training_inputs(run) == before.training_inputs(run)


@pytest.mark.parametrize(
    "overrides, expected",
    [
        ({"lfd": {}}, "unknown method 'lfd'; did you mean 'lft'?"),
        ({"lft": {"training.setps": 1}}, "overrides of 'lft': unknown key 'training.setps'"),
        *(
            ({"lft": {key: value}}, f"overrides of 'lft': all methods share {key!r}; set it in")
            for key, value in (
                ("testing.tasks", 9),
                ("testing", {"tasks": 9, "steps": 4}),
                ("methods", ["sgd"]),
                ("orders", ["zeroth"]),
                ("test_on", ["sine"]),
                ("title", "x"),
            )
        ),
    ],
)
def test_bad_overrides_are_refused(overrides: Any, expected: str, tmp_path: Path) -> None:
    values = changed(profile_values(), experiments__sine__overrides=overrides)
    assert expected in refusal(yaml.safe_dump(values), tmp_path)


BAD_YAML = {
    "duplicate key": ("name: x\nname: y\n", "line 2: key 'name' is given twice; keep one"),
    "nested duplicate key": ("a:\n  b: 1\n  b: 2\n", "line 3: key 'b' is given twice; keep one"),
    "a list as key": ("? [a]\n: 1", "line 1: a key must be a plain word"),
    "unclosed": ("a: [1,", "is not valid YAML"),
    "impossible date": ("a: 2021-13-45", "is not valid YAML"),
    "digitless number": ("a: 0b_", "is not valid YAML"),
    "endless number": ("a: " + 5000 * "1", "is not valid YAML"),
    "wrong tag": ("a: !!bool perhaps", "is not valid YAML"),
    "wrong timestamp": ("a: !!timestamp noon", "is not valid YAML"),
    "code": ("a: !!python/object/apply:os.system [ls]", "is not valid YAML"),
    "unknown alias": ("a: *b", "is not valid YAML"),
    "deep": (3000 * "[", "is not valid YAML"),
    "list": ("[1, 2]", "a profile is a mapping of settings"),
    "empty": ("", "a profile is a mapping of settings"),
    "number as key": ("1: 2", "unknown key '1'; known are name, title"),
    "cycle": ("&a {name: *a}", "name: input should be a valid string"),
}


@pytest.mark.parametrize("case", sorted(BAD_YAML))
def test_bad_yaml_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    text, expected = BAD_YAML[case]
    assert refusal(text, tmp_path).startswith(expected)


def test_aliases_that_expand_to_billions_do_not_hang(tmp_path: Path) -> None:
    levels = [f"{a}: &{a} [{', '.join(9 * ['*' + b])}]" for b, a in pairwise("abcdefghij")]
    text = "\n".join(["_a: &a [x, x]", *(f"_{line}" for line in levels), "name: *j"])
    assert refusal(text, tmp_path).startswith("name: input should be a valid string (given: [[")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(UsageError, match=r"bytes.yaml is no plain text in UTF-8"):
        load_profile(tmp_path / "bytes.yaml")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be", "latin-1"])
def test_a_profile_in_another_encoding_is_refused_and_utf_8_helps(
    encoding: str, tmp_path: Path
) -> None:
    path, text = tmp_path / "mine.yaml", "extends: smoke\nname: mine\ntitle: Größe\n"
    path.write_text(text, encoding=encoding)
    with pytest.raises(UsageError, match=r"is no plain text in UTF-8; save it as that") as caught:
        load_profile(path)
    assert "\n" not in str(caught.value)
    for right in ("utf-8", "utf-8-sig"):
        path.write_text(text, encoding=right)
        assert load_profile(path).title == "Größe"


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(values: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key and index of nested settings."""
    found = [above] if above else []
    if isinstance(values, dict):
        for key, value in values.items():
            found += places(value, (*above, key))
    elif isinstance(values, list):
        for index, value in enumerate(values):
            found += places(value, (*above, index))
    return found


@given(data=st.data())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_profile_with_anything_anywhere_loads_or_is_refused_in_one_line(
    data: st.DataObject, tmp_path: Path
) -> None:
    variant = {"method": "lft", "label": "x", "set": {"training.steps": 4}}
    values = changed(profile_values(), experiments__sine__variants={"bold": variant})
    *parents, last = data.draw(st.sampled_from(places(values)))
    target: Any = values
    for key in parents:
        target = target[key]
    if isinstance(target, dict) and data.draw(st.booleans()):
        target[data.draw(st.text(max_size=6))] = target.pop(last)
    else:
        target[last] = data.draw(trees)
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    try:
        load_profile(path)
    except UsageError as refused:
        assert len(str(refused).splitlines()) == 1


@given(text=st.text(st.sampled_from("ab1:-{}[]?!&*|>'\"#%@ \n\t~.0x,"), max_size=60))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    assert refusal(text, tmp_path)


SMOKE = shipped_profiles()["smoke"].read_bytes()


@given(
    content=st.binary(max_size=40)
    | st.tuples(st.integers(0, len(SMOKE)), st.binary(max_size=4), st.integers(0, 60)).map(
        lambda cut: SMOKE[: cut[0]] + cut[1] + SMOKE[cut[0] + cut[2] :]
    )
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_load_or_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "smoke.yaml"
    path.write_bytes(content)
    try:
        load_profile(path)
    except UsageError as refused:
        assert len(str(refused).splitlines()) == 1


def test_what_a_training_depends_on() -> None:
    """A checkpoint stays valid under settings that do not matter, and under no others."""

    def inputs(method: str, order: str = "first", **changes: Any) -> str:
        run = Run("sine", "sine", method, order, 0)
        return digest(tiny_profile(**changes).training_inputs(run))

    sine = "experiments__sine__"
    irrelevant = {
        "lft": ["maml__steps", "testing__steps", "testing__tasks"],
        "maml": ["finetuner__hidden", "training__segment", "testing__steps"],
        "sgd": ["finetuner__hidden", "maml__steps", "training__meta_batch"],
    }
    relevant = {
        "lft": ["finetuner__hidden", "training__segment", "training__validation__tasks"],
        "maml": ["maml__steps", "training__meta_batch", "training__step_weights"],
        "sgd": ["training__steps", "training__validation__tasks", "training__step_weights"],
    }
    for method in irrelevant:
        for key in irrelevant[method]:
            value = {"training__segment": 1}.get(key, 6)
            assert inputs(method, **{sine + key: value}) == inputs(method)
        for key in relevant[method]:
            value = {
                "training__segment": 1,
                "training__steps": 8,
                "training__step_weights": "final",
            }.get(key, 6)
            assert inputs(method, **{sine + key: value}) != inputs(method)
    for method in METHODS:
        assert inputs(method, checkpoint_seconds=1.0, title="Other") == inputs(method)
        assert inputs(method, experiments__sine__families__sine__label="wave") == inputs(method)
        assert inputs(method, kernel="auto") != inputs(method)
        assert inputs(method, experiments__sine__families__sine__support=5) != inputs(method)
        directions = {"experiments__sine__zeroth_order": {"directions": 7}}
        assert inputs(method, **directions) == inputs(method)
        assert inputs(method, "zeroth", **directions) != inputs(method, "zeroth")
        other_seed = tiny_profile().training_inputs(Run("sine", "sine", method, "first", 1))
        assert digest(other_seed) != inputs(method)


def test_runs_and_cells() -> None:
    profile = tiny_profile()
    assert len(set(profile.runs("sine"))) == 8 * 2 * 2  # methods, orders, seeds
    learned_initialisation = {"maml", "fomaml", "reptile", "lft-init"}
    methods = set(profile.experiment("attack").methods)
    assert {run.method for run in profile.runs("attack")} == methods - learned_initialisation
    for cell in profile.cells():
        incongruous = cell.run.experiment != "sine"
        refused = incongruous and cell.run.method in learned_initialisation
        assert (cell.not_applicable is not None) is refused
        if cell.not_applicable:
            for name in ("grey has ", "colour has "):
                assert name in cell.not_applicable


def test_folders_of_runs_are_all_different() -> None:
    profile = tiny_profile()
    runs = [run for name in profile.experiments for run in profile.runs(name)]
    assert len({run.folder for run in runs}) == len(runs)
    assert all(run.folder.parent == run.evaluation_folder for run in runs)


def test_an_unknown_experiment_is_named() -> None:
    with pytest.raises(UsageError, match="unknown experiment 'atack'; did you mean 'attack'"):
        tiny_profile().experiment("atack")


def test_settings_are_frozen() -> None:
    profile: Profile = tiny_profile()
    with pytest.raises(ValueError, match="frozen"):
        profile.threads = 2


def test_a_profile_that_extends_another_holds_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(profile_values()))
    middle = {"extends": "../base.yaml", "name": "middle", "title": "middle", "seeds": [7]}
    (tmp_path / "deep" / "middle.yaml").write_text(yaml.safe_dump(middle))
    top = {
        "extends": "deep/middle.yaml",
        "name": "top",
        "title": "top",
        "experiments": {"sine": {"training": {"learning_rate": 0.5}}, "attack": None},
    }
    (tmp_path / "top.yaml").write_text(yaml.safe_dump(top))
    profile, base = load_profile(tmp_path / "top.yaml"), tiny_profile()
    assert (profile.title, profile.seeds) == ("top", (7,))
    assert profile.experiments["sine"].training.learning_rate == 0.5
    assert profile.experiments["sine"].training.steps == base.experiments["sine"].training.steps
    assert set(profile.experiments) == set(base.experiments) - {"attack"}


def test_profiles_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\nname: a")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nname: b")
    with pytest.raises(UsageError, match=r"b\.yaml: profile a\.yaml extends itself"):
        load_profile(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("extends: none.yaml\nname: a")
    with pytest.raises(UsageError, match=r"a\.yaml: extends: .* neither a file .*none\.yaml"):
        load_profile(tmp_path / "a.yaml")


def test_a_step_whose_metrics_are_not_written_is_replaced_by_one_before_it() -> None:
    testing = config.Testing(tasks=1, steps=12, every=4)
    assert [testing.written(step) for step in (3, 4, 11, 12, 100)] == [0, 4, 8, 12, 12]
    with pytest.raises(ValidationError, match=r"steps \(12\) must be a multiple of every \(5\)"):
        config.Testing(tasks=1, steps=12, every=5)


def classification(**family: Any) -> dict[str, Any]:
    """Families of the tiny profile's classification on one source, with 2 and with 5 ways."""
    base = {"kind": "classification", "source": "grey", "net": "mlp", "widths": [5], **family}
    return {"two": {**base, "ways": 2}, "five": {**base, "ways": 5}}


@pytest.mark.parametrize(("outputs", "congruous"), [("ways", False), ("classes", True)])
def test_families_are_congruous_if_their_shapes_are(outputs: str, congruous: bool) -> None:
    profile = tiny_profile(
        sources__grey__classes=7,
        experiments__classification__families=classification(outputs=outputs),
        experiments__classification__train_on=["two"],
        experiments__classification__test_on=["five"],
    )
    reason = profile.why_not(Run("classification", "two", "maml", "first", 0), "five")
    if congruous:
        assert reason is None
    else:
        assert reason is not None
        assert reason.endswith("two has w1 5x2, b1 1x2; five has w1 5x5, b1 1x5")


def test_classes_that_only_the_images_tell_are_those_of_one_source() -> None:
    """Folders whose number of classes is not given cannot be told to have as many."""
    grey = profile_values()["sources"]["grey"] | {"classes": None}
    sources = {"one": {**grey, "path": "one"}, "other": {**grey, "path": "other"}}
    families = {
        f"{name}-{shots}": {
            "kind": "classification", "source": name, "net": "mlp", "widths": [5], "support": shots,
        }
        for name in sources for shots in (1, 2)
    }  # fmt: skip
    values = changed(
        profile_values(),
        sources=sources,
        experiments__classification__families=families,
        experiments__classification__train_on=["one-1"],
        experiments__classification__test_on=["one-2", "other-1"],
    )
    del values["experiments"]["attack"]
    profile = Profile.model_validate(values)
    run = Run("classification", "one-1", "maml", "first", 0)
    assert profile.why_not(run, "one-2") is None
    assert "(classes of one); other-1 has" in str(profile.why_not(run, "other-1"))


def source(kind: str, name: str, shape: list[int]) -> dict[str, Any]:
    return {"kind": kind, "name": name, "label": "x", "shape": shape}


NEEDED = "theory.{} needs {!r} trained in experiment 'sine'"
OUT = ", or take 'sine' out of theory.{}.experiments"
WHOLE: dict[str, tuple[dict[str, Any], str]] = {
    "images that LeNet-5 does not take": (
        {"sources__colour__shape": [3, 64, 64]},
        "sources.colour.shape: images of 64x64; LeNet-5 takes 28x28 or 32x32 (experiment 'attack')",
    ),
    "too few classes": (
        {"sources__grey__classes": 1},
        "sources.grey.classes: 1, but a task needs 2 (experiment 'attack')",
    ),
    "another shape than its own": (
        {
            "sources__grey": {
                "kind": "embedded",
                "name": "photos",
                "label": "x",
                "shape": [1, 28, 28],
            }
        },
        "sources.grey: shape of photos is (3, 32, 32), not (1, 28, 28)",
    ),
    "an unknown data set": (
        {"sources__grey": source("embedded", "mnist", [1, 28, 28])},
        "sources.grey: unknown embedded source 'mnist'; did you mean 'mnist5k'?",
    ),
    "a device": ({"device": "gpu"}, "device: 'gpu'; use cpu, cuda or cuda:N"),
    "a device in capitals": ({"device": "CUDA"}, "device: 'CUDA'; use cpu, cuda or cuda:N"),
    "a seed that JavaScript rounds": (
        {"seeds": [2**53]},
        "seeds.0: input should be less than 9007199254740992 (given: 9007199254740992)",
    ),
    "no victim": ({"victim": None}, "key 'victim' is missing, which experiment 'attack' needs"),
    "no maml": (
        {"experiments__sine__maml": None},
        "experiments.sine: method 'maml' needs the section 'maml'",
    ),
    "no maml for the theory": (
        {"experiments__sine__maml": None, "experiments__sine__methods": ["lft"]},
        f"{NEEDED.format('vanishing', 'maml')}: add it to 'methods'{OUT.format('vanishing')}",
    ),
    "no lft for the theory": (
        {"experiments__sine__methods": ["maml"]},
        f"{NEEDED.format('gap', 'lft')}: add it to 'methods'{OUT.format('gap')}",
    ),
    "theory of what was measured elsewhere": (
        {"experiments__sine__measurements": {"maml": "given.csv"}},
        f"{NEEDED.format('vanishing', 'maml')}: take it out of 'measurements'"
        f"{OUT.format('vanishing')}",
    ),
    "theory of one order alone": (
        {"experiments__sine__orders": ["zeroth"]},
        f"{NEEDED.format('gap', 'lft')}: add 'first' to 'orders'{OUT.format('gap')}",
    ),
    "theory of incongruous families": (
        {"theory__vanishing__experiments": ["classification"]},
        f"{NEEDED.format('vanishing', 'maml')}: list a mixture of congruous families first in "
        f"'train_on'{OUT.format('vanishing')}".replace("'sine'", "'classification'"),
    ),
    "no step sizes": (
        {"experiments__sine__step_sizes": {"sgd": [0.1]}},
        "experiments.sine: method 'adam' needs the key 'step_sizes.adam'",
    ),
    "step sizes of nothing": (
        {"experiments__sine__step_sizes__sdg": [0.1]},
        "experiments.sine: step_sizes: unknown kind 'sdg'; did you mean 'sgd'?",
    ),
    "an unknown fine-tuner": (
        {"experiments__sine__finetuner": {"kind": "lsmt"}},
        "experiments.sine.finetuner.kind: unknown kind 'lsmt'; did you mean 'lstm'?",
    ),
}


@pytest.mark.parametrize("case", sorted(WHOLE))
def test_a_profile_is_checked_as_a_whole(case: str, tmp_path: Path) -> None:
    changes, message = WHOLE[case]
    values = changed(profile_values(), **changes)
    assert refusal(yaml.safe_dump(values), tmp_path).removeprefix("profile: ") == message


SINE = {"kind": "sine", "support": 4, "query": 4, "hidden": [4]}
RANGES = "universes__tuning__ranges__sine"
UNIVERSES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown experiment": (
        {"universes__experiments": {"sin": 1}, "universes__tuning__ranges": {"sin": {}}},
        "unknown experiment 'sin'; did you mean 'sine'?",
    ),
    "a method without ranges": (
        {RANGES: {}},
        "universes.tuning.ranges.sine has nothing for 'maml'",
    ),
    "ranges of another method": (
        {f"{RANGES}__sgd": {}},
        "universes.tuning.ranges.sine: 'sgd'; known are maml, l2o, lft",
    ),
    "ranges of an unknown key": (
        {f"{RANGES}__lft": {"training.learing_rate": [0.1, 1.0]}},
        "universes.tuning.ranges.sine.lft: unknown key 'training.learing_rate'; did you mean "
        "'learning_rate'?",
    ),
    "draws of a whole number": (
        {f"{RANGES}__lft": {"training.segment": [1.5, 2.0]}},
        "universes.tuning.ranges.sine.lft: training.segment: input should be a valid integer "
        "(given: 1.5)",
    ),
    "a range beyond the bound": (
        {f"{RANGES}__lft": {"training.learning_rate": [0.1, 1000.0]}},
        "universes.tuning.ranges.sine.lft: training.learning_rate: input should be less than or "
        "equal to 100 (given: 1000.0)",
    ),
    "what was measured elsewhere": (
        {"experiments__sine__measurements": {"lft": "given.csv"}},
        "universes train every method: take 'lft' out of experiments.sine.measurements",
    ),
    "one seed": (
        {"seeds": [0]},
        "universes.twice needs two seeds or more",
    ),
    "no key for a fork": (
        {"experiments__sine__families": {"wave": SINE}, "experiments__sine__train_on": ["wave"],
         "experiments__sine__test_on": ["wave"]},
        "universes: fork 'points' of 'sine': unknown key 'families.sine.support'; known are wave; "
        "give the profile that key, or take 'sine' out of universes.experiments",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(UNIVERSES))
def test_universes_are_checked_before_they_run(case: str, tmp_path: Path) -> None:
    changes, message = UNIVERSES[case]
    values = multiverse().model_dump(mode="json", exclude_none=True)
    del values["theory"]
    path = tmp_path / "many.yaml"
    path.write_text(yaml.safe_dump(values))
    assert load_profile(path).universes is not None
    line = refusal(yaml.safe_dump(changed(values, **changes)), tmp_path)
    assert line.removeprefix("profile: ") == message


def test_sections_that_nothing_uses_may_be_absent() -> None:
    values = profile_values()
    experiment = values["experiments"]["sine"] | {"methods": ["lft"]}
    for key in ("maml", "step_sizes", "finetuner"):
        del experiment[key]
    kept = {key: values[key] for key in ("name", "title", "seeds")}
    profile = Profile.model_validate({**kept, "experiments": {"sine": experiment}})
    assert profile.theory_experiments == []
    used = profile.training_inputs(Run("sine", "sine", "lft", "first", 0))["finetuner"]
    assert used == config.LSTMSettings().model_dump()


def test_the_schema_is_current_and_fits_the_shipped_profiles() -> None:
    folder = shipped_profiles()["smoke"].parent
    kept = json.loads((folder / "profile.schema.json").read_text())
    write = "json.dumps(lft.config.schema(), indent=1) is what the file should hold"
    assert kept == config.schema(), write
    validator = jsonschema.Draft202012Validator(kept)
    for path in shipped_profiles().values():
        validator.validate(json.loads(json.dumps(config.read_yaml(path, "profile"))))
    wrong = {"experiments": {"sine": {"training": {"leraning_rate": 0.1}}}}
    assert not validator.is_valid(wrong)


def test_known_data_sets_are_those_that_can_be_read() -> None:
    assert set(KNOWN["embedded"]) == set(embedded.EMBEDDED)
    assert set(KNOWN["torchvision"]) == set(published.DATASETS)
    for name, (shape, classes) in KNOWN["embedded"].items():
        arrays = embedded.EMBEDDED[name]()
        assert (arrays.train.images.shape[1:], len(arrays.classes)) == (shape, classes)
