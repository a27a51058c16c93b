"""Logged runs as rows: each at the steps at which its targets were measured."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.interop.columns import ALL, Columns
from mixlaw.interop.frame import Frame, plural
from mixlaw.interop.logged import STEPS, LoggedRun, Series, near
from mixlaw.interop.rows import listed
from mixlaw.interop.targets import bare
from mixlaw.runs import FAILED

STEP, AXIS, STAGE, COUNTED = "step of the run", "axis of its steps", "stage of the run", "counted"
"""Columns that these rows get: COUNTED is 1 where the tokens are those that a series has there."""

EARLY, OPEN, END = "these are from before it", "no end of these runs was logged", "end"
"""Stages of a run: before its end, at its last step though no end was logged, or at its end."""

STOPPED = "these runs stopped before others with as many to see"


def rows_of(runs: Iterable[LoggedRun], columns: Columns) -> Frame:
    """The checkpoints of logged runs that `columns` asks for, with the fields of their runs.

    A run whose target ends in NaN or infinity has failed. Its row has no values.

    Raises: RunTableError: there is no run.
    """
    owners, cells = [], []
    said: dict[str, list[str]] = {}
    names = list(dict.fromkeys(map(bare, columns.targets.values())))
    for run in runs:
        series = {n: run.series[n] for n in names if n in run.series and len(run.series[n].steps)}
        points, kind, detail = _chosen(run, series, columns.checkpoints == ALL)
        if kind:
            said.setdefault(kind, []).append(f"{run.run} ({detail})")
        for point in points:
            row = {**run.fields, **point.values, **point.place()}
            if point.stage != EARLY:
                row |= _final(run, [n for n in names if n not in series])
            row |= _tokens(run, point, columns.train_tokens)
            # Only the rows are kept: all histories together may be larger than memory.
            owners.append(replace(run, fields={}, series={}, status=point.status))
            cells.append(row)
    notes = [f"{plural(len(names), 'run')} {kind}: {listed(names)}" for kind, names in said.items()]
    if not owners:
        raise RunTableError(
            "there is no run with values of the targets" + "".join(f"; {note}" for note in notes)
        )
    frame = Frame.of_cells(owners, cells, logged=True)
    return replace(frame, notes=(*frame.notes, *notes))


@dataclass(frozen=True)
class _Point:
    """Targets that were measured together.

    Attributes:
        values: name of a series -> its value.
        step: on the axis of the series; None: they are final values, of no step.
        count: the same place on the tool's own axis; None: not known.
    """

    values: Mapping[str, float]
    status: str
    stage: str
    step: float | None = None
    axis: str = STEPS
    count: float | None = None

    def place(self) -> dict[str, Any]:
        """Cells that say where it lies: in steps, if that can be said."""
        if self.step is None:
            return {STAGE: self.stage}
        by_tool = self.count is not None and not is_of_steps(self.axis)
        step, axis = (self.count, STEPS) if by_tool else (self.step, self.axis)
        return {STEP: step, AXIS: axis, STAGE: self.stage}


def is_of_steps(axis: str) -> bool:
    """Whether an axis counts steps, by its name: not tokens, samples, epochs or seconds."""
    return bool(re.search("step|iter|update|batch", axis, re.IGNORECASE))


def unfinished(
    labels: Sequence[Hashable], step: np.ndarray, stage: np.ndarray
) -> dict[str, np.ndarray]:
    """Why rows are not of runs that were trained to their end: EARLY, STOPPED or OPEN -> (n,).

    Args:
        labels: (n,) equal where runs should have come equally far, on the same axis.
        step: (n,) NaN where it is not known.
        stage: (n,)
    """
    found = {EARLY: stage == EARLY, STOPPED: np.zeros(len(step), bool), OPEN: stage == OPEN}
    groups: dict[Hashable, list[int]] = {}
    for i in np.flatnonzero(~found[EARLY] & ~np.isnan(step)).tolist():
        groups.setdefault(labels[i], []).append(i)
    for members in groups.values():
        longest = step[members].max()
        ahead = np.array([near(at, longest) for at in step[members]])
        found[STOPPED][members] = ~ahead
        # As far as one that ended: it was cut off while it cleaned up.
        found[OPEN][members] &= ~(ahead & (ahead & (stage[members] == END)).any()) & ahead
    return found


def _chosen(
    run: LoggedRun, series: Mapping[str, Series], every: bool
) -> tuple[list[_Point], str, str]:
    """The points of a run; what is said of such runs, and of it."""
    last = END if run.ended else OPEN
    if not series:
        return [_Point({}, run.status, last)], "", ""
    aligned = _aligned(series)
    if aligned is None:
        detail = ", ".join(f"{name} over {s.axis}" for name, s in series.items())
        return [], "left out, for their targets lie over different axes", detail
    axis = next(iter(aligned.values())).axis
    end, count = run.end(axis), run.end(STEPS) or None
    for name, s in aligned.items():
        if not np.isfinite(s.values[-1]):
            failed = _Point(dict.fromkeys(series, np.nan), FAILED, last, end, axis, count)
            return [failed], "failed: a target ends in no number", f"{name} in {s.values[-1]}"
    finite = {name: s.select(np.isfinite(s.values)) for name, s in aligned.items()}
    steps = _common(finite)
    if not len(steps):
        ends = {name: float(s.steps[-1]) for name, s in finite.items()}
        if max(ends.values()) <= 0 < end:
            kind = (
                "left out, for their targets have step 0 only, before training or logged without a "
                "step; final values are read with --target 'summary.<name>=...' where there are any"
            )
            return [], kind, ", ".join(ends)
        if every or not near(min(ends.values()), max(ends.values())):
            detail = ", ".join(f"{name} last at step {step:g}" for name, step in ends.items())
            return [], "left out, for their targets were never measured at one step", detail
        return [_point(run, {n: s.select(np.array([-1])) for n, s in finite.items()}, end)], "", ""
    points = [
        _point(run, {n: s.select(np.searchsorted(s.steps, [at])) for n, s in finite.items()}, end)
        for at in (steps if every else steps[-1:])
    ]
    if points[-1].stage == EARLY:
        kind = "taken before their end, at the last step at which all their targets were measured"
        far = f"{end:g}" if np.isfinite(end) else "more"
        return points, kind, f"step {steps[-1]:g} of {far}"
    return points, "", ""


def _aligned(series: Mapping[str, Series]) -> dict[str, Series] | None:
    """All over the axis that they share, or else over the tool's own; None where there is none."""
    axes = {s.axis for s in series.values()}
    axis = axes.pop() if len(axes) == 1 else STEPS
    found = {name: s.over(axis) for name, s in series.items()}
    whole = {name: s for name, s in found.items() if s is not None}
    return whole if len(whole) == len(series) else None


