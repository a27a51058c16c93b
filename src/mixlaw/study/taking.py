"""Finished runs of others, taken into the table of a study."""

from __future__ import annotations

import csv
import difflib
import json
import math
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlaw.errors import RunTableError, StudyError
from mixlaw.files import atomic_path
from mixlaw.plan.proposals import SAME_SHARES
from mixlaw.runs import DONE, UNITS, RunTable, higher_is_better
from mixlaw.study.deciding import named_targets
from mixlaw.study.folder import StudyFolder
from mixlaw.study.planning import read_asked, still_pending, write_asked

Row = Mapping[str, Any]

SAME_TOKENS = 1e-3
"""Relative: trainers count whole steps."""
CELLS = {"run", "label", "role", "seed", "status", "num_params", "train_tokens"}
CELLS |= {"schedule", "rewarm"}


@dataclass(frozen=True, eq=False)
class Taken:
    """What became of runs that a study was given.

    Attributes:
        runs: the study's table now.
        added: ids of given runs that are new.
        changed: those with other rows than before.
        completed: those with other rows than before that keep values which are not given now.
        same: those as before.
        kept: ids of the runs that the table had and was not given.
        answered: how many runs that were asked for have arrived.
        notes: what else the user should know.
    """

    runs: RunTable
    added: tuple[str, ...]
    changed: tuple[str, ...]
    completed: tuple[str, ...]
    same: tuple[str, ...]
    kept: tuple[str, ...]
    answered: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the table."""
        return {**{k: v for k, v in vars(self).items() if k != "runs"}, "rows": len(self.runs)}


def take(study: StudyFolder, table: RunTable) -> Taken:
    """As `Study.take`; the caller has locked the study's folder."""
    path = table_of(study)
    _refuse_elsewhere(study, path)
    old = _read(study, path) if path.exists() else None
    before = () if old is None else old.domains
    known = tuple(dict.fromkeys((*before, *study.config.domains)))
    notes = _refuse_strangers(study.file, table.domains, known)
    former = {} if old is None else _by_run(old)
    given = _by_run(table)
    joined = {run: _joined(former.get(run, []), rows) for run, rows in given.items()}
    joined, left_out = _measured(study, joined, table.targets)
    same = [run for run in joined if run in former and _alike(former[run], joined[run])]
    merged = former | {run: rows for run, rows in joined.items() if run not in same}
    order = {f"weight/{name}": 0.0 for name in known or table.domains}
    runs = RunTable.from_rows({**order, **row} for rows in merged.values() for row in rows)
    others = [run for run in joined if run in former and run not in same]
    completed = [run for run in others if _targets(joined[run]) - _targets(given[run])]
    asked = read_asked(study.folder)
    pending = still_pending(asked, runs.trained().static())
    notes = (*notes, *left_out, *_changes(former, joined, others))
    notes = (*notes, *_completions(given, joined, completed))
    notes += _keep_original(path) if old is not None else ()
    runs.write(path)
    if asked:
        write_asked(study.folder, pending)
    return Taken(
        runs,
        added=tuple(run for run in joined if run not in former),
        changed=tuple(run for run in others if run not in completed),
        completed=tuple(completed),
        same=tuple(same),
        kept=tuple(run for run in former if run not in given),
        answered=len(asked) - len(pending),
        notes=notes,
    )


def table_of(study: StudyFolder) -> Path:
    """The file of the study's runs; of a link, what it points to.

    Raises: StudyError: the study trains its runs itself.
    """
    if study.config.table is None:
        raise StudyError(
            f"{study.file} trains its runs itself: mixlaw train {shlex.quote(str(study.folder))}; "
            "only a study of a table can be told of others. Results of a design that another "
            "trainer did go into the folder of their configs: mixlaw import RESULTS --design "
            "CONFIGS --into CONFIGS"
        )
    path = study.folder / study.config.table
    return path.resolve() if path.is_symlink() else path


def _refuse_elsewhere(study: StudyFolder, path: Path) -> None:
    """Raises: StudyError: the table would be written where the study's folder is not."""
    inside = path.resolve().is_relative_to(study.folder.resolve())
    linked = (study.folder / (study.config.table or "")).is_symlink() and path.exists()
    if not inside and not linked:  # a link to a table is the user's own word
        raise StudyError(
            f"{study.file} names the table {study.config.table}, which lies outside of "
            f"{study.folder} (at {path.resolve()}): there mixlaw reads, and never writes. Put a "
            "copy into the folder, and let the study say table: runs.csv"
        )


