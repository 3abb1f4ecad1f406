"""The `trit` command: finds the command's file, runs it, turns every error into one line.

The folder is the registry: each public module here is one command, a plain function `command` with
typer annotations (see `_commands`). Nothing of a command is imported before it is asked for, so
`trit --help` answers at once. stdout carries the answer only; errors and progress go to stderr.

Exit codes: 0 ok, 1 failed, 2 usage, 3 does not fit, 130 interrupted. TRIT_DEBUG=1 shows tracebacks.
"""

import errno
import os
import sys
from collections.abc import Sequence

from trit.errors import TritError, UsageError

INTERRUPTED = 130
DOES_NOT_FIT = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_standard_files()
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()  # a full disk or a closed pipe must be seen here, not at exit
        return code
    except SystemExit:
        raise
    except BaseException as error:
        return _report(error, arguments)


def _open_standard_files() -> None:
    """The null device for those that were closed (`trit show MODEL >&-`).

    In this order each gets its own number, the lowest that is free, so that no file to be written
    does, and with it what is printed.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)  # what trit starts gets it, too
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))


def _dispatch(arguments: list[str]) -> int:
    from trit.cli import _commands

    first = arguments[0] if arguments else "--help"
    if first in ("--version", "-V", "version"):
        print(f"trit {_version()}")
        return 0
    if first in ("--help", "-h", "help"):
        if len(arguments) < 2:
            print(_commands.overview())
            return 0
        arguments = [arguments[1], "--help"]
        first = arguments[0]
    if first.startswith("-"):
        raise UsageError(f"no such option: {first}. See 'trit --help'.")
    return _commands.run(_commands.find(first), arguments[1:])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("trit")
    except PackageNotFoundError:  # a source tree on PYTHONPATH
        return "(not installed)"


def _report(error: BaseException, arguments: list[str]) -> int:
    """Say what went wrong in one line on stderr; return the exit code."""
    if isinstance(error, BrokenPipeError):
        # The reader left (`trit list | head`). Python would complain again when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if os.environ.get("TRIT_DEBUG", "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    message, code = _explain(error, arguments)
    print(f"trit: {message}", file=sys.stderr, flush=True)
    return code


def _explain(error: BaseException, arguments: list[str]) -> tuple[str, int]:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, TritError):
        return f"error: {error}", error.exit_code
    if isinstance(error, MemoryError):
        return "error: out of memory. Take a smaller model, or a smaller --ctx-size.", DOES_NOT_FIT
    if isinstance(error, OSError):
        return f"error: {_explain_os(error)}", DOES_NOT_FIT if error.errno == errno.ENOSPC else 1
    format_message = getattr(error, "format_message", None)
    if format_message is not None:  # typer's own errors: its click is private, so by shape
        text = str(format_message()).strip().rstrip(".")
        return f"error: {text}. See 'trit {arguments[0]} --help'.", getattr(error, "exit_code", 2)
    detail = f"{type(error).__name__}: {error}".strip().removesuffix(":")
    return f"error: a bug in trit: {detail} (TRIT_DEBUG=1 shows where; please report it)", 1


def _explain_os(error: OSError) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno == errno.ENOSPC:
        reason = "no space left on the disk"
    return f"{' -> '.join(names)}: {reason}" if names else reason
