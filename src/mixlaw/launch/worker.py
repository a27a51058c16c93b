"""Runs works in a process of their own: one from a file, or one after another as they come.

    python -m mixlaw.launch.worker WORK.json [OUTCOME.json]   one work; exit code 0: it ended well
    python -m mixlaw.launch.worker --serve FD                 a line of JSON each: works in by
                                                              standard input, outcomes to a pipe

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

from mixlaw.claims import BEATS_PER_LEASE, STUCK_EXIT_CODE, RunStatus, Watch, Worker, WorkStatus
from mixlaw.errors import MixlawError, StorageError, TrainError
from mixlaw.files import write_text
from mixlaw.launch.work import Outcome, Work, may_pass

POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0
"""What an interrupted training has to let go of its runs."""

INTERRUPTED = 130

GROUP = "MIXLAW_GROUP"
"""Set in the environment of the processes that train a work together."""

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class WorkLost(Exception):
    """The processes of a work ended without an outcome; it may be tried again."""


def run_work(work: Work) -> None:
    """Train one work here, or in a group of processes on this machine when it takes several.

    Raises: MixlawError: what a user must mend; TrainError: out of memory; WorkLost.
    """
    if GROUP not in os.environ:
        for name in TORCHRUN:  # of a group that this process was started in, not of ours
            os.environ.pop(name, None)
        _outwait_the_dead(work)
        if work.processes > 1:
            _run_group(work)
            return
    swarm, speed = work.swarm, work.swarm.hardware
    worker = Worker(
        swarm.store, lease_seconds=speed.lease_seconds, stuck_seconds=speed.stuck_seconds
    )
    if _leads():  # the training's first report may be minutes away; who has the runs is seen now
        runs = tuple(RunStatus(s.run_id, s.label, s.size, None) for s in work.stack)
        worker.report(WorkStatus(runs, 0, swarm.steps(list(work.stack)), 0.0))
    with _memory_errors(work), worker:
        swarm.train(list(work.stack), worker)


def _leads() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _outwait_the_dead(work: Work) -> None:
    """Wait until each worker that has runs of a work, or may have, beats or is found dead: a job
    that was killed and is started again on another machine meets its former self."""
    swarm, run_ids = work.swarm, {spec.run_id for spec in work.stack}
    lease_seconds = swarm.hardware.lease_seconds
    watch = Watch(swarm.store, lease_seconds=lease_seconds)

    def beats() -> dict[str, int]:
        return {
            found.worker: found.beat
            for found in watch.heartbeats()
            if found.work is None or run_ids & {run.run_id for run in found.work.runs}
        }

    first = still = beats()
    while still:
        time.sleep(min(1.0, lease_seconds / BEATS_PER_LEASE))
        now = beats()
        still = {worker for worker in still if now.get(worker) == first[worker]}


def attempt(work: Work) -> Outcome:
    """`run_work`, with whatever goes wrong as an outcome; an interrupt is raised."""
    try:
        run_work(work)
    except StorageError as error:
        return Outcome(str(error), None if may_pass(error) else error)
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
        why = f"signal {_signal_name(-exit_code)}"
    else:
        why = "what it wrote to the terminal tells more"
    return f"the worker process died (exit code {exit_code}: {why})"


def _signal_name(number: int) -> str:
    """ "SIGTERM"; the number of those without a name, such as real-time ones."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def python_environment() -> dict[str, str]:
    """For Python processes that import what this one does, and nothing from the folder they are
    started in, where a file may be named like a module of the standard library."""
    path = [entry or os.getcwd() for entry in sys.path]
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(path)}


def _run_group(work: Work) -> None:
    """One torchrun group on this machine; its ranks end when this process does."""
    with tempfile.TemporaryDirectory(prefix="mixlaw-") as folder:
        file, outcome = Path(folder, "work.json"), Path(folder, "outcome.json")
        file.write_text(work.to_json(), encoding="utf-8")
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={work.processes}"]
        rank = ["-m", "mixlaw.launch.worker", "--attended", str(file), str(outcome)]
        command = [sys.executable, "-m", *torchrun, *rank]
        environment = os.environ | python_environment() | {GROUP: "1"}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, env=environment, start_new_session=True
        ) as group:
            try:
                while (code := group.poll()) is None:  # Ray interrupts no wait
                    time.sleep(POLL_SECONDS)
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
        count = len(work.stack)
        remedy = f"lower stack_size below {count}"
        if count == 1:
            remedy = "give the size fewer sequences per step (batch_size), or use fewer workers"
        raise TrainError(f"no memory left to train {work.name} ({told}); {remedy}") from error


def _attended() -> queue.SimpleQueue[str]:
    """Lines of standard input as they come; when it closes, this process ends.

    The main thread is interrupted, so that it lets go of its runs, and ended when it does not.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    main = threading.main_thread().ident
    assert main is not None
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # children of Ray inherit a block

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


def _serve(answers_fd: int) -> None:
    """Works from standard input, outcomes to a pipe of their own: anything may print."""
    lines = _attended()
    with os.fdopen(answers_fd, "w", encoding="utf-8") as answers:
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
    # Of a group the first to fail tells why; the others fail because it is gone.
    told = GROUP in os.environ and outcome_file is not None and outcome_file.exists()
    if outcome_file is not None and not told and (outcome.reason or _leads()):
        write_text(outcome_file, outcome.to_json())
    if outcome.error is not None:
        print(f"error: {outcome.reason}", file=sys.stderr)
    return 1 if outcome.reason else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line above; returns the exit code."""
    parser = argparse.ArgumentParser("python -m mixlaw.launch.worker")
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("outcome", type=Path, nargs="?")
    parser.add_argument("--serve", type=int, metavar="FD", help="works come by standard input")
    parser.add_argument("--attended", action="store_true", help="end when standard input closes")
    given = parser.parse_args(arguments)
    try:
        if given.serve is not None:
            _serve(given.serve)
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
