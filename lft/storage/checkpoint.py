"""Checkpoints of a meta-training: the last two are kept, a damaged one is passed over."""

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
    """Checkpoints in a folder beside a run's outputs, never a declared workflow output.

    Args:
        folder: created at the first save.
        settings_hash: identifies the settings that a checkpoint belongs to.
    """

    def __init__(self, folder: Path, settings_hash: str) -> None:
        self.folder = folder
        self.settings_hash = settings_hash

    def save(self, step: int, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Write the checkpoint after ``step`` meta-batches and drop all but the last two."""
        path = self.folder / f"step-{step:08d}.safetensors"
        save_tensors(path, tensors, {**info, "step": step, "settings": self.settings_hash})
        for old in self._paths()[:-2]:
            old.unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest intact checkpoint, or None. Damaged ones are named in the log and removed.

        Raises:
            UsageError: the checkpoint was made under other settings, or cannot be read now.
        """
        remove_orphans(self.folder, ".step-*")
        for path in reversed(self._paths()):
            try:
                tensors, info = load_tensors(path)
            except Damaged as error:
                log.warning("checkpoint passed over: %s", error)
                path.unlink()
                continue
            if info.get("settings") != self.settings_hash:
                raise UsageError(
                    f"checkpoint {path} was made under other settings; restore them, or delete "
                    f"the folder {self.folder} to start anew"
                )
            log.info("resuming after meta-batch %d from %s", info["step"], path)
            return tensors, info
        return None

    def clear(self) -> None:
        """Remove the folder, once the outputs are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))


class StopSignal:
    """Whether the job was asked to stop: by Ctrl-C, or by SIGTERM, which batch systems send before
    a time limit.

    Attributes:
        number: the signal that came; 0 until then.
    """

    def __init__(self) -> None:
        self.number = 0

    @property
    def received(self) -> bool:
        """Whether a signal came."""
        return self.number != 0


@contextmanager
def watch_for_stop() -> Iterator[StopSignal]:
    """Turn SIGINT and SIGTERM into a flag for the duration of the block.

    The second one does what it does outside of the block: it ends the process. In a thread that is
    not the main one, where Python has no signals, nothing is changed.
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
