"""Runs that others trained, taken into a study: into its table, and from there into every step."""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixlaw.errors import StudyError
from mixlaw.files import write_text
from mixlaw.interop import Columns, Hints, Imported, import_runs
from mixlaw.plan.proposals import SAME_SHARES
from mixlaw.runs import DONE, RunTable, higher_is_better
from mixlaw.study.deciding import named_targets
from mixlaw.study.folder import StudyFolder
from mixlaw.study.import_config import IMPORT, ImportConfig, at_home, from_home, read_import
from mixlaw.study.new_study import study_text
from mixlaw.study.own_runs import RUNS
from mixlaw.study.planned import read_planned
from mixlaw.study.planning import read_asked, still_pending, write_asked


@dataclass(frozen=True)
class Request:
    """What is to be imported, and what the user said of it.

    Attributes:
        kind: of the source; None: by its looks.
        columns: what means what; None: guessed, with the hints.
        design: the folder of `mixlaw design --export-to` whose runs these are.
    """

    sources: tuple[str, ...]
    kind: str | None = None
    columns: Columns | None = None
    hints: Hints = field(default_factory=Hints)
    design: Path | None = None

    def read(self) -> Imported:
        """Raises: RunTableError, StudyError: what cannot be read, or not be understood."""
        planned = None if self.design is None else read_planned(self.design)
        found = import_runs(
            self.sources,
            kind=self.kind,
            columns=self.columns,
            hints=self.hints,
            planned=planned,
        )
        counted = (found.columns.train_tokens, found.columns.tokens_per_step)
        if planned is None or counted != (None, None):
            return found
        note = (
            "the source counts no tokens, so these runs count as trained to their planned ends; if "
            "some still train, say --tokens-per-step (or --train-tokens)"
        )
        return replace(found, notes=(*found.notes, note))


