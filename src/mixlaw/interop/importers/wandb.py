"""Weights & Biases: offline .wandb files, and projects in the cloud."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mixlaw.errors import MissingExtraError, RunTableError
from mixlaw.interop.curves import Curves, number, told
from mixlaw.interop.logged import STEPS, LoggedRun, flatten
from mixlaw.interop.records import WandbRecords
from mixlaw.interop.wandb_file import Axes, WandbRun
from mixlaw.runs import DONE, FAILED

CLOUD = "wandb://"


class WeightsAndBiases:
    """Runs by their ids; the files of one id, in whichever folders, are one resumed run.

    Fields are "config.<...>" and "summary.<...>". Series lie over the step metric that the run
    defined for them, else over W&B's own _step; a step metric lies over itself.
    """

    name: ClassVar[str] = "wandb"
    what: ClassVar[str] = "W&B: .wandb files, folders of them, or wandb://entity/project[/run]"
    checked: ClassVar[str] = (
        "files written by wandb 0.31.0; the cloud: its class Run, without a server"
    )

    def recognises(self, sources: Sequence[str]) -> bool:
        return bool(sources) and all(
            source.startswith(CLOUD) or next(_files(Path(source)), None) for source in sources
        )

    def files(self, sources: Sequence[str]) -> list[Path]:
        return list(dict.fromkeys(p for s in sources if "://" not in s for p in _files(Path(s))))

    def read(
        self, sources: Sequence[str], *, names: Collection[str] | None = None
    ) -> Iterator[LoggedRun]:
        """As of `mixlaw.interop.logged.Importer`; of the cloud, names=None asks for no history.

        Raises: MissingExtraError: for the cloud only.
        """
        files: defaultdict[str, set[Path]] = defaultdict(set)
        for source in sources:
            if source.startswith(CLOUD):
                yield from _cloud(source, names)
                continue
            if not (found := list(_files(Path(source)))):
                raise RunTableError(
                    f"no .wandb file in {source}; name a run's folder (offline-run-...), the "
                    f"folder wandb/ above it, or {CLOUD}entity/project"
                )
            for path in found:
                files[path.stem.removeprefix("run-")].add(path)
        for run_id, paths in sorted(files.items()):
            run = WandbRun(run_id, names)
            for path in sorted(paths, key=_begun):
                run.read(path)
            yield run.logged()


def _files(source: Path) -> Iterator[Path]:
    """The .wandb files of a source, with real paths: "latest-run" is another name of one."""
    if source.is_file() and (source.suffix == ".wandb" or _starts(source)):
        yield source.resolve()
    for folder, _, names in os.walk(source):
        yield from (Path(folder, name).resolve() for name in names if name.endswith(".wandb"))


def _starts(path: Path) -> bool:
    try:
        with open(path, "rb") as handle:
            return handle.read(len(WandbRecords.IDENTITY)) == WandbRecords.IDENTITY
    except OSError:
        return False


def _begun(path: Path) -> tuple[str, str]:
    """Folders are named by the time: offline-run-20261123_210859-<id>."""
    found = re.search(r"\d{8}_\d{6}", path.parent.name)
    return (found[0] if found else "", str(path))


def _cloud(source: str, names: Collection[str] | None) -> Iterator[LoggedRun]:
    """Runs that the server has."""
    try:
        import wandb
    except ImportError:
        raise MissingExtraError("wandb", "wandb") from None
    path = source.removeprefix(CLOUD).strip("/")
    if not all(parts := path.split("/")) or len(parts) not in (2, 3):
        raise RunTableError(f"{source} names no project; write {CLOUD}entity/project[/run]")
    try:
        api = wandb.Api()
        for run in api.runs(path) if len(parts) == 2 else [api.run(path)]:
            yield _of_cloud(run, names)
    except (wandb.Error, ValueError, OSError) as error:
        raise RunTableError(
            f"cannot read {source}: {error}; check its name, and log in with `wandb login`"
        ) from error


def _of_cloud(run: Any, names: Collection[str] | None) -> LoggedRun:
    summary = flatten(dict(run.summary_metrics))
    final = {f"summary.{k}": told(v) for k, v in summary.items() if not k.startswith("_")}
    axes, curves = _axes(run.rawconfig), Curves(names)
    for name in summary if names is None else sorted(summary.keys() & set(names)):
        axis = axes.of(name)
        if names is None:
            rows = [] if name.startswith("_") else [summary]
        else:  # one by one: rows are given that have all keys that are asked for
            rows = run.scan_history(keys=list(dict.fromkeys([name, axis, STEPS])))
        for row in rows:
            step, value, count = (number(row.get(key)) for key in (axis, name, STEPS))
            if step is not None and value is not None:
                curves.add(name, step, value, axis=axis, count=math.nan if count is None else count)
    ends = {axis: number(summary.get(axis)) for axis in axes.names}
    ended = run.state in ("finished", "failed")
    return LoggedRun(
        run=run.id,
        name=run.name or run.id,
        fields=flatten(dict(run.config), "config.") | final,
        series=curves.series(),
        status=FAILED if run.state == "failed" else DONE,
        ended=run.state == "finished",
        ends={axis: end for axis, end in ends.items() if end is not None},
        origin=CLOUD + "/".join(run.path),
        notes=[*([] if ended else [f"its state is {run.state!r}"]), *curves.notes()],
    )


def _axes(config: Mapping[str, Any]) -> Axes:
    """The step metrics that a run defined, as the server keeps them: MetricRecords by the numbers
    of their fields, with the axis as a place in their list, from 1."""
    axes = Axes()
    metrics = config.get("_wandb", {}).get("m", [])
    for metric in metrics:
        place = metric.get("5", 0)
        axis = metrics[place - 1].get("1", "") if 0 < place <= len(metrics) else ""
        axes.define(metric.get("1", ""), metric.get("2", ""), axis)
    return axes
