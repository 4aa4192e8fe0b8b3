"""Data sets that torchvision reads, without a network: made-up ones, and one of plain folders."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import torchvision
from PIL import Image

from lft.config import Source
from lft.data import catalogue, load, prepare
from lft.errors import UsageError

FAKE = {"size": 60, "image_size": [3, 20, 30], "num_classes": 3}


def source(name, shape=(3, 20, 30), **keys):
    return Source(kind="torchvision", name=name, label="x", shape=shape, **keys)


def prepared(path, settings):
    prepare(settings, path)
    return load(path)


def test_what_has_one_part_is_divided_class_by_class(tmp_path):
    images = prepared(tmp_path / "x", source("FakeData", options=FAKE))
    reference = torchvision.datasets.FakeData(60, (3, 20, 30), 3)
    train, test, seen = [], [], [0, 0, 0]
    for picture, label in reference:
        (test if seen[label] % 5 == 4 else train).append((np.asarray(picture), label))
        seen[label] += 1
    for split, expected in (("train", train), ("test", test)):
        pixels = np.stack([picture.transpose(2, 0, 1) for picture, _ in expected])
        np.testing.assert_array_equal(getattr(images, f"{split}_images"), pixels)
        labels = [label for _, label in expected]
        np.testing.assert_array_equal(getattr(images, f"{split}_labels"), labels)
    assert images.classes == ("0", "1", "2")


def test_pictures_are_brought_to_the_shape(tmp_path):
    with pytest.raises(UsageError, match=r"'FakeData 0' has 30x20 .* set 'resize' and 'convert'"):
        prepare(source("FakeData", (1, 8, 8), options=FAKE), tmp_path / "x")
    settings = source("FakeData", (1, 8, 8), options=FAKE, resize="crop", convert=True)
    images = prepared(tmp_path / "x", settings)
    assert images.train_images.shape[1:] == (1, 8, 8)
    assert (
        images.note == "pictures of another shape were cropped to 8x8 pixels and converted to grey"
    )


def test_a_data_set_in_folders_is_read_from_where_it_lies(tmp_path):
    """EuroSAT is a folder a class; the fifth and tenth image of a class are for testing."""
    folder = tmp_path / "cache/eurosat/2750"
    for number, label in enumerate(["Forest", "River"] * 10):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / label / f"{number:02}.png")
    images = prepared(tmp_path / "x", source("EuroSAT", (3, 4, 4), path=tmp_path / "cache"))
    assert images.classes == ("Forest", "River")
    trained, tested = images.train_images[:, 0, 0, 0], images.test_images[:, 0, 0, 0]
    assert tested.tolist() == [8, 18, 9, 19]
    assert trained.tolist() == [
        n for first in (0, 1) for n in range(first, 20, 2) if n not in tested
    ]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("EMNIST", {"split": "letters"}, [{"train": True}, {"train": False}]),
        ("USPS", {}, [{"train": True}, {"train": False}]),
        ("QMNIST", {}, [{"train": True}, {"train": False}]),
        ("STL10", {}, [{"split": "train"}, {"split": "test"}]),
        ("GTSRB", {}, [{"split": "train"}, {"split": "test"}]),
        ("Flowers102", {}, [{"split": "train"}, {"split": "test"}]),
        ("Flowers102", {"split": "test"}, [{}]),
        ("OxfordIIITPet", {}, [{"split": "trainval"}, {"split": "test"}]),
        ("Omniglot", {}, [{}]),
    ],
)
def test_training_and_test_images_are_asked_for_as_the_class_calls_them(name, options, expected):
    assert catalogue._divisions(source(name, options=options)) == expected


def test_every_name_is_a_class_of_torchvision():
    for name in catalogue.NAMES:
        assert catalogue._parameters(source(name, resize="crop")), name


def test_labels_count_the_classes_with_images():
    from lft.data.images import Split

    nothing = np.zeros((2, 1, 1, 1), np.uint8)
    train, test = Split(nothing, np.array([1, 5])), Split(nothing, np.array([5, 1]))
    arrays = catalogue._renumbered(train, test, ["N/A", "a", "b", "c", "d", "e"])
    assert arrays.classes == ("a", "e")
    assert (arrays.train.labels.tolist(), arrays.test.labels.tolist()) == ([0, 1], [1, 0])
    assert catalogue._renumbered(train, test, []).classes == ("1", "5")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("FakeData", {"sides": 4}, "unexpected keyword argument 'sides'; correct .* 'options'"),
        ("EMNIST", {}, "missing 1 required positional argument: 'split'; correct .* 'options'"),
        ("EMNIST", {"split": "lettres"}, "lettres.*; correct the source's 'options'"),
        ("USPS", {}, "the wire is cut.*; get its files by hand and put them into .*cache"),
        ("FER2013", {}, "not found .*; get its files by hand and put them into .*cache"),
        ("FakeDate", {}, "did you mean 'FakeData'"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_says_what_to_do(
    tmp_path, monkeypatch, name, options, words
):
    def cut(*_):
        raise OSError("the wire is cut")

    monkeypatch.setattr(socket.socket, "connect", cut)
    monkeypatch.setattr(socket, "getaddrinfo", cut)
    settings = source(name, (1, 16, 16), options=options, path=tmp_path / "cache")
    with pytest.raises(UsageError, match=words) as error:
        prepare(settings, tmp_path / "x")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x").exists()


def test_options_are_for_what_takes_them():
    with pytest.raises(ValueError, match="takes no 'options'; remove the key"):
        source("MNIST", options={"train": True})
    with pytest.raises(ValueError, match="takes no 'options'; remove the key"):
        Source(kind="embedded", name="photos", label="x", shape=(3, 32, 32), options={"a": 1})
