"""Pictures of another shape, against Pillow's own operations."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lft.config import Source
from lft.data import load, pictures
from lft.data.images import Arrays, Split, save
from lft.errors import UsageError

RNG = np.random.default_rng(0)


def source(shape: tuple[int, int, int], **keys: Any) -> Source:
    return Source(kind="folder", name="x", label="x", path="x", shape=shape, **keys)


def encoded(picture: Image.Image, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format)
    return buffer.getvalue()


def test_stretching_is_pillows_resize() -> None:
    picture = Image.fromarray(RNG.integers(0, 256, (20, 30, 3), np.uint8))
    found = pictures.fit(picture, "x", source((3, 8, 8), resize="stretch"))
    expected = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(found, expected)


def test_cropping_keeps_the_middle_and_padding_all() -> None:
    """A picture 40 wide and 20 high whose left, middle and right are red, green and blue."""
    stripes = np.zeros((20, 40, 3), np.uint8)
    stripes[:, :10, 0] = stripes[:, 10:30, 1] = stripes[:, 30:, 2] = 255
    picture = Image.fromarray(stripes)
    cropped = pictures.fit(picture, "x", source((3, 10, 10), resize="crop"))
    assert (cropped[1, :, 1:-1] == 255).all()  # but for the edges, where two colours mix
    padded = pictures.fit(picture, "x", source((3, 10, 10), resize="pad"))
    inside = padded.max(0) > 0
    assert inside.any(1).tolist() == [False] * 2 + [True] * 5 + [False] * 3  # 10x5 in 10x10
    assert inside[3].all()
    assert (padded[0, 3, 0], padded[1, 3, 5], padded[2, 3, 9]) == (255, 255, 255)


def test_colours_are_pillows_conversions() -> None:
    rgb = Image.fromarray(RNG.integers(0, 256, (5, 5, 3), np.uint8))
    for start in ("L", "RGB", "RGBA", "P", "1", "CMYK", "LA"):
        picture = rgb.convert(start)
        for channels, mode in pictures.MODES.items():
            found = pictures.fit(picture, "x", source((channels, 5, 5), convert=True))
            expected = np.asarray(picture.convert(mode)).reshape(5, 5, channels).transpose(2, 0, 1)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("picture", "keys"),
    [
        (Image.new("RGB", (9, 5)), {"resize": "crop"}),
        (Image.new("L", (5, 5)), {"convert": True}),
        (Image.new("P", (4, 5)), {"resize": "pad", "convert": True}),
    ],
)
def test_what_a_refusal_advises_helps(picture: Image.Image, keys: dict[str, Any]) -> None:
    advice = " and ".join(f"'{key}'" for key in keys)
    with pytest.raises(UsageError, match=f"but the source's key 'shape' says .* set {advice}$"):
        pictures.decode("x", encoded(picture), source((3, 5, 5)))
    pictures.decode("x", encoded(picture), source((3, 5, 5), **keys))


def test_more_than_eight_bits_are_never_cut_off() -> None:
    wide = Image.fromarray(np.full((5, 5), 40_000, np.uint16))
    with pytest.raises(UsageError, match=r"in mode I;16.*; save it with 8 bits a channel"):
        pictures.decode("x", encoded(wide), source((1, 5, 5), convert=True, resize="crop"))


def test_a_picture_that_claims_a_billion_pixels_is_not_decoded_to_be_resized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(UsageError, match="cannot be decoded"):
        pictures.decode("x", encoded(Image.new("RGB", (5, 5))), source((3, 2, 2), resize="crop"))


def test_arrays_are_brought_to_the_shape_and_that_is_stated(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (4, 1, 20, 20), np.uint8)
    split = Split(pixels, np.array([0, 1, 0, 1]))
    arrays = Arrays(split, split, ("a", "b"))
    settings = source((3, 32, 32), resize="pad", convert=True, note="by hand")
    save(pictures.fit_all(arrays, settings), settings, tmp_path / "x")
    images = load(tmp_path / "x")
    first = Image.fromarray(pixels[0, 0]).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images.train_images[0], np.asarray(first).transpose(2, 0, 1))
    stated = "by hand; pictures of another shape were padded to 32x32 pixels and converted to RGB"
    assert images.note == settings.remarks == stated
    assert pictures.fit_all(arrays, source((3, 32, 32))) is arrays  # and is refused
    with pytest.raises(UsageError, match="says 3x32x32; correct it, or set 'resize' or 'convert'"):
        save(arrays, source((3, 32, 32)), tmp_path / "y")


@pytest.mark.parametrize("module", ["torchvision", "torchvision.transforms.v2"])
def test_a_torchvision_that_is_missing_is_one_line(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=r"cannot be imported .*; pip install torch torchvision"):
        pictures.torchvision()


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_picture_becomes_the_shape_or_is_refused_in_one_line(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"]))
    size = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    format = data.draw(st.sampled_from(pictures.FORMATS))
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)))
    resize = data.draw(st.sampled_from([None, "crop", "pad", "stretch"]))
    convert = data.draw(st.booleans())
    try:
        content = bytearray(encoded(Image.new(mode, size, 1), format))
    except (OSError, ValueError):  # a mode that the format does not know
        return
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = pictures.decode("x", bytes(content), source(shape, resize=resize, convert=convert))
        assert found.shape == shape
        assert found.dtype == np.uint8
    except UsageError as error:
        assert "\n" not in str(error)