def _read(study: StudyFolder, path: Path) -> RunTable:
    try:
        return RunTable.read(path)
    except RunTableError as error:
        raise RunTableError(
            f"{error}; if it is a sheet of another form, let {study.file} say table: runs.csv, and "
            f"import the sheet: mixlaw import {shlex.quote(str(path))} --into "
            f"{shlex.quote(str(study.folder))}"
        ) from error


def _refuse_strangers(file: Path, found: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """What there is to say of domains that differ. Raises: StudyError: some are of no study."""
    strangers = [name for name in found if name not in known]
    if known and strangers:
        unused = [name for name in known if name not in found] or list(known)
        near = difflib.get_close_matches(strangers[0], unused, n=1, cutoff=0.0)[0]
        raise StudyError(
            f"{file}: the study has the domains {list(known)}, and the runs name {strangers}; say "
            f"which is which, for instance --rename {_quoted(f'{strangers[0]}={near}')}"
        )
    if absent := [name for name in known if name not in found]:
        return (f"none of these runs names {absent}: their shares of it are taken as 0",)
    return ()


def _quoted(text: str) -> str:
    return shlex.quote(" ".join(text.split()))


def _measured(
    study: StudyFolder, given: Mapping[str, list[Row]], found: Sequence[str]
) -> tuple[dict[str, list[Row]], tuple[str, ...]]:
    """The rows that have every loss that the study names, and a note on the others.

    Raises: StudyError: none has.
    """
    named = [target for target in named_targets(study.config) if not higher_is_better(target)]

    def lacking(row: Row) -> bool:
        return row["status"] == DONE and any(row.get(target) is None for target in named)

    left_out = [row for rows in given.values() for row in rows if lacking(row)]
    if not left_out:
        return dict(given), ()
    missing = [t for t in named if any(row.get(t) is None for row in left_out)]
    whole = {
        run: kept for run, rows in given.items() if (kept := [r for r in rows if not lacking(r)])
    }
    if not whole:
        raise StudyError(_none_measured(study.file, named, missing, found))
    text = (
        f"left out, as a law needs every loss that the study names: {len(left_out)} rows of "
        f"runs {sorted({row['run'] for row in left_out})} without {missing}"
    )
    return whole, (text,)


def _none_measured(
    file: Path, named: Sequence[str], missing: Sequence[str], found: Sequence[str]
) -> str:
    for target in missing:
        if target not in found:
            metric = target.partition("/")[0]
            same_unit = [name for name in found if name.partition("/")[0] == metric]
            near = difflib.get_close_matches(target, same_unit, n=1, cutoff=0.4)
            hint = (
                f"did you mean {near[0]}? import with --rename {near[0]}={target}"
                if near
                else f"import it with --target 'NAME IN THE SOURCE={target}', or first from where "
                "it lies: then these go beside it"
            )
            return f"{file} names {target}, and the runs measured {list(found)}; {hint}"
    return (
        f"{file} names {list(named)}, and every run lacks a value of {list(missing)}; a law needs "
        "all of them of every run"
    )


# Rows of one run


def _joined(former: Sequence[Row], given: Sequence[Row]) -> list[Row]:
    """The rows of a run: given ones, with what former ones have beside them.

    A former row that fits none stays if it has a target that is not given.
    """
    if any(row["status"] != DONE for row in (*former, *given)):
        return list(given)
    left, out = list(former), []
    for row in reversed(given):  # tokens that are not known are those of the end
        fitting = [i for i, other in enumerate(left) if _same_point(other, row)]
        out.insert(0, _filled(row, left.pop(fitting[-1])) if fitting else row)
    told = _targets(given)
    others = [row for row in left if _targets([row]) - told and _same_mixture(row, given[0])]
    if not others:
        return out
    return sorted((*others, *out), key=lambda row: row["train_tokens"] or math.inf)


def _filled(row: Row, former: Row) -> Row:
    """A row, and what only the former one knows."""
    unsaid = {"seed": 0, "role": "swarm", "label": row["run"]}
    told = {k: v for k, v in row.items() if v is not None and unsaid.get(k) != v}
    rest = {k: v for k, v in former.items() if v is not None and not k.startswith("weight/")}
    return {**row, **rest, **told}


def _same_point(one: Row, other: Row) -> bool:
    """Whether two rows of a run are of one checkpoint, as far as they tell."""
    a, b = one["train_tokens"], other["train_tokens"]
    near = a is None or b is None or math.isclose(a, b, rel_tol=SAME_TOKENS)
    return near and _same_mixture(one, other)


def _same_mixture(one: Row, other: Row) -> bool:
    keys = {key for row in (one, other) for key in row if key.startswith("weight/")}
    schedules = {row["schedule"] for row in (one, other) if row.get("schedule")}
    return len(schedules) < 2 and all(
        abs((one.get(k) or 0.0) - (other.get(k) or 0.0)) <= SAME_SHARES for k in keys
    )


def _targets(rows: Iterable[Row]) -> set[str]:
    """What was measured in any of the rows."""
    cells = ((key, value) for row in rows for key, value in row.items())
    return {key for key, value in cells if value is not None and key.partition("/")[0] in UNITS}


def _alike(one: Sequence[Row], other: Sequence[Row]) -> bool:
    """Whether two lists of rows say the same, but for the last bits."""

    def said(row: Row) -> dict[str, Any]:
        zero = (None, 0.0)  # a share of none may be left unsaid
        return {
            k: v for k, v in row.items() if v not in (zero if k.startswith("weight/") else (None,))
        }

    def close(a: Any, b: Any) -> bool:
        if isinstance(a, float | int) and isinstance(b, float | int):
            return math.isclose(a, b, rel_tol=1e-9)
        return a == b

    pairs = [(said(a), said(b)) for a, b in zip(one, other, strict=False)]
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(close(a[key], b[key]) for key in a) for a, b in pairs
    )


