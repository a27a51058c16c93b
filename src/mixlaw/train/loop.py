"""One training loop: a stack of K proxies, what all horizons share, and a branch per horizon.

With the schedule "wsd" the learning rate warms up, stays constant, and decays linearly over the
last part of each horizon. The runs to all horizons share their constant part, so it is trained once
(the trunk) and each horizon branches off it; batches depend on (seed, step, schedule) alone, so a
branch is exactly the run that trains to that horizon only (warmup-stable-decay: Hu et al.,
arXiv 2404.06395; Haegele et al., arXiv 2405.18392). With "cosine" they share the warm-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mixlaw.train.health import FAILED, Health
from mixlaw.train.model import Parameters
from mixlaw.train.online import OnlineMixtures
from mixlaw.train.recipe import Size
from mixlaw.train.state import TrainState
from mixlaw.train.step import Step

Batches = Callable[[int], Tensor]
"""Step -> token ids (K, B, T + 1) on the device; a pure function of the step."""

Evaluate = Callable[[Parameters], list[dict[str, float]]]
"""Parameters of a stack -> one mapping target -> value per member."""

Snapshot = tuple[dict[str, Tensor], dict[str, Any]]
"""One member's tensors and JSON state."""


@dataclass(frozen=True)
class Report:
    """Some steps of a stack that have just been done.

    Attributes:
        steps_done: of the whole stack, trunk and branches.
        last_step: of these steps, counted from 1 as in a run to one horizon.
        horizon: of the branch, in steps; None in the trunk.
        losses, norms: (K, steps).
        rate: learning rate of the last step.
        seconds: that they took.
    """

    steps_done: int
    last_step: int
    horizon: int | None
    losses: np.ndarray
    norms: np.ndarray
    rate: float
    seconds: float


class Journal(Protocol):
    """Where a stack's state and story go."""

    def restore(self) -> list[Snapshot] | None:
        """The members at their last checkpoint, all of the same step; None: there is none."""
        ...

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        ...

    def save(self, steps_done: int, members: Iterable[Snapshot]) -> None:
        """Write a checkpoint of every member."""
        ...

    def report(self, report: Report) -> None:
        """Steps have been done."""
        ...

    def event(self, member: int, kind: str, step: int, **details: Any) -> None:
        """Something happened to a member."""
        ...


@dataclass(frozen=True)
class StackJob:
    """Everything that defines the training of one stack.

    Attributes:
        horizon_steps: ascending.
        seeds: (K,) of the initial weights.
        journal: None trains without a trace.
        report_steps: losses are looked at every so many steps.
        begin: gives the state at step 0, of models that the members continue; it is evaluated
            before the first step. None: initial weights.
        rewarm: peak learning rate as a share of the recipe's.
        online: the mixtures that the members adapt, which `batches` follows; None: they do not.
    """

    size: Size
    horizon_steps: Sequence[int]
    seeds: Sequence[int]
    step: Step
    batches: Batches
    evaluate: Evaluate
    journal: Journal | None = None
    device: torch.device | str = "cpu"
    report_steps: int = 10
    begin: Callable[[], TrainState] | None = None
    rewarm: float = 1.0
    online: OnlineMixtures | None = None


@dataclass
class StackResult:
    """What a stack gave.

    Attributes:
        targets: [horizon][member] -> target -> value; empty for a member that failed.
        failed: (K,) why a member failed, or "".
        start: (K,) target -> value at step 0 of members that continue a model; else empty.
        state: at the end of the longest horizon; means nothing for members that failed.
    """

    targets: list[list[dict[str, float]]]
    failed: list[str]
    start: list[dict[str, float]]
    state: TrainState


def train_stack(job: StackJob) -> StackResult:
    """Train a stack to all its horizons, from its last checkpoint when there is one.

    Raises: CheckpointError, StorageError: of the journal.
    """
    return _Training(job).run()


