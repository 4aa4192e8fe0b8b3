"""Trained fine-tuners: from a run to a file and back, and what a user can get wrong."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny import tiny_profile, write_images

import lft
from lft.config import AttackLoss, LSTMSettings, Run, SineFamily
from lft.errors import UsageError
from lft.finetuners.lstm import CoordinateLSTM, init_weights
from lft.meta.adapt import adapt
from lft.meta.evaluate import evaluate
from lft.meta.gradients import FirstOrder
from lft.meta.train import train
from lft.pretrained import Pretrained, available
from lft.pretrained.export import _scores, from_run
from lft.results.schema import Measurement
from lft.seeding import generator
from lft.storage.json import read_json, write_json
from lft.storage.tensors import below, load_tensors, save_tensors
from lft.tasks.build import make_victim
from lft.tasks.sine import Sine

PROFILE = tiny_profile(
    seeds=[1],
    sources__grey__path="/home/me/images",
    experiments__attack__methods=["lft"],
    experiments__attack__families__grey__distortion_weight=3.0,
)
ATTACK = Run("attack", "grey+colour", "lft", "first", 1)
ZEROTH = Run("sine", "sine", "l2o", "zeroth", 1)
MAML = Run("sine", "sine", "maml", "first", 1)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs, meta-trained and evaluated."""
    folder = tmp_path_factory.mktemp("results")
    write_images(folder)
    for source in PROFILE.sources:
        make_victim(PROFILE, source, folder)
    for run in (ATTACK, ZEROTH, MAML):
        train(PROFILE, run, folder)
        evaluate(PROFILE, run, folder)
    return folder


@pytest.fixture(scope="module")
def exported(results: Path) -> Pretrained:
    return from_run(results, ATTACK, licence="MIT")


def test_a_run_survives_export_and_loading(
    results: Path, exported: Pretrained, tmp_path: Path
) -> None:
    exported.save(tmp_path / "mine.safetensors")
    loaded = lft.load(tmp_path / "mine.safetensors")
    assert loaded.card == exported.card
    flat, _ = load_tensors(results / ATTACK.folder / "weights.safetensors")
    trained = below("best/lstm", flat)
    assert set(loaded.weights) == set(trained)
    assert all(torch.equal(loaded.weights[name], trained[name]) for name in trained)


def test_the_card_says_where_the_weights_come_from(results: Path, exported: Pretrained) -> None:
    card = exported.card
    assert (card.name, card.method, card.order, card.seed) == ("lft-mnist5k+mnist5k", *ATTACK[2:])
    assert card.training == PROFILE.experiments["attack"].training.model_dump(mode="json")
    assert card.families["colour"]["images"]["shape"] == [3, 32, 32]
    assert "/home/me" not in card.model_dump_json()
    assert card.attack_loss == AttackLoss(distortion_weight=3.0)
    rows = pd.read_csv(results / ATTACK.folder / "measurements.csv")
    rows = rows[(rows["step"] == 3) & (rows["tested_on"] == "colour")]
    expected = rows[rows["metric"] == "distortion"]["value"].mean()
    assert card.scores["colour"]["distortion"] == pytest.approx(expected, rel=1e-3)  # four digits
    assert card.scored_after == 3


def test_zeroth_order_is_carried_on(results: Path) -> None:
    tuner = from_run(results, ZEROTH, licence="CC0-1.0")
    assert tuner.card.name == "l2o-sine-zeroth"
    assert tuner.card.licence == "CC0-1.0"
    assert tuner.card.zeroth_order == PROFILE.experiments["sine"].zeroth_order
    assert tuner.optimizer([torch.zeros(2)]).zeroth_order == tuner.card.zeroth_order
    assert from_run(results, ZEROTH, name="mine", licence="MIT").card.name == "mine"
    assert from_run(results, ZEROTH, licence="MIT", note="from JPEG").card.note == "from JPEG"


def test_a_run_measured_with_other_methods_is_exported_too(
    results: Path, exported: Pretrained, tmp_path: Path
) -> None:
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    own = tmp_path / ATTACK.folder
    together = own.parent.with_name("all-first")
    together.mkdir()
    rows = (own / "measurements.csv").read_text().splitlines(keepends=True)
    better = [row.replace(",lft,", ",l2o,").replace(",0.", ",9.") for row in rows[1:]]
    (together / "measurements.csv").write_text("".join([*rows, *better]))
    (own / "measurements.csv").unlink()
    assert from_run(tmp_path, ATTACK, licence="MIT").card == exported.card


