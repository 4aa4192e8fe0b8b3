"""Published data sets, downloaded once into a cache folder with torchvision's layout.

CIFAR is read in its binary version, because the Python version is a pickle.
"""

from __future__ import annotations

import logging
import ssl
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from lft.config import Source
from lft.data import idx
from lft.data.images import Arrays, Split
from lft.errors import UsageError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """One data set.

    Attributes:
        folder: folder of its files, relative to the cache folder.
        files: file name -> published MD5.
        mirrors: addresses of the folder that contains the files, in the order they are tried.
        read: reads the downloaded files, in the order of ``files``, into arrays.
    """

    folder: str
    files: dict[str, str]
    mirrors: tuple[str, ...]
    read: Callable[[list[Path]], Arrays]


def read(source: Source, timeout: float = 30.0) -> Arrays:
    """Read a data set by its name; download files that the cache folder lacks.

    Args:
        source: ``path`` is the cache folder, the user's by default.
        timeout: seconds of silence from a server before the next mirror is tried.

    Raises:
        UsageError: a file cannot be downloaded; the message names every address tried and where to
            put the file by hand.
    """
    dataset = DATASETS[source.name]
    folder = (source.path or user_cache_path("lft")) / dataset.folder
    return dataset.read(
        [fetch(name, md5, folder, dataset.mirrors, timeout) for name, md5 in dataset.files.items()]
    )


def fetch(name: str, md5: str, folder: Path, mirrors: tuple[str, ...], timeout: float) -> Path:
    """Return the path of a file with the right checksum; download it if the folder lacks it.

    Args:
        name: of the file.
        md5: its checksum.
        folder: where the file belongs.
        mirrors: addresses to try, in order.
        timeout: seconds of silence from a server before the next mirror is tried.

    Raises:
        UsageError: no mirror delivers the file, or it cannot be written.
    """
    import pooch  # slow to import, and only needed here
    import requests

    downloader = pooch.HTTPDownloader(timeout=timeout, headers={"Accept-Encoding": "identity"})
    tried = []
    for mirror in mirrors:
        try:
            return Path(
                pooch.retrieve(
                    mirror + name, f"md5:{md5}", fname=name, path=folder, downloader=downloader
                )
            )
        except requests.RequestException as error:
            reason = _reason(error, timeout)
        except ValueError:
            reason = "wrong checksum"
        except OSError as error:
            raise UsageError(f"cannot write {folder / name}: {error.strerror or error}") from error
        log.warning("cannot download %s%s: %s", mirror, name, reason)
        tried.append(f"{mirror}{name} ({reason})")
    raise UsageError(
        f"cannot download {name}; tried {', '.join(tried)}; get it by hand, with MD5 {md5}, and "
        f"put it into {folder}"
    )


def _reason(error: Exception, timeout: float) -> str:
    """Describe in a few words why a download failed."""
    import requests

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP status {status}"
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate not trusted: {cause.verify_message}"
    misspelt = "its address, or that of a proxy, is misspelt"
    for kind, reason in {
        requests.exceptions.ProxyError: "the proxy refuses or cannot be reached",
        requests.exceptions.SSLError: "no TLS at that address",
        ssl.SSLError: "no TLS at that address",
        requests.exceptions.InvalidSchema: misspelt,
        requests.exceptions.MissingSchema: misspelt,
        requests.exceptions.InvalidURL: misspelt,
    }.items():
        if any(isinstance(cause, kind) for cause in causes):
            return reason
    if "timed out" in str(error):
        return f"silent for {timeout:g} s"
    broken = (requests.exceptions.ChunkedEncodingError, ConnectionResetError)
    return "transfer broke off" if isinstance(error, broken) else "no connection"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes; libraries nest them in ``args`` and in ``reason``."""
    yield error
    for inner in (*error.args, getattr(error, "reason", None)):
        if isinstance(inner, BaseException) and inner is not error:
            yield from _causes(inner)


def _read_cifar(
    paths: list[Path],
    *,
    folder: str,
    train: tuple[str, ...],
    test: str,
    class_names: str,
    label_bytes: int,
) -> Arrays:
    """Read CIFAR's binary records: label bytes, the finest label last, then 3x32x32 pixels.

    Args:
        paths: the archive.
        folder: folder inside the archive.
        train: files of training records.
        test: file of test records.
        class_names: file with one class name per line.
        label_bytes: labels per record.
    """
    with tarfile.open(paths[0]) as archive:

        def content(name: str) -> bytes:
            file = archive.extractfile(f"{folder}/{name}")
            assert file is not None  # a regular file in an archive whose checksum was verified
            return file.read()

        def split(*names: str) -> Split:
            raw = np.frombuffer(b"".join(map(content, names)), np.uint8)
            records = raw.reshape(-1, label_bytes + 3 * 32 * 32)
            images = records[:, label_bytes:].reshape(-1, 3, 32, 32)
            return Split(images, records[:, label_bytes - 1].astype(np.int64))

        return Arrays(split(*train), split(test), tuple(content(class_names).decode().split()))


def _read_svhn(paths: list[Path]) -> Arrays:
    """Read SVHN's MATLAB files, training images first."""
    from scipy.io import loadmat

    def split(path: Path) -> Split:
        content = loadmat(path, variable_names=("X", "y"))
        images = np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1))
        return Split(images, content["y"].ravel().astype(np.int64) % 10)  # label 10 is digit 0

    train, test = map(split, paths)
    return Arrays(train, test, idx.DIGITS)


def _idx_files(*md5s: str) -> dict[str, str]:
    return {f"{name}.gz": md5 for name, md5 in zip(idx.NAMES, md5s, strict=True)}


CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

DATASETS = {
    "MNIST": Published(
        "MNIST/raw",
        _idx_files(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        idx.read,
    ),
    "FashionMNIST": Published(
        "FashionMNIST/raw",
        _idx_files(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        partial(idx.read, classes=CLOTHES),
    ),
    "KMNIST": Published(
        "KMNIST/raw",
        _idx_files(
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
        (
            "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        ),
        partial(idx.read, classes=KANA),
    ),
    "SVHN": Published(
        "",
        {
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
        (
            "http://ufldl.stanford.edu/housenumbers/",
            "https://ufldl.stanford.edu/housenumbers/",
        ),
        _read_svhn,
    ),
    "CIFAR10": Published(
        "",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        (
            "https://www.cs.toronto.edu/~kriz/",
            "https://cave.cs.toronto.edu/kriz/",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
            "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/",
        ),
        partial(
            _read_cifar,
            folder="cifar-10-batches-bin",
            train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            test="test_batch.bin",
            class_names="batches.meta.txt",
            label_bytes=1,
        ),
    ),
    "CIFAR100": Published(
        "",
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
        (
            "https://www.cs.toronto.edu/~kriz/",
            "https://cave.cs.toronto.edu/kriz/",
            "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/",
        ),
        partial(
            _read_cifar,
            folder="cifar-100-binary",
            train=("train.bin",),
            test="test.bin",
            class_names="fine_label_names.txt",
            label_bytes=2,
        ),
    ),
}
