"""Progress of a long job: a bar on a terminal, lines in a log, a heartbeat file, TensorBoard."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lft.errors import UsageError
from lft.storage.json import read_json, write_json

log = logging.getLogger(__name__)
LOG_SECONDS = 10.0
BEAT_SECONDS = 5.0
HEARTBEAT = "progress.json"
"""Name of the heartbeat file, which is beside a run's outputs during its meta-training."""


class Heartbeat(NamedTuple):
    """Progress of a meta-training, for ``lft status``.

    Attributes:
        done: meta-batches done.
        total: meta-batches in all.
        loss: the latest task loss.
        seconds_left: estimated seconds to the end, at the average speed so far.
        time: time of writing, in seconds since 1970.
    """

    done: int
    total: int
    loss: float
    seconds_left: float
    time: float

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a job's latest heartbeat; None if there is none or the file is not a heartbeat."""
        try:
            found = read_json(path, done=int, total=int, loss=float, seconds_left=float, time=float)
        except UsageError:
            return None
        return cls(*(found[name] for name in cls._fields))


class Tracker:
    """Counts steps; shows the latest task loss, the best validation score and the time left.

    Args:
        total: steps in all.
        done: steps already done.
        title: shown before the numbers.
        bar: progress bar, if any.
        beat: file of the :class:`Heartbeat`, if any.
    """

    def __init__(
        self, total: int, done: int, title: str, bar: Progress | None, beat: Path | None = None
    ) -> None:
        self.total = total
        self.done = self.begin = done
        self.title = title
        self.bar = bar
        self.beat = beat
        self.began = self.logged = time.monotonic()
        self.beaten = -math.inf
        self.task = bar.add_task(title, total=total, completed=done, losses="") if bar else None

    def advance(self, loss: float, best: float) -> None:
        """Count one step.

        Args:
            loss: the latest task loss.
            best: the best validation score.
        """
        self.done += 1
        losses = f"task loss {loss:.4g}, best validation {best:.4g}"
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, advance=1, losses=losses)
        now = time.monotonic()
        left = (now - self.began) / (self.done - self.begin) * (self.total - self.done)
        if now - self.logged > LOG_SECONDS or self.done == self.total:
            self.logged = now
            log.info("%s: %d/%d, %s, %.0f s left", self.title, self.done, self.total, losses, left)
        if self.beat is not None and now - self.beaten > BEAT_SECONDS:
            self.beaten = now
            beat = Heartbeat(self.done, self.total, loss, round(left, 1), time.time())
            with suppress(UsageError):  # failing to report progress must not end a training
                write_json(self.beat, beat._asdict())


@contextmanager
def track(
    total: int, done: int, title: str, beat: Path | None = None, *, shown: bool = True
) -> Iterator[Tracker]:
    """Show progress until the block ends.

    Args:
        total: steps in all.
        done: steps already done.
        title: shown before the numbers.
        beat: file for a :class:`Heartbeat`, written every few seconds and removed at the end.
        shown: whether to show a bar, on a terminal or in a notebook.
    """
    try:
        with _bar() if shown else nullcontext() as bar:
            yield Tracker(total, done, title, bar, beat)
    finally:
        with suppress(OSError):
            if beat is not None:
                beat.unlink(missing_ok=True)


@contextmanager
def _bar() -> Iterator[Progress | None]:
    """Yield a progress bar; None if the output is neither a terminal nor a notebook."""
    console = Console(stderr=True)
    if not (console.is_jupyter or console.file.isatty()):  # a log, even if FORCE_COLOR is set
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield bar


@contextmanager
def scalars(folder: Path | None, done: int) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Yield a function that writes named values of a step to TensorBoard's event files.

    Args:
        folder: folder of the event files; if None, the function does nothing.
        done: steps already done; records of later steps are dropped.

    Raises:
        UsageError: TensorBoard is not installed, or the folder cannot be written.
    """
    if folder is None:
        yield lambda step, values: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder), purge_step=done + 1)
    except ModuleNotFoundError as error:
        raise UsageError(f"this needs {error.name}; pip install 'lft[tensorboard]'") from None
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from None

    def add(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isnan(value):
                writer.add_scalar(name, value, step)

    with writer:
        yield add
