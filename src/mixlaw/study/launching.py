"""From the launch section of a study file to a launcher, and the training through it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixlaw.errors import TrainError
from mixlaw.launch.driver import Progress, train_swarm
from mixlaw.launch.tracking import Follower, open_trackers
from mixlaw.launch.work import Launcher
from mixlaw.runs import RunSpec
from mixlaw.study.launch_config import LaunchConfig

if TYPE_CHECKING:
    from mixlaw.train.swarm import Swarm

NAMED_MISSING = 5


def _local(config: LaunchConfig, folder: Path, device: str) -> Launcher:
    from mixlaw.launch.local import LocalLauncher

    return LocalLauncher(device=device, workers=config.workers)


def _ray(config: LaunchConfig, folder: Path, device: str) -> Launcher:
    from mixlaw.launch.ray import RayLauncher, Resources

    given = config.ray
    resources = Resources(given.cpus, given.gpus)
    return RayLauncher(
        given.address, device=device, resources=resources, autoscaling=given.autoscaling
    )


def _slurm(config: LaunchConfig, folder: Path, device: str) -> Launcher:
    from mixlaw.launch.slurm import SlurmLauncher, SlurmOptions

    options = config.slurm.model_dump()
    if device == "cpu":
        options["gpus_per_process"] = 0
    return SlurmLauncher(folder / "slurm", SlurmOptions(**options))


LAUNCHERS: dict[str, Callable[[LaunchConfig, Path, str], Launcher]] = {
    "local": _local,
    "ray": _ray,
    "slurm": _slurm,
}


@dataclass(frozen=True)
class Launching:
    """How one call trains.

    Attributes:
        folder: of the study, for what launchers and trackers keep.
        on_progress, on_note: told how far it is, and what went wrong without ending it.
    """

    config: LaunchConfig
    folder: Path
    on_progress: Callable[[Progress], None] | None = None
    on_note: Callable[[str], None] = print

    def train(self, swarm: Swarm, specs: Sequence[RunSpec]) -> dict[str, str]:
        """Train what has no result yet. Returns: run id -> why it has none still.

        Raises: MixlawError: what a user must mend.
        """
        folder, config = self.folder.resolve(), self.config
        trackers = open_trackers(config.track, folder=folder, project=folder.name)
        with contextlib.ExitStack() as stack:
            if trackers:  # also when all is trained: others may have trained it meanwhile
                lease = swarm.hardware.lease_seconds
                stack.enter_context(
                    Follower(
                        swarm.store, specs, trackers, on_note=self.on_note, lease_seconds=lease
                    )
                )
            if not swarm.store.unfinished(specs):
                return {}
            make = LAUNCHERS[config.launcher]
            launcher = stack.enter_context(make(config, folder, swarm.hardware.device))
            return train_swarm(
                swarm,
                specs,
                launcher,
                on_progress=self.on_progress,
                max_attempts=config.max_attempts,
            )


def refuse_missing(missing: dict[str, str], specs: Sequence[RunSpec]) -> None:
    """Raises: TrainError: runs have no result; names them and says why."""
    if not missing:
        return
    named = [f"{s.label} of {s.size}, seed {s.seed}" for s in specs if s.run_id in missing]
    more = f" and {len(named) - NAMED_MISSING} more" if len(named) > NAMED_MISSING else ""
    reasons = "; ".join(dict.fromkeys(missing.values()))
    raise TrainError(
        f"{len(missing)} of {len(specs)} runs have no result ({'; '.join(named[:NAMED_MISSING])}"
        f"{more}): {reasons}. The others are in the table, where these are marked missing; run the "
        "same command to try again"
    )
