"""Progress of a long job: a bar on a terminal, a line now and then in a log, curves elsewhere."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lft.errors import UsageError

log = logging.getLogger(__name__)
LOG_SECONDS = 10.0


class Tracker:
    """Counts steps and shows the latest task loss, the best validation score and the time left."""

    def __init__(self, total: int, done: int, title: str, bar: Progress | None) -> None:
        self.total = total
        self.done = self.begin = done
        self.title = title
        self.bar = bar
        self.began = self.logged = time.monotonic()
        self.task = bar.add_task(title, total=total, completed=done, losses="") if bar else None

    def advance(self, loss: float, best: float) -> None:
        """One step is done."""
        self.done += 1
        losses = f"task loss {loss:.4g}, best validation {best:.4g}"
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, advance=1, losses=losses)
        now = time.monotonic()
        if now - self.logged > LOG_SECONDS or self.done == self.total:
            self.logged = now
            left = (now - self.began) / (self.done - self.begin) * (self.total - self.done)
            log.info("%s: %d/%d, %s, %.0f s left", self.title, self.done, self.total, losses, left)


@contextmanager
def track(total: int, done: int, title: str) -> Iterator[Tracker]:
    """Show progress until the block ends."""
    console = Console(stderr=True)
    if not console.file.isatty():  # whatever FORCE_COLOR says, a log wants lines
        yield Tracker(total, done, title, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield Tracker(total, done, title, bar)


@contextmanager
def scalars(folder: Path | None, done: int) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """A function that adds named values of a step to TensorBoard's event files.

    Args:
        folder: where the event files go; without, the function does nothing.
        done: steps done before; what was recorded of later ones is dropped.

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
