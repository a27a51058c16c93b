"""Who trains which run: workers on any number of machines share the runs of one store.

A worker beats: a thread rewrites its file `workers/<id>.json` with a rising counter. A run's claims
are numbered files, each created once, and the highest says who holds the run; it is taken over by
creating the next number, when the holder is not alive or has given it up. Clocks of machines are
never compared: an observer measures by its own clock how long a counter has stood still.

A holder that was only slow (a stopped process, a lost network) sees the higher number and leaves
the run alone. Should it write in the instant before it looks, nothing is spoilt: results and
checkpoints are whole files, and either training of the run is as good as the other.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from mixlaw.errors import StorageError
from mixlaw.files import parse_json
from mixlaw.runs import FAILED
from mixlaw.store import MODEL, RESULT, RunStore

T = TypeVar("T")

WORKERS, CLAIM = "workers", "claim-"
NOBODY = ""
BEATS_PER_LEASE = LOOKS_PER_STUCK = 6
CONCURRENT = 16
"""Requests at once. A stack of 64 in a bucket, one after another, would take longer to let go of
than an interrupted process is given."""
VIEW_SECONDS = 2.0
"""Between beats, so that people see a training move..."""
BEAT_SHARE = 0.01
"""... but of the time no more may go into them: on a bucket, where each costs a request and 50 to
100 ms, they come every 5 to 10 s."""
STUCK_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: the same work may do well when it is tried again."""


@dataclass(frozen=True)
class RunStatus:
    """One run in training; `loss` is the last that was reported."""

    run_id: str
    label: str
    size: str
    loss: float | None


@dataclass(frozen=True)
class WorkStatus:
    """What a worker trains now: steps of its stack, tokens of all its runs."""

    runs: tuple[RunStatus, ...]
    steps_done: int
    steps_total: int
    tokens_per_second: float

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WorkStatus:
        return cls(**{**data, "runs": tuple(RunStatus(**run) for run in data["runs"])})


@dataclass(frozen=True)
class Heartbeat:
    """A worker's file.

    Attributes:
        boot: of the machine and its process numbers; "" where they cannot be told.
        started: of the process, so that a number given to another process is noticed.
        beat: rises with every writing.
        lease_seconds: how long the worker may be silent by its own settings.
        work: what it trains; None before its first report.
    """

    worker: str
    host: str
    boot: str
    pid: int
    started: str
    beat: int
    lease_seconds: float
    work: WorkStatus | None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Heartbeat:
        work = data["work"]
        return cls(**{**data, "work": None if work is None else WorkStatus.from_dict(work)})


