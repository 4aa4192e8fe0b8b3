"""Tensors on disk: round trips; damage of any kind is refused, pickle is never executed."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lft.errors import UsageError
from lft.storage.tensors import below, load_tensors, prefixed, save_tensors

TENSORS = {
    "meta/w": torch.tensor([[1.0, -0.0], [float("nan"), float("inf")]]),
    "count": torch.tensor(3.0, dtype=torch.float64),
    "images": torch.arange(12, dtype=torch.uint8).view(3, 4),
    "empty": torch.zeros(0, 2),
    "transposed": torch.arange(6).view(2, 3).T,
}
INFO = {"step": 7, "score": float("inf"), "name": "é"}


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "x.safetensors"
    save_tensors(path, TENSORS, INFO)
    return path.read_bytes()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name].nan_to_num(7), other[name].nan_to_num(7)) for name in one
    )


def test_tensors_round_trip_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.safetensors"
    save_tensors(path, TENSORS, INFO)
    tensors, info = load_tensors(path)
    assert info == INFO
    assert same(tensors, TENSORS)
    for name, leaf in tensors.items():
        assert leaf.dtype == TENSORS[name].dtype
    assert torch.signbit(tensors["meta/w"][0, 1])


def test_the_same_content_gives_the_same_bytes(intact: bytes, tmp_path: Path) -> None:
    for attempt in range(10):
        save_tensors(tmp_path / f"{attempt}.safetensors", TENSORS, INFO)
        assert (tmp_path / f"{attempt}.safetensors").read_bytes() == intact


def test_no_tensors_round_trip(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", {}, {})
    assert load_tensors(tmp_path / "x.safetensors") == ({}, {})


def test_expanded_and_shared_tensors_are_stored_apart(tmp_path: Path) -> None:
    leaf = torch.ones(3, requires_grad=True)
    save_tensors(tmp_path / "x.safetensors", {"a": leaf, "b": leaf, "c": leaf.expand(2, 3)}, {})
    tensors, _ = load_tensors(tmp_path / "x.safetensors")
    assert tensors["c"].tolist() == [[1, 1, 1], [1, 1, 1]]


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_refused_in_one_line(
    data: st.DataObject, intact: bytes, tmp_path: Path
) -> None:
    content = bytearray(intact)
    if data.draw(st.booleans(), "truncate"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    try:
        tensors, info = load_tensors(path)
    except UsageError as refused:
        assert str(refused).startswith(f"{path} is damaged (")
        assert len(str(refused).splitlines()) == 1
    else:  # white space of the header may change without harm
        assert same(tensors, TENSORS)
        assert info == INFO


def test_every_altered_byte_of_the_data_is_noticed(intact: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    header = 8 + int.from_bytes(intact[:8], "little")
    for at in range(header, len(intact)):
        path.write_bytes(intact[:at] + bytes([intact[at] ^ 1]) + intact[at + 1 :])
        with pytest.raises(UsageError, match="checksum"):
            load_tensors(path)


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    struck, path = tmp_path / "struck", tmp_path / "x.safetensors"
    buffer = io.BytesIO()
    torch.save({"w": Bomb(struck)}, buffer)
    for content in (pickle.dumps(Bomb(struck)), buffer.getvalue()):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is damaged"):
            load_tensors(path)
        assert not struck.exists()
    pickle.loads(pickle.dumps(Bomb(struck)))
    assert struck.exists()  # the bomb was a real one


def test_files_of_other_programs_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="lft did not write it"):
        load_tensors(tmp_path / "x.safetensors")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x\.safetensors is missing"):
        load_tensors(tmp_path / "x.safetensors")


def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    tmp_path: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    full = pytest.raises(UsageError, match=r"cannot write .*x\.safetensors: File too large")
    with full, largest_file(4096):
        save_tensors(tmp_path / "x.safetensors", {"w": torch.zeros(10_000)}, {})
    assert not list(tmp_path.iterdir())


def test_prefixes_come_off_again() -> None:
    flat = prefixed("a", {"x": torch.tensor(1), "y/z": torch.tensor(2)})
    flat |= prefixed("ab", {"x": torch.tensor(3)})
    assert below("a", flat) == {"x": torch.tensor(1), "y/z": torch.tensor(2)}