def test_a_kept_run_is_exported_too(results: Path, exported: Pretrained, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    measured = tmp_path / ATTACK.folder / "measurements.csv"
    packed = gzip.compress(measured.read_bytes())
    measured.with_name("measurements.csv.gz").write_bytes(packed)
    measured.unlink()
    assert from_run(tmp_path, ATTACK, licence="MIT").card == exported.card
    measured.with_name("measurements.csv.gz").write_bytes(packed[:-30])
    with pytest.raises(UsageError, match=r"measurements.csv.gz: it is damaged"):
        from_run(tmp_path, ATTACK, licence="MIT")


def test_what_cannot_be_exported_is_said(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="MAML has no fine-tuner for parameters other"):
        from_run(results, MAML, licence="MIT")
    with pytest.raises(UsageError, match=r"cannot read .*seed7/run.json"):
        from_run(results, ATTACK._replace(seed=7), licence="MIT")
    diverged = read_json(results / ATTACK.folder / "run.json") | {"status": "diverged"}
    write_json(tmp_path / ATTACK.folder / "run.json", diverged)
    with pytest.raises(UsageError, match="diverged; export another run"):
        from_run(tmp_path, ATTACK, licence="MIT")


def test_edited_measurements_are_not_exported(
    results: Path, exported: Pretrained, tmp_path: Path
) -> None:
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    path = tmp_path / ATTACK.folder / "measurements.csv"
    before = path.read_text()
    path.write_text(before.replace(",0.", ",0.1", 1))
    with pytest.raises(UsageError, match=r"was changed after it was written.*; restore it, or del"):
        from_run(tmp_path, ATTACK, licence="MIT")
    path.write_text(before)
    assert from_run(tmp_path, ATTACK, licence="MIT").card == exported.card


def test_a_diverged_test_task_leaves_no_score(tmp_path: Path) -> None:
    """A mean over the other tasks would say too much. A task whose ASR never reaches 100 % is no
    such task: the first step is a mean over those that do."""
    values = {
        "asr": ("0.25", "0.75"),
        "distortion": ("0.1", "nan"),
        "first_full": ("3", "nan"),
    }
    rows = [
        f"attack,grey+colour,grey,lft,first,1,grey-{task},3,{metric},{value}"
        for metric, pair in values.items()
        for task, value in enumerate(pair)
    ]
    path = tmp_path / "measurements.csv"
    path.write_text("\n".join([",".join(Measurement._fields), *rows, ""]))
    assert _scores(path, ATTACK) == ({"grey": {"asr": 0.5, "first_full": 3.0}}, 3)


@pytest.mark.parametrize("licence", ["", "  "])
def test_an_empty_licence_is_refused_wherever_it_is_given_and_one_helps(
    licence: str, results: Path, exported: Pretrained, tmp_path: Path
) -> None:
    path, message = tmp_path / "mine.safetensors", "licence: none is named; name one, e.g. MIT"
    with pytest.raises(UsageError, match=message):
        from_run(results, ATTACK, licence=licence)
    with pytest.raises(UsageError, match=message):
        exported.save(path, licence=licence)
    assert not path.exists()
    card = exported.card.model_dump(mode="json")
    save_tensors(path, exported.weights, card | {"licence": licence})
    with pytest.raises(UsageError, match=f"{message}.*; get the file again, or make it again"):
        lft.load(path)
    for named in ("MIT", "NOASSERTION"):
        exported.save(path, licence=named)
        assert lft.load(path).card.licence == named


@pytest.mark.parametrize("key", ["method", "families", "finetuner", "training"])
def test_a_run_json_that_lacks_settings_is_not_exported(
    key: str, results: Path, tmp_path: Path
) -> None:
    content = read_json(results / ATTACK.folder / "run.json")
    del content["settings"][key]
    write_json(tmp_path / ATTACK.folder / "run.json", content)
    with pytest.raises(UsageError, match=rf"settings.{key} is missing; delete the file and run"):
        from_run(tmp_path, ATTACK, licence="MIT")


def test_every_shipped_fine_tuner_loads_and_is_described() -> None:
    assert available()
    for name in available():
        card = lft.load(name).card
        assert card.name == name
        assert card.licence == "MIT"
        assert card.scores


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loaded_fine_tuner_is_one_for_the_inner_loop(dtype: torch.dtype) -> None:
    tuner = lft.load("lft-mnist+cifar10")
    family = Sine(SineFamily(support=5, query=5, hidden=(4,)))
    start = {k: v.to(dtype) for k, v in family.init(3, generator("start")).items()}
    support = family.sample(3, generator("tasks")).support
    support = type(support)(*(leaf.to(dtype) for leaf in support))
    weights = {k: v.to(dtype) for k, v in tuner.weights.items()}
    reference = CoordinateLSTM(weights, tuner.card.finetuner, "torch")
    (ours,) = adapt(family, tuner, start, support, steps=1, gradient=FirstOrder())
    (theirs,) = adapt(family, reference, start, support, steps=1, gradient=FirstOrder())
    for name in start:
        torch.testing.assert_close(ours.params[name], theirs.params[name])


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'lft-mnist\+cifar10'\?"):
        lft.load("lft-mnist+cifar1")
    with pytest.raises(UsageError, match=r"'x' is neither .* nor a file; known are .*lft-mnist"):
        lft.load("x")


def test_what_is_no_shipped_name_is_a_file(
    exported: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("mine", "below/t.safetensors"):
        exported.save(tmp_path / name)
    for given_ in ("mine", "./mine", Path("mine"), "~/mine", "~/below/t.safetensors"):
        assert lft.load(given_).card == exported.card
    for absent in ("./yours", "below/mine", "~/t.safetensors"):
        with pytest.raises(UsageError, match=r"is neither a fine-tuner nor a file"):
            lft.load(absent)
    for wrong in (None, 3, ["mine"], torch.zeros(2)):
        with pytest.raises(UsageError, match="has a name or a file, not"):
            lft.load(wrong)  # type: ignore[arg-type]


def test_files_that_hold_something_else_are_refused(exported: Pretrained, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(UsageError, match="nor a file"):
        lft.load(path)
    path.write_bytes(b"\x80\x04pickled")
    with pytest.raises(UsageError, match="is damaged"):
        lft.load(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(UsageError, match="lft did not write it"):
        lft.load(path)
    save_tensors(path, {"w": torch.zeros(2)}, {"run": "x"})
    with pytest.raises(UsageError, match="is not a trained fine-tuner"):
        lft.load(path)
    other = init_weights(LSTMSettings(hidden=4), generator("other"))
    Pretrained(exported.card, other).save(path)
    with pytest.raises(UsageError, match="weights of other sizes than its card says"):
        lft.load(path)
    Pretrained(exported.card.model_copy(update={"method": "sgd"}), exported.weights).save(path)
    with pytest.raises(UsageError, match="its method 'sgd' learns no fine-tuner"):
        lft.load(path)
    Pretrained(exported.card.model_copy(update={"method": "ltf"}), exported.weights).save(path)
    with pytest.raises(UsageError, match="unknown method 'ltf'; did you mean 'lft'"):
        lft.load(path)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 10**12)
    | st.floats()
    | st.sampled_from(["attack", "maml", "sgd", "lft", "zeroth", "x\ny"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@settings(max_examples=75, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_card_with_anything_anywhere_is_read_or_refused_in_one_line(
    exported: Pretrained, tmp_path: Path, data: st.DataObject
) -> None:
    card = exported.card.model_dump(mode="json")
    where, *rest = data.draw(st.sampled_from(list(_places(card))))
    target = card
    for key in rest:
        target, where = target[where], key
    if data.draw(st.booleans()):
        del target[where]
    else:
        target[where] = data.draw(ANYTHING)
    path = tmp_path / "file.safetensors"
    save_tensors(path, exported.weights, card)
    try:
        tuner = lft.load(path)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        params = {"x": torch.ones(1, 3)}
        tuner.step(tuner.start(params), params, params)
        assert tuner.card.attack_loss


def _places(value: object, *path: str) -> Iterator[tuple[str, ...]]:
    """Paths of all keys, nested ones too."""
    if isinstance(value, dict):
        for key, below_it in value.items():
            yield (*path, key)
            yield from _places(below_it, *path, key)


def test_a_changed_file_is_refused(exported: Pretrained, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    exported.save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="its checksum does not match"):
        lft.load(path)
