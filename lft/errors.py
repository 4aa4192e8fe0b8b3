"""Errors that a user can cause. The command line prints their text as one line and exits with 2."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(Exception):
    """Something outside the program has to be changed; the message says what."""


class Damaged(UsageError):
    """A file that was read but does not hold what was written to it."""


class NotApplicable(UsageError):
    """A method that cannot be used on the tasks asked for, by its definition."""


class Diverged(Exception):
    """A training whose loss became NaN or infinite: a result, recorded as such, not a crash."""


class Interrupted(Exception):
    """The job was asked to stop and has saved a checkpoint; running it again goes on from there.

    Args:
        message: what was done until then.
        signal: the number of the signal that asked.
    """

    def __init__(self, message: str, signal: int = 15) -> None:
        super().__init__(message)
        self.signal = signal


def suggestion(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest known name, else the list of known names."""
    names = list(known)
    nearest = get_close_matches(name, names, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else f"; known are {', '.join(names)}"
