"""Training curves in TensorBoard, Weights & Biases or MLflow, after the runs' own metrics.

Workers write `metrics.jsonl` and know no tracker. One follower brings its lines to the trackers,
whoever trains the runs and whenever. To add a tracker: one class and one line in `TRACKERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mixlaw.errors import StudyError
from mixlaw.launch.tracking.base import Tracker
from mixlaw.launch.tracking.follower import Follower
from mixlaw.launch.tracking.mlflow import MLflow
from mixlaw.launch.tracking.tensorboard import TensorBoard
from mixlaw.launch.tracking.wandb import WeightsAndBiases

__all__ = ["TRACKERS", "Follower", "Tracker", "open_trackers"]

TRACKERS: dict[str, Callable[[Path, str], Tracker]] = {
    "tensorboard": lambda folder, project: TensorBoard(folder),
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
"""Name -> its class, made of a local folder for its files and the name of the project."""


def open_trackers(names: Sequence[str], *, folder: Path, project: str) -> list[Tracker]:
    """The trackers of these names; each name once.

    Args:
        folder: local; TensorBoard's files, offline runs of W&B and MLflow's database go there.
        project: name of the study; project of W&B, experiment of MLflow.
    Raises:
        StudyError: an unknown name.
        MissingExtraError: the tool is not installed.
    """
    if strangers := [name for name in names if name not in TRACKERS]:
        raise StudyError(
            f"no tracker is called {', '.join(map(repr, strangers))}; use {', '.join(TRACKERS)}"
        )
    return [TRACKERS[name](folder.resolve(), project) for name in dict.fromkeys(names)]
