"""Which name of a source means what, guessed from the names and from what the columns hold."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.interop import roles
from mixlaw.interop.columns import ALL, LAST, RELATIVE, SHARES, Columns
from mixlaw.interop.frame import Frame, count_of, number_of
from mixlaw.interop.logged import LoggedRun
from mixlaw.interop.mixtures import (
    LEAST_ROWS,
    groups,
    is_share,
    matrix_of,
    sureness,
    unit_of,
    unit_of_rows,
    whole_columns,
    windows,
)
from mixlaw.interop.rows import listed
from mixlaw.interop.targets import bare, guess_targets, is_target, matches, no_such, run_parts

_NAMES = ("name", "display_name", "run_name")
_STATUS = ("status", "run_status")
"""Columns that say whether a run failed, whatever words they hold; a "state" may be another."""
_NOTED = 3
"""Notes on what was read that an error repeats."""
_SHOWN = 6
"""Columns of which a message names all."""
_LIKELY, _SURELY = 1, 2
"""Of `sureness`: the words may speak, or speak, of a mixture."""


@dataclass(frozen=True)
class Hints:
    """What a user says of the columns; the rest is guessed.

    Attributes:
        mixture: "config.mixture.*", where `*` stands for the domain; or one column that holds all.
        targets: "eval/*/loss=loss/*" (source = target, a pattern or one name); without "=" a column
            or a target of the guess, to take only these.
        run, seed: columns; several that name a run together as "split+run".
        num_params, train_tokens, tokens_per_step: columns, or a number for all runs.
        unit, checkpoints: see `Columns`.
        rename: domain or target in the source -> its name in the study.
    """

    mixture: str | None = None
    targets: tuple[str, ...] = ()
    run: str | None = None
    num_params: str | float | None = None
    train_tokens: str | float | None = None
    tokens_per_step: str | float | None = None
    seed: str | int | None = None
    unit: str | None = None
    checkpoints: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)


def guess(
    runs: Frame | Iterable[LoggedRun], hints: Hints | None = None, *, planned: bool = False
) -> Columns:
    """What the columns of a source mean.

    Args:
        runs: of each series the last value is enough.
        hints: what the user says; believed, if it is there.
        planned: whether the runs were planned with mixlaw, and need not say their mixtures.
    Raises: RunTableError: a hint of no column; no mixture or no target found, or several that may
        be the mixture: with what there is.
    """
    frame = runs if isinstance(runs, Frame) else Frame.of_runs(runs)
    try:
        return _Guess(frame, hints or Hints()).columns(planned)
    except RunTableError as error:
        if not frame.notes:
            raise
        more = f" and {len(frame.notes) - _NOTED} more" if len(frame.notes) > _NOTED else ""
        raise RunTableError(f"{error} (Noted: {'; '.join(frame.notes[:_NOTED])}{more})") from error


class _Guess:
    """One guess; columns that are something already are `taken`."""

    def __init__(self, frame: Frame, hints: Hints):
        self.frame, self.hints = frame, hints
        self.taken: set[str] = set()

    def columns(self, planned: bool) -> Columns:
        """In the order in which one guess helps the next: what is named plainly comes first."""
        self._refuse_text()
        hints, counts = self.hints, self._counts()
        others = self._own() if self.frame.table else {}
        self.taken |= {str(c) for c in (*counts.values(), *others.values()) if c is not None}
        said = set(matches(hints.mixture, self.frame.columns)) if hints.mixture else set()
        targets = guess_targets(self.frame, self.taken | said, hints.targets)
        others = {k: c for k, c in others.items() if k[:6] != "start/" or k[6:] in targets}
        self.taken |= {bare(column) for column in targets.values()}
        mixture, unit = self._mixture(planned)
        self.taken |= set(mixture.values()) if isinstance(mixture, Mapping) else {mixture}
        run = self._run(mixture, counts)
        if self.frame.table and "label" not in others and (name := self._label(run)) is not None:
            others["label"] = name
        guessed = Columns(
            mixture=mixture,
            targets=self._targets(targets),
            run=run,
            **counts,
            unit=unit,
            checkpoints=hints.checkpoints or self._checkpoints(counts),
            others=others,
            rename=dict(hints.rename) if isinstance(mixture, str) else {},
        )
        self._check_renames(targets, mixture)
        return guessed

    def _refuse_text(self) -> None:
        """Raises: RunTableError: text among the numbers of a table's targets or mixtures."""
        for name in self.frame.columns if self.frame.table else ():
            if name.startswith("weight/") and not name.removeprefix("weight/").strip():
                raise RunTableError(f"the column {name!r} names no domain; name it weight/<domain>")
            if self.frame.is_mixed(name) and (is_target(name) or is_share(name)):
                self.frame.numbers(name)

    def _counts(self) -> dict[str, Any]:
        """Columns, or numbers for all runs, of what is one number."""
        frame, hints = self.frame, self.hints
        counts: dict[str, Any] = {
            "num_params": _or(hints.num_params, lambda: roles.params_column(frame)),
            "train_tokens": _or(hints.train_tokens, lambda: roles.tokens_column(frame)),
            "tokens_per_step": _or(
                hints.tokens_per_step, lambda: roles.counted(frame, roles.TOKENS_PER_STEP)
            ),
            "seed": _or(hints.seed, lambda: roles.find(frame, roles.SEED)),
            "step": roles.counted(frame, roles.STEPS) if frame.table else None,
        }
        for name, found in counts.items():
            if isinstance(found, str) and found not in frame.columns:
                number = (number_of if name == "seed" else count_of)(found)
                if number is None or np.isnan(number):
                    raise RunTableError(no_such(found, frame.columns, f"for {name}"))
                counts[name] = int(found) if name == "seed" and found.isdigit() else number
            said = counts[name]
            if name != "seed" and isinstance(said, int | float) and not 0 < said < np.inf:
                raise RunTableError(
                    f"{name} is said to be {found}; it must be a number above 0, or a column"
                )
        if hints.tokens_per_step is not None and hints.train_tokens is None:
            counts["train_tokens"] = None
        if counts["train_tokens"] is not None:
            counts["tokens_per_step"] = None
        return counts

    def _own(self) -> dict[str, str]:
        """The further columns of a run table of mixlaw, where they hold what they do there."""
        frame = self.frame
        found = [c for c in frame.columns if c.startswith(("available_tokens/", "start/"))]
        found += [name for name in ("label", "role", "rewarm") if name in frame.columns]
        if "schedule" in frame.columns:
            cells = [
                cell for cell in frame.columns["schedule"].tolist() if isinstance(cell, list | str)
            ]
            found += ["schedule"] * any(isinstance(c, list) or c[:1] == "[" for c in cells)
        others = {name: name for name in found}
        for name in roles.find_all(frame, roles.STATUS, self.taken):
            words = {cell for cell in frame.texts(name) if cell is not None}
            if roles.snake(name) in _STATUS or all(w.lower() in roles.STATUSES for w in words):
                return others | {"status": name}
        return others

    def _mixture(self, planned: bool) -> tuple[dict[str, str] | str, str]:
        """Where the mixture lies, and its unit.

        Raises: RunTableError: nowhere, or it is not clear where; shows what there is.
        """
        found = self._said_mixture() if self.hints.mixture else self._found_mixture()
        if found is None and planned:
            return {}, SHARES
        if found is None:
            raise RunTableError(
                "no columns are the shares of a mixture by their names or sums; say where they are "
                "with --mixture, as in --mixture 'config.mixture.*' (* stands for the domain), or "
                "give the folder of their design with --design. "
                f"{self._nearly()}{self._hindered()}There are {self._numbers()}"
            )
        if isinstance(found, str):
            _, weights = matrix_of(self.frame, found, self.hints.rename)
            return found, self.hints.unit or unit_of_rows(weights)
        unit = self.hints.unit or unit_of(self.frame, list(found.values())) or SHARES
        return self._renamed(found), unit

    def _said_mixture(self) -> dict[str, str] | str:
        """What the hint says. Raises: RunTableError: it fits no column."""
        said, frame = str(self.hints.mixture), self.frame
        patterns = (said, f"{said}.*", f"{said}/*")
        if "*" in said:  # a tool may write a slash where another writes a dot
            patterns = (said, said.replace(".*", "/*"), said.replace("/*", ".*"))
        for pattern in patterns:
            if found := matches(pattern, frame.columns):
                if "*" in pattern:
                    return {domain: column for column, domain in found.items()}
                return said
        parts = [part.strip() for part in said.split(",")]
        if len(parts) > 1 and all(part in frame.columns for part in parts):
            heads = [parts[0][: m.end()] for m in re.finditer(r"[/._:\-]", parts[0])]
            shared = max((h for h in heads if all(p.startswith(h) for p in parts)), default="")
            return {part.removeprefix(shared): part for part in parts}
        raise RunTableError(no_such(said, frame.columns, "for the mixture"))

    def _found_mixture(self) -> dict[str, str] | str | None:
        """By names and sums, the surest first; None if there is nothing.

        Raises: RunTableError: several places, none surer than the others.
        """
        named = groups(self.frame, self.taken)
        if named and sureness(named[0][0]) > 3:
            return named[0][1]
        sums = [n for n in named if unit_of(self.frame, list(n[1].values()))]
        for least in (_SURELY, _LIKELY):
            if found := self._only([(p, c) for p, c in sums if sureness(p) >= least]):
                return found
            if least == _SURELY and (whole := whole_columns(self.frame, self.taken)):
                return self._one([(name, name) for name in whole])
        if found := self._only(sums):
            return found
        if apart := windows(self.frame, self.taken):
            return self._one([(_shown(list(columns)), columns) for columns in apart])
        # Columns that are called a mixture and do not sum to one: what is wrong is said there.
        least = _LIKELY if self.hints.unit == RELATIVE else _SURELY + 1
        return self._only([(p, c) for p, c in named if sureness(p) >= least and self._positive(c)])

    def _only(self, found: list[tuple[str, dict[str, str]]]) -> dict[str, str] | None:
        """The columns of patterns that stand for the same mixture; None if there are none.

        Raises: RunTableError: they stand for several.
        """
        best: dict[frozenset[str], tuple[str, dict[str, str]]] = {}
        for pattern, columns in sorted(found, key=lambda item: _plainness(*item), reverse=True):
            best.setdefault(frozenset(columns.values()), (pattern, columns))
        if not best:
            return None
        top = max(sureness(pattern) for pattern, _ in best.values())
        order = list(self.frame.columns)
        ready = [item for item in best.values() if sureness(item[0]) == top]
        ready.sort(key=lambda item: min(map(order.index, item[1].values())))
        if len(ready) > 1 and all(self._same(ready[0][1], columns) for _, columns in ready[1:]):
            ready = ready[:1]
        return self._one(ready)

    def _same(self, first: Mapping[str, str], second: Mapping[str, str]) -> bool:
        """Whether two sets of columns hold one mixture under the same names."""
        cells = self.frame.columns
        return set(first) == set(second) and all(
            np.array_equal(
                cells[first[d]], cells[second[d]], equal_nan=cells[first[d]].dtype != object
            )
            for d in first
        )

    def _one(self, found: list[tuple[str, Any]]) -> Any:
        """The only one. Raises: RunTableError: there are several."""
        if len(found) > 1:
            raise RunTableError(
                f"the mixture may be in {' or in '.join(repr(name) for name, _ in found)}; say "
                f"which with --mixture, as in --mixture {found[0][0]!r}"
            )
        return found[0][1]

    def _positive(self, columns: Mapping[str, str]) -> bool:
        return all(np.nanmin(self.frame.numbers(c), initial=0.0) >= 0 for c in columns.values())

    def _nearly(self) -> str:
        """Columns that may be called a mixture, and are none by their sums."""
        for pattern, columns in groups(self.frame, self.taken):
            if sureness(pattern) >= _LIKELY and self._positive(columns):
                totals = np.nansum([self.frame.numbers(c) for c in columns.values()], axis=0)
                return (
                    f"{pattern} sum to between {totals.min():.4g} and {totals.max():.4g}; if they "
                    f"are weights of any sum, say --mixture '{pattern}' --unit relative. "
                )
        return ""

    def _hindered(self) -> str:
        """Why sums may not have said where the mixture is: a cell of text, or too few rows."""
        frame = self.frame
        for name in frame.columns if frame.table else ():
            if name not in self.taken and frame.is_mixed(name):
                try:
                    frame.numbers(name, counts=True)
                except RunTableError as error:
                    return f"{error}. "
        if len(frame) < LEAST_ROWS:
            return f"Sums say nothing of fewer than {LEAST_ROWS} rows. "
        return ""

    def _numbers(self) -> str:
        names = [n for n in self.frame.columns if n not in self.taken and self.frame.is_numeric(n)]
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return f"{', '.join(names[:10])}{more}" if names else "no other columns of numbers"

    def _run(self, mixture: Mapping[str, str] | str, counts: Mapping[str, Any]) -> str | None:
        frame = self.frame
        if self.hints.run is not None:
            run_parts(frame, self.hints.run)
            return self.hints.run
        if not frame.table:
            return None
        weights = content_of(frame, mixture)
        same = [weights] if weights is not None else []
        same += [
            frame.codes(column)
            for column in (counts["num_params"], counts["seed"])
            if isinstance(column, str)
        ]
        along = [c for c in (counts["train_tokens"], counts["step"]) if isinstance(c, str)]
        progress = frame.numbers(along[0], counts=True) if along else None
        same = same or [np.zeros(len(frame), int)]
        return roles.run_column(frame, same, progress, self.taken)

    def _label(self, run: str | None) -> str | None:
        """A column of what people call the runs, beside their ids."""
        names = roles.find_all(self.frame, _NAMES, self.taken)
        free = [n for n in names if run is None or n not in run_parts(self.frame, run)]
        texts = [n for n in free if self.frame.columns[n].dtype == object]
        return texts[0] if texts else None

    def _checkpoints(self, counts: Mapping[str, Any]) -> str:
        """All rows that people put into a table, where they can be told apart; else the last."""
        if not self.frame.table or self.frame.logged:
            return LAST
        by_steps = counts["step"] is not None and counts["tokens_per_step"] is not None
        return ALL if isinstance(counts["train_tokens"], str) or by_steps else LAST

    def _renamed(self, mixture: Mapping[str, str]) -> dict[str, str]:
        """Raises: RunTableError: two domains get one name."""
        out: dict[str, str] = {}
        for name, column in mixture.items():
            new = self.hints.rename.get(name, name.strip())
            if new in out:
                said = "--rename makes" if self.hints.rename else "the names make"
                raise RunTableError(
                    f"{said} {new!r} of both {out[new]!r} and {column!r}; each domain "
                    "needs a name of its own"
                )
            out[new] = column
        return out

    def _targets(self, targets: Mapping[str, str]) -> dict[str, str]:
        """Renamed, by their whole names or by what follows the metric."""
        rename, out = self.hints.rename, {}
        for target, column in targets.items():
            metric, _, name = target.partition("/")
            new = rename.get(target, f"{metric}/{rename.get(name, name)}")
            if new in out:
                raise RunTableError(
                    f"--rename makes {new!r} of both {out[new]!r} and {column!r}; each target "
                    "needs a name of its own"
                )
            out[new] = column
        return out

    def _check_renames(self, targets: Mapping[str, str], mixture: Mapping[str, str] | str) -> None:
        """Raises: RunTableError: a name that is neither a domain nor a target of the source."""
        known = {*targets, *(target.partition("/")[2] for target in targets)}
        if isinstance(mixture, str):
            known |= set(matrix_of(self.frame, mixture, {})[0])
        else:
            back = {new: old for old, new in self.hints.rename.items()}
            known |= {back.get(name, name) for name in mixture}
        for name in self.hints.rename:
            if name not in known:
                near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise RunTableError(
                    f"--rename {name}=...: the source has no such domain or target; {hint}it has "
                    f"{listed(sorted(known))}"
                )