@dataclass(frozen=True, eq=False)
class Taken:
    """What became of runs that a study was given.

    Attributes:
        runs: the study's table now.
        added, changed, same: ids of given runs: new, with other rows than before, or with the same.
        kept: ids of the runs that the table had and was not given.
        answered: how many runs that were asked for have arrived.
        notes: what else the user should know.
    """

    runs: RunTable
    added: tuple[str, ...]
    changed: tuple[str, ...]
    same: tuple[str, ...]
    kept: tuple[str, ...]
    answered: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the table."""
        return {**{k: v for k, v in vars(self).items() if k != "runs"}, "rows": len(self.runs)}


@dataclass(frozen=True, eq=False)
class Outcome:
    """An import into a study.

    Attributes:
        imported: what was read.
        taken: what became of it.
        file: of the study; `new`: whether it was written now.
        inputs: changes of the files since the import before, in words.
    """

    imported: Imported
    taken: Taken
    file: Path
    new: bool
    inputs: tuple[str, ...] = ()


def import_into(folder: str | Path, request: Request | None = None) -> Outcome:
    """Import into a study, or as a new study where the folder has none.

    Args: request: None: as the study's import.yaml says.
    Raises: StudyError: nothing to repeat, a study that trains, or a folder with a table of its own;
        and as `Request.read` and `Study.take`.
    """
    path = Path(folder)
    file = path if path.suffix in (".yaml", ".yml") else path / "study.yaml"
    before = read_import(file.parent)
    study = StudyFolder(file) if file.exists() else None
    if study is not None:
        refuse_own_runs(study)
    if request is None:
        request = _again(before, file.parent)
    table = _table_of(study, file.parent, before)
    _refuse_itself(request.sources, table)
    imported = request.read()
    if study is None:
        # Last of all the study file: until it stands there, the same import can begin again.
        _write(file.parent, request, imported)
        imported.table.write(table)
        write_text(file, study_text(imported.table))
        study = StudyFolder(file)
        taken = Taken(imported.table, _ids(imported.table), (), (), (), 0)
        return Outcome(imported, taken, file, True)
    taken = take(study, imported.table)
    now = _write(file.parent, request, imported)
    changes = () if before is None else _changes(before.inputs, now.inputs)
    return Outcome(imported, taken, file, False, changes)


def take(study: StudyFolder, table: RunTable) -> Taken:
    """As `Study.take`."""
    refuse_own_runs(study)
    assert study.config.table is not None, "a study that trains was refused"
    path = study.folder / study.config.table
    old = RunTable.read(path) if path.exists() else None
    before = () if old is None else old.domains
    named = tuple(dict.fromkeys((*before, *study.config.domains)))
    notes = _refuse_strangers(study.file, table.domains, named)
    table, left_out = _measured(study, table)
    runs, taken = _merged(old, table, named or table.domains)
    asked = read_asked(study.folder)
    pending = still_pending(asked, runs.trained().static())
    runs.write(path)
    write_asked(study.folder, pending)
    notes = (*notes, *left_out, *taken.pop("notes"))
    return Taken(runs, answered=len(asked) - len(pending), notes=notes, **taken)


def refuse_own_runs(study: StudyFolder) -> None:
    """Raises: StudyError: the study trains its runs itself."""
    if study.config.table is None:
        raise StudyError(
            f"{study.file} trains its runs itself: mixlaw train {study.folder}; only a study of a "
            "table can be told of others"
        )


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


def _measured(study: StudyFolder, table: RunTable) -> tuple[RunTable, tuple[str, ...]]:
    """The runs that measured every loss that the study names, and a note on the others.

    Raises: StudyError: none did.
    """
    named = [target for target in named_targets(study.config) if not higher_is_better(target)]
    for target in named:
        if target not in table.targets:
            near = difflib.get_close_matches(target, table.targets, n=1, cutoff=0.4)
            hint = (
                f"did you mean {near[0]}? import with --rename {near[0]}={target}"
                if near
                else (f"import it with --target 'NAME IN THE SOURCE={target}'")
            )
            raise StudyError(
                f"{study.file} names {target}, and the runs measured {list(table.targets)}; {hint}"
            )
    columns = [table.targets.index(target) for target in named]
    lacking = (table.status == DONE) & np.isnan(table.values[:, columns]).any(axis=1)
    if not lacking.any():
        return table, ()
    missing = [
        t for t, c in zip(named, columns, strict=True) if np.isnan(table.values[lacking, c]).any()
    ]
    if lacking.all():
        raise StudyError(
            f"{study.file} names {named}, and every run lacks a value of {missing}; a law needs "
            "all of them of every run"
        )
    text = (
        f"left out, as a law needs every loss that the study names: {int(lacking.sum())} rows of "
        f"runs {sorted(set(table.run[lacking].tolist()))} without {missing}"
    )
    return table.select(~lacking), (text,)


def _merged(
    old: RunTable | None, new: RunTable, domains: Sequence[str]
) -> tuple[RunTable, dict[str, Any]]:
    """Both tables as one, given runs in place of their former rows; and fields of `Taken`."""
    order = {f"weight/{name}": 0.0 for name in domains}
    given = _by_run(new)
    former = {} if old is None else _by_run(old)
    changed = [run for run in given if run in former and not _alike(former[run], given[run])]
    merged = former | {
        run: former[run] if run in former and run not in changed else rows
        for run, rows in given.items()
    }
    table = RunTable.from_rows({**order, **row} for rows in merged.values() for row in rows)
    moved = [run for run in changed if not _same_mixture(former[run][0], given[run][0])]
    notes = ()
    if moved:
        notes = (
            f"{len(moved)} runs had other mixtures before ({_some(moved)}): if these are other "
            "runs under the same ids, say with --run which column tells them apart",
        )
    taken = {
        "added": tuple(run for run in given if run not in former),
        "changed": tuple(changed),
        "same": tuple(run for run in given if run in former and run not in changed),
        "kept": tuple(run for run in former if run not in given),
        "notes": notes,
    }
    return table, taken


def _by_run(table: RunTable) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.rows():
        found.setdefault(row["run"], []).append(row)
    return found


def _alike(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> bool:
    """Whether two lists of rows say the same, but for the last bits."""

    def said(row: Mapping[str, Any]) -> dict[str, Any]:
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


def _same_mixture(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    keys = {key for row in (one, other) for key in row if key.startswith("weight/")}
    return all(abs((one.get(k) or 0.0) - (other.get(k) or 0.0)) <= SAME_SHARES for k in keys)


def _ids(table: RunTable) -> tuple[str, ...]:
    return tuple(dict.fromkeys(table.run.tolist()))


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# Where things lie


def _table_of(study: StudyFolder | None, folder: Path, before: ImportConfig | None) -> Path:
    """Where the runs go. Raises: StudyError: there is a table already, and no study of it."""
    if folder.is_file():
        raise StudyError(f"{folder} is a file; name the folder of a study, or a new one")
    if study is not None:
        assert study.config.table is not None, "a study that trains was refused"
        return study.folder / study.config.table
    path = folder / RUNS
    if path.exists() and before is None:
        raise StudyError(
            f"{path} is there already, and no study.yaml says what it is; import it into a new "
            f"folder: mixlaw import {path} --into NEW"
        )
    return path


def _refuse_itself(sources: Sequence[str], table: Path) -> None:
    for source in sources:
        if "://" not in source and Path(source).resolve() == table.resolve():
            raise StudyError(
                f"{source} is the table of the study itself; there is nothing to import"
            )


def _write(folder: Path, request: Request, imported: Imported) -> ImportConfig:
    """Write import.yaml."""
    config = ImportConfig(
        kind=imported.kind,
        sources=[at_home(source, folder) for source in request.sources],
        design=None if request.design is None else at_home(request.design, folder),
        columns=imported.columns.to_dict(),
        notes=list(imported.notes),
        inputs={at_home(name, folder): mark for name, mark in imported.inputs.items()},
    )
    config.write(folder)
    return config


def _again(before: ImportConfig | None, folder: Path) -> Request:
    """The import before, to be repeated. Raises: StudyError: there was none."""
    if before is None:
        raise StudyError(
            f"{folder} has no {IMPORT} to repeat; name the sources: mixlaw import SOURCE --into "
            f"{folder}"
        )
    return Request(
        tuple(from_home(source, folder) for source in before.sources),
        before.kind,
        Columns.from_dict(before.columns),
        design=None if before.design is None else Path(from_home(before.design, folder)),
    )


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """How the files that were read differ, in words."""
    found = {
        "changed": [name for name in new if name in old and old[name] != new[name]],
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
    }
    return tuple(f"{what}: {_some(names)}" for what, names in found.items() if names)
