"""Checkpoints of a meta-training; keeps the last two and skips a damaged one."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor

from lft.errors import Damaged, UsageError
from lft.storage.atomic import remove_orphans
from lft.storage.tensors import load_tensors, save_tensors

log = logging.getLogger(__name__)


class Checkpoints:
    """Checkpoints in a folder beside a run's outputs; the workflow does not know about them.

    Args:
        folder: the folder, created at the first save.
        settings_hash: identifies the settings of the meta-training.
    """

    def __init__(self, folder: Path, settings_hash: str) -> None:
        self.folder = folder
        self.settings_hash = settings_hash

    def save(self, step: int, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Write a checkpoint and remove all but the last two.

        Args:
            step: meta-batches done.
            tensors: state of the meta-training.
            info: JSON description, returned by :meth:`load`.

        Raises:
            UsageError: the folder cannot be written or the disk is full.
        """
        path = self.folder / f"step-{step:08d}.safetensors"
        save_tensors(path, tensors, {**info, "step": step, "settings": self.settings_hash})
        for old in self._paths()[:-2]:
            old.unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Read the newest intact checkpoint; log and remove damaged ones.

        Returns:
            Tensors and description as saved, or None if there is no intact checkpoint.

        Raises:
            UsageError: the checkpoint was made with other settings, or cannot be read.
        """
        remove_orphans(self.folder, ".step-*")
        for path in reversed(self._paths()):
            try:
                tensors, info = load_tensors(path)
            except Damaged as error:
                log.warning("skipping a checkpoint: %s", error)
                path.unlink()
                continue
            if info.get("settings") != self.settings_hash:
                raise UsageError(
                    f"checkpoint {path} was made under other settings; restore them, or delete the "
                    f"folder {self.folder} to start over"
                )
            log.info("resuming after meta-batch %d from %s", info["step"], path)
            return tensors, info
        return None

    def clear(self) -> None:
        """Remove the folder; call this after the outputs are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))


class StopSignal:
    """Records a request to stop: Ctrl-C, or SIGTERM, which batch systems send at a time limit.

    Attributes:
        number: number of the signal received; 0 if none was.
    """

    def __init__(self) -> None:
        self.number = 0

    @property
    def received(self) -> bool:
        """Whether a signal was received."""
        return self.number != 0


@contextmanager
def watch_for_stop() -> Iterator[StopSignal]:
    """Turn the first SIGINT or SIGTERM within the block into a flag.

    A second signal has its usual effect: it ends the process. In any thread but the main one,
    Python handles no signals, and this does nothing.
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def handle(number: int, frame: FrameType | None) -> None:
        stop.number = number
        put_back()

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        put_back()
