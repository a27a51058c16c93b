"""From what a source holds, and what its columns mean, to a table of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from mixlaw.errors import MixtureError, RunTableError
from mixlaw.interop.checkpoints import STEP, rows_of
from mixlaw.interop.columns import ALL, Columns
from mixlaw.interop.frame import Frame, objects, plural
from mixlaw.interop.guess import run_parts
from mixlaw.interop.logged import LoggedRun
from mixlaw.interop.proportions import Mixtures
from mixlaw.interop.rows import Rows, checkpoints, listed, merged, refuse_mixed_runs
from mixlaw.interop.targets import bare, check_target, no_such, values_of
from mixlaw.mixture import check_names
from mixlaw.runs import DONE, FAILED, MISSING, SWARM, RunTable, higher_is_better

Planned = Mapping[str, Mapping[str, Any]]

_AVAILABLE, _START = "available_tokens/", "start/"


def assemble(
    runs: Frame | Iterable[LoggedRun], columns: Columns, *, planned: Planned | None = None
) -> tuple[RunTable, tuple[str, ...]]:
    """The table of runs, and notes on all that is not as the source has it.

    Args:
        runs: with the series that `columns` names.
        planned: run name -> cells (weight/<domain>, num_params, train_tokens, seed) of the runs
            that mixlaw planned. A logged run whose id or name is a planned name, or has it as a
            part of its path, gets it as its id, and its cells where it logs none itself.
    Raises: RunTableError: what cannot be trusted, by its place.
    """
    for target in columns.targets:
        check_target(target)
    if not columns.targets:
        raise RunTableError("no target is named; say which column is one with --target")
    frame = runs if isinstance(runs, Frame) else rows_of(runs, columns)
    return _Assembly(frame, columns, planned or {}).table()


class _Assembly:
    """One table in the making; arrays (n, ...) are aligned by the rows of the frame."""

    def __init__(self, frame: Frame, columns: Columns, planned: Planned):
        self.frame, self.columns, self.planned = frame, columns, planned
        self.notes = list(frame.notes)
        self.values = self._values()
        self.status = self._status()
        self.run, self.plan = self._runs()

    def table(self) -> tuple[RunTable, tuple[str, ...]]:
        """What is left out goes first, so that nothing wrong in it is an error."""
        self._leave_out_unmeasured()
        self._leave_out_beginnings()
        mixtures = Mixtures(self.frame, self.columns, self.plan)
        if (without := mixtures.without).any():
            self._leave_out(without, mixtures.refuse_or_note(self.run, planned=bool(self.planned)))
            mixtures = Mixtures(self.frame, self.columns, self.plan)
        shares, notes = mixtures.shares()
        self.notes += notes
        try:
            check_names(mixtures.domains)
        except MixtureError as error:
            raise RunTableError(str(error)) from error
        tokens, step = self._progress()
        given = self.frame.table and not self.frame.logged
        table = RunTable(
            domains=mixtures.domains,
            targets=tuple(self.columns.targets),
            weights=shares,
            num_params=self._filled("num_params", self.columns.num_params),
            train_tokens=tokens,
            available_tokens=self._available(mixtures.domains, tokens),
            values=self.values,
            run=_strings(self.run),
            label=self._texts("label", self.run if self.frame.table else self.frame.name),
            role=self._texts("role", np.full(len(self.frame), SWARM, object)),
            status=_strings(self.status),
            seed=self._seeds(),
            schedule=mixtures.schedules,
            start=self._starts(),
            rewarm=self._positive("rewarm", self.columns.others.get("rewarm")),
        )
        rows = Rows(table, step, self.frame.place)
        refuse_mixed_runs(rows)
        rows, note = merged(rows)
        every = self.columns.checkpoints == ALL
        rows, notes = checkpoints(rows, every=every, given=given)
        return rows.table, (*self.notes, *([note] if note else []), *notes)

    def _values(self) -> np.ndarray:
        """(n, T), NaN where a target was not measured.

        Raises: RunTableError: a value that is none of its metric.
        """
        columns, frame = self.columns.targets, self.frame
        self.notes += [
            f"{target} is the logarithm of {bare(column)}, a perplexity"
            for target, column in columns.items()
            if column not in frame.columns and bare(column) != column
        ]
        values = np.stack([values_of(frame, t, c) for t, c in columns.items()], axis=1)
        for j, target in enumerate(columns):
            zero = higher_is_better(target)
            found = values[:, j]
            right = np.isnan(found) | (np.isfinite(found) & (found >= 0 if zero else found > 0))
            if (wrong := np.flatnonzero(~right)).size:
                i = int(wrong[0])
                raise RunTableError(
                    f"{frame.place(i)}: {columns[target]} is {found[i]:g}, and {target} must be "
                    f"finite and >{'=' * zero} 0; leave the cell empty where it was not measured, "
                    "and give a run that diverged the status 'failed'"
                )
        return values

    def _status(self) -> np.ndarray:
        """(n,) text. Raises: RunTableError: none of those that there are."""
        status = self.frame.status
        if (named := self.columns.others.get("status")) is not None:
            found = self.frame.texts(self._column(named, "for the status"))
            status = objects([DONE if cell is None else cell for cell in found])
        if bad := sorted(set(status.tolist()) - {DONE, FAILED, MISSING}):
            raise RunTableError(f"status {bad} is unknown; use {DONE!r}, {FAILED!r} or {MISSING!r}")
        return status

    def _runs(self) -> tuple[np.ndarray, list[Mapping[str, Any]]]:
        """(n,) ids of the runs, planned names where they match, and what was planned of each."""
        ids = self.frame.run
        if self.columns.run is not None:
            parts = [self.frame.texts(name) for name in run_parts(self.frame, self.columns.run)]
            joined = (
                p[0] if len(p) == 1 else "/".join(map(str, p)) for p in zip(*parts, strict=True)
            )
            ids = objects([own if j is None else j for j, own in zip(joined, ids, strict=True)])
        if not self.planned:
            return ids, [{}] * len(ids)
        known: dict[tuple[str, str], str | None] = {}
        out = []
        for key in zip(ids.tolist(), self.frame.name.tolist(), strict=True):
            if key not in known:
                parts = [*key, *PurePath(key[0]).parts, *PurePath(key[1]).parts]
                known[key] = next((part for part in parts if part in self.planned), None)
            out.append(known[key] or key[0])
        return objects(out), [self.planned.get(name, {}) for name in out]

    def _leave_out(self, rows: np.ndarray, note: str) -> None:
        """Rows (n,) of the frame, and of all that is aligned with it."""
        keep = np.flatnonzero(~rows)
        self.notes.append(note)
        self.frame = self.frame.select(keep)
        self.values, self.status = self.values[keep], self.status[keep]
        self.run, self.plan = self.run[keep], [self.plan[i] for i in keep]

    def _leave_out_unmeasured(self) -> None:
        """Rows without a value, but for those of runs that failed or are missing.

        Raises: RunTableError: there are no others.
        """
        empty = np.isnan(self.values).all(axis=1)
        if empty.all():
            raise RunTableError(
                f"no run has a value of {listed(list(self.columns.targets))}; if they are measured "
                "under another name, say where with --target '<column>=<target>'"
            )
        empty &= self.status == DONE
        if empty.any():
            left = set(self.run[~empty])
            gone = [name for name in self.run[empty] if name not in left]
            note = f"{plural(int(empty.sum()), 'row')} without a value of any target left out"
            note += f", and with them the runs {listed(gone)}" if gone else ""
            self._leave_out(empty, note)

    def _leave_out_beginnings(self) -> None:
        """Rows before the first step: they are not of a trained model."""
        columns, frame = self.columns, self.frame
        begun = np.zeros(len(frame), bool)
        for column in (columns.train_tokens, columns.step):
            if isinstance(column, str) and column in frame.columns:
                begun |= frame.numbers(column, counts=True) == 0
        if begun.any() and not begun.all():
            self._leave_out(begun, f"{plural(int(begun.sum()), 'row')} at step 0 left out")

    def _progress(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) tokens seen, and steps; NaN where they are not known."""
        columns, frame = self.columns, self.frame
        step = np.full(len(frame), np.nan)
        for name in (columns.step, STEP):
            if name is not None and name in frame.columns:
                step = frame.numbers(name, counts=True)
        tokens = self._filled("train_tokens", columns.train_tokens)
        if columns.train_tokens is None and columns.tokens_per_step is not None:
            tokens = step * self._positive("tokens_per_step", columns.tokens_per_step)
        return tokens, step

    def _filled(self, name: str, column: str | float | None) -> np.ndarray:
        """(n,) counts above zero as logged, or else as planned; NaN where neither is."""
        found = self._positive(name, column)
        planned = np.array([float(cells.get(name) or np.nan) for cells in self.plan])
        return np.where(np.isnan(found), planned, found)

    def _positive(self, name: str, column: str | float | None) -> np.ndarray:
        """(n,) numbers above zero, NaN where there is none. Raises: RunTableError: others."""
        frame = self.frame
        if not isinstance(column, str):
            found = np.full(len(frame), np.nan if column is None else float(column))
        else:
            found = frame.numbers(self._column(column, f"for {name}"), counts=True)
        if (wrong := np.flatnonzero(~(np.isnan(found) | (np.isfinite(found) & (found > 0))))).size:
            i = int(wrong[0])
            raise RunTableError(
                f"{frame.place(i)}: {column} is {found[i]:g}, and {name} must be finite and > 0; "
                "leave the cell empty where it is not known"
            )
        return found

    def _seeds(self) -> np.ndarray:
        """(n,) whole numbers, 0 where none is known. Raises: RunTableError: others."""
        column, frame = self.columns.seed, self.frame
        found = np.full(len(frame), np.nan)
        if isinstance(column, str):
            found = frame.numbers(self._column(column, "for the seed"))
        elif column is not None:
            found[:] = column
        planned = np.array([float(cells.get("seed") or 0) for cells in self.plan])
        found = np.where(np.isnan(found), planned, found)
        if (wrong := np.flatnonzero(~np.isfinite(found) | (found != np.floor(found)))).size:
            i = int(wrong[0])
            raise RunTableError(
                f"{frame.place(i)}: {column} is {found[i]:g}; a seed must be a whole number"
            )
        return found.astype(np.int64)

    def _texts(self, name: str, usual: np.ndarray) -> np.ndarray:
        """(n,) a further column of texts, as usual where a cell is empty."""
        column = self.columns.others.get(name)
        if column is None:
            return _strings(usual)
        found = self.frame.texts(self._column(column, f"for the {name}"))
        return _strings([u if f is None else f for f, u in zip(found, usual, strict=True)])

    def _available(self, domains: tuple[str, ...], tokens: np.ndarray) -> np.ndarray:
        """(n, M) unique tokens, inf where they do not run out.

        Raises: RunTableError: of no domain, or in a row whose tokens are not known.
        """
        found = np.full((len(self.frame), len(domains)), np.nan)
        for name, column in self.columns.others.items():
            if name.startswith(_AVAILABLE):
                if (domain := name.removeprefix(_AVAILABLE)) not in domains:
                    raise RunTableError(f"{name}: the mixtures have no domain {domain!r}")
                found[:, domains.index(domain)] = self._positive(name, column)
        unknown = np.flatnonzero(np.isfinite(found).any(axis=1) & np.isnan(tokens))
        if unknown.size:
            raise RunTableError(
                f"{self.frame.place(int(unknown[0]))} has available_tokens but no train_tokens; "
                "epochs need both"
            )
        return np.where(np.isnan(found), np.inf, found)

    def _starts(self) -> np.ndarray:
        """(n, T) the targets at step 0; NaN where they are not known.

        Raises: RunTableError: of no target, or a value that is none of its metric.
        """
        targets = list(self.columns.targets)
        found = np.full((len(self.frame), len(targets)), np.nan)
        for name, column in self.columns.others.items():
            if name.startswith(_START):
                if (target := name.removeprefix(_START)) not in targets:
                    raise RunTableError(f"{name}: {target!r} is no target of the table")
                if higher_is_better(target):
                    found[:, targets.index(target)] = self.frame.numbers(
                        self._column(column, f"for {name}")
                    )
                else:
                    found[:, targets.index(target)] = self._positive(name, column)
        return found

    def _column(self, name: str, what: str) -> str:
        """The same. Raises: RunTableError: the source has no such column."""
        if name not in self.frame.columns:
            raise RunTableError(no_such(name, self.frame.columns, what))
        return name


def _strings(cells: Iterable[Any]) -> np.ndarray:
    return np.array([str(cell) for cell in cells])
