"""Run the command line. However a command ends, it ends here, with one exit code of EXIT_CODES."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence

import typer

from mixlaw.cli import terminal
from mixlaw.cli.app import app
from mixlaw.errors import MissingExtraError, MixlawError

DONE, ERROR, USAGE, BUG, INTERRUPTED, NO_READER = 0, 1, 2, 70, 130, 141
EXIT_CODES = {
    DONE: "done",
    ERROR: "an error that you can mend; its message says how",
    USAGE: "wrong usage: an unknown command or option, or a value that it cannot take",
    BUG: "a bug of mixlaw",
    INTERRUPTED: "interrupted; the same command goes on where it was",
    NO_READER: "who read the output went away, as `head` does",
}

EXTRAS = {"torch": "train", "safetensors": "train", "tokenizers": "train", "zstandard": "train"}
"""Package that is imported where it is needed -> the extra that installs it."""

REMEDIES = {
    errno.ENOENT: "name one that is there",
    errno.EACCES: "check its permissions, or choose another folder",
    errno.EPERM: "check its permissions, or choose another folder",
    errno.EROFS: "choose another folder",
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "free some space, then run the same command again",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a folder",
}

# Where every version of typer has it: the base of all errors of usage.
UsageError = typer.BadParameter.__mro__[1]


def main() -> None:
    """The command line of this process; ends it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore
    given = sys.argv[1:]
    ours = given[: given.index("--")] if "--" in given else given
    # Anywhere on the line, so that one may add it to the command that failed.
    debug = "--debug" in ours or os.environ.get("MIXLAW_DEBUG", "0") not in ("", "0")
    rest = [word for word in ours if word != "--debug"] + given[len(ours) :]
    sys.exit(run(rest, debug=debug, as_json="--json" in ours))


def run(arguments: Sequence[str], *, debug: bool = False, as_json: bool = False) -> int:
    """Run one command; tell what went wrong.

    Args:
        debug: also show the traceback.
        as_json: errors are one line of JSON, the last one of standard error.
    Returns: the exit code.
    """
    try:
        code = app(args=list(arguments), prog_name="mixlaw", standalone_mode=False)
        code = code if isinstance(code, int) else DONE
        if code != INTERRUPTED:
            return code
        failed = KeyboardInterrupt()  # typer made a code of it
    except terminal.ReaderGone:
        return NO_READER
    except (Exception, KeyboardInterrupt) as error:
        failed = error
    code, message = explained(failed)
    if debug and failed.__traceback__ is not None:
        terminal.traceback(failed)
    if as_json:
        told = {"kind": type(failed).__name__, "message": message, "exit_code": code}
        print(json.dumps({"error": told}), file=sys.stderr)
    else:
        terminal.error(message)
    return code


def explained(failed: BaseException) -> tuple[int, str]:
    """The exit code of an error, and what to say of it."""
    if isinstance(failed, (KeyboardInterrupt, typer.Abort)):
        return INTERRUPTED, "stopped; run the same command to go on"
    if isinstance(failed, MixlawError):
        return ERROR, str(failed)
    if isinstance(failed, UsageError):
        context = getattr(failed, "ctx", None)
        page = f"{context.command_path if context else 'mixlaw'} --help"
        message = failed.format_message()  # pyright: ignore
        return USAGE, f"{message}{'' if message.endswith(('.', '?')) else '.'} See: {page}"
    if isinstance(failed, ModuleNotFoundError) and failed.name in EXTRAS:
        return ERROR, str(MissingExtraError(failed.name, EXTRAS[failed.name]))
    if isinstance(failed, OSError):
        what = f"{failed.filename}: " if failed.filename is not None else ""
        remedy = REMEDIES.get(failed.errno or 0)
        reason = failed.strerror or str(failed) or type(failed).__name__
        return ERROR, f"{what}{reason}" + (f"; {remedy}" if remedy else "")
    if isinstance(failed, MemoryError):
        return ERROR, "out of memory; free some, or give mixlaw fewer runs or domains at a time"
    return BUG, (
        f"this is a bug of mixlaw, not of your study: {type(failed).__name__}: {failed}; add "
        "--debug for the traceback, and please report both where you got mixlaw from"
    )
