"""Trains a swarm through a launcher, whatever dies meanwhile.

The run folder is the only truth: what has a result there is done, whoever trained it. Several
drivers on one folder share its runs, since their workers claim them; each waits for what the
others hold, and takes it over when they die.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mixlaw.claims import WORKERS, Heartbeat, Watch
from mixlaw.errors import StorageError, TrainError
from mixlaw.files import parse_json
from mixlaw.launch.work import (
    Launcher,
    Outcome,
    Trainable,
    Work,
    may_pass,
    readable,
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
REFUSED_SECONDS = 300.0
"""How long the run folder may refuse looks before the call ends: a bucket that is asked too often
or a network that is down for a while is no reason to."""

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
        max_attempts: how often a run may be lost (its worker died, or the storage refused it what
            may pass) without having come further than the time before; then it is given up and
            the others go on.
    Returns: run id -> why it has no result; {} when all have one.
    Raises: MixlawError: a worker met what a user must mend; the works still running are cancelled.
    """
    specs = _each_once(specs)
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
        next_look, looked = 0.0, time.monotonic()
        while call.todo:
            call.hear(launcher.poll())
            began, progress = time.monotonic(), None
            try:
                ended = call.settle()
                if (ended and not call.running) or began >= next_look:
                    progress = call.look()
                    looked = time.monotonic()
                    next_look = began + max(LOOK_SECONDS, LOOK_SHARE * (looked - began))
            except StorageError as error:
                if not may_pass(error) or time.monotonic() - looked > REFUSED_SECONDS:
                    raise
                log.info("%s; trying on", error)
                time.sleep(LOOK_SECONDS)
            if progress is not None and on_progress is not None:
                on_progress(progress)
            time.sleep(POLL_SECONDS)
    finally:
        for ticket in list(call.running):
            launcher.cancel(ticket)
    if not call.given_up:
        return {}
    unfinished = {spec.run_id for spec in swarm.store.unfinished(specs)}  # by no other driver
    return {run: why for run, why in call.given_up.items() if run in unfinished}


def write_swarm(swarm: Trainable, specs: Sequence[RunSpec]) -> None:
    """Describe in the run folder what is to be trained, for workers that come by themselves.

    Specs that an earlier call described are kept, if it trained in the same way.
    """
    earlier: list[RunSpec] = []
    with contextlib.suppress(TrainError):  # none, or of another mixlaw
        before, specs_before = read_swarm(swarm.store.root)
        if _losses_of(before) == _losses_of(swarm):
            earlier = specs_before
    described = [spec.to_dict() for spec in _each_once([*earlier, *specs])]
    data = {"swarm": swarm_to_dict(swarm), "specs": described}
    swarm.store.storage.write(SWARM_FILE, json.dumps(data).encode())


def _each_once(specs: Iterable[RunSpec]) -> list[RunSpec]:
    """Each run once, by the last of its specs; it keeps its model if any of them asks for that."""
    merged: dict[str, RunSpec] = {}
    for spec in specs:
        earlier = merged.get(spec.run_id, spec)
        merged[spec.run_id] = replace(spec, keep=spec.keep or earlier.keep)
    return list(merged.values())


def _losses_of(swarm: Trainable) -> dict[str, Any]:
    """What of a swarm decides losses."""
    return {k: v for k, v in swarm_to_dict(swarm).items() if k not in ("runs", "hardware")}