def _common(series: Mapping[str, Series]) -> np.ndarray:
    """Steps at which all of them have a value, without the start of training."""
    steps = None
    for one in series.values():
        steps = one.steps if steps is None else np.intersect1d(steps, one.steps)
    return np.asarray([]) if steps is None else np.unique(steps[steps > 0])


def _point(run: LoggedRun, series: Mapping[str, Series], end: float) -> _Point:
    """Of series with one point each, that lie together on an axis which ends there or later."""
    axis = next(iter(series.values())).axis
    step = max(float(s.steps[0]) for s in series.values())
    on_tools = [s.over(STEPS) for s in series.values()]
    counts = [float(s.steps[0]) for s in on_tools if s is not None]
    return _Point(
        {name: float(s.values[0]) for name, s in series.items()},
        run.status,
        (END if run.ended else OPEN) if near(step, end) else EARLY,
        step if step > 0 else None,
        axis,
        max(counts) if len(counts) == len(series) else None,
    )


def _final(run: LoggedRun, names: Iterable[str]) -> dict[str, Any]:
    """What a run has as final values only, which others have over training."""
    found = {name: run.fields.get(f"summary.{name}") for name in names if name not in run.fields}
    return {name: value for name, value in found.items() if value is not None}


def _tokens(run: LoggedRun, point: _Point, name: str | float | None) -> dict[str, Any]:
    """What a series that counts tokens has at a point; nothing where there is none, but for a final
    count."""
    if not isinstance(name, str):
        return {}
    if name not in run.series:
        final = {} if point.stage == EARLY else _final(run, [name])
        return final | dict.fromkeys([COUNTED] if final else [], 1)
    series = run.series[name]
    series = series.select(np.isfinite(series.values))
    found = np.nan
    if point.step is None and len(series.steps):
        found = float(series.values[-1])
    for axis, step in ((point.axis, point.step), (STEPS, point.count)):
        if np.isnan(found) and step is not None and (along := series.over(axis)) is not None:
            found = _between(along, step)
    return {name: found, COUNTED: 1}


def _between(series: Series, step: float) -> float:
    """The value at a step of what begins at zero: between two points in proportion; NaN after the
    last."""
    if not len(series.steps) or not near(series.steps[-1], step):
        return np.nan
    steps, values = np.append(0.0, series.steps), np.append(0.0, series.values)
    return float(np.interp(step, steps, values))
