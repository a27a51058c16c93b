"""Contracts that third parties can run on their own launchers, and the fake that they train.

>>> from mixlaw.testing import check_launcher
>>> def test_my_launcher(tmp_path):
...     check_launcher(MyLauncher, tmp_path / "runs")
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mixlaw.claims import RunStatus, Watch, Worker, WorkStatus
from mixlaw.errors import CheckpointError, StorageError
from mixlaw.launch.work import Launcher, Outcome, Work
from mixlaw.mixture import Mixture
from mixlaw.runs import DONE, SWARM, RunResult, RunSpec
from mixlaw.store import METRICS, RunStore

CHECKPOINT_STEPS = 5


@dataclass(frozen=True)
class PretendHardware:
    device: str = "cpu"
    lease_seconds: float = 3.0
    stuck_seconds: float | None = None


@dataclass(frozen=True)
class PretendSwarm:
    """A swarm that only sleeps: its steps, checkpoints, claims and faults are those of a real one,
    its losses are made up from the seed. Needs neither torch nor a corpus.

    Attributes:
        runs: folder or URL of the runs.
        steps_per_run: steps; a checkpoint after every fifth.
        step_seconds: of a stack, whatever its size.
        group: processes of a work.
        faults: label of a run -> what its training does half-way to its end: "kill" (SIGKILL, as
            when memory runs out), "exit", "error" (CheckpointError), "bug" (ValueError), "memory"
            (MemoryError), "busy" and "full" (StorageError that may pass, that does not); followed
            by ":n", only the first n times.
    """

    runs: str
    steps_per_run: int = 10
    step_seconds: float = 0.01
    stack_size: int = 4
    group: int = 1
    hardware: PretendHardware = PretendHardware()
    faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def store(self) -> RunStore:
        return RunStore(self.runs)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PretendSwarm:
        return cls(**{**data, "hardware": PretendHardware(**data["hardware"])})

    def unfinished(self, specs: Sequence[RunSpec], *, workers: int = 1) -> list[list[RunSpec]]:
        left = self.store.unfinished(specs)
        size = min(self.stack_size, -(-len(left) // workers)) if left else 1
        return [left[start : start + size] for start in range(0, len(left), size)]

    def steps(self, stack: list[RunSpec]) -> int:
        return self.steps_per_run

    def tokens_per_step(self, stack: list[RunSpec]) -> int:
        return 100 * len(stack)

    def flops(self, stack: list[RunSpec]) -> float:
        return 6.0 * stack[0].num_params * self.tokens_per_step(stack) * self.steps(stack)

    def processes(self, stack: list[RunSpec]) -> int:
        return self.group

    def train(self, stack: list[RunSpec], worker: Worker) -> None:
        """Raises: CheckpointError, StorageError, ValueError, MemoryError: the faults asked for."""
        if int(os.environ.get("RANK", "0")):
            return  # as in a real group, the first rank claims and writes
        keeping = {spec.run_id for spec in stack if spec.keep}
        claimed = worker.claim([spec.run_id for spec in stack], keeping=keeping)
        mine = [spec for spec in stack if spec.run_id in claimed]
        starts = [max(self.store.checkpoints(run_id), default=0) for run_id in claimed]
        start = min(starts, default=self.steps_per_run)
        try:
            for step in range(start + 1, self.steps_per_run + 1):
                time.sleep(self.step_seconds)
                if step == (start + self.steps_per_run) // 2:
                    for spec in mine:
                        self._fault(spec)
                self._after_step(step, mine, worker)
            for spec in mine:
                if worker.holds(spec.run_id):
                    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
                    done = {"event": "done", "pid": os.getpid(), "devices": devices}
                    self.store.append_metrics(spec.run_id, [done])
                    if spec.keep:
                        with self.store.save_model(spec.run_id) as path:
                            path.write_text(spec.label)
                    self.store.save(spec, made_up_result(spec))
        finally:
            worker.release(claimed)

    def _after_step(self, step: int, stack: list[RunSpec], worker: Worker) -> None:
        runs = tuple(RunStatus(s.run_id, s.label, s.size, None) for s in stack)
        speed = self.tokens_per_step(stack) / max(self.step_seconds, 1e-6)
        worker.report(WorkStatus(runs, step, self.steps_per_run, speed))
        if step % CHECKPOINT_STEPS == 0:
            for spec in stack:
                with self.store.save_checkpoint(spec.run_id, step) as path:
                    path.write_text(str(step))

    def _fault(self, spec: RunSpec) -> None:
        kind, _, times = self.faults.get(spec.label, "").partition(":")
        create = self.store.storage.create
        marks = (create(f"{spec.run_id}/fault-{n}", b"") for n in range(int(times or 0)))
        if not kind or (times and not any(marks)):
            return
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "exit":
            os._exit(3)
        if kind == "error":
            raise CheckpointError(f"the checkpoint of {spec.label} is damaged. Delete it")
        if kind == "memory":
            raise MemoryError
        if kind in ("busy", "full"):
            number = errno.EBUSY if kind == "busy" else errno.ENOSPC
            why = os.strerror(number)
            raise StorageError(f"could not write {spec.label}: {why}") from OSError(number, why)
        raise ValueError(f"a bug in the training of {spec.label}")


def pretend_specs(count: int, *, size: str = "1k", num_params: int = 1000) -> list[RunSpec]:
    """Different runs named r000, r001, ... to pretend to train."""
    return [
        RunSpec(
            mixture=Mixture({"web": 0.5, "code": 0.5}),
            label=f"r{seed:03d}",
            role=SWARM,
            size=size,
            num_params=num_params,
            horizon_tokens=(1000,),
            seed=seed,
            context="pretended",
        )
        for seed in range(count)
    ]


def made_up_result(spec: RunSpec) -> RunResult:
    """What `PretendSwarm` gives for a run, whoever trains it."""
    return RunResult(
        DONE, tuple({"loss/web": 1 + 1 / (2 + spec.seed)} for _ in spec.horizon_tokens)
    )


def times_trained(store: RunStore, specs: Sequence[RunSpec]) -> list[int]:
    """How often a `PretendSwarm` trained each run to its end."""
    files = [store.storage.read(f"{spec.run_id}/{METRICS}") or b"" for spec in specs]
    return [content.count(b'"done"') for content in files]


def check_launcher(
    make_launcher: Callable[[], Launcher], runs: str | Path, *, patience_seconds: float = 60
) -> None:
    """Assert that a launcher keeps the contract of `mixlaw.launch.work.Launcher`.

    Args:
        make_launcher: gives a fresh launcher each time.
        runs: an empty folder or a URL that its workers can write to.
        patience_seconds: what a few works of under a second may take, queueing included.
    """
    for check in (_check_outcomes, _check_cancel, _check_close):
        swarm = functools.partial(PretendSwarm, f"{runs}/{check.__name__.removeprefix('_check_')}")
        with make_launcher() as launcher:
            _hold(launcher.slots >= 1, f"slots is {launcher.slots}; it must be at least 1")
            check(launcher, swarm, patience_seconds)


def _hold(kept: bool, told: str) -> None:
    """As `assert`, also under `python -O`."""
    if not kept:
        raise AssertionError(told)


MakeSwarm = Callable[..., PretendSwarm]


def _check_outcomes(launcher: Launcher, make_swarm: MakeSwarm, patience_seconds: float) -> None:
    """More works than slots all end, each once; a dying worker, a bug and an error stay apart; a
    run that is to keep its model does."""
    faults = {"r001": "kill", "r002": "error", "r003": "bug", "r004": "exit"}
    swarm = make_swarm(faults=faults)
    specs = pretend_specs(2 * launcher.slots + 5)
    specs[0] = replace(specs[0], keep=True)
    tickets = launcher.submit([Work(swarm, (spec,)) for spec in specs])
    _hold(len(set(tickets)) == len(specs), f"tickets {tickets} of {len(specs)} works: one for each")
    ended = _poll(launcher, len(tickets), patience_seconds)
    _hold(set(ended) == set(tickets), f"ended {set(ended) ^ set(tickets)} as well, or not")
    _hold(launcher.poll() == {}, "a work was told to have ended twice")
    by_label = {s.label: ended[ticket] for s, ticket in zip(specs, tickets, strict=True)}
    results = swarm.store.results(specs)
    for spec in specs:
        outcome, fault = by_label[spec.label], faults.get(spec.label)
        _hold((outcome.reason is None) == (fault is None), f"{fault or 'no fault'} gave {outcome}")
        _hold(
            isinstance(outcome.error, CheckpointError) == (fault == "error"),
            f"{fault or 'no fault'} gave {outcome}; only what a user must mend is an error",
        )
        _hold((spec.run_id in results) == (fault is None), f"run {spec.label}: {outcome}")
    kept = swarm.store.models()
    _hold(kept == {specs[0].run_id}, f"models of {kept}; r000 alone was to keep its own")
    _hold("Delete it" in str(by_label["r002"].error), "the message of an error was lost")
    again = launcher.submit([Work(swarm, (specs[0], *specs[5:]))])
    _hold(_poll(launcher, 1, patience_seconds) == {again[0]: Outcome()}, "a finished work again")


def _check_cancel(launcher: Launcher, make_swarm: MakeSwarm, patience_seconds: float) -> None:
    """A cancelled work ends, running or queued, and is not told; the others go on."""
    slow, quick = make_swarm(steps_per_run=100_000), make_swarm()
    specs = pretend_specs(launcher.slots + 3)
    running = launcher.submit([Work(slow, (spec,)) for spec in specs[:-1]])
    _wait_for_steps(slow, specs, patience_seconds)
    last = launcher.submit([Work(quick, (specs[-1],))])
    for ticket in running:
        launcher.cancel(ticket)
    ended = _poll(launcher, 1, patience_seconds)
    _hold(ended == {last[0]: Outcome()}, f"{ended}: only the work that was not cancelled ends")
    _check_stillness(slow, patience_seconds)


def _check_close(launcher: Launcher, make_swarm: MakeSwarm, patience_seconds: float) -> None:
    """Nothing runs after `close`."""
    swarm = make_swarm(steps_per_run=100_000)
    specs = pretend_specs(launcher.slots + 3)
    launcher.submit([Work(swarm, (spec,)) for spec in specs])
    _wait_for_steps(swarm, specs, patience_seconds)
    launcher.close()
    _check_stillness(swarm, patience_seconds=0)
    launcher.close()


def _poll(launcher: Launcher, count: int, patience_seconds: float) -> dict[str, Outcome]:
    """Outcomes of `count` works, as they end."""
    ended: dict[str, Outcome] = {}
    deadline = time.monotonic() + patience_seconds
    while len(ended) < count:
        _hold(time.monotonic() < deadline, f"only {len(ended)} of {count} works ended: {ended}")
        time.sleep(0.02)
        news = launcher.poll()
        _hold(not ended.keys() & news, f"{ended.keys() & news} was told to have ended twice")
        ended |= news
    return ended


def _wait_for_steps(swarm: PretendSwarm, specs: Sequence[RunSpec], patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while not any(swarm.store.checkpoints(spec.run_id) for spec in specs):
        _hold(time.monotonic() < deadline, "no work of those submitted began")
        time.sleep(0.02)


def _check_stillness(swarm: PretendSwarm, patience_seconds: float) -> None:
    """No worker trains any more, at the latest after `patience_seconds`."""
    watch = Watch(swarm.store, lease_seconds=swarm.hardware.lease_seconds)
    deadline = time.monotonic() + patience_seconds
    for _ in itertools.count():
        living = watch.heartbeats()
        if not living:
            return
        _hold(time.monotonic() < deadline, f"{[beat.worker for beat in living]} still run")
        time.sleep(0.1)
