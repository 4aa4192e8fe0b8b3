from __future__ import annotations

import errno
import gzip
import io
import struct
import tarfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import MNIST, ImageFolder

from lft.config import Source
from lft.data import archive, folder, idx, load, prepare
from lft.errors import UsageError

RNG = np.random.default_rng(0)
COLOUR = {
    f"{split}/{label}/{number}.png": RNG.integers(0, 256, (4, 6, 3), np.uint8)
    for split, numbers in (("train", (1, 2, 10)), ("test", (7,)))
    for label in ("cat", "dog")
    for number in numbers
}


def encoded(pixels, format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def pictures():
    return {name: encoded(pixels) for name, pixels in COLOUR.items()}


@pytest.fixture
def prepared(tmp_path, source):
    """Prepare a folder source below ``tmp_path``; nothing may be left behind by a refusal."""

    def prepare_and_load(path="data", shape=(3, 4, 6)):
        target = tmp_path / "out" / "x.safetensors"
        settings = source("folder", path=tmp_path / path, shape=shape)
        before = sorted(tmp_path.rglob("*"))
        try:
            prepare(settings, target)
        except UsageError as error:
            assert "\n" not in str(error)
            assert sorted(tmp_path.rglob("*")) == before
            raise
        return load(target)

    return prepare_and_load


def same_as_image_folder(images, path):
    for split in ("train", "test"):
        reference = ImageFolder(path / split)
        assert list(images.classes) == reference.classes
        expected = [np.asarray(picture).transpose(2, 0, 1) for picture, _ in reference]
        np.testing.assert_array_equal(getattr(images, f"{split}_images"), np.stack(expected))
        np.testing.assert_array_equal(getattr(images, f"{split}_labels"), reference.targets)


def test_image_folders_read_like_torchvision(tmp_path, prepared, pictures):
    extra = {"README": b"x", "train/cat/.hidden": b"x", "train/.git/1.png": b"x"}
    write_folder(tmp_path / "plain", pictures)
    write_folder(tmp_path / "data", pictures | extra)
    same_as_image_folder(prepared(), tmp_path / "plain")


def test_two_tars_and_one_tar_read_like_their_folder(tmp_path, prepared, pictures):
    write_folder(tmp_path / "plain", pictures)
    backwards = dict(reversed(pictures.items()))
    write_tar(tmp_path / "one.tar", {f"./{name}": data for name, data in backwards.items()})
    (tmp_path / "two").mkdir()
    for split in ("train", "test"):
        part = {name: data for name, data in backwards.items() if name.startswith(split)}
        write_tar(tmp_path / "two" / f"{split}.tar", part)
    for path in ("one.tar", "two"):
        same_as_image_folder(prepared(path), tmp_path / "plain")


def test_grey_images_have_one_channel(tmp_path, prepared):
    files = {name: encoded(pixels[..., 0], "BMP") for name, pixels in COLOUR.items()}
    write_folder(tmp_path / "data", files)
    images = prepared(shape=(1, 4, 6))
    np.testing.assert_array_equal(images.test_images[0, 0], COLOUR["test/cat/7.png"][..., 0])


def test_lossy_images_decode_close_to_their_pixels(tmp_path, prepared):
    """JPEG of a constant image is exact up to rounding of the colour transform."""
    files = {name: encoded(np.full((4, 6, 3), 77, np.uint8), "JPEG") for name in COLOUR}
    write_folder(tmp_path / "data", files)
    assert (prepared().train_images.int() - 77).abs().max() <= 1


NAMES = st.sampled_from(["1.png", "2.png", "10.png", "a-b.png", "A.png", "é.png"])
FOLDERS = st.lists(st.sampled_from(["more", "m-2", "z", "10"]), max_size=2).map("/".join)


@settings(max_examples=20, deadline=None)
@given(places=st.sets(st.tuples(FOLDERS, NAMES), min_size=1, max_size=5))
def test_folders_and_tars_hold_the_same_images_as_for_torchvision(places, tmp_path_factory):
    """One rule for both: folders below a class belong to it, in ImageFolder's order."""
    tmp_path = tmp_path_factory.mktemp("layout")
    pixels = iter(RNG.integers(0, 256, (40, 4, 6, 3), np.uint8))
    files = {
        "/".join(filter(None, (split, label, *place))): encoded(next(pixels))
        for split in ("train", "test")
        for label in ("cat", "dog")
        for place in sorted(places)
    }
    hidden = {"train/cat/.cache/1.png": b"x", "test/dog/more/.DS_Store": b"x", "notes.txt": b"x"}
    write_folder(tmp_path / "data", files)
    write_tar(tmp_path / "data.tar", dict(reversed(files.items())) | hidden)
    for path in ("data", "data.tar"):
        settings = Source(kind="folder", name="x", label="x", shape=(3, 4, 6), path=tmp_path / path)
        prepare(settings, tmp_path / "x.safetensors")
        same_as_image_folder(load(tmp_path / "x.safetensors"), tmp_path / "data")


def test_a_link_to_a_folder_around_it_is_refused_and_its_removal_helps(
    tmp_path, prepared, pictures
):
    write_folder(tmp_path / "data", pictures)
    link = tmp_path / "data/train/cat/again"
    link.symlink_to("..")
    with pytest.raises(UsageError, match="again is a link to a folder that it lies in; remove it"):
        prepared()
    link.unlink()
    same_as_image_folder(prepared(), tmp_path / "data")


def test_a_compressed_archive_is_named_and_its_unpacking_helps(tmp_path, prepared, pictures):
    write_tar(tmp_path / "plain.tar", pictures)
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        packed = tmp_path / "data" / f"{split}.tar.gz"
        part = {name: data for name, data in pictures.items() if name.startswith(split)}
        write_tar(tmp_path / "part.tar", part)
        packed.write_bytes(gzip.compress((tmp_path / "part.tar").read_bytes()))
    with pytest.raises(UsageError, match=r"unpack train\.tar\.gz, or make an uncompressed tar"):
        prepared()
    for split in ("train", "test"):
        packed = tmp_path / "data" / f"{split}.tar.gz"
        (tmp_path / "data" / f"{split}.tar").write_bytes(gzip.decompress(packed.read_bytes()))
    assert len(prepared().train_images) == 6


def test_home_is_found(tmp_path, pictures, monkeypatch, source):
    write_folder(tmp_path / "leaves", pictures)
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = source("folder", path="~/leaves", shape=(3, 4, 6))
    prepare(settings, tmp_path / "x.safetensors")
    assert str(settings.path) == "~/leaves"  # as written, in records too
    with pytest.raises(UsageError, match=r"there is no ~nobody-here/leaves; correct"):
        prepare(source("folder", path="~nobody-here/leaves"), tmp_path / "y.safetensors")


@pytest.mark.parametrize(
    "where", ["train/cat/1.png", "train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz", "tar"]
)
def test_an_error_of_the_disk_names_the_file(
    tmp_path, prepared, pictures, digits, monkeypatch, where
):
    """Reading fails as on a bad disk, where the system's error names no file."""
    broken = {"tar": "data.tar"}.get(where, where)
    if where == "tar":
        write_tar(tmp_path / "data.tar", pictures)
    elif "ubyte" in where:
        packed = where.endswith(".gz")
        files = {
            f"{n}.gz" if packed else n: gzip.compress(c) if packed else c for n, c in digits.items()
        }
        write_folder(tmp_path / "data", files)
    else:
        write_folder(tmp_path / "data", pictures)
    real = io.open

    class Bad(io.FileIO):
        def readinto(self, buffer):
            raise OSError(errno.EIO, "Input/output error")

        def readall(self):
            raise OSError(errno.EIO, "Input/output error")

    def opening(path, mode="r", *rest, **more):
        if str(path).endswith(broken) and "r" in mode:
            return io.BufferedReader(Bad(path))
        return real(path, mode, *rest, **more)

    monkeypatch.setattr(io, "open", opening)
    monkeypatch.setattr("builtins.open", opening)
    with pytest.raises(UsageError, match=f"cannot read .*{broken}: Input/output error"):
        prepared(
            "data.tar" if where == "tar" else "data",
            shape=(1, 28, 28) if "ubyte" in where else (3, 4, 6),
        )


@pytest.mark.parametrize("drop", ["train", "test"])
def test_a_missing_split_is_named(tmp_path, prepared, pictures, drop):
    write_folder(
        tmp_path / "data",
        {name: data for name, data in pictures.items() if not name.startswith(drop)},
    )
    with pytest.raises(UsageError, match=f"has no {drop}/<class>/<image>"):
        prepared()


def test_a_class_without_images_in_a_split_is_named(tmp_path, prepared, pictures):
    del pictures["test/dog/7.png"]
    write_folder(tmp_path / "data", pictures)
    with pytest.raises(UsageError, match="'dog' has no images below test/"):
        prepared()
    (tmp_path / "data/train/emu").mkdir()
    (tmp_path / "data/test/emu").mkdir()
    write_folder(tmp_path / "data", {"test/dog/7.png": pictures["test/cat/7.png"]})
    with pytest.raises(UsageError, match="'emu' has no images below train/"):
        prepared()


def test_a_missing_folder_is_named(tmp_path, prepared):
    with pytest.raises(UsageError, match=r"there is no .*nowhere"):
        prepared("nowhere")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (encoded(np.zeros((5, 6, 3), np.uint8)), "6x5 pixels in mode RGB.*6x4 with 3 channels"),
        (encoded(np.zeros((4, 6), np.uint8)), "6x4 pixels in mode L.*3 channels"),
        (b"<html>", "cannot be decoded"),
        (b"", "cannot be decoded"),
        (encoded(COLOUR["test/cat/7.png"])[:-30], "cannot be decoded"),
    ],
)
def test_a_wrong_image_is_named(tmp_path, prepared, pictures, content, words):
    pictures["train/dog/10.png"] = content
    write_folder(tmp_path / "data", pictures)
    with pytest.raises(UsageError, match=f"train/dog/10.png' .*{words}"):
        prepared()
    write_tar(tmp_path / "data.tar", pictures)
    with pytest.raises(UsageError, match=rf"data\.tar: train/dog/10.png' .*{words}"):
        prepared("data.tar")


