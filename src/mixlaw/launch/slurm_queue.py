"""Slurm's queue, by its own commands."""

from __future__ import annotations

import subprocess
import time
from typing import NamedTuple

from mixlaw.errors import TrainError

SILENT_SECONDS = 600  # without an answer of Slurm; a controller that restarts takes less

# Any other state is of a job that waits, runs or will be started again.
ENDED = {
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "it was cancelled",
    "COMPLETED": "it left no result",
    "DEADLINE": "it missed its deadline",
    "FAILED": "it failed",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "it ran out of memory; raise memory_gb or lower stack_size",
    "PREEMPTED": "it was pre-empted",
    "TIMEOUT": "it reached its time limit",
    "GONE": "it left the queue without a result",
}


class Seen(NamedTuple):
    """A job as Slurm's queue shows it; `name` is that of its array."""

    name: str
    state: str


GONE = Seen("", "GONE")


class Queue:
    """Slurm's queue, asked of its controller: `sacct` needs a database that not every cluster
    has, and lags behind."""

    def __init__(self, look_seconds: float):
        self.look_seconds = look_seconds
        self.looked_at = time.monotonic()
        self.silent_since: float | None = None

    def due(self) -> bool:
        return time.monotonic() - self.looked_at >= self.look_seconds

    def look(self) -> dict[str, Seen] | None:
        """All jobs of this user by their ids; None: no answer.

        Raises: TrainError: no answer for long.
        """
        self.looked_at = time.monotonic()
        command = ["squeue", "--me", "--array", "--states=all", "--noheader"]
        answer = subprocess.run(
            [*command, "--format=%F|%K|%T|%j"], capture_output=True, text=True, check=False
        )
        if answer.returncode == 0:
            self.silent_since = None
            return dict(map(_id_and_job, answer.stdout.splitlines()))
        self.silent_since = self.silent_since or self.looked_at
        if self.looked_at - self.silent_since > SILENT_SECONDS:
            raise TrainError(
                f"Slurm has not answered for {SILENT_SECONDS} s ({answer.stderr.strip()}); its "
                "jobs go on; run the same command again when squeue works"
            )
        return None


def _id_and_job(line: str) -> tuple[str, Seen]:
    """ "12|3|RUNNING|name" -> "12_3" and the rest; "12|N/A|RUNNING|name" -> "12" and the rest."""
    job_id, index, state, name = line.strip().split("|", 3)
    return (job_id if index == "N/A" else f"{job_id}_{index}"), Seen(name, state)


def cancel(*which: str) -> None:
    """End jobs: their ids, or options of `scancel` that choose them."""
    # An interrupt first: it lets a worker give its claims back.
    for signal in (["--signal=INT"], []):
        command = ["scancel", "--quiet", *signal, *which]
        subprocess.run(command, capture_output=True, check=False)
