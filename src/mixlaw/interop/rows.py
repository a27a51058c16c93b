"""Rows of a run that are the same, contradict each other, or are its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.interop.frame import joint_codes, plural
from mixlaw.runs import DONE, SWARM, RunTable

_LISTED = 5
_SAME = 1e-9
_COUNTS = ("num_params", "train_tokens", "rewarm")


@dataclass(frozen=True)
class Rows:
    """A table that is not yet one row per checkpoint.

    Attributes:
        table: as the source has it.
        step: (n,) of training; NaN where it is not known.
        place: of a row in the source, for messages.
    """

    table: RunTable
    step: np.ndarray
    place: Callable[[int], str]

    def select(self, rows: np.ndarray) -> Rows:
        place = self.place
        return Rows(self.table.select(rows), self.step[rows], lambda i: place(int(rows[i])))

    @property
    def progress(self) -> np.ndarray:
        """(n,) tokens, or steps in a run whose tokens are not all known; -1 where neither is."""
        tokens = self.table.train_tokens
        run = _codes(self.table.run)
        unknown = np.bincount(run, weights=np.isnan(tokens)) > 0
        found = np.where(unknown[run], self.step, tokens)
        return np.where(np.isnan(found), -1.0, found)


def listed(names: Iterable[str]) -> str:
    """The first of them."""
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def refuse_mixed_runs(rows: Rows) -> None:
    """Raises: RunTableError: rows of one run with two mixtures, or two sizes, are no checkpoints;
    unless its mixture changed during training."""
    table, run = rows.table, _codes(rows.table.run)
    first = np.unique(run, return_index=True)[1][run]
    static = np.array([schedule is None for schedule in table.schedule], bool)
    moved = np.abs(table.weights - table.weights[first]).max(axis=1) > _SAME
    grown = np.abs(table.num_params - table.num_params[first]) > 0
    for what, differs in (("mixtures", moved & static & static[first]), ("sizes", grown)):
        if (found := np.flatnonzero(differs)).size:
            i = int(found[0])
            raise RunTableError(
                f"{rows.place(int(first[i]))} and {rows.place(i)} are both of the run "
                f"{str(table.run[i])!r}, with different {what}; say with --run which column names "
                "a run, or which columns together, as in --run split+run"
            )


def merged(rows: Rows) -> tuple[Rows, list[str]]:
    """A row for each run and progress, with all that one of its rows says, and notes.

    A row that failed beside one that is done is another training of that run: it is left out.

    Raises: RunTableError: such rows say different things.
    """
    code = _points(rows)
    rows, notes = _without_failures(rows, code)
    code = _points(rows)
    order = np.argsort(code, kind="stable")
    begins = np.flatnonzero(np.diff(code[order], prepend=-1))
    if len(begins) == len(rows.table):
        return rows, notes
    table = rows.table
    names = list(_numbers(table))
    cells = np.stack(list(_numbers(table).values()), axis=1)[order]
    low, high = (f.reduceat(cells, begins, axis=0) for f in (np.fmin, np.fmax))
    wrong = np.argwhere(np.abs(high - low) > _SAME * np.abs(high))
    if len(wrong):
        group, j = wrong[0]
        members = np.flatnonzero(code == code[order[begins[group]]])
        found = _numbers(table)[names[j]][members]
        i, k = int(members[np.nanargmin(found)]), int(members[np.nanargmax(found)])
        raise _contradiction(rows, i, k, names[j], f"{low[group, j]:g}", f"{high[group, j]:g}")
    first = order[begins]
    schedule, role = table.schedule.copy(), table.role.copy()
    for i, k in zip(first[np.cumsum(np.diff(code[order], prepend=-1) > 0) - 1], order, strict=True):
        schedule[i] = _one(rows, "schedule", schedule, i, k, None)
        role[i] = _one(rows, "role", role, i, k, SWARM)
    said = dict(zip(names, low.T, strict=True))
    back = np.argsort(first)
    kept = rows.select(first[back])
    kept = replace(
        kept,
        table=replace(
            kept.table,
            values=np.stack([said[t] for t in table.targets], axis=1)[back],
            start=np.stack([said[f"start/{t}"] for t in table.targets], axis=1)[back],
            available_tokens=np.nan_to_num(
                np.stack([said[f"available_tokens/{d}"] for d in table.domains], axis=1)[back],
                nan=np.inf,
            ),
            schedule=schedule[first[back]],
            role=role[first[back]],
            **{name: said[name][back] for name in _COUNTS},
        ),
    )
    count = len(table) - len(first)
    return kept, [*notes, f"merged {plural(count, 'row')} that repeated another of the run"]


def _points(rows: Rows) -> np.ndarray:
    """(n,) codes, equal where run and progress are."""
    progress = np.unique(rows.progress, return_inverse=True)[1].reshape(-1)
    return joint_codes([_codes(rows.table.run), progress])


def _without_failures(rows: Rows, code: np.ndarray) -> tuple[Rows, list[str]]:
    """Without rows that are not done beside one that is, and a note of their runs."""
    done = rows.table.status == DONE
    again = np.bincount(code, weights=done)[code] > 0
    if not (out := again & ~done).any():
        return rows, []
    runs = listed(rows.table.run[out])
    note = f"{plural(int(out.sum()), 'row')} of a run that failed, and is there as done, left out"
    return rows.select(np.flatnonzero(~out)), [f"{note}: {runs}"]


def _numbers(table: RunTable) -> dict[str, np.ndarray]:
    """What rows say in numbers, each (n,); NaN where they say nothing."""
    unlimited = np.isinf(table.available_tokens)
    available = np.where(unlimited, np.nan, table.available_tokens)
    return {
        **dict(zip(table.targets, table.values.T, strict=True)),
        **{f"weight/{d}": w for d, w in zip(table.domains, table.weights.T, strict=True)},
        **{f"start/{t}": v for t, v in zip(table.targets, table.start.T, strict=True)},
        **{f"available_tokens/{d}": a for d, a in zip(table.domains, available.T, strict=True)},
        **{name: getattr(table, name) for name in _COUNTS},
        "seed": table.seed.astype(float),
    }


def _one(rows: Rows, name: str, cells: np.ndarray, i: int, k: int, nothing: Any) -> Any:
    """What two rows say together. Raises: RunTableError: each says something else."""
    if cells[i] == cells[k] or cells[k] == nothing:
        return cells[i]
    if cells[i] != nothing:
        raise _contradiction(rows, int(i), int(k), name, str(cells[i]), str(cells[k]))
    return cells[k]


def _contradiction(rows: Rows, i: int, k: int, name: str, low: str, high: str) -> RunTableError:
    return RunTableError(
        f"{rows.place(min(i, k))} and {rows.place(max(i, k))} are both of the run "
        f"{str(rows.table.run[i])!r}{_at(rows.progress[i])}, with {name} {low} and {high}; keep "
        "one, give the runs names of their own (--run), or say where the tokens seen are "
        "(--train-tokens)"
    )


def checkpoints(rows: Rows, *, every: bool, given: bool) -> tuple[Rows, list[str]]:
    """The last row of each run at which all was measured that is measured in it, or every such
    row; and notes.

    Args: given: whether rows are as people put them: then every row stays where `every` is asked.
    Raises: RunTableError: every row is asked, and tokens are not known.
    """
    table, run = rows.table, _codes(rows.table.run)
    known = ~np.isnan(table.values)
    measured = np.zeros((run.max() + 1, known.shape[1]), bool)
    np.logical_or.at(measured, run, known)
    many = np.bincount(run)[run] > 1
    if every:
        unknown = np.flatnonzero(np.isnan(table.train_tokens) & (many | (not given)))
        if unknown.size:
            raise RunTableError(
                f"{rows.place(int(unknown[0]))}: the tokens seen are not known, which all "
                "checkpoints of a run need; say where they are with --train-tokens, or "
                "--tokens-per-step, or take the last of each run with --checkpoints last"
            )
    whole = (known | ~measured[run]).all(axis=1) | (table.status != DONE)
    keep = np.ones(len(table), bool) if every and given else whole
    notes = []
    if not every:
        keep, notes = _last(rows, run, whole)
    if (~keep).any() and every:
        notes.append(
            f"{plural(int((~keep).sum()), 'checkpoint')} left out: not all targets were measured"
        )
    kept = rows.select(np.flatnonzero(keep))
    return kept, notes + _gaps(kept.table)


def _last(rows: Rows, run: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(n,) whether a row is the last whole one of its run, and notes of runs that went on."""
    progress = rows.progress
    order = np.lexsort((progress, run))
    ends = np.full(run.max() + 1, -1)
    ends[run[order]] = order  # the last assignment to a run stays
    found = np.full(run.max() + 1, -1)
    ready = order[whole[order]]
    found[run[ready]] = ready
    keep = np.zeros(len(run), bool)
    keep[found[found >= 0]] = True
    notes = [
        f"{plural(int(which.sum()), 'run')} {what}: {listed(rows.table.run[ends[which]])}"
        for which, what in (
            ((found >= 0) & (found != ends), "taken before their end, where all was measured last"),
            (found < 0, "left out, for their targets were never measured together"),
        )
        if which.any()
    ]
    return keep, notes


def _gaps(table: RunTable) -> list[str]:
    """A note of each target that was not measured everywhere."""
    missing = np.isnan(table.values) & (table.status == DONE)[:, None]
    return [
        f"{target} was not measured in {count} of {plural(len(table), 'row')}: "
        f"{listed(table.run[where])}"
        for target, where in zip(table.targets, missing.T, strict=True)
        if (count := int(where.sum()))
    ]


def _codes(names: np.ndarray) -> np.ndarray:
    seen: dict[str, int] = {}
    return np.fromiter(
        (seen.setdefault(name, len(seen)) for name in names.tolist()), int, len(names)
    )


def _at(progress: float) -> str:
    return "" if progress < 0 else f" at {progress:g} tokens or steps"
