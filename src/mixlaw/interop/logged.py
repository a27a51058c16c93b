"""Runs as some tool logged them, before it is said which of its names means what."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.runs import DONE

STEPS = "_step"
"""The axis that a tool keeps of itself, and most often its only one."""

_NEAR = 0.01
"""Part of a run within which something was measured at the same time: some loggers count a step for
each of their calls."""


def near(step: float, end: float) -> bool:
    """Whether a step is, within rounding, as far as another one or farther."""
    return step >= (1 - _NEAR) * end


@dataclass(frozen=True, eq=False)
class Series:
    """A metric over training.

    Attributes:
        steps: (k,) where its points lie on its axis, ascending.
        values: (k,) finite or not, as logged.
        axis: what the steps are; those of different axes cannot be compared.
        counts: (k,) where its points lie on the tool's own axis; None: not known, or nowhere else.
    """

    steps: np.ndarray
    values: np.ndarray
    axis: str = STEPS
    counts: np.ndarray | None = None

    def over(self, axis: str) -> Series | None:
        """The same points over an axis; None where they do not lie on it, or run back on it."""
        if self.axis == axis:
            return self
        if axis == STEPS and self.counts is not None and (np.diff(self.counts) > 0).all():
            return Series(self.counts, self.values)
        return None

    def select(self, points: np.ndarray) -> Series:
        """Some of the points."""
        counts = None if self.counts is None else self.counts[points]
        return Series(self.steps[points], self.values[points], self.axis, counts)


@dataclass(frozen=True, eq=False)
class LoggedRun:
    """One training, or one row of a table, as a tool holds it.

    Attributes:
        run: the tool's id of it; unique in a source, but for the rows (checkpoints) of a table.
        name: what people call it; the directory, the display name. Planned runs are found by it.
        fields: name -> value of what is said once: settings (nested ones flat, with dots:
            "config.mixture.web"), final values ("summary.eval/loss"), or the cells of a row.
        series: name -> metric over training; empty for a table.
        status: of `mixlaw.runs`: "done" or "failed"; a run that still trains is "done" as far as
            it came.
        ended: whether it came to its end, by all that the tool says of it; else it still trains,
            was killed, or crashed.
        ends: axis -> the largest step on it of all that was logged, whichever series are read; inf
            where the run went on and that axis did not.
        origin: where it stands, for messages: "runs.csv, row 3".
        notes: what of it could not be read, or was left out, in words.
    """

    run: str
    name: str
    fields: Mapping[str, Any]
    series: Mapping[str, Series] = field(default_factory=dict)
    status: str = DONE
    ended: bool = True
    ends: Mapping[str, float] = field(default_factory=dict)
    origin: str = ""
    notes: Sequence[str] = ()

    def end(self, axis: str) -> float:
        """The last step on an axis; 0 where nothing lies on it."""
        found = [s.steps.max() for s in self.series.values() if s.axis == axis and len(s.steps)]
        return float(max([self.ends.get(axis, 0.0), *found]))


class Importer(Protocol):
    """Reads the runs of one kind of source. One class in one file, and one line in
    `mixlaw.interop.importers`."""

    name: ClassVar[str]
    """How it is called on the command line: "wandb"."""
    what: ClassVar[str]
    """The source, in a few words for people."""
    checked: ClassVar[str]
    """Whose files its tests read: "files written by wandb 0.31.0"."""

    def recognises(self, sources: Sequence[str]) -> bool:
        """Whether all sources (paths, or addresses such as wandb://entity/project) are of this
        kind; looks at names and first bytes only, and never raises."""
        ...

    def files(self, sources: Sequence[str]) -> list[Path]:
        """The files that are read of sources that are recognised; none of an address."""
        ...

    def read(
        self, sources: Sequence[str], *, names: Collection[str] | None = None
    ) -> Iterator[LoggedRun]:
        """The runs, one at a time, so that a source may be larger than memory.

        Args:
            names: of the series that are wanted whole; None: all of them, but of each only its last
                point, which is enough to see what there is.
        Raises: RunTableError: what cannot be read, by file (and row). MissingExtraError.
        """
        ...


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one mapping, keys joined by dots; lists stay as they are, JSON text that
    is a mapping is opened.

    Raises: RunTableError: they are nested deeper than any that are meant.
    """
    try:
        return dict(_flat(settings, prefix))
    except RecursionError:
        raise RunTableError(
            f"the settings {', '.join(map(str, settings))[:60]!r} of a run are nested too deeply; "
            "is the file damaged?"
        ) from None


def _flat(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = _opened(value)
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _opened(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
