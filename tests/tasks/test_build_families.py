"""From settings and files to task families and victims."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import tiny_images, tiny_profile, write_images

from lft.errors import UsageError
from lft.paths import data_path, victim_path
from lft.results.records import read_json
from lft.runtime.device import use_device
from lft.seeding import generator
from lft.storage.tensors import load_tensors, save_tensors
from lft.tasks.build import build_families, load_victim, make_victim
from lft.tasks.victim import correct, train_victim


@pytest.fixture(autouse=True)
def settings_of_torch() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_images(folder)
    for source in ("grey", "colour"):
        make_victim(tiny_profile(), source, folder)
    return folder


def test_a_victim_is_stored_with_its_clean_accuracy(results: Path) -> None:
    images = tiny_images(3, 32)
    direct = train_victim(images, tiny_profile().victim, "colour", "cpu")
    stored = load_victim(results, "colour", images)
    x = torch.rand(5, 3, 32, 32, generator=generator("x"))
    assert torch.equal(direct(x), stored(x))
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
        load_victim(tmp_path, "grey", tiny_images(1, 28))


def test_cuda_that_is_absent_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="'cuda' was asked for, but this machine has 0 CUDA"):
        use_device(tiny_profile(device="cuda"))


@pytest.mark.parametrize("device", ["gpu", "cuda:-1", "mps", "", "cpu:x"])
def test_unknown_devices_are_one_line(device: str) -> None:
    with pytest.raises(UsageError, match="device: "):
        use_device(tiny_profile(device=device))


def test_threads_are_those_of_the_profile() -> None:
    assert use_device(tiny_profile(threads=2)).type == "cpu"
    assert torch.get_num_threads() == 2


def test_denormal_numbers_are_flushed() -> None:
    small = torch.full((100,), 1e-30)
    assert (small * 1e-10).all()
    use_device(tiny_profile())
    assert not (small * 1e-10).any()
