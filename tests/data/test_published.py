"""A server on this machine plays every way in which a mirror can fail."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import re
import shutil
import ssl
import struct
import subprocess
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torchvision
from scipy.io import savemat

from lft.data import idx, load, prepare, published
from lft.errors import UsageError

RNG = np.random.default_rng(0)
TIMEOUT = 0.3  # seconds


class Mirrors(ThreadingHTTPServer):
    """Serves ``files`` below one folder per behaviour and remembers what was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.asked = []
        self.closing = threading.Event()

    def __getitem__(self, behaviour):
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        behaviour, name = self.path.strip("/").split("/")
        self.server.asked.append((behaviour, name))
        content = self.server.files[name]
        if behaviour == "silent":
            self.server.closing.wait(10)
            return
        if behaviour == "missing":
            self.send_error(404)
            return
        if behaviour == "html":
            content = b"<!DOCTYPE html><title>Please log in</title>"
        elif behaviour == "altered":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if behaviour == "stalled":
            self.wfile.write(content[: len(content) // 2])
            self.server.closing.wait(10)
        elif behaviour == "broken":
            self.wfile.write(content[: len(content) // 2])
        else:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirrors(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Mirrors() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


def md5(content):
    return hashlib.md5(content).hexdigest()


CONTENT = bytes(RNG.integers(0, 256, 100_000, np.uint8))


@pytest.fixture
def fetch(mirrors, tmp_path):
    mirrors.files["data.gz"] = CONTENT

    def call(*behaviours):
        addresses = tuple(mirrors[behaviour] for behaviour in behaviours)
        return published.fetch("data.gz", md5(CONTENT), tmp_path / "cache", addresses, TIMEOUT)

    return call


FAILURES = {
    "altered": "wrong checksum",
    "html": "wrong checksum",
    "missing": "HTTP status 404",
    "silent": "silent for 0.3 s",
    "stalled": "silent for 0.3 s",
    "broken": "transfer broke off",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_mirror_is_logged_and_the_next_one_tried(
    mirrors, fetch, tmp_path, caplog, failure
):
    with caplog.at_level(logging.WARNING):
        path = fetch(failure, "good")
    assert path.read_bytes() == CONTENT
    assert list((tmp_path / "cache").iterdir()) == [path]
    assert mirrors.asked == [(failure, "data.gz"), ("good", "data.gz")]
    assert f"{mirrors[failure]}data.gz: {FAILURES[failure]}" in caplog.text


def test_when_all_fail_one_line_names_every_address_and_what_to_do(mirrors, fetch, tmp_path):
    with pytest.raises(UsageError) as error:
        fetch(*FAILURES)
    message = str(error.value)
    assert "\n" not in message
    for behaviour, reason in FAILURES.items():
        assert f"{mirrors[behaviour]}data.gz ({reason})" in message
    assert md5(CONTENT) in message
    assert str(tmp_path / "cache") in message
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_network_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Mirrors() as closed:
        address = closed["good"]
    with pytest.raises(UsageError, match=r"data.gz \(no connection\); get it by hand"):
        published.fetch("data.gz", "0" * 32, tmp_path, (address,), TIMEOUT)


@pytest.fixture
def untrusted(tmp_path, mirrors):
    """Address of a server with a certificate that nobody signed."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout"
    subprocess.run([*command.split(), key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Mirrors() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server["good"].replace("http:", "https:")
        server.shutdown()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate")
def test_a_certificate_that_is_not_trusted_is_called_that(untrusted, tmp_path):
    words = r"\(certificate not trusted: self.signed certificate\)"
    with pytest.raises(UsageError, match=words):
        published.fetch("data.gz", "0" * 32, tmp_path / "cache", (untrusted,), 5.0)


def test_other_troubles_of_the_network_are_told_apart(mirrors, tmp_path, monkeypatch):
    def reason(address, timeout=5.0):
        with pytest.raises(UsageError) as error:
            published.fetch("data.gz", "0" * 32, tmp_path / "cache", (address,), timeout)
        return re.findall(r"gz \((.*?)\); get", str(error.value))[0]

    misspelt = "its address, or that of a proxy, is misspelt"
    assert reason(mirrors["good"].replace("http:", "https:")) == "no TLS at that address"
    for address in ("htp://localhost/", "localhost/", "http://[bad/"):
        assert reason(address) == misspelt
    monkeypatch.setenv("NO_PROXY", "")
    with Mirrors() as closed:
        nowhere = closed["good"]
    for proxy, expected in (
        (nowhere, "the proxy refuses or cannot be reached"),
        (mirrors["missing"], "the proxy refuses or cannot be reached"),
        ("not an address", misspelt),
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        assert reason("https://data.invalid/") == expected


def test_a_cached_file_is_not_asked_for_again(mirrors, fetch):
    path = fetch("good")
    mirrors.asked.clear()
    assert fetch("missing") == path
    assert mirrors.asked == []


def test_a_damaged_cached_file_is_replaced(fetch, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "data.gz").write_bytes(CONTENT[:-1])
    assert fetch("good").read_bytes() == CONTENT


def test_a_full_disk_is_one_line_and_leaves_nothing(mirrors, fetch, tmp_path, largest_file):
    with largest_file(50_000), pytest.raises(UsageError, match=r"cannot write .*data\.gz"):
        fetch("good", "good")
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(mirrors.asked) == 1


# --- the data sets --------------------------------------------------------------------------------


def test_checksums_and_classes_are_those_that_torchvision_knows():
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        reference = getattr(torchvision.datasets, name)
        assert list(published.DATASETS[name].files.items()) == [
            reference.resources[position] for position in (0, 1, 2, 3)
        ]
    svhn = torchvision.datasets.SVHN.split_list
    assert published.DATASETS["SVHN"].files == {svhn[k][1]: svhn[k][2] for k in ("train", "test")}
    assert list(published.CLOTHES) == torchvision.datasets.FashionMNIST.classes
    assert list(published.KANA) == torchvision.datasets.KMNIST.classes


@pytest.fixture
def download(mirrors, tmp_path, monkeypatch, source):
    """Serve files of our own in the place of a data set's and prepare it from them."""

    def call(name, files, shape):
        assert files.keys() == published.DATASETS[name].files.keys()
        mirrors.files.update(files)
        dataset = replace(
            published.DATASETS[name],
            files={file: md5(content) for file, content in files.items()},
            mirrors=(mirrors["good"],),
        )
        monkeypatch.setitem(published.DATASETS, name, dataset)
        settings = source("torchvision", name=name, shape=shape, path=tmp_path / "cache")
        prepare(settings, tmp_path / "x.safetensors")
        assert sorted(path.name for path in (tmp_path / "cache").rglob("*.*")) == sorted(files)
        return load(tmp_path / "x.safetensors")

    return call


def check(images, expected):
    for split, (pixels, labels) in expected.items():
        np.testing.assert_array_equal(getattr(images, f"{split}_images"), pixels)
        np.testing.assert_array_equal(getattr(images, f"{split}_labels"), labels)


def random_split(classes, shape):
    labels = RNG.permutation(np.repeat(np.arange(classes), 2))
    return RNG.integers(0, 256, (len(labels), *shape), np.uint8), labels


def test_idx_data_sets(download):
    expected = {split: random_split(10, (1, 28, 28)) for split in ("train", "test")}
    contents = []
    for pixels, labels in expected.values():
        contents.append(struct.pack(">4I", 0x803, len(pixels), 28, 28) + pixels.tobytes())
        contents.append(struct.pack(">2I", 0x801, len(labels)) + labels.astype(np.uint8).tobytes())
    files = {
        f"{name}.gz": gzip.compress(content)
        for name, content in zip(idx.NAMES, contents, strict=True)
    }
    images = download("FashionMNIST", files, (1, 28, 28))
    check(images, expected)
    assert images.classes == published.CLOTHES


def archive_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def records(pixels, labels, before=b""):
    """CIFAR's layout, pixel by pixel: labels, then the red, green and blue plane row by row."""
    return b"".join(
        before
        + bytes([label])
        + bytes(
            int(image[channel, row, column])
            for channel in range(3)
            for row in range(32)
            for column in range(32)
        )
        for image, label in zip(pixels, labels, strict=True)
    )


def test_cifar10_joins_its_five_batches(download):
    batches = [random_split(10, (3, 32, 32)) for _ in range(6)]
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    files = {name: records(*batch) for name, batch in zip(names, batches, strict=True)}
    words = [f"word{number}" for number in range(10)]
    files["batches.meta.txt"] = "\n".join([*words, "", ""]).encode()
    files = {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}
    images = download("CIFAR10", {"cifar-10-binary.tar.gz": archive_of(files)}, (3, 32, 32))
    train = [np.concatenate(parts) for parts in zip(*batches[:5], strict=True)]
    check(images, {"train": train, "test": batches[5]})
    assert images.classes == tuple(words)


def test_cifar100_takes_the_fine_labels(download):
    expected = {split: random_split(100, (3, 32, 32)) for split in ("train", "test")}
    files = {
        f"cifar-100-binary/{split}.bin": records(*data, before=b"\x13")
        for split, data in expected.items()
    }
    words = [f"word_{number}" for number in range(100)]
    files["cifar-100-binary/fine_label_names.txt"] = "\n".join([*words, ""]).encode()
    images = download("CIFAR100", {"cifar-100-binary.tar.gz": archive_of(files)}, (3, 32, 32))
    check(images, expected)
    assert images.classes == tuple(words)


def test_svhn_calls_digit_0_ten(download):
    expected = {split: random_split(10, (3, 32, 32)) for split in ("train", "test")}
    files = {}
    for split, (pixels, labels) in expected.items():
        buffer = io.BytesIO()
        ten = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(buffer, {"X": pixels.transpose(2, 3, 1, 0), "y": ten}, do_compression=True)
        files[f"{split}_32x32.mat"] = buffer.getvalue()
    check(download("SVHN", files, (3, 32, 32)), expected)


def test_unknown_name_suggests_the_nearest(tmp_path, source):
    with pytest.raises(UsageError, match="did you mean 'CIFAR10'"):
        prepare(source("torchvision", name="CIFAR-10"), tmp_path / "x")
