"""Weights & Biases: one W&B run per run, of the same id."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import MissingExtraError
from mixlaw.interop.records import WandbRecords
from mixlaw.interop.wandb_file import history
from mixlaw.launch.tracking.base import EVENTS, Event, Point, describe, run_name
from mixlaw.runs import DONE, RunResult, RunSpec

if TYPE_CHECKING:
    import wandb

TOKENS, NUMBER = "/tokens", f"{EVENTS}/number"


class WeightsAndBiases:
    """Curves over <series>/tokens, in a project named after the study or by WANDB_PROJECT.

    WANDB_MODE=offline writes files under <folder>/wandb, for `wandb sync` later. The tool's own
    process writes and sends, so that what was logged last is lost when that is killed; a run that
    is begun again is asked what it holds: the server, or the offline files.
    """

    def __init__(self, folder: Path, project: str):
        """Raises: MissingExtraError."""
        try:
            import wandb
        except ImportError:
            raise MissingExtraError("wandb", "wandb") from None
        self.folder, self.project = folder, os.environ.get("WANDB_PROJECT") or project
        self.mode = wandb.setup().settings.mode
        place = self.folder / "wandb" if self.mode == "offline" else self.mode
        self.destination = f"wandb {place} {self.project}"
        self._runs: dict[str, wandb.Run] = {}

    def begin(self, spec: RunSpec) -> Mapping[str, int]:
        import wandb

        offline = self.mode == "offline"
        if self.mode == "online" and not wandb.login(prompt=False):
            raise RuntimeError("not logged in; run `wandb login`, or set WANDB_MODE=offline")
        self.folder.mkdir(parents=True, exist_ok=True)
        # Before the run is opened, which makes a new file.
        held = _held_offline(self.folder / "wandb", spec.run_id) if offline else None
        run = self._runs[spec.run_id] = wandb.init(
            project=self.project,
            id=spec.run_id,
            name=run_name(spec),
            group=spec.size,
            job_type=spec.role,
            config={**describe(spec), "spec": spec.to_dict()},
            dir=str(self.folder),
            resume=None if offline else "allow",
            reinit="create_new",  # many at a time
            settings=wandb.Settings(
                console="off",  # the terminal belongs to this process, not to a run
                silent=True,
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        shorter = [f"horizon/{tokens}" for tokens in spec.horizon_tokens[:-1]]
        for series in ["train", "eval", *shorter]:
            run.define_metric(f"{series}/*", step_metric=series + TOKENS)
        return _held(dict(run.summary)) if held is None else held

    def log(self, spec: RunSpec, points: Sequence[Point], events: Sequence[Event]) -> None:
        run = self._runs[spec.run_id]
        for point in points:
            run.log({point.series + TOKENS: point.tokens, **point.values})
        for event in events:
            run.log({NUMBER: event.number, f"{EVENTS}/text": event.text})

    def finish(self, spec: RunSpec, result: RunResult) -> None:
        self._runs.pop(spec.run_id).finish(exit_code=0 if result.status == DONE else 1)

    def close(self) -> None:
        while self._runs:
            _, run = self._runs.popitem()
            run.mark_preempting()  # its state is then "preempted" and not "failed"
            run.finish(exit_code=1)


def _held(values: Mapping[str, Any]) -> dict[str, int]:
    """How far each series came, from the last value of every key."""
    held = {key.removesuffix(TOKENS): int(v) for key, v in values.items() if key.endswith(TOKENS)}
    return held | {EVENTS: int(values.get(NUMBER, 0))}


def _held_offline(folder: Path, run_id: str) -> dict[str, int]:
    """As `_held`, over all the files that earlier processes wrote of a run."""
    last = {}
    for path in sorted(folder.glob(f"offline-run-*-{run_id}*/run-{run_id}.wandb")):
        with open(path, "rb") as handle:
            for record in WandbRecords(handle):
                last |= {key: json.loads(bytes(value)) for key, value in history(record).items()}
    return _held({k: v for k, v in last.items() if k.endswith(TOKENS) or k == NUMBER})