class Worker:
    """A process that trains runs of a store. Within the `with` block it beats and may claim; at
    the end of the block it gives up all that it holds.

    >>> with Worker(store) as worker:
    ...     mine = worker.claim(run_ids)
    """

    def __init__(
        self, store: RunStore, *, lease_seconds: float = 60, stuck_seconds: float | None = None
    ):
        """Nothing begins before the `with` block.

        Args:
            lease_seconds: others take over what is held when the heartbeat stands still so long.
            stuck_seconds: without a report for so long, while it holds runs, the process ends
                itself with exit code 75; None: never.
        """
        self.store, self.lease_seconds, self.stuck_seconds = store, lease_seconds, stuck_seconds
        host = socket.gethostname()
        self.id = f"{re.sub('[^A-Za-z0-9]+', '-', host)}-{os.getpid()}-{secrets.token_hex(4)}"
        self._heartbeat = Heartbeat(
            worker=self.id,
            host=host,
            boot=_boot(),
            pid=os.getpid(),
            started=_process_start(os.getpid()) or "",
            beat=0,
            lease_seconds=lease_seconds,
            work=None,
        )
        self._watch = Watch(store, lease_seconds=lease_seconds)
        self._held: dict[str, int] = {}
        self._work: WorkStatus | None = None
        self._reports = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name=f"heartbeat {self.id}", daemon=True)
        # A thread of its own: a heartbeat may hang in the same file system as the training.
        self._guard = threading.Thread(target=self._look, name=f"guard {self.id}", daemon=True)

    def __enter__(self) -> Worker:
        self._beat(0)  # before the first claim: a holder without heartbeat is a dead one
        self._thread.start()
        if self.stuck_seconds is not None:
            self._guard.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(self.lease_seconds)  # it may hang in a file system that is gone
        self._held.clear()
        # Without heartbeat all that was held is free. Where the store refuses that now, the lease
        # frees it; an error of the block must not be hidden by this one.
        with contextlib.suppress(StorageError):
            self.store.storage.delete(_worker_file(self.id))

    def claim(self, run_ids: Sequence[str], *, keeping: Collection[str] = ()) -> list[str]:
        """Take what is free. Returns: those that this worker holds now, in the order given.

        Left out: runs with a result (and the model that they are to keep), and runs whose holder
        is alive as far as is known; one of another machine that has just died is found out when it
        is asked for again later.

        Args:
            keeping: those that are to keep their model.
        Raises: StorageError; RunTableError: a damaged result of one of `keeping`.
        """
        assert self._thread.is_alive(), "runs are claimed within the with block"
        claim = functools.partial(self._claim, keeping)
        return [run_id for run_id, mine in _at_once(claim, run_ids) if mine]

    def _claim(self, keeping: Collection[str], run_id: str) -> bool:
        names = self.store.storage.names(run_id)
        if self._finished(run_id, names, keeping):
            return False
        number = _highest(names)
        if number and number == self._held.get(run_id):
            return True
        holder = _holder(self.store, run_id, number)
        if holder != NOBODY and self._watch.alive(holder):
            return False
        if not self._create(run_id, number + 1, self.id):
            return False
        self._held[run_id] = number + 1
        names = self.store.storage.names(run_id)
        if self._finished(run_id, names, keeping):  # since it was looked up
            self._release(run_id)
            return False
        return True

    def _finished(self, run_id: str, names: Collection[str], keeping: Collection[str]) -> bool:
        if RESULT not in names or run_id not in keeping or MODEL in names:
            return RESULT in names
        return self.store.status(run_id) == FAILED  # what diverged has no model to keep

    def _create(self, run_id: str, number: int, worker: str) -> bool:
        data = json.dumps({"worker": worker}).encode()
        if self.store.storage.create(_claim_file(run_id, number), data):
            return True
        # A bucket may have created it, lost the answer, and refused its own second try.
        return worker == self.id == _holder(self.store, run_id, number)

    def holds(self, run_id: str) -> bool:
        """False once another took over: then nothing more may be written of this run."""
        number = self._held.get(run_id)
        return number is not None and number == _highest(self.store.storage.names(run_id))

    def release(self, run_ids: Iterable[str]) -> None:
        """Give up runs, so that others may take them at once."""
        _at_once(self._release, run_ids)

    def _release(self, run_id: str) -> None:
        number = self._held.pop(run_id, None)
        if number is not None:  # refused when another has taken over: as well
            self.store.storage.create(
                _claim_file(run_id, number + 1), json.dumps({"worker": NOBODY}).encode()
            )

    def report(self, work: WorkStatus) -> None:
        """Tell how far the training is, often: it costs nothing, and it shows that it goes on."""
        self._work = work
        self._reports += 1

    def _live(self) -> None:
        """The thread that beats."""
        longest_pause = self.lease_seconds / BEATS_PER_LEASE
        beat, pause = 0, min(VIEW_SECONDS, longest_pause)
        while not self._stop.wait(pause):
            beat, began = beat + 1, monotonic()
            with contextlib.suppress(StorageError):  # the next beat may get through
                self._beat(beat)
            slow = (monotonic() - began) / BEAT_SHARE
            pause = min(max(VIEW_SECONDS, slow), longest_pause)

    def _look(self) -> None:
        """The thread that looks whether the training goes on."""
        assert self.stuck_seconds is not None
        pause, seen, silent_seconds = self.stuck_seconds / LOOKS_PER_STUCK, self._reports, 0.0
        while not self._stop.wait(pause):
            # Summed over own pauses, not by a clock: a process that was stopped is not stuck.
            silent_seconds += pause
            if seen != self._reports or not self._held:
                seen, silent_seconds = self._reports, 0.0
            if silent_seconds >= self.stuck_seconds:
                self._end_stuck(silent_seconds)

    def _beat(self, beat: int) -> None:
        data = asdict(self._heartbeat) | {"beat": beat}
        data["work"] = None if self._work is None else asdict(self._work)
        # Not synced: a heartbeat that a power cut loses is of a machine that is gone.
        self.store.storage.write(_worker_file(self.id), json.dumps(data).encode(), sync=False)

    def _end_stuck(self, silent_seconds: float) -> None:
        reason = f"no progress for {silent_seconds:.0f} s; the worker ended itself to be restarted"
        step = self._work.steps_done if self._work else 0
        event = {"event": "stuck", "step": step, "reason": reason}

        def tell() -> None:
            for run_id in list(self._held):
                with contextlib.suppress(StorageError):
                    if self.holds(run_id):
                        self.store.append_metrics(run_id, [event])
            with contextlib.suppress(StorageError):
                self.store.storage.delete(_worker_file(self.id))

        # What the training is stuck in may be this very storage: do not wait for it for ever.
        telling = threading.Thread(target=tell, daemon=True)
        telling.start()
        telling.join(self.lease_seconds)
        os._exit(STUCK_EXIT_CODE)