@pytest.mark.filterwarnings("error")
def test_a_picture_that_claims_a_billion_pixels_is_not_decoded(tmp_path, prepared, pictures):
    # beyond what Pillow warns of, beyond what it refuses
    for side, words in ((10_000, "has 10000x10000 pixels"), (40_000, "cannot be decoded")):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        content = bytearray(pictures["train/dog/10.png"])
        content[16:29] = header
        content[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + header))
        write_folder(tmp_path / "data", pictures | {"train/dog/10.png": bytes(content)})
        with pytest.raises(UsageError, match=f"train/dog/10.png' {words}"):
            prepared()


# --- archives -------------------------------------------------------------------------------------


def member(name, type=tarfile.REGTYPE, **values):
    info = tarfile.TarInfo(name)
    info.type = type
    for key, value in values.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("unsafe", "words"),
    [
        (member("../outside.png"), "outside"),
        (member("train/../../outside.png"), "outside"),
        (member("/etc/outside.png"), "outside"),
        (member("train\\..\\outside.png"), "outside"),
        (member("train/cat/link", tarfile.SYMTYPE, linkname="/etc/passwd"), "neither"),
        (member("train/cat/link", tarfile.LNKTYPE, linkname="train/cat/1.png"), "neither"),
        (member("train/cat/device", tarfile.CHRTYPE, devmajor=1), "neither"),
        (member("train/cat/pipe", tarfile.FIFOTYPE), "neither"),
        (
            member("train/cat/holes", pax_headers={
                "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "holes",
                "GNU.sparse.size": "99999999999", "GNU.sparse.map": "0,0",
            }),
            "neither",
        ),
    ],
)  # fmt: skip
def test_an_unsafe_archive_is_refused_before_anything_is_read(
    tmp_path, prepared, pictures, monkeypatch, unsafe, words
):
    write_tar(tmp_path / "data.tar", pictures)
    with tarfile.open(tmp_path / "data.tar", "a") as tar:
        tar.addfile(unsafe)
    monkeypatch.setattr(archive, "content", lambda *_: pytest.fail("a member was read"))
    with pytest.raises(UsageError, match=f"data.tar is refused: member .*{words}"):
        prepared("data.tar")