class _Training:
    """Where a stack stands: the trunk, the branch to the next horizon, what was evaluated."""

    trunk: TrainState
    branch: TrainState | None
    start: list[dict[str, float]]
    targets: list[list[dict[str, float]]]
    health: list[Health]

    def __init__(self, job: StackJob):
        self.job, self.recipe = job, job.size.recipe
        self.health = [Health() for _ in job.seeds]

    def run(self) -> StackResult:
        self._restore()
        horizons, recipe = self.job.horizon_steps, self.recipe
        while len(self.targets) < len(horizons) and not self._all_failed():
            horizon = horizons[len(self.targets)]
            if self.branch is None:
                if not self._train_trunk(recipe.branch_step(horizon)):
                    continue
                # Nothing leaves the trunk after the last branch, which takes it over uncopied.
                self.branch = self.trunk if horizon == horizons[-1] else self.trunk.copy()
            if self.job.online:
                self.job.online.hold(recipe.branch_step(horizon), horizon)
            if not self._train(self.branch, horizon, horizon):
                continue
            self.targets.append(self._evaluate(self.branch, horizon))
            self.branch = None
            for health in self.health:
                health.leave_branch()
        # The last branch was the trunk itself.
        failed = [health.failed for health in self.health]
        return StackResult(self.targets, failed, self.start, self.trunk)

    def _train_trunk(self, until: int) -> bool:
        """As `_train`, stopping where members look at what their mixtures do."""
        online = self.job.online
        while online and self.trunk.step < until:
            decided = online.look(self.trunk.step, self.trunk.parameters)
            for k, details in enumerate(decided):
                self._event(k, "mixture", self.trunk.step, **details)
            stop = min(until, online.next_look or until)
            if not self._train(self.trunk, stop, None):
                return False
        return self._train(self.trunk, until, None)

    def _train(self, state: TrainState, until: int, horizon: int | None) -> bool:
        """Train `state` until a step; False when a fault has sent the stack back instead, or when
        no member is left."""
        job, last = self.job, self.job.horizon_steps[-1]
        done: list[tuple[Tensor, Tensor]] = []
        started, rate = time.perf_counter(), 0.0
        while state.step < until:
            rate = job.rewarm * self.recipe.learning_rate
            rate *= self.recipe.rate(state.step, horizon or last)
            done.append(job.step(state, job.batches(state.step), rate))
            if len(done) < job.report_steps and state.step < until:
                continue
            found, norms = (torch.stack(column, dim=1).cpu().numpy() for column in zip(*done))  # noqa: B905
            if not self._sound(state.step - len(done) + 1, found):
                return False
            if job.journal:
                seconds = time.perf_counter() - started
                job.journal.report(
                    Report(self._steps_done(), state.step, horizon, found, norms, rate, seconds)
                )
                if job.journal.due():
                    self._save()
            if self._all_failed():
                return False
            done, started = [], time.perf_counter()
        return True

    def _all_failed(self) -> bool:
        return all(health.failed for health in self.health)

    def _sound(self, first_step: int, found: np.ndarray) -> bool:
        """Judge every member's losses (K, steps); False when some sent the stack back."""
        losses = found.tolist()
        faults = {k: health.judge(first_step, losses[k]) for k, health in enumerate(self.health)}
        again = {k: fault for k, fault in faults.items() if fault and self.health[k].restart()}
        if again:
            for k, fault in again.items():
                self._event(k, "restart", fault.step, reason=fault.reason)
            self._restore()
            return False
        for k, fault in faults.items():
            while fault:
                self.health[k].accept(fault)
                self._event(k, fault.kind, fault.step, reason=fault.reason)
                rest = losses[k][fault.step - first_step :]
                fault = self.health[k].judge(fault.step, rest)
        return True

    def _evaluate(self, state: TrainState, horizon: int) -> list[dict[str, float]]:
        """(K,) target -> value; empty for a member that failed, here or before."""
        found = self.job.evaluate(state.parameters)
        for k, values in enumerate(found):
            health = self.health[k]
            if not health.failed and not np.isfinite(list(values.values())).all():
                health.failed = f"a validation loss was not finite at step {horizon}"
                self._event(k, FAILED, horizon, reason=health.failed)
            if health.failed:
                found[k] = {}  # JSON has no NaN; the values of a failed member mean nothing anyway
            else:
                self._event(k, "evaluated", horizon, horizon=horizon, targets=values)
        return found

    def _event(self, member: int, kind: str, step: int, **details: Any) -> None:
        if self.job.journal:
            self.job.journal.event(member, kind, step, **details)

    def _steps_done(self) -> int:
        finished = self.job.horizon_steps[: len(self.targets)]
        done = sum(h - self.recipe.branch_step(h) for h in finished)
        return done + (self.trunk if self.branch is None else self.branch).step

    def _save(self) -> None:
        assert self.job.journal is not None
        branch = None if self.branch is self.trunk else self.branch
        branch_step = None if branch is None else branch.step

        def snapshot(k: int) -> Snapshot:
            tensors = self.trunk.member("trunk", k)
            if branch is not None:
                tensors |= branch.member("branch", k)
            state = {"trunk_step": self.trunk.step, "branch_step": branch_step}
            state |= {"earlier": self.trunk.earlier[k], "start": self.start[k]}
            state |= {"targets": [found[k] for found in self.targets]}
            if self.job.online:
                state |= {"online": self.job.online.state(k)}
            # What is not finite has no number in JSON, and a failed member no future.
            health = self.health[k]
            return tensors, state | {"health": health.to_dict()}

        self.job.journal.save(self._steps_done(), map(snapshot, range(len(self.job.seeds))))

    def _begin(self) -> TrainState:
        if self.job.begin:
            return self.job.begin()
        return TrainState.fresh(self.job.size, self.job.seeds, self.job.device)

    def _restore(self) -> None:
        """Take up the last checkpoint, or begin; restarts are not forgotten."""
        job = self.job
        restarts = [health.restarts for health in self.health]
        snapshots = job.journal.restore() if job.journal else None
        if snapshots is None:
            states = None
            self.trunk, self.branch = self._begin(), None
            self.targets, self.health = [], [Health() for _ in job.seeds]
            # Where there is no model to continue there is nothing to evaluate yet.
            self.start = self._evaluate(self.trunk, 0) if job.begin else [{} for _ in job.seeds]
        else:
            tensors, states = zip(*snapshots, strict=True)
            earlier = [state["earlier"] for state in states]

            def state_of(name: str) -> TrainState | None:
                step = states[0][f"{name}_step"]
                if step is None:
                    return None
                config, device = job.size.config, job.device
                return TrainState.of_members(
                    name, tensors, config, device, step=step, earlier=earlier
                )

            trunk = state_of("trunk")
            assert trunk is not None, "every checkpoint has a trunk"
            self.trunk, self.branch = trunk, state_of("branch")
            self.start = [state["start"] for state in states]
            self.targets = [list(found) for found in zip(*(s["targets"] for s in states))]  # noqa: B905
            self.health = [Health.from_dict(state["health"]) for state in states]
        if job.online:
            job.online.restore(states and [state["online"] for state in states])
        for health, before in zip(self.health, restarts, strict=True):
            health.restarts = max(health.restarts, before)
