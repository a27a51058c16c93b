"""Runs that others trained, from where they keep them into a study."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mixlaw.errors import MixlawError, RunTableError, StudyError
from mixlaw.files import write_text
from mixlaw.interop import Columns, Hints, Imported, import_runs
from mixlaw.study.folder import StudyFolder
from mixlaw.study.import_config import (
    IMPORT,
    ImportConfig,
    ImportsConfig,
    at_home,
    from_home,
    read_imports,
)
from mixlaw.study.locking import locked
from mixlaw.study.new_study import study_text
from mixlaw.study.own_runs import RUNS
from mixlaw.study.planned import read_planned
from mixlaw.study.taking import Taken, some, table_of, take


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

    def read_as(self, known: Iterator[tuple[str, Columns | Hints]]) -> Imported:
        """As `read`; what the guess does not understand is read as a study already knows it.

        Args: known: where it is known from, and what.
        """
        try:
            return self.read()
        except RunTableError:
            if self.columns is None and self.hints == Hints():
                for where, said in known:
                    key = "columns" if isinstance(said, Columns) else "hints"
                    with contextlib.suppress(RunTableError):
                        found = replace(self, **{key: said}).read()
                        return replace(found, notes=(*found.notes, f"read by {where}"))
            raise


@dataclass(frozen=True, eq=False)
class Outcome:
    """An import into a study.

    Attributes:
        imported: what was read.
        taken: what became of it.
        study: that has them; `new`: whether its file was written now.
        inputs: changes of the files since these sources were imported before, in words.
        gone: ids of runs that were found there before, and are not now; they stay in the table.
    """

    imported: Imported
    taken: Taken
    study: StudyFolder
    new: bool
    inputs: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


def import_into(folder: str | Path, request: Request) -> Outcome:
    """Import into a study, or as a new study where the folder has none.

    Raises: StudyError: a study that trains, or a folder with a table and no study; and as
        `Request.read` and `Study.take`.
    """
    file = _study_file(Path(folder))
    study = _study_at(file)
    kept = read_imports(file.parent)
    if study is not None:
        _refuse_itself(request.sources, table_of(study))
    imported = request.read_as(_known(kept, study))
    return _take(file, request, imported)


def import_again(folder: str | Path) -> list[Outcome]:
    """Import all that was imported before, as the study's import.yaml says.

    Raises: StudyError: nothing was; as `import_into`.
    """
    file = _study_file(Path(folder))
    home = file.parent
    _study_at(file)
    kept = read_imports(home)
    if not kept.imports:
        raise StudyError(
            f"{home} has no {IMPORT} to repeat; name the sources: mixlaw import SOURCE --into "
            f"{shlex.quote(str(home))}"
        )
    return [_again(file, before) for before in kept.imports]


def _again(file: Path, before: ImportConfig) -> Outcome:
    home = file.parent
    request = Request(
        tuple(from_home(source, home) for source in before.sources),
        before.kind,
        Columns.from_dict(before.columns),
        design=None if before.design is None else Path(from_home(before.design, home)),
    )
    try:
        imported = request.read()
    except MixlawError as error:
        raise StudyError(
            f"{home / IMPORT}, the import of {before.sources}: {error}; edit it there, or name the "
            "sources again with what is to be said of them"
        ) from error
    return _take(file, request, imported)


def _take(file: Path, request: Request, imported: Imported) -> Outcome:
    """Runs that were read into the study; with the study itself, where there is none."""
    home = file.parent
    with locked(home):
        # The study file first: a table without one could not be told from somebody else's.
        new = _study_at(file) is None
        if new:
            write_text(file, study_text(imported.table))
        study = StudyFolder(file)
        taken = take(study, imported.table)
        kept, now = read_imports(home), _config(home, request, imported)
        kept.with_(now).write(home)
    before = kept.of(now.sources)
    if before is None:
        return Outcome(imported, taken, study, new)
    gone = tuple(run for run in before.runs if run not in set(now.runs))
    return Outcome(imported, taken, study, new, _changes(before.inputs, now.inputs), gone)


def _study_file(path: Path) -> Path:
    file = path if path.suffix in (".yaml", ".yml") else path / "study.yaml"
    if file.parent.is_file():
        raise StudyError(f"{path} is a file; name the folder of a study, or a new one")
    return file


def _study_at(file: Path) -> StudyFolder | None:
    """The study; None where it may be made.

    Raises: StudyError: a study that trains, or a table that nothing says what it is.
    """
    if file.exists():
        study = StudyFolder(file)
        table_of(study)
        return study
    path = file.parent / RUNS
    if path.exists():
        raise StudyError(
            f"{path} is there already, and no {file.name} says what it is; import it into a new "
            f"folder: mixlaw import {shlex.quote(str(path))} --into NEW"
        )
    return None


def _known(kept: ImportsConfig, study: StudyFolder | None) -> Iterator[tuple[str, Columns | Hints]]:
    """What a study tells of the names in a source: the columns of the imports before, the last
    first, and the names of its domains."""
    for before in reversed(kept.imports):
        where = f"the columns of {some(before.sources)} in {IMPORT}"
        yield where, Columns.from_dict(before.columns)
    if study is None:
        return
    with contextlib.suppress(StudyError):  # neither a table yet nor domains
        names = [domain.name for domain in study.domains()]
        yield "the names of the study's domains", Hints(mixture=",".join(names))


def _refuse_itself(sources: Sequence[str], table: Path) -> None:
    for source in sources:
        if "://" not in source and Path(source).resolve() == table.resolve():
            raise StudyError(
                f"{source} is the table of the study itself; there is nothing to import. If it is "
                f"a sheet of another form, let the study say table: {RUNS}, and import it then"
            )


def _config(folder: Path, request: Request, imported: Imported) -> ImportConfig:
    """What import.yaml keeps of an import; files of relative sources are relative to the study."""
    moves = not any("://" in source or Path(source).is_absolute() for source in request.sources)
    place = (lambda name: os.path.relpath(name, folder)) if moves else str
    return ImportConfig(
        kind=imported.kind,
        sources=[at_home(source, folder) for source in request.sources],
        design=None if request.design is None else at_home(request.design, folder),
        columns=imported.columns.to_dict(),
        notes=list(imported.notes),
        inputs={place(name): mark for name, mark in imported.inputs.items()},
        runs=list(dict.fromkeys(imported.table.run.tolist())),
    )


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """How the files that were read differ, in words."""
    found = {
        "changed": [name for name in new if name in old and old[name] != new[name]],
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
    }
    return tuple(f"{what}: {some(names)}" for what, names in found.items() if names)