@pytest.mark.parametrize("limit", ["MOST_MEMBERS", "MOST_BYTES"])
def test_an_archive_that_is_too_large_is_refused(tmp_path, prepared, pictures, monkeypatch, limit):
    write_tar(tmp_path / "data.tar", pictures)
    monkeypatch.setattr(archive, limit, 3)
    with pytest.raises(UsageError, match=r"data\.tar is refused: it is too large"):
        prepared("data.tar")


def test_a_compressed_or_foreign_archive_is_refused(tmp_path, prepared, pictures):
    write_tar(tmp_path / "data.tar", pictures)
    content = (tmp_path / "data.tar").read_bytes()
    for damaged in (gzip.compress(content), b"<html>" * 200, b"", content[: len(content) // 2]):
        (tmp_path / "data.tar").write_bytes(damaged)
        with pytest.raises(UsageError, match=r"data\.tar is truncated or not an uncompressed tar"):
            prepared("data.tar")


@given(data=st.data())
def test_a_damaged_archive_never_ends_in_a_traceback(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "data.tar"
    write_tar(path, {name: encoded(pixels) for name, pixels in COLOUR.items()})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        folder.read(Source(kind="folder", name="x", label="x", shape=(3, 4, 6), path=path))
    except UsageError as error:
        assert "\n" not in str(error)


# --- IDX ------------------------------------------------------------------------------------------


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def digits():
    return {
        name: idx_bytes(array)
        for name, array in zip(
            idx.NAMES,
            (
                RNG.integers(0, 256, (20, 28, 28), np.uint8),
                np.arange(20, dtype=np.uint8) % 10,
                RNG.integers(0, 256, (10, 28, 28), np.uint8),
                np.arange(10, dtype=np.uint8)[::-1],
            ),
            strict=True,
        )
    }


SPELLINGS = {
    "MNIST": "{0}",
    "7-Zip": "{1}",
    "Kaggle": "{0}/{0}",
    "Kaggle, too": "{0}/{1}",
    "both": "{1}/{0}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_idx_files_are_found_by_the_names_that_tools_give_them(
    tmp_path, prepared, digits, spelling
):
    files = {
        SPELLINGS[spelling].format(name, name.replace("-idx", ".idx")): content
        for name, content in digits.items()
    }
    write_folder(tmp_path / "data", files)
    assert len(prepared(shape=(1, 28, 28)).train_images) == 20
    write_folder(tmp_path / "data", dict.fromkeys(files, b""))
    with pytest.raises(UsageError, match=r"train-images.* is damaged \(it ends within its header"):
        prepared(shape=(1, 28, 28))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_idx_files_read_like_torchvision(tmp_path, prepared, digits, zipped, below):
    write_folder(tmp_path / "reference/MNIST/raw", digits)
    files = {
        f"{name}.gz" if zipped else name: gzip.compress(content) if zipped else content
        for name, content in digits.items()
    }
    write_folder(tmp_path / "data" / below, files)
    images = prepared(shape=(1, 28, 28))
    for split, train in (("train", True), ("test", False)):
        reference = MNIST(tmp_path / "reference", train=train)
        np.testing.assert_array_equal(getattr(images, f"{split}_images")[:, 0], reference.data)
        np.testing.assert_array_equal(getattr(images, f"{split}_labels"), reference.targets)
    assert images.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        (idx.NAMES[0], lambda content: content[:-1], "20 x 28 x 28 bytes, but there are only"),
        (idx.NAMES[0], lambda content: content + b"x", "more"),
        (idx.NAMES[1], lambda content: content[:7], "damaged"),
        (idx.NAMES[2], lambda content: b"", "damaged"),
        (idx.NAMES[2], lambda content: b"<!DOCTYPE html>" * 9, "damaged"),
        (idx.NAMES[3], lambda content: content[:4] + b"\xff" * 4 + content[8:], "header is not"),
        (
            idx.NAMES[3],
            lambda content: content[:2] + b"\x0d" + content[3:],
            "header is not",
        ),  # floats
        (idx.NAMES[3], lambda content: content[:-1] + b"\x0a", "label 10; .* 0 to 9"),
        (idx.NAMES[3], lambda content: idx_bytes(np.arange(9, dtype=np.uint8)), "10 images but 9"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, prepared, digits, name, damage, words):
    digits[name] = damage(digits[name])
    write_folder(tmp_path / "data", digits)
    with pytest.raises(UsageError, match=words) as error:
        prepared(shape=(1, 28, 28))
    assert name in str(error.value) or "source" in str(error.value)


def test_a_missing_or_damaged_gzip_file_is_named(tmp_path, prepared, digits):
    files = {f"{name}.gz": gzip.compress(content) for name, content in digits.items()}
    labels = files.pop(f"{idx.NAMES[1]}.gz")
    write_folder(tmp_path / "data", files)
    with pytest.raises(UsageError, match=f"cannot read .*{idx.NAMES[1]}.gz: No such file"):
        prepared(shape=(1, 28, 28))
    for damaged in (b"<html>", labels[:-9], labels[:20] + b"\xff\xff" + labels[22:]):
        write_folder(tmp_path / "data", {f"{idx.NAMES[1]}.gz": damaged})
        with pytest.raises(UsageError, match=f"{idx.NAMES[1]}.gz is damaged"):
            prepared(shape=(1, 28, 28))


def test_images_of_another_size_than_declared(tmp_path, prepared, digits):
    write_folder(tmp_path / "data", digits)
    with pytest.raises(UsageError, match=r"1x28x28 .* says 3x32x32"):
        prepared(shape=(3, 32, 32))


# --- anything at all ------------------------------------------------------------------------------

DIGITS = idx_bytes(np.zeros((3, 4, 6), np.uint8))
LABELS = idx_bytes(np.arange(3, dtype=np.uint8))
PLACES = (
    "train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png", "train/a", "test",
    "train.tar", "test.tar", "train.tar.gz", "Test/a/1.png", "train/1.png", "train/.DS_Store",
    "train/a/b/2.gif",
    *idx.NAMES, *(f"{name}.gz" for name in idx.NAMES), "MNIST/raw",
)  # fmt: skip
CONTENTS = (
    encoded(RNG.integers(0, 256, (4, 6, 3), np.uint8)), encoded(np.zeros((4, 6), np.uint8)),
    encoded(np.zeros((4, 6, 3), np.uint8), "JPEG"), DIGITS, LABELS, gzip.compress(DIGITS),
    gzip.compress(LABELS), b"", b"\x00\x00\x08\x03", b"\x1f\x8b\x08",
)  # fmt: skip


@settings(max_examples=200)
@given(data=st.data())
def test_any_folder_is_read_or_refused_in_one_line(data, tmp_path_factory):
    """Files and folders of the names that are looked for, some damaged, some links."""
    root = tmp_path_factory.mktemp("fuzz")
    for place in data.draw(st.lists(st.sampled_from(PLACES), max_size=8, unique=True)):
        path = root / place
        taken = any(above.is_file() or above.is_symlink() for above in path.parents)
        if path.exists() or taken:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = data.draw(st.sampled_from(["file", "file", "file", "cut", "folder", "link", "loop"]))
        content = data.draw(st.sampled_from(CONTENTS))
        if kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(root / "absent")
        elif kind == "loop":
            path.symlink_to(path.name)
        else:
            path.write_bytes(content if kind == "file" else content[: len(content) // 2] + b"\xff")
    shape = data.draw(st.sampled_from([(3, 4, 6), (1, 4, 6), (1, 28, 28)]))
    source = Source(
        kind="folder", name="x", label="x", shape=shape, path=root,
        resize=data.draw(st.sampled_from([None, "crop"])), convert=data.draw(st.booleans()),
    )  # fmt: skip
    try:
        prepare(source, root / "out.safetensors")
    except UsageError as error:
        assert "\n" not in str(error)
        assert not (root / "out.safetensors").exists()
    else:
        assert len(load(root / "out.safetensors").train_images)