class Watch:
    """An observer's view of the workers of a store.

    The heartbeat of one that it sees dead is removed, so that those who come later need not watch
    it for a lease once more. Should that worker live after all, it beats again.
    """

    def __init__(self, store: RunStore, *, lease_seconds: float = 60):
        self.store, self.lease_seconds = store, lease_seconds
        self._seen: dict[str, tuple[bytes, float]] = {}

    def alive(self, worker_id: str) -> bool:
        """Whether a worker is at work, as far as this observer knows.

        False: it said goodbye; or it is of this machine and its process is gone; or its heartbeat
        stood still for the lease (its own, if that is longer) since this observer first saw it so.
        """
        content = self.store.storage.read(_worker_file(worker_id))
        return content is not None and self._living(worker_id, content) is not None

    def free(self, run_ids: Iterable[str]) -> list[str]:
        """Those that no living worker holds, finished ones among them."""
        return [run_id for run_id in run_ids if self._free(run_id)]

    def _free(self, run_id: str) -> bool:
        holder = _holder(self.store, run_id, _highest(self.store.storage.names(run_id)))
        return holder == NOBODY or not self.alive(holder)

    def heartbeats(self) -> list[Heartbeat]:
        """Of the living workers."""
        names = [f"{WORKERS}/{name}" for name in self.store.storage.names(WORKERS)]
        contents = self.store.storage.read_all(names).items()
        found = (self._living(Path(name).stem, content) for name, content in contents)
        return [heartbeat for heartbeat in found if heartbeat is not None]

    def _living(self, worker_id: str, content: bytes) -> Heartbeat | None:
        """The heartbeat that a file tells, if its worker lives; else the file is removed."""
        heartbeat = self._judge(worker_id, content)
        if heartbeat is None:
            # An observer that may only read still observes.
            with contextlib.suppress(StorageError):
                self.store.storage.delete(_worker_file(worker_id))
                self.store.storage.sweep(_worker_file(worker_id))  # killed in a beat
        return heartbeat

    def _judge(self, worker_id: str, content: bytes) -> Heartbeat | None:
        try:
            heartbeat = Heartbeat.from_dict(parse_json(content))
        except (ValueError, TypeError, KeyError):  # cut by a crash of its machine: see `_beat`
            return None
        here = (heartbeat.host, heartbeat.boot) == (socket.gethostname(), _boot())
        if here and _boot() and _process_start(heartbeat.pid) != heartbeat.started:
            return None
        before, since = self._seen.get(worker_id, (None, 0.0))
        now = monotonic()
        if content != before:
            self._seen[worker_id] = (content, now)
            return heartbeat
        lease = max(self.lease_seconds, heartbeat.lease_seconds)
        return heartbeat if now - since < lease else None


def _at_once(call: Callable[[str], T], run_ids: Iterable[str]) -> list[tuple[str, T]]:
    """Each with what the call gives of it, in their order."""
    given = list(run_ids)
    with ThreadPoolExecutor(CONCURRENT) as pool:
        return list(zip(given, pool.map(call, given), strict=True))


def _highest(names: Iterable[str]) -> int:
    """The highest claim number among a run's files; 0 when it was never claimed."""
    numbers = [name.removeprefix(CLAIM) for name in names if name.startswith(CLAIM)]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _holder(store: RunStore, run_id: str, number: int) -> str:
    content = store.storage.read(_claim_file(run_id, number)) if number else None
    try:
        return parse_json(content)["worker"] if content else NOBODY
    # Cut by a crash of its machine, since claims are not synced.
    except (ValueError, TypeError, KeyError):
        return NOBODY


def _claim_file(run_id: str, number: int) -> str:
    return f"{run_id}/{CLAIM}{number:06d}"


def _worker_file(worker_id: str) -> str:
    return f"{WORKERS}/{worker_id}.json"


@functools.cache
def _boot() -> str:
    """What tells apart two boots, and two containers of one machine: their process numbers are
    each their own. "" where the system does not say; then only leases decide."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process_start(pid: int) -> str | None:
    """When a process began, in ticks since boot; None when it is gone or only not yet reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return None if fields[0] in "ZX" else fields[19]
