"""A stack's journal in the run store: checkpoints, metrics, heartbeats."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixlaw.claims import RunStatus, Worker, WorkStatus
from mixlaw.errors import CheckpointError
from mixlaw.runs import DONE, RunResult, RunSpec
from mixlaw.store import RunStore
from mixlaw.train.checkpoint import load_checkpoint, save_checkpoint
from mixlaw.train.loop import Report, Snapshot
from mixlaw.train.ranks import ALONE, Ranks

WRITING_SHARE = 0.02
"""Of the time may go into checkpoints, and as much into metrics: what takes long (a large model, a
bucket) is written less often."""

FLUSH_SECONDS = 2.0


class TakenOver(Exception):
    """Other workers hold all runs of a stack: this one gave no sign of life for too long."""


class StoreJournal:
    """Journal (see `train.loop.Journal`) of a stack whose runs `worker` has claimed.

    Args:
        specs: K runs.
        steps_total: of the whole stack.
        ranks: of several processes that train the stack, the leader alone writes.
    """

    def __init__(
        self,
        store: RunStore,
        worker: Worker,
        specs: Sequence[RunSpec],
        *,
        steps_total: int,
        tokens_per_step: int,
        checkpoint_seconds: float,
        ranks: Ranks = ALONE,
    ):
        self.store, self.worker, self.specs = store, worker, specs
        self.steps_total, self.tokens_per_step = steps_total, tokens_per_step
        self.checkpoint_seconds, self.ranks = checkpoint_seconds, ranks
        self.lines: list[list[dict[str, Any]]] = [[] for _ in specs]
        self.saved = self.flushed = time.monotonic()
        self.saving_seconds = self.flushing_seconds = 0.0
        self.held = [True] * len(specs)
        self.done = 0
        self.status: WorkStatus | None = None

    def restore(self) -> list[Snapshot] | None:
        """From the newest checkpoint that every run has whole; damaged ones are said and removed.

        Raises: StorageError; TrainError: a whole checkpoint of another mixlaw.
        """
        number, snapshots = None, None
        if self.ranks.leads:
            number, snapshots = self._newest_common()
            self.done = number or 0
            for k in range(len(self.specs)):
                self.event(k, "started" if number is None else "resumed", self.done)
        number = self.ranks.from_leader(number)
        if not self.ranks.leads and number is not None:
            snapshots = [self._read(spec, number) for spec in self.specs]
        self.saved = time.monotonic()
        return snapshots

    def due(self) -> bool:
        if not self.ranks.leads:
            return False
        if self.checkpoint_seconds == 0:
            return True
        wait = max(self.checkpoint_seconds, self.saving_seconds / WRITING_SHARE)
        return time.monotonic() - self.saved > wait

    def save(self, steps_done: int, members: Iterable[Snapshot]) -> None:
        """Raises: StorageError: the disk refused; TakenOver."""
        began = time.monotonic()
        self._look_what_is_held()
        self.flush()
        for spec, mine, (tensors, state) in zip(self.specs, self.held, members, strict=True):
            if not mine:
                continue
            with self.store.save_checkpoint(spec.run_id, steps_done) as path:
                save_checkpoint(path, tensors, state)
            if self.status:  # large ones take a while; the worker is not stuck
                self.worker.report(self.status)
        self.saved = time.monotonic()
        self.saving_seconds = self.saved - began

    def report(self, report: Report) -> None:
        if not self.ranks.leads:
            return
        self.done = report.steps_done
        horizon = None if report.horizon is None else report.horizon * self.tokens_per_step
        status = []
        for k, spec in enumerate(self.specs):
            loss, norm = float(report.losses[k].mean()), float(report.norms[k].mean())
            sound = bool(np.isfinite([loss, norm]).all())
            status.append(RunStatus(spec.run_id, spec.label, spec.size, loss if sound else None))
            if sound:
                self.lines[k].append(
                    {
                        "step": report.last_step,
                        "horizon": horizon,
                        "tokens": report.last_step * self.tokens_per_step,
                        "done": self.done,
                        "loss": loss,
                        "rate": report.rate,
                        "grad_norm": norm,
                    }
                )
        tokens = report.losses.size * self.tokens_per_step
        speed = tokens / report.seconds
        self.status = WorkStatus(tuple(status), report.steps_done, self.steps_total, speed)
        self.worker.report(self.status)
        wait = max(FLUSH_SECONDS, self.flushing_seconds / WRITING_SHARE)
        if time.monotonic() - self.flushed > wait:
            self.flush()

    def event(self, member: int, kind: str, step: int, **details: Any) -> None:
        if not self.ranks.leads:
            return
        if details.get("horizon") is not None:
            details["horizon"] *= self.tokens_per_step
        self.lines[member].append({"event": kind, "step": step, "done": self.done, **details})

    def finish(self, results: Sequence[RunResult], keep: Callable[[Path, int], None]) -> None:
        """Store the results of the runs that are still ours, and drop what they no longer need.

        Args:
            keep: writes the final model of a member to a path.
        Raises: StorageError; TakenOver.
        """
        self._look_what_is_held()
        for k, result in enumerate(results):
            if result.status == DONE:
                self.event(k, "done", self.steps_total)
        self.flush()
        # Before the result, which says that the run is finished.
        for k, (spec, result) in enumerate(zip(self.specs, results, strict=True)):
            if self.held[k] and spec.keep and result.status == DONE:
                with self.store.save_model(spec.run_id) as path:
                    keep(path, k)
                if self.status:  # as for checkpoints
                    self.worker.report(self.status)
        for spec, result, mine in zip(self.specs, results, self.held, strict=True):
            if mine:
                self.store.save(spec, result)
        # After all results: a stack that is killed in here still finds every checkpoint.
        for spec, mine in zip(self.specs, self.held, strict=True):
            if mine:
                self.store.delete_checkpoints(spec.run_id)

    def flush(self) -> None:
        """Write what has been told so far of the runs that were ours when we last looked."""
        began = time.monotonic()
        for spec, lines, mine in zip(self.specs, self.lines, self.held, strict=True):
            if lines and mine:
                self.store.append_metrics(spec.run_id, lines)
            lines.clear()
        self.flushed = time.monotonic()
        self.flushing_seconds = self.flushed - began

    def _look_what_is_held(self) -> None:
        """Raises: TakenOver: nothing is any more."""
        self.held = [self.worker.holds(spec.run_id) for spec in self.specs]
        if not any(self.held):
            raise TakenOver("other workers took over all runs of this stack")

    def _newest_common(self) -> tuple[int, list[Snapshot]] | tuple[None, None]:
        """The newest checkpoint that every run has whole, and its number."""
        found = [set(self.store.checkpoints(spec.run_id)) for spec in self.specs]
        for number in sorted(set.intersection(*found), reverse=True):
            snapshots: list[Snapshot] = []
            for k, spec in enumerate(self.specs):
                try:
                    snapshots.append(self._read(spec, number))
                except CheckpointError as error:
                    self.event(k, "damaged", number, reason=str(error))
                    self.store.delete_checkpoint(spec.run_id, number)
                    break
            if len(snapshots) == len(self.specs):
                return number, snapshots
        return None, None

    def _read(self, spec: RunSpec, number: int) -> Snapshot:
        with self.store.read_checkpoint(spec.run_id, number) as path:
            return load_checkpoint(path, self.store.checkpoint_url(spec.run_id, number))
