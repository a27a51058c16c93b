"""Runs works in a process of their own: one from a file, or one after another as they come.

    python -m mixlaw.launch.worker WORK.json [OUTCOME.json]   one work; exit code 0: it ended well
    python -m mixlaw.launch.worker --serve                    a line of JSON each: works in by
                                                              standard input, outcomes out

Served works come from a parent that keeps standard input open as long as it lives. When it closes,
also because the parent was killed, training is interrupted: no orphan trains on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from mixlaw.claims import STUCK_EXIT_CODE, Worker
from mixlaw.errors import MixlawError, StorageError, TrainError
from mixlaw.files import write_text
from mixlaw.launch.work import Outcome, Work

GRACE_SECONDS = 5.0
"""What an interrupted training has to let go of its runs."""

INTERRUPTED = 130


class WorkLost(Exception):
    """The processes of a work ended without an outcome; it may be tried again."""


def run_work(work: Work) -> None:
    """Train one work here, or in a group of processes on this machine when it takes several.

    Raises: MixlawError: what a user must mend; TrainError: out of memory; WorkLost.
    """
    if work.processes > 1 and "WORLD_SIZE" not in os.environ:
        _run_group(work)
        return
    swarm, speed = work.swarm, work.swarm.hardware
    with (
        _memory_errors(work),
        Worker(
            swarm.store, lease_seconds=speed.lease_seconds, stuck_seconds=speed.stuck_seconds
        ) as worker,
    ):
        swarm.train(list(work.stack), worker)


def attempt(work: Work) -> Outcome:
    """`run_work`, with whatever goes wrong as an outcome; an interrupt is raised."""
    try:
        run_work(work)
    except MixlawError as error:
        return Outcome(str(error), error)
    except WorkLost as error:
        return Outcome(str(error))
    except Exception as error:
        traceback.print_exception(error)  # a bug: its place helps
        return Outcome(f"{type(error).__name__}: {error}")
    return Outcome()


def death(exit_code: int) -> str:
    """Why a process may have ended with this code without an outcome; negative: by a signal."""
    if exit_code == -signal.SIGKILL:
        why = "out of memory is the usual reason, then lower stack_size"
    elif exit_code == STUCK_EXIT_CODE:
        why = "its training no longer moved, see the last line of its runs' metrics.jsonl"
    elif exit_code < 0:
        why = f"signal {signal.Signals(-exit_code).name}"
    else:
        why = "what it wrote to the terminal tells more"
    return f"the worker process died (exit code {exit_code}: {why})"


def _run_group(work: Work) -> None:
    """One torchrun group on this machine; its ranks end when this process does."""
    with tempfile.TemporaryDirectory(prefix="mixlaw-") as folder:
        file, outcome = Path(folder, "work.json"), Path(folder, "outcome.json")
        file.write_text(work.to_json(), encoding="utf-8")
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={work.processes}"]
        rank = ["-m", "mixlaw.launch.worker", "--attended", str(file), str(outcome)]
        command = [sys.executable, "-m", *torchrun, *rank]
        with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as group:
            try:
                code = group.wait()
            except KeyboardInterrupt:
                assert group.stdin is not None
                group.stdin.close()  # which the ranks notice
                group.wait()
                raise
        found = _read_outcome(outcome)
    if found is not None and found.error is not None:
        raise found.error
    if code:
        raise WorkLost(found.reason if found and found.reason else death(code))


def _read_outcome(file: Path) -> Outcome | None:
    return Outcome.from_json(file.read_bytes()) if file.exists() else None


@contextlib.contextmanager
def _memory_errors(work: Work) -> Iterator[None]:
    """Raises: TrainError: for the memory errors of Python and of torch."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch's class is a RuntimeError, too, but torch is imported in the train room only; on a
        # CPU it has no class of its own.
        named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not (named or "DefaultCPUAllocator" in str(error)):
            raise
        told = str(error).strip().partition("\n")[0]
        raise TrainError(
            f"no memory left to train {work.name} ({told}); lower stack_size below "
            f"{len(work.stack)}"
        ) from error


def _attended() -> queue.SimpleQueue[str]:
    """Lines of standard input as they come; when it closes, this process ends.

    The main thread is interrupted, so that it lets go of its runs, and ended when it does not.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    main = threading.main_thread().ident
    assert main is not None
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it

    def watch() -> None:
        # Not sys.stdin: the interpreter waits for it at exit, and this thread holds it.
        with os.fdopen(os.dup(0), encoding="utf-8") as stdin:
            for line in stdin:
                lines.put(line)
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(GRACE_SECONDS)
        os._exit(INTERRUPTED)

    threading.Thread(target=watch, daemon=True, name="mixlaw-attended").start()
    return lines


def _serve() -> None:
    """Works from standard input, outcomes to standard output; what prints goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines = _attended()
    while True:
        line = lines.get()
        try:
            outcome = attempt(Work.from_json(line))
        except TrainError as error:
            outcome = Outcome(str(error), error)
        print(outcome.to_json(), file=answers, flush=True)


def _run_file(file: Path, outcome_file: Path | None) -> int:
    try:
        work = Work.from_json(file.read_bytes())
    except OSError as error:
        raise StorageError(f"could not read the work {file}: {error}") from error
    outcome = attempt(work)
    if outcome_file is not None and (outcome.reason or os.environ.get("RANK", "0") == "0"):
        write_text(outcome_file, outcome.to_json())
    if outcome.error is not None:
        print(f"error: {outcome.reason}", file=sys.stderr)
    return 1 if outcome.reason else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line above; returns the exit code."""
    parser = argparse.ArgumentParser("python -m mixlaw.launch.worker")
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("outcome", type=Path, nargs="?")
    parser.add_argument("--serve", action="store_true", help="works come by standard input")
    parser.add_argument("--attended", action="store_true", help="end when standard input closes")
    given = parser.parse_args(arguments)
    try:
        if given.serve:
            _serve()
        if given.work is None:
            parser.error("name the file of a work, or --serve")
        if given.attended:
            _attended()
        return _run_file(given.work, given.outcome)
    except MixlawError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
