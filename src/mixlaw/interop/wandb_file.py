"""What a .wandb file says about its run."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mixlaw.errors import RunTableError
from mixlaw.interop.curves import Curves, number, told
from mixlaw.interop.logged import STEPS, LoggedRun, flatten, near
from mixlaw.interop.records import WandbRecords
from mixlaw.interop.wire import fields, raw, signed, text
from mixlaw.runs import DONE, FAILED

HISTORY, SUMMARY, CONFIG, METRIC, RUN, EXIT, PREEMPTING = 2, 3, 5, 12, 17, 18, 23
"""Fields of a record, by wandb/proto/wandb_internal.proto."""
_DIGITS = b"-0123456789"
_EMPTY = memoryview(b"")


class WandbRun:
    """What the files of one run say, read one after the other."""

    def __init__(self, run_id: str, names: Collection[str] | None):
        self.run_id, self.name, self.curves = run_id, "", Curves(names)
        self.axes = Axes()
        self.config: dict[str, memoryview] = {}
        self.summary: dict[str, memoryview] = {}
        self.origins: list[str] = []
        self.notes: list[str] = []
        self.exit_code: int | None = None
        self.preempted = False
        self._at: dict[str, float | None] = {}
        self._lasted: dict[str, float] = {}
        self._stepless: Counter[str] = Counter()

    def read(self, path: Path) -> None:
        self.exit_code, self.preempted, self._at = None, False, {}
        self.origins.append(str(path))
        broken = 0
        try:
            with open(path, "rb") as handle:
                records = WandbRecords(handle)
                for record in records:
                    try:
                        self._take(record)
                    except (ValueError, RecursionError):
                        broken += 1
        except OSError as error:
            raise RunTableError(f"cannot read {path}: {error.strerror or error}") from error
        self.notes += [f"{path.name}: {damage}" for damage in records.damage]
        if broken:
            self.notes.append(f"{path.name}: {broken:,} damaged records were left out")
        if self.exit_code is None:
            self.notes.append(f"{path.name}: no end was logged; it still trains, or was killed")

    def _take(self, record: bytes) -> None:
        self._row(history(record))
        for kind, value in fields(record):
            if kind == SUMMARY:
                _change(self.summary, raw(value))
            elif kind == CONFIG:
                _change(self.config, raw(value))
            elif kind == METRIC:
                said = dict(fields(raw(value)))
                name, glob, axis = (text(said.get(field, _EMPTY)) for field in (1, 2, 4))
                self.axes.define(name.replace("\\.", "."), glob, axis)
            elif kind == RUN:
                self._begin(raw(value))
            elif kind == EXIT:
                self.exit_code = signed(dict(fields(raw(value))).get(1, 0))
            elif kind == PREEMPTING:
                self.preempted = True

    def _begin(self, run: memoryview) -> None:
        for field, value in fields(run):
            if field == 1:
                self.run_id = text(value)
            elif field == 4:
                _change(self.config, raw(value))
            elif field == 5:
                _change(self.summary, raw(value))
            elif field == 8:
                self.name = text(value)

    def _row(self, logged: dict[str, memoryview]) -> None:
        """Add what was logged at one time."""
        now = {axis: _number(logged[axis]) for axis in self.axes.names if axis in logged}
        self._at |= now
        own = ("_", *_media(logged))
        metrics = {name: said for name, said in logged.items() if not name.startswith(own)}
        count = self._at.get(STEPS)
        if count is not None and any(said and said[0] in _DIGITS for said in metrics.values()):
            for axis, step in now.items():
                if step is not None:
                    self.curves.reach(step, axis)
                    self._lasted[axis] = count
        for name, said in metrics.items():
            if not self.curves.wants(name):
                continue
            if (value := _number(said)) is None:
                continue
            step = self._at.get(axis := self.axes.of(name))
            if step is None or math.isnan(step):
                self._stepless[f"{name} had no value of its step metric {axis}"] += 1
            else:
                at = math.nan if count is None else count
                self.curves.add(name, step, value, axis=axis, count=at)

    def _ends(self) -> dict[str, float]:
        """As of `LoggedRun`: an axis that was not logged any more, while others were, says nothing
        of the end."""
        ends, last = self.curves.ends, self.curves.ends.get(STEPS, 0.0)
        return {
            axis: end if near(self._lasted.get(axis, last), last) else math.inf
            for axis, end in ends.items()
        }

    def logged(self) -> LoggedRun:
        """All that was read."""
        inner = tuple(_media(self.summary))
        final = {k: v for k, v in self.summary.items() if not k.startswith(("_", *inner))}
        settings = {k: v for k, v in self.config.items() if k != "_wandb"}
        return LoggedRun(
            run=self.run_id,
            name=self.name or self.run_id,
            fields=flatten(_opened(settings), "config.") | flatten(_opened(final), "summary."),
            series=self.curves.series(),
            status=FAILED if self.exit_code and not self.preempted else DONE,
            ended=self.exit_code == 0,
            ends=self._ends(),
            origin=", ".join(self.origins),
            notes=[
                *self.notes,
                *self.curves.notes(),
                *(f"{count:,} points of {what}" for what, count in self._stepless.items()),
            ],
        )


class Axes:
    """Which metric is the x axis of which, as a run defined it."""

    def __init__(self):
        self._exact: dict[str, str] = {}
        self._globs: dict[str, str] = {}
        self._known: dict[str, str] = {}
        self.names: set[str] = {STEPS}

    def define(self, name: str, glob: str, axis: str) -> None:
        """A metric, or all that match a pattern, has an axis."""
        if axis:
            (self._exact if name else self._globs)[name or glob] = axis
            self.names.add(axis)
            self._known.clear()

    def of(self, name: str) -> str:
        """The axis of a metric; axes are their own."""
        if (known := self._known.get(name)) is None:
            patterns = (axis for glob, axis in self._globs.items() if fnmatchcase(name, glob))
            axis = self._exact.get(name) or next(patterns, STEPS)
            known = self._known[name] = name if name in self.names else axis
        return known


def history(record: bytes) -> dict[str, memoryview]:
    """What a record logged at one time: names, and their values as JSON; none if it is of another
    kind."""
    logged: dict[str, memoryview] = {}
    for kind, value in fields(record):
        if kind == HISTORY:
            logged |= (_entry(raw(item)) for field, item in fields(raw(value)) if field == 1)
    return logged


def _change(kept: dict[str, memoryview], change: memoryview) -> None:
    """Follow a record of config or summary: entries that are new, and such as went."""
    for field, item in fields(change):
        if field in (1, 2):
            name, said = _entry(raw(item))
            if field == 1:
                kept[name] = said
            else:
                kept.pop(name, None)


def _entry(item: memoryview) -> tuple[str, memoryview]:
    """Name and JSON of an entry; keys within keys are joined by dots."""
    key, nested, said = "", [], _EMPTY
    for field, value in fields(item):
        if field == 1:
            key = text(value)
        elif field == 2:
            nested.append(text(value))
        elif field == 16:
            said = raw(value)
    return ".".join(nested) or key, said


def _media(names: Collection[str]) -> Iterator[str]:
    """What the names of parts of images, histograms and tables begin with."""
    return (name.removesuffix("_type") for name in names if name.endswith("._type"))


def _number(said: memoryview) -> float | None:
    return number(json.loads(bytes(said)))


def _opened(entries: dict[str, memoryview]) -> dict[str, Any]:
    """Entries read from their JSON; as text, where that is none."""
    opened: dict[str, Any] = {}
    for name, said in entries.items():
        try:
            opened[name] = told(json.loads(bytes(said)))
        except (ValueError, RecursionError):
            opened[name] = str(said, "utf-8", "replace")
    return opened
