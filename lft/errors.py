"""Errors that a user can cause. The command line prints them as one line, with exit status 2."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(Exception):
    """The user must change something; the message says what."""


class Damaged(UsageError):
    """A file is readable, but its content is not what was written."""


class NotApplicable(UsageError):
    """A method cannot, by definition, be used on the requested tasks."""


class Diverged(Exception):
    """A meta-training's loss, gradient or score became NaN or infinite.

    Jobs record this as a result, not as a crash.
    """


class Interrupted(Exception):
    """The job stopped on a signal after saving a checkpoint; the next run resumes from it.

    Args:
        message: progress so far.
        signal: number of the signal.
    """

    def __init__(self, message: str, signal: int = 15) -> None:
        super().__init__(message)
        self.signal = signal


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or else list all of them.

    Args:
        name: the unknown name.
        known: all valid names.
    """
    names = list(known)
    nearest = get_close_matches(name, names, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else f"; known are {', '.join(names)}"
