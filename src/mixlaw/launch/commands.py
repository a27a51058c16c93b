"""Training by commands that people start themselves: on Kubernetes, SkyPilot, another machine."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from mixlaw.errors import TrainError
from mixlaw.launch.driver import Progress, read_swarm, train_runs, write_swarm
from mixlaw.launch.local import LocalLauncher
from mixlaw.launch.work import Trainable
from mixlaw.runs import RunSpec


def print_commands(swarm: Trainable, specs: Sequence[RunSpec], *, slots: int = 1) -> list[str]:
    """One shell command for each stack without a result, the costliest first.

    They may run in any order, at any place that sees the run folder and the corpus, at once or
    again: each trains what nobody else does and ends when its runs have results.
    Args:
        slots: machines at hand; at least so many commands, where there are as many runs.
    """
    write_swarm(swarm, specs)
    return [
        shlex.join(
            ["mixlaw", "work", swarm.store.root, "--runs", ",".join(s.run_id for s in stack)]
        )
        for stack in swarm.unfinished(specs, workers=slots)
    ]


def work_until_done(
    url: str,
    *,
    run_ids: Sequence[str] | None = None,
    workers: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, str]:
    """Train on this machine what a run folder says is to train, together with whoever else does.

    It ends when all have a result: runs that others hold are waited for, and taken over when these
    die.
    Args:
        run_ids: only these; None: all of the folder's swarm.
        workers: see `LocalLauncher`.
    Returns: run id -> why it has no result; {} when all have one.
    Raises: TrainError: no such runs there; else as `train_swarm`.
    """
    swarm, specs = read_swarm(url)
    if run_ids is not None:
        known = {spec.run_id: spec for spec in specs}
        if strangers := [run_id for run_id in run_ids if run_id not in known]:
            raise TrainError(
                f"{url} has no run {', '.join(strangers[:3])} among the {len(known)} to train; "
                "the study was changed since the command was printed: print it again"
            )
        specs = [known[run_id] for run_id in run_ids]
    with LocalLauncher(device=swarm.hardware.device, workers=workers) as launcher:
        return train_runs(swarm, specs, launcher, on_progress=on_progress)