def read_swarm(url: str) -> tuple[Trainable, list[RunSpec]]:
    """The swarm of a run folder, and its specs.

    Raises: TrainError: nothing is described there, or not in a way that can be read here.
    """
    content = open_storage(url).read(SWARM_FILE)
    if content is None:
        raise TrainError(
            f"{url} has no {SWARM_FILE}, so it says nothing to train; give the run folder of a "
            "study (its runs/) after `mixlaw train` has begun there"
        )
    with readable(f"the {SWARM_FILE} of {url}"):
        data: dict[str, Any] = parse_json(content)
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
        ended: ticket -> outcome of works that ended and are not yet settled.
        heard: ticket -> the living worker that was last seen to train it.
        silent: ticket -> since when this worker gives no sign of life.
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
        self.ended: dict[str, Outcome] = {}
        self.heard: dict[str, str] = {}
        self.silent: dict[str, float] = {}
        taken = _runs_of(self.watch.heartbeats())
        self._submit([free for stack in stacks if (free := _without(stack, taken))])

    def _submit(self, stacks: Iterable[Sequence[RunSpec]]) -> None:
        works = [Work(self.swarm, tuple(stack)) for stack in stacks]
        if works:
            self.running |= zip(self.launcher.submit(works), works, strict=True)

    def _diverged(self, finished: Sequence[RunSpec]) -> set[str]:
        results = self.swarm.store.results(finished)
        return {run_id for run_id, result in results.items() if result.status == FAILED}

    def hear(self, ended: Mapping[str, Outcome]) -> None:
        """Take note of works that ended. Raises: the error of one."""
        for ticket, outcome in ended.items():
            if outcome.error is not None:
                raise outcome.error
            self.ended[ticket] = outcome

    def settle(self) -> bool:
        """Count what the works that ended have lost; whether there were any.

        Raises: StorageError: then those that are left are settled next time.
        """
        there_were = bool(self.ended)
        for ticket in list(self.ended):
            self._settle(self.running[ticket], self.ended[ticket])
            del self.ended[ticket]
            for known in (self.running, self.heard, self.silent):
                known.pop(ticket, None)
        return there_were

    def _settle(self, work: Work, outcome: Outcome) -> None:
        store = self.swarm.store
        lost = [spec.run_id for spec in store.unfinished(work.stack)]
        finished = {spec.run_id for spec in work.stack}.difference(lost)
        if outcome.reason is None:
            lost = self.watch.free(lost)  # the others are in the hands of somebody else
        else:  # it may have died between a result and the end of its checkpoints
            for run_id in finished:
                store.delete_checkpoints(run_id)
        reached = {run_id: max(store.checkpoints(run_id), default=0) for run_id in lost}
        if outcome.reason is not None:
            log.warning("%s: %s", work.name, outcome.reason)
        for run_id in lost:
            losses = self.losses[run_id]
            losses.count = 1 if reached[run_id] > losses.checkpoint else losses.count + 1
            losses.checkpoint = reached[run_id]
            losses.reason = outcome.reason or "its worker ended without training it"

    def look(self) -> Progress:
        """Learn from the run folder what is done and what is lost; submit that again."""
        storage = self.swarm.store.storage
        beating = {name.removesuffix(".json") for name in storage.names(WORKERS)}
        living = self.watch.heartbeats()  # before the results: who is gone has saved its own
        unfinished = self.swarm.store.unfinished(list(self.todo.values()))
        finished = _without(self.todo.values(), {spec.run_id for spec in unfinished})
        self.diverged |= self._diverged(finished)
        for spec in finished:
            del self.todo[spec.run_id]
        self._end_frozen(beating, living)
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

    def _end_frozen(self, beating: Collection[str], living: Sequence[Heartbeat]) -> None:
        """Cancel works whose workers stand still: a stopped machine or process, a file system that
        hangs. Not those whose workers said goodbye: a job may be queued once more by its cluster.

        Args:
            beating: workers that had a heartbeat before those of the dead were removed.
        """
        worker_of = {run_id: beat.worker for beat in living for run_id in _runs_of([beat])}
        for ticket, work in list(self.running.items()):
            workers = [worker_of[s.run_id] for s in work.stack if s.run_id in worker_of]
            if workers:
                self.heard[ticket] = workers[0]
                self.silent.pop(ticket, None)
                continue
            now = time.monotonic()
            if self.heard.get(ticket) in beating:
                self.silent.setdefault(ticket, now)
            # A launcher may take a while to hear of a death, and knows better why.
            if now - self.silent.get(ticket, now) > self.watch.lease_seconds:
                self.launcher.cancel(ticket)
                self.ended.setdefault(ticket, Outcome("its worker gave no sign of life any more"))

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
