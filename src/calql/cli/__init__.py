"""The command line: one file per command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich
import tyro

import calql
from calql import __version__

if TYPE_CHECKING:
    from tyro.extras import SubcommandApp


def main(arguments: list[str] | None = None) -> None:
    """Run one command.

    Exit codes: 0 done, 1 the run failed, 2 the input cannot be used, 128 + N stopped by signal N (Ctrl-C: 130).
    """
    from calql.cli import hints, options
    from calql.cli.signals import Stopped, terminating
    from calql.types import InputError, RunError, one_line

    _open_streams()
    try:
        os.getcwd()
    except FileNotFoundError:
        print("calql: the current folder does not exist any more; change to another one", file=sys.stderr)
        sys.exit(2)
    hints.typed[:] = sys.argv[1:] if arguments is None else arguments
    sys.path.insert(0, "")  # so that --task package.module:factory finds the user's own files
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 must not end a run
    if hints.typed == ["--version"]:
        print(f"calql {__version__}")
        return
    try:
        with terminating():
            options.refuse_repeated(commands().get((hints.typed or [""])[0]), hints.typed)
            code = application().cli(prog="calql", description=HELP, args=arguments)
            sys.stdout.flush()
    except InputError as error:
        print(f"calql: {error}", file=sys.stderr)
        code = 2
    except RunError as error:
        print(f"calql: {error}", file=sys.stderr)
        code = error.code if isinstance(error, Stopped) else 1
    except SystemExit as error:
        if (place := _users(error)) is None:
            raise
        print(
            f"calql: {place} ended the program ({one_line(repr(error))}); let it raise an error, or return",
            file=sys.stderr,
        )
        code = 1
    except KeyboardInterrupt:
        print(
            "calql: interrupted; run the same command again to continue what was saved (calql train: add --resume)",
            file=sys.stderr,
        )
        code = 130
    except BrokenPipeError:  # the reader of the output has closed it: `calql --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's flush at exit fails
        code = 1
    except OSError as error:
        if error.filename is not None:
            print(f"calql: {one_line(error.filename)}: {error.strerror}; {_fix(error)}", file=sys.stderr)
            code = 2
        elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF):
            print(
                f"calql: the output cannot be written ({error.strerror}); free space, or write elsewhere",
                file=sys.stderr,
            )
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        else:
            raise
    except (MemoryError, RuntimeError, ValueError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):  # as JAX says it
            raise
        told = f" ({one_line(error).removeprefix('RESOURCE_EXHAUSTED: ')})" if str(error) else ""
        print(f"calql: out of memory{told}; use smaller data, networks or batches", file=sys.stderr)
        code = 1
    sys.exit(code or 0)


def _open_streams() -> None:
    """Give a process that was started without an output (`>&-`) one, or the next file that it opens would be it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this stream's
            setattr(sys, name, os.fdopen(handle, "r" if number == 0 else "w"))


def _users(error: SystemExit) -> str | None:
    """File and line of code that is not calql's and called `sys.exit`; None: it was calql's."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = *(Path(file).parent for file in (calql.__file__, tyro.__file__, rich.__file__)), Path(argparse.__file__)
    if any(Path(frame.filename).is_relative_to(path) for path in ours):
        return None
    return f"{frame.filename}:{frame.lineno}"


def _fix(error: OSError) -> str:
    """What to do about a file or folder that the system refuses."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many files are open: raise the limit, ulimit -n"
    return "check the path and its permissions, or choose another"


def commands() -> dict[str, Callable[..., Any]]:
    """The function of each command, but for `completions`."""
    from calql.cli import bench, data, demo, doctor, evaluate, export, listing, report, sweep, theory, train, tune
    from calql.export import actor

    return {
        "demo": demo.demo,
        "train": train.train,
        "eval": evaluate.evaluate,
        "export": export.export,
        "act": actor.act,
        "data": data.data,
        "sweep": sweep.sweep,
        "tune": tune.tune,
        "report": report.report,
        "list": listing.listing,
        "theory": theory.theory,
        "bench": bench.bench,
        "doctor": doctor.doctor,
    }


def application() -> SubcommandApp:
    """All commands."""
    from tyro.extras import SubcommandApp

    from calql.cli.completions import completions_of

    app = SubcommandApp()
    for name, function in (commands() | {"completions": completions_of(app)}).items():
        app.command(name=name)(function)
    return app


HELP = "Pre-train on logged data, fine-tune online, without unlearning. Start with: calql demo"