def _or(said: Any, otherwise: Callable[[], Any]) -> Any:
    """What a hint says, be it 0; else what is guessed."""
    return otherwise() if said is None else said


def _shown(names: Sequence[str]) -> str:
    """Columns for a message: as --mixture takes them, but for a long list."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, ... {names[-1]} ({len(names)} columns)"


def _plainness(pattern: str, columns: Mapping[str, str]) -> tuple[int, ...]:
    """Of patterns for the same columns the greatest leaves the domains' own names: it has the word
    for a mixture, cuts at dots and slashes, and takes no part that all names merely share."""
    nested = sum(name.count(".") + name.count("/") for name in columns)
    return min(sureness(pattern), _SURELY), -nested, sureness(pattern), -len(pattern)


def content_of(frame: Frame, mixture: Mapping[str, str] | str) -> np.ndarray | None:
    """(n,) codes, equal where the mixtures of rows are; None without columns of mixtures."""
    if not mixture:
        return None
    if isinstance(mixture, str):
        return frame.codes(mixture)
    numbers = [np.nan_to_num(frame.numbers(c), posinf=-1.0) for c in mixture.values()]
    cells = np.stack(numbers, axis=1)
    rows = np.ascontiguousarray(np.round(cells, 9) + 0.0)  # + 0.0: there is a zero below zero
    as_bytes = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
    return np.unique(as_bytes, return_inverse=True)[1].reshape(-1)
