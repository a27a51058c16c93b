"""From what a source holds, and what its columns mean, to a table of runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from mixlaw.errors import MixtureError, RunTableError
from mixlaw.interop.checkpoints import (
    AXIS,
    COUNTED,
    EARLY,
    OPEN,
    STAGE,
    STEP,
    STOPPED,
    is_of_steps,
    rows_of,
    unfinished,
)
from mixlaw.interop.columns import ALL, Columns
from mixlaw.interop.frame import Frame, joint_codes, number_of, objects, plural
from mixlaw.interop.logged import LoggedRun
from mixlaw.interop.proportions import Mixtures
from mixlaw.interop.roles import STATUSES
from mixlaw.interop.rows import Rows, checkpoints, listed, merged, refuse_mixed_runs
from mixlaw.interop.targets import bare, check_target, no_such, run_parts, values_of
from mixlaw.mixture import check_names
from mixlaw.runs import DONE, FAILED, MISSING, SWARM, RunTable, higher_is_better

Planned = Mapping[str, Mapping[str, Any]]

_SEEDS = 2**63
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
        self.status = self._status()
        self.values = self._values()
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
        num_params = self._filled("num_params", self.columns.num_params)
        tokens, step = self._progress(num_params)
        self._note_nameless(shares, tokens, step)
        given = self.frame.table and not self.frame.logged
        # A tracker's own name of a planned run is its folder's or the machine's, as a rule.
        named_by_run = np.array([self.frame.table or bool(cells) for cells in self.plan])
        table = RunTable(
            domains=mixtures.domains,
            targets=tuple(self.columns.targets),
            weights=shares,
            num_params=num_params,
            train_tokens=tokens,
            available_tokens=self._available(mixtures.domains, tokens),
            values=self.values,
            run=_strings(self.run),
            label=self._texts("label", np.where(named_by_run, self.run, self.frame.name)),
            role=self._texts("role", np.full(len(self.frame), SWARM, object)),
            status=_strings(self.status),
            seed=self._seeds(),
            schedule=mixtures.schedules,
            start=self._starts(),
            rewarm=self._positive("rewarm", self.columns.others.get("rewarm")),
        )
        rows = Rows(table, step, self.frame.place)
        refuse_mixed_runs(rows)
        rows, repeated = merged(rows)
        every = self.columns.checkpoints == ALL
        rows, notes = checkpoints(rows, every=every, given=given)
        return rows.table, (*self.notes, *repeated, *notes)

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
        values = self._without_infinities(values)
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

    def _without_infinities(self, values: np.ndarray) -> np.ndarray:
        """(n, T) values, where those of failed runs that are not finite are none, with a note."""
        endless = np.isinf(values) & (self.status != DONE)[:, None]
        if endless.any():
            count = int(endless.any(axis=1).sum())
            self.notes.append(f"{plural(count, 'failed row')} with infinite values: left empty")
        return np.where(endless, np.nan, values)

    def _status(self) -> np.ndarray:
        """(n,) text. Raises: RunTableError: a word that is not known."""
        frame, named = self.frame, self.columns.others.get("status")
        if named is None:
            return frame.status
        found = frame.texts(self._column(named, "for the status")).tolist()
        out = [DONE if cell is None else STATUSES.get(cell.strip().lower()) for cell in found]
        if None in out:
            i = out.index(None)
            raise RunTableError(
                f"{frame.place(i)}: {named} is {found[i]!r}, which says neither that the run is "
                f"done nor that it failed; write {DONE!r}, {FAILED!r} or {MISSING!r}, leave out a "
                "run that still trains, or give the column another name"
            )
        return objects(out)

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

    def _progress(self, num_params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) tokens seen, and steps; NaN where they are not known."""
        columns, frame = self.columns, self.frame
        step = np.full(len(frame), np.nan)
        for name in (columns.step, STEP):
            if name is not None and name in frame.columns:
                step = frame.numbers(name, counts=True)
        counted = np.full(len(frame), np.nan)
        total = self._positive("train_tokens", columns.train_tokens)
        if columns.train_tokens is None and columns.tokens_per_step is not None:
            of_steps = np.array([is_of_steps(a) for a in self._cells(AXIS, default="step")], bool)
            per_step = self._positive("tokens_per_step", columns.tokens_per_step)
            counted = np.where(of_steps, step * per_step, np.nan)
            if (~of_steps).any():
                axes = listed(map(str, self._cells(AXIS)[~of_steps]))
                self.notes.append(f"--tokens-per-step says nothing of targets over {axes}")
        elif COUNTED in frame.columns:
            of_series = frame.numbers(COUNTED) == 1
            counted, total = np.where(of_series, total, np.nan), np.where(of_series, np.nan, total)
        planned = np.array([float(cells.get("train_tokens") or np.nan) for cells in self.plan])
        total = np.where(np.isnan(total), planned, total)
        total[~np.isnan(counted)] = np.nan  # what was counted stands
        total[~self._whole(total, num_params, step)] = np.nan
        return np.where(np.isnan(counted), total, counted), step

    def _whole(self, total: np.ndarray, num_params: np.ndarray, step: np.ndarray) -> np.ndarray:
        """(n,) whether a run has seen all tokens of its setting or plan, with notes of those that
        have not; rows of a table have."""
        whole = np.ones(len(total), bool)
        if STAGE not in self.frame.columns:
            return whole
        labels = zip(total.tolist(), map(str, num_params), self._cells(AXIS), strict=True)
        reasons = unfinished(list(labels), step, self._cells(STAGE))
        if not isinstance(self.columns.train_tokens, str | None):
            del reasons[STOPPED], reasons[OPEN]  # the user says it of all runs
        for why, rows in reasons.items():
            whole &= ~rows
            told = rows & ~np.isnan(total) & (self.status == DONE)
            if told.any():
                remedy = "" if why == EARLY else ", or give their number with --train-tokens"
                self.notes.append(
                    f"{plural(int(told.sum()), 'row')} without train_tokens, for the tokens of a "
                    f"setting or plan are those of the end, and {why}: {listed(self.run[told])}; "
                    f"count them with --tokens-per-step{remedy}"
                )
        return whole

    def _note_nameless(self, shares: np.ndarray, tokens: np.ndarray, step: np.ndarray) -> None:
        """A note where rows may be checkpoints, and nothing says of which runs."""
        if not self.frame.table or self.columns.run is not None:
            return
        mixture = np.unique(shares.round(9), axis=0, return_inverse=True)[1].reshape(-1)
        along = np.nan_to_num(np.where(np.isnan(tokens), step, tokens), nan=-1.0)
        point = np.unique(along, return_inverse=True)[1].reshape(-1)
        if mixture.max() < joint_codes([mixture, point]).max():
            self.notes.append(
                "one mixture at several tokens or steps, and no column that names the runs: each "
                "row was taken as a run of its own; if they are checkpoints, name their runs with "
                "--run"
            )

    def _cells(self, name: str, default: Any = None) -> np.ndarray:
        """(n,) objects: a column that logged runs may have."""
        cells = self.frame.columns.get(name, np.full(len(self.frame), None, object))
        return objects([default if cell is None else cell for cell in cells.tolist()])

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
        found: list[Any] = [column] * len(frame)
        if isinstance(column, str):
            found = frame.columns[self._column(column, "for the seed")].tolist()
        seeds = [int(cells.get("seed") or 0) for cells in self.plan]
        for i, cell in enumerate(found):
            if cell is None or (number := number_of(cell)) != number:
                continue
            # As whole numbers throughout: a float would round those beyond 2**53.
            text = str(cell).strip()
            whole = int(text) if re.fullmatch(r"[+-]?\d{1,20}", text) else number
            if whole is None or not -_SEEDS <= whole < _SEEDS or whole % 1:
                raise RunTableError(
                    f"{frame.place(i)}: {column} is {text[:40]}; a seed must be a whole number of "
                    "64 bits with a sign"
                )
            seeds[i] = int(whole)
        return np.array(seeds, np.int64)

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
