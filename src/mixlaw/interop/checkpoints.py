"""Logged runs as rows: each at the steps at which its targets were measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.interop.columns import ALL, Columns
from mixlaw.interop.frame import Frame, plural
from mixlaw.interop.logged import LoggedRun, Series
from mixlaw.interop.rows import listed
from mixlaw.interop.targets import bare
from mixlaw.runs import FAILED

STEP = "step of the run"
"""The column of steps that these rows get."""

_NEAR = 0.01
"""Part of a run within which targets were measured at the same time: some loggers count a step for
each of their calls."""


def rows_of(runs: Iterable[LoggedRun], columns: Columns) -> Frame:
    """The checkpoints of logged runs that `columns` asks for, with the fields of their runs.

    A run whose target ends in NaN or infinity has failed. Its row has no values.

    Raises: RunTableError: there is no run.
    """
    owners, cells = [], []
    said: dict[str, list[str]] = {}
    for run in runs:
        series = {
            name: run.series[name]
            for name in map(bare, columns.targets.values())
            if name in run.series and len(run.series[name].steps)
        }
        chosen, kind, detail = _chosen(run, series, columns.checkpoints == ALL)
        if kind:
            said.setdefault(kind, []).append(f"{run.run} ({detail})")
        for step, values, status in chosen:
            row = dict(run.fields) | values
            if step is not None:
                row |= {STEP: step} | _counts(run, step, columns)
            # Only the rows are kept: all histories together may be larger than memory.
            owners.append(replace(run, fields={}, series={}, status=status))
            cells.append(row)
    notes = [f"{plural(len(names), 'run')} {kind}: {listed(names)}" for kind, names in said.items()]
    if not owners:
        raise RunTableError(
            "there is no run with values of the targets" + "".join(f"; {note}" for note in notes)
        )
    frame = Frame.of_cells(owners, cells, logged=True)
    return replace(frame, notes=(*frame.notes, *notes))


def _chosen(
    run: LoggedRun, series: Mapping[str, Series], every: bool
) -> tuple[list[tuple[float | None, dict[str, Any], str]], str, str]:
    """(step, target columns, status) of each row of a run; what is said of such runs, and of it."""
    if not series:
        return [(None, {}, run.status)], "", ""
    end = _end(run)
    for name, s in series.items():
        if not np.isfinite(s.values[-1]):
            failed = (end, dict.fromkeys(series, np.nan), FAILED)
            return [failed], "failed: a target ends in no number", f"{name} in {s.values[-1]}"
    known = {name: np.isfinite(s.values) for name, s in series.items()}
    finite = {n: Series(s.steps[known[n]], s.values[known[n]]) for n, s in series.items()}
    steps = _common(finite)
    if not len(steps):
        ends = {name: float(s.steps[-1]) for name, s in finite.items()}
        if every or max(ends.values()) - min(ends.values()) > _NEAR * max(ends.values()):
            detail = ", ".join(f"{name} last at step {step:g}" for name, step in ends.items())
            return [], "left out, for their targets were never measured at one step", detail
        last = {name: float(s.values[-1]) for name, s in finite.items()}
        return [(max(ends.values()), last, run.status)], "", ""
    out = []
    for step in steps if every else steps[-1:]:
        values = {n: float(s.values[np.searchsorted(s.steps, step)]) for n, s in finite.items()}
        out.append((float(step), values, run.status))
    if end - steps[-1] > _NEAR * end:
        kind = "taken before their end, at the last step at which all their targets were measured"
        return out, kind, f"step {steps[-1]:g} of {end:g}"
    return out, "", ""


def _end(run: LoggedRun) -> float:
    """The last step of which anything was logged."""
    return max(float(s.steps[-1]) for s in run.series.values() if len(s.steps))


def _common(series: Mapping[str, Series]) -> np.ndarray:
    """Steps at which all of them have a value, without the start of training."""
    steps = None
    for one in series.values():
        steps = one.steps if steps is None else np.intersect1d(steps, one.steps)
    return np.asarray([]) if steps is None else np.unique(steps[steps > 0])


def _counts(run: LoggedRun, step: float, columns: Columns) -> dict[str, float]:
    """The series that counts tokens, at a step: between two points of it in proportion. A setting,
    or a final count, holds at the end of the run only."""
    name = columns.train_tokens
    if not isinstance(name, str):
        return {}
    if name not in run.series:
        return {} if step >= (1 - _NEAR) * _end(run) else {name: float("nan")}
    series = run.series[name]
    known = np.isfinite(series.values)
    steps, values = series.steps[known], series.values[known]
    if not len(steps) or step > steps[-1]:
        return {name: float("nan")}
    return {name: float(np.interp(step, np.append(0.0, steps), np.append(0.0, values)))}
