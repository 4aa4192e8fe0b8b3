from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lft.config import Source
from lft.data import load
from lft.data.images import Arrays, Split, save
from lft.errors import UsageError
from lft.storage.tensors import save_tensors


def split(labels, shape=(1, 2, 3)):
    labels = np.array(labels, np.int64)
    images = np.arange(len(labels) * np.prod(shape), dtype=np.uint8)
    return Split(images.reshape(len(labels), *shape), labels)


GOOD = Arrays(split([0, 1, 1]), split([1, 0]), ("cat", "dog"))


@pytest.fixture(scope="module")
def file_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "x.safetensors"
    save(
        GOOD,
        Source(kind="folder", name="x", label="pets", shape=(1, 2, 3), path="x", note="n"),
        path,
    )
    return path, path.read_bytes()


def test_what_was_saved_is_loaded(file_bytes):
    images = load(file_bytes[0])
    for name, expected in (("train", GOOD.train), ("test", GOOD.test)):
        np.testing.assert_array_equal(getattr(images, f"{name}_images"), expected.images)
        np.testing.assert_array_equal(getattr(images, f"{name}_labels"), expected.labels)
        assert getattr(images, f"{name}_images").numpy().dtype == np.uint8
        assert getattr(images, f"{name}_labels").numpy().dtype == np.int64
    assert images.classes == ("cat", "dog")
    assert (images.label, images.stands_in_for, images.note) == ("pets", None, "n")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (GOOD._replace(train=split([0, 1], (3, 2, 3))), "3x2x3 .* says 1x2x3"),
        (GOOD._replace(test=split([0, 1, 2])), "label 2; labels run from 0 to 1"),
        (GOOD._replace(test=split([0, 0])), "'dog' has no images"),
        (GOOD._replace(train=split([])), "no images"),
        (GOOD._replace(train=GOOD.train._replace(labels=np.array([0, 1]))), "3 images but 2"),
    ],
)
def test_arrays_that_are_not_as_declared_are_refused(tmp_path, source, arrays, words):
    with pytest.raises(UsageError, match=words):
        save(arrays, source("folder", shape=(1, 2, 3), path="x"), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@given(data=st.data())
def test_an_altered_file_is_named_and_never_believed(file_bytes, data):
    path, content = file_bytes
    damaged = path.with_name("damaged")
    if data.draw(st.booleans(), label="truncate"):
        damaged.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    else:
        position = data.draw(st.integers(0, len(content) - 1))
        flipped = content[position] ^ 1 << data.draw(st.integers(0, 7))
        damaged.write_bytes(content[:position] + bytes([flipped]) + content[position + 1 :])
    with pytest.raises(UsageError, match="damaged"):
        load(damaged)


def test_a_missing_file_and_a_file_of_something_else(tmp_path):
    with pytest.raises(UsageError, match="missing"):
        load(tmp_path / "none")
    save_tensors(tmp_path / "weights", {}, {"source": "x"})
    with pytest.raises(UsageError, match="does not hold images"):
        load(tmp_path / "weights")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, source, largest_file):
    with largest_file(100), pytest.raises(UsageError, match="cannot write"):
        save(GOOD, source("folder", shape=(1, 2, 3), path="x"), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_images_of_another_source_are_refused_and_preparing_them_again_helps(tmp_path):
    """Silence would train on stand-in data under the name of the real one."""
    path = tmp_path / "x.safetensors"
    values = {"name": "x", "label": "pets", "shape": (1, 2, 3), "path": "x"}
    folder = Source(kind="folder", **values)
    other = Source(kind="folder", **{**values, "name": "y"})
    save(GOOD, folder, path)
    load(path, folder.model_copy(update={"label": "only shown"}))
    with pytest.raises(UsageError, match=r"prepared with name 'x', the profile says 'y'; delete"):
        load(path, other)
    path.unlink()
    save(GOOD, other, path)
    load(path, other)
