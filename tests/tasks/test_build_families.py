"""From settings and files to task families and victims."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny import tiny_images, tiny_profile, write_images

from lft.data import load
from lft.errors import UsageError
from lft.paths import data_path, victim_path
from lft.storage.json import read_json
from lft.storage.tensors import load_tensors, save_tensors
from lft.tasks import build
from lft.tasks.build import build_families, load_victim, make_victim
from lft.tasks.victim import correct, train_victim


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_images(folder)
    for source in ("grey", "colour"):
        make_victim(tiny_profile(), source, folder)
    return folder


def test_a_victim_is_stored_with_its_clean_accuracy(results: Path) -> None:
    images = tiny_images(3, 32)
    direct = train_victim(images, tiny_profile().victims, "colour", "cpu")
    stored = load_victim(victim_path(results, "colour"), "colour", images)
    for name, weight in direct.state_dict().items():
        # Both trainings do the same sums, in an order that may depend on where memory is aligned.
        torch.testing.assert_close(stored.state_dict()[name], weight, rtol=1e-4, atol=1e-5)
    record = read_json(victim_path(results, "colour").with_suffix(".json"))
    right = correct(direct, images.test_images, images.test_labels)
    assert record["accuracy_test"] == pytest.approx(float(right.double().mean()))
    assert not any(weight.requires_grad for weight in stored.parameters())


def test_only_correctly_classified_images_are_attacked_if_so_set(
    results: Path, tmp_path: Path
) -> None:
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    tensors, info = load_tensors(data_path(results, "grey"))
    labels = tensors["test_labels"]
    labels[:6] = (labels[:6] + 1) % 3  # the victim, which knows better, is wrong there
    save_tensors(data_path(tmp_path, "grey"), tensors, info)
    for only_correct in (True, False):
        profile = tiny_profile(experiments__attack__families__grey__only_correct=only_correct)
        family = build_families(profile, profile.experiment("attack"), ["grey"], tmp_path)["grey"]
        sizes = [len(members) for members in family.pools.by_phase["test"][0].members]
        right = correct(family.victim, tensors["test_images"], labels)
        assert int(right.sum()) <= 84
        usable = right if only_correct else torch.ones_like(right)
        assert sizes == [int((usable & (labels == label)).sum()) for label in range(3)]


def test_absent_victims_are_one_line(tmp_path: Path) -> None:
    write_images(tmp_path)
    profile = tiny_profile()
    with pytest.raises(UsageError, match=r"victims/grey\.safetensors is missing"):
        build_families(profile, profile.experiment("attack"), ["grey"], tmp_path)


def test_a_victim_for_other_images_is_one_line(results: Path, tmp_path: Path) -> None:
    victim = victim_path(tmp_path, "grey")
    victim.parent.mkdir(parents=True)
    shutil.copy(victim_path(results, "colour"), victim)
    with pytest.raises(UsageError, match="holds a network for other images than those of 'grey'"):
        load_victim(victim, "grey", tiny_images(1, 28))


def test_building_changes_nothing(results: Path) -> None:
    """Threads, denormal numbers and the random state are the process's, not the families'."""
    threads = 1 + torch.get_num_threads() % 2
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    profile = tiny_profile(threads=threads)
    build_families(profile, profile.experiment("attack"), ["grey", "colour"], results)
    assert torch.get_num_threads() == before
    assert float(torch.full((1,), 1e-30) * 1e-10) > 0
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_source_is_read_once(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(build, "load", lambda path, _: (read.append(path), load(path))[1])
    profile = tiny_profile()
    context = build.Context(profile, results, torch.device("cpu"))
    for experiment in ("attack", "classification"):
        profile.experiment(experiment).families["grey"].build(context)
    assert read == [data_path(results, "grey")]
