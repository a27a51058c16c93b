"""Is a member's training sound? Non-finite losses and spikes, judged from its own past.

A fault of the machine does not come back when the same steps are done again, a fault of the
training does. So the first fault of a member sends its stack back to the last good checkpoint, and
the same steps again tell which it was. What comes back is true of this mixture and recipe: a loss
that is not finite fails the run, a spike is recorded and trained through (Chowdhery et al.,
arXiv 2204.02311, section 5.1, skip its batches; here that would change the run's data).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WINDOW_STEPS = 64
SPIKE_NATS = 1.0
SPIKE_DEVIATIONS = 10.0
MAX_RESTARTS = 1

FAILED, SPIKE = "failed", "spike"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a member: "failed" (not finite) or "spike"; `step` counts from 1."""

    kind: str
    step: int
    reason: str


@dataclass
class Health:
    """The past of one member.

    Attributes:
        recent: its last losses, at most WINDOW_STEPS.
        restarts: how often it sent the stack back.
        quiet_until: no spike is called before this step; one spike is one fault.
        failed: why it failed; "" while it trains.
    """

    recent: list[float] = field(default_factory=list)
    restarts: int = 0
    quiet_until: int = 0
    failed: str = ""

    def judge(self, first_step: int, losses: Sequence[float]) -> Fault | None:
        """The first fault in the losses of steps first_step, first_step + 1, ..., or None."""
        for step, loss in enumerate(losses, start=first_step):
            if self.failed:
                return None
            if not math.isfinite(loss):
                return Fault(FAILED, step, f"the loss was not finite at step {step}")
            if step >= self.quiet_until and (reason := self._spike(step, loss)):
                return Fault(SPIKE, step, reason)
            self.recent = [*self.recent[1 - WINDOW_STEPS :], loss]
        return None

    def leave_branch(self) -> None:
        """The trunk goes on from where the branch left it: the branch is no past of it."""
        self.recent, self.quiet_until = [], 0

    def restart(self) -> bool:
        """Whether a fault may send the stack back once more; counts it."""
        self.restarts += 1
        return self.restarts <= MAX_RESTARTS

    def accept(self, fault: Fault) -> None:
        """The fault came back: it is the run's own."""
        if fault.kind == FAILED:
            self.failed = fault.reason
        else:
            self.quiet_until = fault.step + WINDOW_STEPS

    def _spike(self, step: int, loss: float) -> str:
        if len(self.recent) < WINDOW_STEPS:
            return ""
        mean, deviation = statistics.fmean(self.recent), statistics.stdev(self.recent)
        if loss <= mean + max(SPIKE_NATS, SPIKE_DEVIATIONS * deviation):
            return ""
        return (
            f"the loss was {loss:.3f} at step {step}, after {mean:.3f} +- {deviation:.3f} in the "
            f"{WINDOW_STEPS} steps before"
        )

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Health:
        return cls(**data)
