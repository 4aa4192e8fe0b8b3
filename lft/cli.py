"""Entry point of the command line ``lft``; its commands are in :mod:`lft.commands`."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import sys
from pathlib import Path

import typer

from lft.commands import jobs, results, tools
from lft.errors import Interrupted, UsageError
from lft.runtime.memory import keep_freed_memory

app = typer.Typer(
    help="Reference reproduction of Learned Fine-Tuner for Incongruous Few-Shot Learning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for part in (jobs, results, tools):
    app.add_typer(part.app)


def main() -> None:
    """Run the command line; errors that a user can cause end in one line and exit status 2."""
    # Importing torch leaves 200,000 objects. Scanning them in every garbage collection would take
    # a tenth of the start-up time and a twentieth of a meta-training.
    gc.set_threshold(500_000)
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # "?" for characters that a terminal cannot show
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        _check_folder()
        app(prog_name="lft")
    except UsageError as error:
        sys.exit(_fail(f"lft: {error}", 2))
    except ModuleNotFoundError as error:
        sys.exit(_fail(f"lft: this needs {error.name}; pip install 'lft[report]'", 2))
    except ImportError as error:  # too little memory, or a damaged library
        sys.exit(_fail(f"lft: a library does not load ({error}); run lft doctor", 2))
    except Interrupted as stop:
        sys.exit(_fail(f"lft: {stop}", 128 + stop.signal))
    except OSError as error:
        if error.filename is None:
            _drop_output()
        place = error.filename or "cannot write the output"
        sys.exit(_fail(f"lft: {place}: {error.strerror or error}", 2))
    except RuntimeError as error:
        line = _memory_problem(error)
        if line is None:
            raise
        sys.exit(_fail(f"lft: {line}", 2))


def _check_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("this folder was deleted; change to one that exists") from None


def _drop_output() -> None:
    """Discard unwritten output, so the interpreter does not retry it at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _memory_problem(error: RuntimeError) -> str | None:
    from lft.runtime.device import memory_problem

    return memory_problem(error)


def _fail(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    return status
