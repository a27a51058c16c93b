"""Stacks to worker processes of this machine, one thread each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from mixlaw.errors import MixlawError, TrainError
from mixlaw.runs import RunSpec

if TYPE_CHECKING:
    from mixlaw.train.swarm import Stack, Swarm

REPORT_SECONDS = 0.2


@dataclass(frozen=True)
class Progress:
    """Where a swarm stands; rates are of this call, not of resumed work.

    Attributes:
        share_done: of the FLOPs of this call, since a token costs more in a larger size.
        doing: what the workers train, for people.
    """

    runs_done: int
    runs_total: int
    share_done: float
    tokens_per_second: float
    seconds_left: float
    doing: str


def train_local(
    swarm: Swarm,
    specs: Sequence[RunSpec],
    *,
    workers: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Train what the swarm's store does not hold yet. Interrupt at will; the next call goes on.

    Args:
        workers: processes; default: one per core. They share nothing but the store.
    Raises: TrainError: a worker died; any MixlawError that a worker met.
    """
    workers = workers or available_cores()
    todo = swarm.unfinished(specs, workers=workers)
    if not todo:
        return
    board = _Board(swarm, todo, len(specs), on_progress)
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's thread pools
    running: dict[Connection, tuple[BaseProcess, Stack]] = {}
    queue = list(todo)
    try:
        for _ in range(min(workers, len(queue))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(swarm, theirs), daemon=True)
            with _ignoring_interrupts():
                process.start()
            theirs.close()
            ours.send(stack := queue.pop(0))
            running[ours] = (process, stack)
        while running:
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                process, stack = running[pipe]
                with _alive(process, stack):
                    message = pipe.recv()
                if isinstance(message, int):
                    board.step(stack, message)
                    continue
                if isinstance(message, MixlawError):
                    raise message
                board.finish(stack)
                following = queue.pop(0) if queue else None
                with _alive(process, stack):
                    pipe.send(following)
                if following is None:
                    del running[pipe]
                    process.join()
                else:
                    running[pipe] = (process, following)
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()


@contextlib.contextmanager
def _alive(process: BaseProcess, stack: Stack) -> Iterator[None]:
    """Raises: TrainError: the other end of the pipe is gone."""
    try:
        yield
    except (EOFError, OSError):
        process.join()
        raise TrainError(
            f"the worker that trained {_name(stack)} died (exit code {process.exitcode}; out of "
            "memory is the usual reason, then lower stack_size); run the same command to go on "
            "from its last checkpoint"
        ) from None


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def _work(swarm: Swarm, pipe: Connection) -> None:
    """Train stacks from the pipe until it says None or its other end is gone."""
    last = 0.0

    def on_step(done: int) -> None:
        nonlocal last
        if time.monotonic() - last > REPORT_SECONDS:
            last = time.monotonic()
            pipe.send(done)  # a dead parent raises here, so no orphan trains on

    with contextlib.suppress(BrokenPipeError, EOFError):
        while (stack := pipe.recv()) is not None:
            try:
                swarm.train_stack(stack, on_step)
            except MixlawError as error:
                pipe.send(error)
                return
            pipe.send("done")


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole process group; a worker started in here leaves it to its parent."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change handlers, and only it is interrupted
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _name(stack: Stack) -> str:
    return f"{len(stack)} x {stack[0].size}"


class _Board:
    """Turns steps of many workers into one progress."""

    def __init__(self, swarm: Swarm, todo: list[Stack], runs_total: int, on_progress):
        self.swarm, self.on_progress, self.runs_total = swarm, on_progress, runs_total
        self.pending = {id(stack): len(stack) for stack in todo}
        self.flops_total = sum(map(swarm.flops, todo))
        self.flops_done = self.flops_resumed = self.tokens = 0.0
        self.steps: dict[int, int] = {}
        self.active: dict[int, Stack] = {}
        self.started = time.monotonic()

    def step(self, stack: Stack, done: int) -> None:
        key, total = id(stack), self.swarm.steps(stack)
        first = key not in self.steps
        made = done - self.steps.get(key, 0)
        self.steps[key], self.active[key] = done, stack
        flops = self.swarm.flops(stack) * made / total
        self.flops_done += flops
        # What a checkpoint brought back was not done now: it must not flatter the speed.
        if first and made > total / 20:
            self.flops_resumed += flops
        else:
            self.tokens += self.swarm.tokens_per_step(stack) * made
        self._tell()

    def finish(self, stack: Stack) -> None:
        self.step(stack, self.swarm.steps(stack))
        del self.active[id(stack)], self.pending[id(stack)]
        self._tell()

    def _tell(self) -> None:
        if self.on_progress is None:
            return
        seconds = time.monotonic() - self.started
        speed = max(self.flops_done - self.flops_resumed, 1.0) / seconds
        self.on_progress(
            Progress(
                runs_done=self.runs_total - sum(self.pending.values()),
                runs_total=self.runs_total,
                share_done=self.flops_done / self.flops_total,
                tokens_per_second=self.tokens / seconds,
                seconds_left=(self.flops_total - self.flops_done) / speed,
                doing=", ".join(map(_name, self.active.values())),
            )
        )
