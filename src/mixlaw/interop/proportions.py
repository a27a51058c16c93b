"""The mixtures of a source's rows, from its columns, schedules and plans, as shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.interop.columns import PERCENT, RELATIVE, Columns
from mixlaw.interop.frame import Frame, plural
from mixlaw.interop.mixtures import ROUNDING, WHOLE, matrix_of, unit_of_rows, within
from mixlaw.interop.rows import listed
from mixlaw.interop.targets import no_such
from mixlaw.mixture import SUM_TOLERANCE
from mixlaw.runs.cells import schedule_of, with_dose
from mixlaw.schedule import Schedule

_WEIGHT = "weight/"


class Mixtures:
    """What is known of the mixtures of a frame's rows.

    Attributes:
        domains: M names.
        without: (n,) rows whose mixture nothing tells.
        schedules: (n,) Schedule, None for a static row.
    """

    def __init__(self, frame: Frame, columns: Columns, plan: Sequence[Mapping[str, Any]]):
        """plan: of each row, the cells of its planned run."""
        self._frame, self._unit, self._plan = frame, columns.unit, plan
        domains, logged = self._logged(columns)
        given = self._schedules(columns)
        named = [name for s in given if s is not None for name in s.domains]
        named += [
            key[len(_WEIGHT) :]
            for cells in _distinct(plan)
            for key in cells
            if key.startswith(_WEIGHT)
        ]
        self.domains = tuple(dict.fromkeys((*domains, *named)))
        more = np.full((len(frame), len(self.domains) - len(domains)), np.nan)
        self._logged_numbers = np.concatenate([logged, more], axis=1)
        self._has = ~np.isnan(self._logged_numbers).all(axis=1)
        self._given = given
        self.schedules = np.empty(len(frame), object)
        self.schedules[:] = [None if s is None or s.is_static else s for s in given]
        planned = np.array([any(k.startswith(_WEIGHT) for k in cells) for cells in plan], bool)
        staged = np.array([s is not None for s in given], bool)
        self._planned = planned & ~self._has & ~staged
        self.without = ~(self._has | staged | planned)

    def refuse_or_note(self, run: np.ndarray, *, planned: bool) -> str:
        """What is said of runs without a mixture that are left out.

        Args: run: (n,) ids; planned: whether the source may hold runs that mixlaw did not plan.
        Raises: RunTableError: they may not be left out, or no other is there.
        """
        names = list(dict.fromkeys(run[self.without].tolist()))
        if planned and not self.without.all():
            return (
                f"{plural(len(names), 'run')} without a mixture, and not planned, left out: "
                f"{listed(names)}"
            )
        raise RunTableError(
            f"{len(names)} of {len(set(run.tolist()))} runs say no mixture: {listed(names)} "
            f"({self._frame.place(int(np.argmax(self.without)))}); say where it is with --mixture, "
            "give the folder of their design with --design, or leave these runs out of the source"
        )

    def shares(self) -> tuple[np.ndarray, list[str]]:
        """(n, M), each row on the simplex, and notes. Raises: RunTableError: other numbers."""
        out = np.zeros((len(self._frame), len(self.domains)))
        staged = np.array([s is not None for s in self._given], bool)
        notes = []
        logged = np.flatnonzero(self._has & ~staged)
        if logged.size:
            place = self._frame.place
            out[logged], note = rescaled(
                self._logged_numbers[logged],
                self.domains,
                self._unit,
                lambda i: place(int(logged[i])),
            )
            notes += [note] if note else []
        for i in np.flatnonzero(staged):
            out[i] = self._dose(int(i))
        planned = self._plan_shares()
        out[self._planned] = planned[self._planned]
        differs = self._has & (np.abs(out - planned).max(axis=1, initial=0.0) > ROUNDING)
        if differs.any():
            i = int(np.flatnonzero(differs)[0])
            notes.append(
                f"{plural(int(differs.sum()), 'row')} with another mixture than was planned, "
                f"taken as logged: {self._frame.place(i)}"
            )
        return out, notes

    def _logged(self, columns: Columns) -> tuple[tuple[str, ...], np.ndarray]:
        """Domains and numbers (n, M) of the columns. Raises: RunTableError: there are none such."""
        frame, mixture = self._frame, columns.mixture
        for name in [mixture] if isinstance(mixture, str) else mixture.values():
            if name not in frame.columns:
                raise RunTableError(no_such(name, frame.columns, "for the mixture"))
        if isinstance(mixture, str):
            return matrix_of(frame, mixture, columns.rename)
        numbers = [frame.numbers(name) for name in mixture.values()]
        return tuple(mixture), np.stack(numbers, axis=1) if numbers else np.empty((len(frame), 0))

    def _schedules(self, columns: Columns) -> list[Schedule | None]:
        """Of each row. Raises: RunTableError: a cell that is none."""
        name, frame = columns.others.get("schedule"), self._frame
        if name is None:
            return [None] * len(frame)
        if name not in frame.columns:
            raise RunTableError(no_such(name, frame.columns, "for the schedules"))
        cells = frame.columns[name].tolist()
        return [
            self._at(i, lambda i=i: schedule_of({"schedule": cells[i]}, i, ROUNDING))
            for i in range(len(frame))
        ]

    def _dose(self, i: int) -> np.ndarray:
        """Shares of a row as its schedule has them. Raises: RunTableError: the row has others."""
        numbers = self._logged_numbers[i].tolist()
        row = {
            f"{_WEIGHT}{name}": None if value != value else value
            for name, value in zip(self.domains, numbers, strict=True)
        }
        dosed = self._at(i, lambda: with_dose(row, i, self._given[i], ROUNDING))
        shares = np.array([float(dosed[f"{_WEIGHT}{name}"] or 0.0) for name in self.domains])
        return shares / shares.sum()

    def _at(self, i: int, read: Callable[[], Any]) -> Any:
        """What is read of a row. Raises: RunTableError: with its place in the source."""
        try:
            return read()
        except RunTableError as error:
            said = str(error).removeprefix(f"row {i + 1}: ")
            raise RunTableError(f"{self._frame.place(i)}: {said}") from error

    def _plan_shares(self) -> np.ndarray:
        """(n, M) as planned; NaN in rows that were not."""
        out = np.full((len(self._frame), len(self.domains)), np.nan)
        for i, cells in enumerate(self._plan):
            if cells:
                out[i] = [float(cells.get(f"{_WEIGHT}{name}") or 0.0) for name in self.domains]
        return out


def rescaled(
    weights: np.ndarray, domains: tuple[str, ...], unit: str, place: Callable[[int], str]
) -> tuple[np.ndarray, str | None]:
    """(n, M) shares, each row on the simplex, and a note where they were rescaled.

    Args:
        weights: (n, M) numbers of that unit, NaN where there is none: no share. No row is empty.
        place: of a row, for messages.
    Raises: RunTableError: a negative number, or a sum that rounding does not explain.
    """
    given = np.where(np.isnan(weights), 0.0, weights)
    wrong = np.argwhere(~(np.isfinite(given) & (given >= 0)))
    if len(wrong):
        i, j = wrong[0]
        raise RunTableError(
            f"{place(int(i))}: the share of {domains[j]!r} is {given[i, j]:g}; it must be finite "
            "and >= 0"
        )
    totals = given.sum(axis=1)
    if unit == RELATIVE:
        if (nothing := np.flatnonzero(totals <= 0)).size:
            raise RunTableError(f"{place(int(nothing[0]))}: no domain has a weight above 0")
        return given / totals[:, None], None
    whole = WHOLE[unit]
    off = np.abs(totals / whole - 1)
    worst = int(np.argmax(off))
    if off[worst] > within():
        raise RunTableError(
            f"{place(worst)}: the shares sum to {totals[worst]:.6g}; they must sum to {whole:g} "
            f"within {ROUNDING * whole:g}, as far as sources round. {_remedy(weights, unit)}"
        )
    shares = given / totals[:, None]
    rounded = off > SUM_TOLERANCE
    if not rounded.any():
        return shares, None
    ends = f"{totals[rounded].min():.6g}", f"{totals[rounded].max():.6g}"
    summed = ends[0] if ends[0] == ends[1] else f"between {ends[0]} and {ends[1]}"
    return shares, (
        f"the shares of {rounded.sum()} of {plural(len(totals), 'row')} were rescaled to sum to 1; "
        f"they summed to {summed}"
    )


def _remedy(weights: np.ndarray, unit: str) -> str:
    if unit != PERCENT and unit_of_rows(weights) == PERCENT:
        return "All rows sum to 100: say --unit percent"
    return "If they are weights of any sum, say --unit relative; else mend the row, or leave it out"


def _distinct(plan: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({id(cells): cells for cells in plan}.values())
