"""`import.yaml`: from where and how the runs of a study were imported.

A person may edit it; the same import can be repeated when the sources have grown.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError, field_validator

from mixlaw import __version__
from mixlaw.errors import MixlawError, RunTableError, StudyError
from mixlaw.files import write_text
from mixlaw.interop import Columns
from mixlaw.study.config import explain, read_yaml
from mixlaw.study.section import Section

IMPORT = "import.yaml"

HEAD = """\
# How the runs of this study were imported. After an edit, or when the sources have grown, this
# does all of it again: mixlaw import --into STUDY
"""


class ImportConfig(Section):
    """One import; `mixlaw.interop.Columns` has the keys of `columns`.

    `inputs` are digests of the files that were read last, and `runs` the ids that were found there,
    by which a repetition tells what has changed. Relative sources are relative to the study.
    """

    kind: str
    sources: list[str]
    design: str | None = None
    columns: dict[str, Any]
    notes: list[str] = []
    inputs: dict[str, str] = {}
    runs: list[str] = []

    @field_validator("columns")
    @classmethod
    def _columns(cls, columns: dict[str, Any]) -> dict[str, Any]:
        try:
            Columns.from_dict(columns)
        except MixlawError as error:
            raise ValueError(str(error)) from error
        return columns


class ImportsConfig(Section):
    """What import.yaml says: the imports of a study, in their order, one for the same sources."""

    version: Literal[1] = 1
    mixlaw: str = __version__
    imports: list[ImportConfig] = []

    def of(self, sources: list[str]) -> ImportConfig | None:
        """The import of these sources."""
        return next((one for one in self.imports if one.sources == sources), None)

    def with_(self, new: ImportConfig) -> ImportsConfig:
        """The same with one import more, or in place of that of the same sources."""
        if self.of(new.sources) is None:
            return ImportsConfig(imports=[*self.imports, new])
        imports = [new if one.sources == new.sources else one for one in self.imports]
        return ImportsConfig(imports=imports)

    def write(self, folder: Path) -> None:
        """Write it for the study in a folder."""
        imports = [
            {k: v for k, v in one.model_dump().items() if v not in (None, {}, [])}
            for one in self.imports
        ]
        said = {**self.model_dump(), "imports": imports}
        text = yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
        write_text(folder / IMPORT, HEAD + text)


def read_imports(folder: Path) -> ImportsConfig:
    """The imports of the study in a folder.

    Raises: StudyError: the file says something else, or another version of mixlaw wrote it.
    """
    path = folder / IMPORT
    if not path.exists():
        return ImportsConfig()
    remedy = "mend it, or delete it and import the sources again"
    try:
        return ImportsConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        problems = "; ".join(explain(problem, ImportsConfig) for problem in error.errors())
        raise StudyError(f"{path}: {problems}; {remedy}") from None
    except StudyError as error:
        raise StudyError(f"{error}; {remedy}") from error


def read_columns(path: Path) -> Columns:
    """Columns from a file: those of an import.yaml of one import, or a mapping of their own.

    Raises: StudyError, RunTableError: it cannot be read, or names no columns.
    """
    try:
        data = read_yaml(path)
    except OSError as error:
        raise StudyError(f"no columns at {path} ({error.strerror})") from error
    imports = data.get("imports")
    if isinstance(imports, list):
        if len(imports) != 1 or not isinstance(imports[0], dict):
            raise StudyError(
                f"{path} has {len(imports)} imports; copy the columns of one into a file of "
                "their own"
            )
        data = imports[0]
    try:
        return Columns.from_dict(data.get("columns", data))
    except RunTableError as error:
        raise RunTableError(f"{path}: {error}") from error


def at_home(source: str | Path, folder: Path) -> str:
    """A source as import.yaml keeps it: a relative path is relative to the study there."""
    text = str(source)
    if "://" in text or Path(text).is_absolute():
        return text
    return os.path.relpath(text, folder)


def from_home(source: str, folder: Path) -> str:
    """The inverse of `at_home`."""
    if "://" in source or Path(source).is_absolute():
        return source
    return os.path.relpath(folder / source)
