"""TensorBoard: folders of event files, by whichever writer."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from mixlaw.errors import RunTableError
from mixlaw.interop.curves import Curves
from mixlaw.interop.events import FAILURE, Event, EventReader, axis_of
from mixlaw.interop.logged import LoggedRun, flatten
from mixlaw.interop.records import EventRecords, sound
from mixlaw.runs import DONE, FAILED

MARK = "tfevents"
"""What every writer has in the names of its files."""


class TensorBoard:
    """A folder that has event files is a run, called by its path below what the sources share.

    Files of one folder are one run: a restart, or several writers; a tag that goes back to an
    earlier step was trained again from there. Series are the scalars, plain or as tensors, over
    their steps; fields "config.<name>" the hyperparameters and texts, opened where these are JSON,
    and "trial" what the hyperparameters call the run.
    """

    name: ClassVar[str] = "tensorboard"
    what: ClassVar[str] = "TensorBoard's event files, or folders of them"
    checked: ClassVar[str] = (
        "files written by tensorboard 2.21.0, torch.utils.tensorboard 2.13.0, tensorboardX 2.6.5"
    )

    def recognises(self, sources: Sequence[str]) -> bool:
        return all("://" not in s and any(_files(Path(s))) for s in sources) and bool(sources)

    def files(self, sources: Sequence[str]) -> list[Path]:
        return [path for source in sources for path in _files(Path(source))]

    def read(
        self, sources: Sequence[str], *, names: Collection[str] | None = None
    ) -> Iterator[LoggedRun]:
        """As of `mixlaw.interop.logged.Importer`. One record is in memory at a time."""
        files: defaultdict[Path, list[Path]] = defaultdict(list)
        for source in sources:
            for path in _files(Path(source)):
                files[path.parent].append(path)
        if not files:
            raise RunTableError(
                f"no event file (*{MARK}*) in {', '.join(sources)}; name the log directory"
            )
        trials = _trials(files)
        for run, folder in sorted(_called(set(files) - set(trials), sources).items()):
            found = _Run(names)
            for path in sorted(set(files[folder]), key=lambda path: path.name):
                found.read(path)
            for trial in (t for t, parent in trials.items() if parent == folder):
                for path in files[trial]:
                    found.read_trial(path)
            yield LoggedRun(
                run=run,
                name=folder.name,
                fields=found.fields,
                series=found.curves.series(),
                status=found.status,
                ends=found.curves.ends,
                origin=str(folder),
                notes=[*found.notes, *found.curves.notes()],
            )


def _files(source: Path) -> Iterator[Path]:
    """The event files of a source, with absolute paths."""
    source = Path(os.path.abspath(source))
    if source.is_file() and MARK in source.name:
        yield source
    for folder, _, names in os.walk(source):
        yield from (Path(folder, name) for name in names if MARK in name)


def _trials(files: Collection[Path]) -> dict[Path, Path]:
    """Folders that torch's `add_hparams` made, named by the time -> the run's own folder above."""
    stamped: defaultdict[Path, list[Path]] = defaultdict(list)
    for folder in files:
        if re.fullmatch(r"\d{9,}\.\d+", folder.name) and folder.parent in files:
            stamped[folder.parent].append(folder)
    # Several below one folder are trials of their own.
    return {few[0]: parent for parent, few in stamped.items() if len(few) == 1}


def _called(folders: Collection[Path], sources: Sequence[str]) -> dict[str, Path]:
    """Run ids, from the paths below what the sources have in common."""
    base = Path(os.path.commonpath([*map(os.path.abspath, sources), *folders]))
    base = base.parent if base in folders else base
    return {folder.relative_to(base).as_posix(): folder for folder in folders}


class _Run:
    """What the files of one run say, read one after the other."""

    def __init__(self, names: Collection[str] | None):
        self.curves, self.fields, self.notes = Curves(names), {}, []
        self._events = EventReader(self.curves.wants)
        self.status = DONE

    def read(self, path: Path) -> None:
        for event in self._read(path):
            if event.restarts:
                self.curves.restart(event.step)
            for tag, value in event.scalars:
                self.curves.add(tag, event.step, value, axis=axis_of(tag))
            if event.counts:
                self.curves.reach(event.step)
            self._settings(event)

    def read_trial(self, path: Path) -> None:
        """Scalars there are final values, of no step."""
        for event in self._read(path):
            self.fields |= {f"summary.{tag}": value for tag, value in event.scalars}
            self._settings(event)

    def _settings(self, event: Event) -> None:
        for tag, text in event.texts:
            self.fields |= flatten({f"config.{tag.removesuffix('/text_summary')}": text})
        if event.session is not None:
            self.fields |= flatten(event.session.hparams, "config.")
            if event.session.trial:
                self.fields["trial"] = event.session.trial
            if event.session.status:
                self.status = FAILED if event.session.status == FAILURE else DONE

    def _read(self, path: Path) -> Iterator[Event]:
        broken = 0
        try:
            with open(path, "rb", buffering=1 << 20) as handle:
                records = EventRecords(handle)
                for data, check in records:
                    try:
                        event = self._events.read(data)
                        if event is None:
                            continue
                        if not sound(data, check):
                            raise ValueError("checksum")
                    except ValueError:
                        broken += 1
                        continue
                    if event.counts:
                        self._events.end = max(self._events.end, event.step)
                    yield event
        except OSError as error:
            raise RunTableError(f"cannot read {path}: {error.strerror or error}") from error
        self.notes += [f"{path.name}: {damage}" for damage in records.damage]
        if broken:
            self.notes.append(f"{path.name}: {broken:,} damaged records were left out")
