"""Atomic writes: killed writers, full disks, folders that cannot be written."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from lft.errors import UsageError
from lft.storage.atomic import atomic_folder, atomic_path, write_text


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, UsageError])
def test_an_error_leaves_the_old_file_and_nothing_else(
    error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half of the new")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


WRITER = """
import os, signal, sys
from lft.storage.atomic import atomic_folder, atomic_path
with {block}(sys.argv[1]) as temporary:
    print(temporary, flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("block", [atomic_path, atomic_folder])
def test_what_a_killed_process_left_is_removed_and_what_is_written_now_is_not(
    block: Callable[[Path], AbstractContextManager[Path]], tmp_path: Path
) -> None:
    path = tmp_path / "table[1].csv"
    script = [sys.executable, "-c", WRITER.format(block=block.__name__), str(path)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        left = Path(process.stdout.readline().strip())
        with block(path):  # another process writes the same
            pass
        assert left.exists()
        process.kill()
    other = tmp_path / ".table[1].backup.csv"
    other.write_text("not ours")
    assert left.exists()
    with block(path):
        assert not left.exists()
    assert set(names(tmp_path)) == {other.name, path.name}


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system in memory with the options of mount given."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "lft-test", folder])
        if done.returncode:
            pytest.skip("mounting needs root")
        return folder

    yield mount
    subprocess.run(["umount", folder], stderr=subprocess.DEVNULL)


def test_a_disk_that_is_really_full(mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=32k")
    with pytest.raises(UsageError, match=r"cannot write .*file\.txt: No space left on device"):
        write_text(folder / "file.txt", "x" * 100_000)
    assert names(folder) == []


def test_a_folder_that_is_really_read_only(mounted: Callable[[str], Path]) -> None:
    folder = mounted("ro")
    for write in (write_text, lambda path, _: atomic_folder(path).__enter__()):
        with pytest.raises(UsageError, match=r"cannot write .*: Read-only file system"):
            write(folder / "output", "x")


def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    tmp_path: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "file.txt"
    full = pytest.raises(UsageError, match=f"cannot write {path}: File too large")
    with full, largest_file(4096):
        write_text(path, "x" * 10_000)
    assert names(tmp_path) == []


def test_a_read_only_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lft.storage.atomic.tempfile.mkstemp", refuse)  # root may write everywhere
    with pytest.raises(UsageError, match=r"cannot write .*file\.txt: Permission denied"):
        write_text(tmp_path / "file.txt", "x")


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot write"):
        write_text(tmp_path / "file" / "below.txt", "x")


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_file_system_without_modes_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """exFAT, FAT, CIFS."""

    def refuse(self: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    write_text(tmp_path / "file", "x")
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "inside").write_text("y")
    assert sorted(names(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize(
    ("number", "written"),
    [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False), (errno.ENOSPC, False)],
)
def test_only_an_fsync_that_is_unknown_is_passed_over(
    number: int, written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("lft.storage.atomic.os.fsync", fail)
    if written:
        write_text(tmp_path / "file", "x")
    else:
        with pytest.raises(UsageError, match="cannot write"):
            write_text(tmp_path / "file", "x")
    assert names(tmp_path) == ["file"] * written


def test_the_folder_behind_a_link_is_replaced(tmp_path: Path) -> None:
    behind, link = tmp_path / "disk" / "tables", tmp_path / "tables"
    behind.mkdir(parents=True)
    (behind / "old").touch()
    link.symlink_to(behind)
    with atomic_folder(link) as folder:
        (folder / "new").touch()
    assert link.is_symlink()
    assert names(behind) == ["new"]
    assert names(behind.parent) == ["tables"]