# What there is to say


def _changes(
    former: Mapping[str, Sequence[Row]], now: Mapping[str, Sequence[Row]], changed: Sequence[str]
) -> tuple[str, ...]:
    """Notes on runs that may be others under the same ids, and on rows that are gone."""
    notes = []
    if moved := [run for run in changed if not _same_mixture(former[run][0], now[run][0])]:
        notes.append(
            f"{len(moved)} runs had other mixtures before ({some(moved)}): if these are other "
            "runs under the same ids, say with --run which column tells them apart"
        )
    if fewer := sum(max(0, len(former[run]) - len(now[run])) for run in changed):
        notes.append(f"{fewer} rows of checkpoints are replaced by none: these are not given now")
    return tuple(notes)


def _completions(
    given: Mapping[str, Sequence[Row]],
    now: Mapping[str, Sequence[Row]],
    completed: Sequence[str],
) -> tuple[str, ...]:
    """A note on values that are not given and stay."""
    if not completed:
        return ()
    kept = sorted({name for run in completed for name in _targets(now[run]) - _targets(given[run])})
    return (f"{len(completed)} runs ({some(completed)}) keep what is not given now: {some(kept)}",)


def _keep_original(path: Path) -> tuple[str, ...]:
    """Copy a table that has columns of the user's own, which a run table does not carry, to a file
    that is never written over; a note on it."""
    lost = [name for name in _column_names(path) if name not in CELLS and not _is_carried(name)]
    if not lost:
        return ()
    number, content = 1, path.read_bytes()
    while True:
        end = "" if number == 1 else f"-{number}"
        copy = path.with_name(f"{path.stem}.original{end}{path.suffix}")
        if not copy.exists():
            with atomic_path(copy) as temporary:
                shutil.copyfile(path, temporary)
        if copy.read_bytes() == content:
            break
        number += 1
    return (
        f"{path.name} had columns that mixlaw does not keep ({some(lost)}): the file as it was is "
        f"{copy.name}",
    )


def _is_carried(column: str) -> bool:
    kind = column.partition("/")[0]
    return "/" in column and kind in ("weight", "available_tokens", "start", *UNITS)


def _column_names(path: Path) -> list[str]:
    """Of a table that can be read."""
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8-sig") as handle:
            return next(csv.reader(handle), [])
    if path.suffix == ".jsonl":
        lines = path.read_text("utf-8-sig").split("\n")
        told = (json.loads(line) for line in lines if line.strip())
        return list(dict.fromkeys(key for row in told for key in row))
    from pyarrow import parquet

    return parquet.read_schema(path).names


def _by_run(table: RunTable) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in table.rows():
        found.setdefault(row["run"], []).append(row)
    return found


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
