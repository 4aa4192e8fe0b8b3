"""lft.load and lft card on files that are none of ours: one line, and nothing is executed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import struct
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lft
from lft.cli import main
from lft.errors import UsageError
from lft.pretrained import FOLDER
from lft.storage.tensors import save_tensors

SHIPPED = sorted(FOLDER.glob("*.safetensors"))[0]
INTACT = SHIPPED.read_bytes()
HEADER = 8 + struct.unpack("<Q", INTACT[:8])[0]
"""Bytes of the header and of its length before it."""
TYPES = (
    "F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F6_E2M3", "F4", "C64",
    "I64", "I8", "U64", "U16", "U8", "BOOL", "NOSUCH",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


class Executed:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def container(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + data


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A shipped fine-tuner with some bytes changed, added or cut off, most in its header."""
    content = bytearray(INTACT)
    for _ in range(draw(st.integers(1, 4))):
        end = draw(st.sampled_from([8, HEADER, len(content)]))
        at = draw(st.integers(0, max(0, min(end, len(content)) - 1)))
        length = draw(st.sampled_from([0, 1, 1, 8, len(content)]))
        content[at : at + length] = draw(st.binary(max_size=9))
    return bytes(content)


@st.composite
def tensors(draw: st.DrawFn) -> bytes:
    """Tensors of any type and shape, beside any description."""
    kind = draw(st.sampled_from(TYPES))
    shape = draw(st.lists(st.sampled_from([0, 1, 2, 8, -1, 2**40]), max_size=3))
    size = draw(st.sampled_from([0, 1, 4, 8, 64]))
    info = draw(st.sampled_from(["", "x {}", "[" * 2000]) | st.text(max_size=9))
    entry = {"dtype": kind, "shape": shape, "data_offsets": [0, size]}
    return container({"__metadata__": {"info": info}, "w": entry}, bytes(size))


CONTENT = st.one_of(
    mutated(), tensors(), st.binary(max_size=60), st.builds(container, JSON),
    st.builds(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"), JSON),
)  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENT)
def test_any_file_is_refused_in_one_line_or_holds_the_same(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    try:
        found = lft.load(path)
    except UsageError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
        return
    shipped = lft.load(SHIPPED.stem)  # what changed is no part of what is read
    assert found.card == shipped.card
    assert all(torch.equal(found.weights[name], leaf) for name, leaf in shipped.weights.items())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(info=JSON | st.just([[[]]]))
def test_a_file_of_ours_with_any_description_is_refused_in_one_line(
    info: object, tmp_path: Path
) -> None:
    path = tmp_path / "foreign.safetensors"
    save_tensors(path, {"w": torch.zeros(2)}, info)  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        lft.load(path)
    assert "\n" not in str(caught.value)


def pickles(folder: Path) -> dict[str, bytes]:
    """What would be executed if it were unpickled, in every container that torch or NumPy read."""
    mark, zipped, old = Executed(folder / "executed"), io.BytesIO(), io.BytesIO()
    torch.save({"w": mark}, zipped)
    torch.save({"w": mark}, old, _use_new_zipfile_serialization=False)
    plain = pickle.dumps(mark)
    numpy = b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    return {
        "plain": plain, "torch": zipped.getvalue(), "old torch": old.getvalue(),
        "numpy": numpy.ljust(80) + plain, "in a header": container({"w": plain.decode("latin-1")}),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["plain", "torch", "old torch", "numpy", "in a header"])
def test_nothing_is_unpickled(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(pickles(tmp_path)[kind])
    with pytest.raises(UsageError):
        lft.load(path)
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickles(tmp_path)["plain"])  # the test could have failed
    assert (tmp_path / "executed").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENT)
def test_the_command_line_says_it_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["lft", "card", os.fspath(path)]),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    if ended.value.code in (0, None):
        assert "licence: MIT" in stdout.getvalue()
        return
    assert ended.value.code == 2
    assert stdout.getvalue() == ""
    (line,) = stderr.getvalue().splitlines()
    assert line.startswith("lft: ")
