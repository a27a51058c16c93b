"""Trains a swarm through a launcher, whatever dies meanwhile.

The run folder is the only truth: what has a result there is done, whoever trained it. Several
drivers on one folder share its runs, since their workers claim them; each waits for what the
others hold, and takes it over when they die.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mixlaw.claims import Heartbeat, Watch
from mixlaw.errors import TrainError
from mixlaw.launch.work import (
    Launcher,
    Outcome,
    Trainable,
    Work,
    stack_name,
    swarm_from_dict,
    swarm_to_dict,
)
from mixlaw.runs import FAILED, RunSpec
from mixlaw.storage import open_storage

SWARM_FILE = "swarm.json"
POLL_SECONDS = 0.1
LOOK_SECONDS = 1.0
LOOK_SHARE = 5
"""A look at the run folder costs seconds when it is a bucket: they are at most one in so many."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a swarm stands.

    Attributes:
        runs_done, runs_failed, runs_total: of all that were asked for, also in earlier calls;
            failed are those that diverged and those that were given up.
        share_done: of the FLOPs that were to do when this call began, since a token costs more in
            a larger size; what a checkpoint brought back counts as done.
        tokens_per_second: of all workers together, now.
        seconds_left: at this speed; inf: nothing moves yet.
        doing: what the workers train, for people.
        workers: those that train these runs, also of other drivers.
    """

    runs_done: int
    runs_failed: int
    runs_total: int
    share_done: float
    tokens_per_second: float
    seconds_left: float
    doing: str
    workers: tuple[Heartbeat, ...]


def train_swarm(
    swarm: Trainable,
    specs: Sequence[RunSpec],
    launcher: Launcher,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    max_attempts: int = 3,
) -> dict[str, str]:
    """Train what has no result yet. Interrupt at will; the next call goes on.

    Args:
        max_attempts: how often a run may be lost (its worker died) without having come further
            than the time before; then it is given up and the others go on.
    Returns: run id -> why it has no result; {} when all have one.
    Raises: MixlawError: a worker met what a user must mend; the works still running are cancelled.
    """
    specs = list({spec.run_id: spec for spec in specs}.values())
    write_swarm(swarm, specs)
    return train_runs(swarm, specs, launcher, on_progress=on_progress, max_attempts=max_attempts)


def train_runs(
    swarm: Trainable,
    specs: Sequence[RunSpec],
    launcher: Launcher,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    max_attempts: int = 3,
) -> dict[str, str]:
    """`train_swarm` of some runs of a swarm that another call has described in its folder."""
    call = _Call(swarm, specs, launcher, max_attempts)
    try:
        next_look = 0.0
        while call.todo:
            ended = launcher.poll()
            for ticket, outcome in ended.items():
                call.end(ticket, outcome)
            began = time.monotonic()
            if (ended and not call.running) or began >= next_look:
                progress = call.look()
                if on_progress is not None:
                    on_progress(progress)
                took = time.monotonic() - began
                next_look = began + max(LOOK_SECONDS, LOOK_SHARE * took)
            time.sleep(POLL_SECONDS)
    finally:
        for ticket in list(call.running):
            launcher.cancel(ticket)
    if not call.given_up:
        return {}
    finished = swarm.store.finished()  # by another driver, perhaps
    return {run: why for run, why in call.given_up.items() if run not in finished}


def write_swarm(swarm: Trainable, specs: Sequence[RunSpec]) -> None:
    """Describe in the run folder what is to be trained, for workers that come by themselves."""
    data = {"swarm": swarm_to_dict(swarm), "specs": [spec.to_dict() for spec in specs]}
    swarm.store.storage.write(SWARM_FILE, json.dumps(data).encode())


def read_swarm(url: str) -> tuple[Trainable, list[RunSpec]]:
    """The swarm of a run folder, and its specs.

    Raises: TrainError: nothing is described there.
    """
    content = open_storage(url).read(SWARM_FILE)
    if content is None:
        raise TrainError(
            f"{url} has no {SWARM_FILE}, so it says nothing to train; give the run folder of a "
            "study (its runs/) after `mixlaw train` has begun there"
        )
    data: dict[str, Any] = json.loads(content)
    # The folder may be mounted elsewhere on this machine.
    swarm = swarm_from_dict({**data["swarm"], "runs": str(url)})
    return swarm, [RunSpec.from_dict(spec) for spec in data["specs"]]


@dataclass
class _Losses:
    """How often a run was lost since it last came further."""

    count: int = 0
    checkpoint: int = 0
    reason: str = ""


class _Call:
    """One call of `train_swarm`: which works run, which runs wait, what is known of each.

    Attributes:
        todo: run id -> spec, without those that have a result or were given up. A run to do is in
            a running work, or waits because somebody else seems to hold it.
        diverged: run ids of results without losses.
        running: ticket -> work.
    """

    def __init__(
        self, swarm: Trainable, specs: Sequence[RunSpec], launcher: Launcher, max_attempts: int
    ):
        self.swarm, self.launcher, self.max_attempts = swarm, launcher, max_attempts
        self.watch = Watch(swarm.store, lease_seconds=swarm.hardware.lease_seconds)
        stacks = swarm.unfinished(specs, workers=launcher.slots)
        self.todo = {spec.run_id: spec for stack in stacks for spec in stack}
        self.runs_total = len(specs)
        self.diverged = self._diverged([s for s in specs if s.run_id not in self.todo])
        self.given_up: dict[str, str] = {}
        self.flops = {run_id: swarm.flops([spec]) for run_id, spec in self.todo.items()}
        self.losses = {run_id: _Losses() for run_id in self.todo}
        self.running: dict[str, Work] = {}
        taken = _runs_of(self.watch.heartbeats())
        self._submit([free for stack in stacks if (free := _without(stack, taken))])

    def _submit(self, stacks: Iterable[Sequence[RunSpec]]) -> None:
        works = [Work(self.swarm, tuple(stack)) for stack in stacks]
        if works:
            self.running |= zip(self.launcher.submit(works), works, strict=True)

    def _diverged(self, finished: Sequence[RunSpec]) -> set[str]:
        results = self.swarm.store.results(finished)
        return {run_id for run_id, result in results.items() if result.status == FAILED}

    def end(self, ticket: str, outcome: Outcome) -> None:
        """Take note of a work that ended. Raises: the outcome's error."""
        work = self.running.pop(ticket)
        if outcome.error is not None:
            raise outcome.error
        reason = outcome.reason or "its worker ended without training it"
        if outcome.reason:
            log.warning("%s: %s", work.name, outcome.reason)
        store = self.swarm.store
        finished = set(store.results(work.stack))
        if outcome.reason:  # it may have died between a result and the end of its checkpoints
            for run_id in finished:
                store.delete_checkpoints(run_id)
        for run_id in {spec.run_id for spec in work.stack} - finished:
            losses, reached = self.losses[run_id], max(store.checkpoints(run_id), default=0)
            losses.count = 1 if reached > losses.checkpoint else losses.count + 1
            losses.checkpoint, losses.reason = reached, reason

    def look(self) -> Progress:
        """Learn from the run folder what is done and what is lost; submit that again."""
        living = self.watch.heartbeats()  # before the results: who is gone has saved its own
        finished = self.todo.keys() & self.swarm.store.finished()
        self.diverged |= self._diverged([self.todo.pop(run_id) for run_id in finished])
        in_hand = {spec.run_id for work in self.running.values() for spec in work.stack}
        in_hand |= _runs_of(living)
        waiting = [run_id for run_id in self.todo if run_id not in in_hand]
        again = {run_id: self.todo[run_id] for run_id in self.watch.free(waiting)}
        for run_id in list(again):
            if self.losses[run_id].count >= self.max_attempts:
                spec, reason = again.pop(run_id), self.losses[run_id].reason
                self.given_up[run_id] = reason
                log.warning("gave up run %s (%s of %s): %s", run_id, spec.label, spec.size, reason)
                del self.todo[run_id]
        self._submit(self._cut(list(again.values())))
        return self._progress(living)

    def _cut(self, specs: list[RunSpec]) -> list[list[RunSpec]]:
        """Stacks of runs that were lost. On its last attempt each is alone, so that a run that
        kills its worker does not take others with it."""
        last = [s for s in specs if self.losses[s.run_id].count == self.max_attempts - 1]
        alone = {spec.run_id for spec in last} if self.max_attempts > 1 else set()
        others = _without(specs, alone)
        idle = max(1, self.launcher.slots - len(self.running))
        stacks = self.swarm.unfinished(others, workers=idle) if others else []
        return stacks + [[spec] for spec in last if spec.run_id in alone]

    def _progress(self, living: Sequence[Heartbeat]) -> Progress:
        """Of the FLOPs to do, those of runs with a result, and the shares of runs in training."""
        left = {run_id: self.flops[run_id] for run_id in self.todo}
        tokens_per_second, flops_per_second, workers = 0.0, 0.0, []
        for heartbeat in living:
            work = heartbeat.work
            runs = [run.run_id for run in work.runs if run.run_id in left] if work else []
            if work is None or not runs:
                continue
            workers.append(heartbeat)
            for run_id in runs:
                left[run_id] *= 1 - work.steps_done / work.steps_total
            spec = self.todo[runs[0]]
            tokens = self.swarm.tokens_per_step([spec]) * self.swarm.steps([spec])
            tokens_per_second += work.tokens_per_second
            flops_per_second += work.tokens_per_second * self.flops[runs[0]] / tokens
        flops_left = math.fsum(left.values())
        idle = math.inf if flops_left else 0.0
        runs_failed = len(self.diverged) + len(self.given_up)
        return Progress(
            runs_done=self.runs_total - len(self.todo) - runs_failed,
            runs_failed=runs_failed,
            runs_total=self.runs_total,
            share_done=1 - flops_left / math.fsum(self.flops.values()),
            tokens_per_second=tokens_per_second,
            seconds_left=flops_left / flops_per_second if flops_per_second else idle,
            doing=", ".join(stack_name(w.work.runs) for w in workers if w.work),
            workers=tuple(workers),
        )


def _runs_of(heartbeats: Iterable[Heartbeat]) -> set[str]:
    return {run.run_id for beat in heartbeats if beat.work for run in beat.work.runs}


def _without(specs: Iterable[RunSpec], run_ids: set[str]) -> list[RunSpec]:
    return [spec for spec in specs if spec.run_id not in run_ids]
