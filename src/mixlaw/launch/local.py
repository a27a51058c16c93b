"""Works to worker processes of this machine: one a GPU, or some of one thread each."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from mixlaw.errors import TrainError
from mixlaw.launch.work import Outcome, Work
from mixlaw.launch.worker import GRACE_SECONDS, death, python_environment

FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 0.5, 600.0
"""A device rests after a loss, doubly after the next, while others do well: a broken one would else
take work after work from these."""

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(eq=False)
class _Seat:
    """A worker process, the devices that it holds, and the ticket that it works on."""

    process: subprocess.Popen[str]
    devices: tuple[str, ...]
    ticket: str | None = None
    leaves_by: float = math.inf
    listener: threading.Thread = field(init=False)

    def dismiss(self) -> None:
        """Closed standard input interrupts the training, if any, and ends the process."""
        self.ticket = None
        self.leaves_by = min(self.leaves_by, time.monotonic() + GRACE_SECONDS + 1)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


class LocalLauncher:
    """A `Launcher` of persistent processes (importing torch takes seconds), started when needed.

    A process that dies takes only its own work with it and is replaced, as is one that lost a work:
    after an error of CUDA no other would succeed in it. Works that take several
    processes get as many devices at once and wait until these are free.

    Args:
        device: "cpu"; "cuda": the visible GPUs; "auto": these, or the CPU when there is none.
        workers: processes on a CPU, one thread each; default: one per core. On GPUs: the most
            GPUs to use; default: all.
    Raises: TrainError: "cuda" without a visible GPU; no workers.
    """

    def __init__(self, *, device: str = "auto", workers: int | None = None):
        if workers is not None and workers < 1:
            raise TrainError(f"workers is {workers}; it must be at least 1, or left out for all")
        gpus = visible_gpus() if device != "cpu" else []
        if device == "cuda" and not gpus:
            raise TrainError(
                "device is cuda, and PyTorch finds no GPU on this machine; "
                "say auto or cpu, or install a CUDA build of PyTorch"
            )
        self._on_gpus = bool(gpus)
        everything = gpus or [str(core) for core in range(workers or available_cores())]
        self._devices = tuple(everything[:workers])
        self._losses: Counter[str] = Counter()  # of a device, since it last did well
        self._rests_until: dict[str, float] = {}
        self._seats: list[_Seat] = []
        self._queue: list[tuple[float, str, Work]] = []
        self._ended: dict[str, Outcome] = {}
        self._answers: queue.SimpleQueue[tuple[_Seat, str]] = queue.SimpleQueue()
        self._numbers = itertools.count(1)

    @property
    def slots(self) -> int:
        return len(self._devices)

    def submit(self, works: Sequence[Work]) -> list[str]:
        tickets = []
        for work in works:
            tickets.append(ticket := f"local-{next(self._numbers)}")
            if work.processes > self.slots:
                error = TrainError(
                    f"{work.name} takes {work.processes} devices at once, this machine lends "
                    f"{self.slots}; use a larger machine or a smaller size"
                )
                self._ended[ticket] = Outcome(str(error), error)
            else:
                self._queue.append((work.flops, ticket, work))
        self._queue.sort(key=lambda entry: -entry[0])
        self._fill()
        return tickets

    def poll(self) -> dict[str, Outcome]:
        with contextlib.suppress(queue.Empty):
            while True:
                seat, answer = self._answers.get_nowait()
                if seat.ticket is not None:
                    self._end(seat, Outcome.from_json(answer))
        for seat in [seat for seat in self._seats if seat.process.poll() is not None]:
            self._seats.remove(seat)
            if seat.ticket is not None:
                self._end(seat, Outcome(death(seat.process.returncode)))
            seat.dismiss()
        for seat in self._seats:
            if time.monotonic() > seat.leaves_by:
                seat.process.kill()
        self._fill()
        ended, self._ended = self._ended, {}
        return ended

    def cancel(self, ticket: str) -> None:
        self._queue = [entry for entry in self._queue if entry[1] != ticket]
        self._ended.pop(ticket, None)
        for seat in self._seats:
            if seat.ticket == ticket:
                seat.dismiss()

    def close(self) -> None:
        self._queue.clear()
        for seat in self._seats:
            seat.dismiss()
        deadline = time.monotonic() + GRACE_SECONDS + 1
        for seat in self._seats:
            try:
                seat.process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                seat.process.kill()
                seat.process.wait()
            seat.listener.join(1)  # not for ever: what a process forked may hold its pipe
        self._seats.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _end(self, seat: _Seat, outcome: Outcome) -> None:
        assert seat.ticket is not None
        self._ended[seat.ticket] = outcome
        seat.ticket = None
        if outcome.reason is None:
            for device in seat.devices:
                del self._losses[device]
            return
        seat.dismiss()
        for device in seat.devices:
            rest = min(FIRST_REST_SECONDS * 2 ** self._losses[device], LONGEST_REST_SECONDS)
            self._rests_until[device] = time.monotonic() + rest
            self._losses[device] += 1

    def _fill(self) -> None:
        """Give works to free devices. A work that waits for several holds up those behind it:
        otherwise they would never be free together."""
        while self._queue and (seat := self._seat(self._queue[0][2].processes)):
            _, seat.ticket, work = self._queue.pop(0)
            assert seat.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # its end will be heard
                seat.process.stdin.write(work.to_json() + "\n")
                seat.process.stdin.flush()

    def _seat(self, num_devices: int) -> _Seat | None:
        """An idle process that holds so many devices; None: not yet."""
        idle = [seat for seat in self._seats if seat.ticket is None and seat.leaves_by == math.inf]
        for seat in idle:
            if len(seat.devices) == num_devices:
                return seat
        held = {device for seat in self._seats for device in seat.devices}
        if len(self._losses) < len(self._devices):  # some do well
            held |= {device for device, end in self._rests_until.items() if time.monotonic() < end}
        free = [device for device in self._devices if device not in held]
        if len(free) >= num_devices:
            return self._start(tuple(free[:num_devices]))
        # An idle process keeps memory of its GPU, so it leaves before another takes the place.
        if len(free) + sum(len(seat.devices) for seat in idle) >= num_devices:
            for seat in idle:
                seat.dismiss()
        return None

    def _start(self, devices: tuple[str, ...]) -> _Seat:
        answers, worker_end = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "mixlaw.launch.worker", "--serve", str(worker_end)],
                stdin=subprocess.PIPE,
                stdout=2,  # what prints in it is not of the parent's standard output
                pass_fds=[worker_end],
                encoding="utf-8",
                env=os.environ | python_environment() | self._environment(devices),
                start_new_session=True,  # Ctrl-C is the parent's to deal with
            )
        finally:
            os.close(worker_end)
        seat = _Seat(process, devices)
        seat.listener = threading.Thread(target=self._listen, args=(seat, answers), daemon=True)
        seat.listener.start()
        self._seats.append(seat)
        return seat

    def _environment(self, devices: tuple[str, ...]) -> dict[str, str]:
        if self._on_gpus:
            return {"CUDA_VISIBLE_DEVICES": ",".join(devices)}
        return {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

    def _listen(self, seat: _Seat, answers_fd: int) -> None:
        with os.fdopen(answers_fd, encoding="utf-8") as answers:
            for answer in answers:
                self._answers.put((seat, answer))


def visible_gpus() -> list[str]:
    """The GPUs that this process may train on, as CUDA_VISIBLE_DEVICES names them."""
    from mixlaw.train.devices import gpu_count  # imports torch

    count, named = gpu_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def available_cores() -> int:
    """Cores that this process may use, and its container has, if it is in one."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1  # macOS
    try:
        quota, period = CPU_QUOTA.read_text().split()
    except OSError:  # no control groups of version 2 here
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
