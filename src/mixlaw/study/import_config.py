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
# How the runs of this study were imported. After an edit, or when the sources have grown:
# mixlaw import --into STUDY
"""


class ImportConfig(Section):
    """What import.yaml says; `mixlaw.interop.Columns` has the keys of `columns`.

    `inputs` are digests of the files that were read last, by which a repetition tells what has
    changed. Relative sources are relative to the study.
    """

    version: Literal[1] = 1
    mixlaw: str = __version__
    kind: str
    sources: list[str]
    design: str | None = None
    columns: dict[str, Any]
    notes: list[str] = []
    inputs: dict[str, str] = {}

    @field_validator("columns")
    @classmethod
    def _columns(cls, columns: dict[str, Any]) -> dict[str, Any]:
        try:
            Columns.from_dict(columns)
        except MixlawError as error:
            raise ValueError(str(error)) from error
        return columns

    def write(self, folder: Path) -> None:
        """Write it for the study in a folder."""
        said = {k: v for k, v in self.model_dump().items() if v not in (None, {}, [])}
        text = yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
        write_text(folder / IMPORT, HEAD + text)


def read_import(folder: Path) -> ImportConfig | None:
    """The last import of the study in a folder; None when there was none.

    Raises: StudyError: the file says something else, or another version of mixlaw wrote it.
    """
    path = folder / IMPORT
    if not path.exists():
        return None
    data = read_yaml(path)
    try:
        return ImportConfig.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(explain(problem, ImportConfig) for problem in error.errors())
        raise StudyError(f"{path}: {problems}") from None


def read_columns(path: Path) -> Columns:
    """Columns from a file: those of an import.yaml, or a mapping of their own.

    Raises: StudyError, RunTableError: it cannot be read, or names no columns.
    """
    try:
        data = read_yaml(path)
    except OSError as error:
        raise StudyError(f"no columns at {path} ({error.strerror})") from error
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
