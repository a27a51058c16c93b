"""Files of an export: all or none, in their folder, and over nobody else's."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from pathlib import Path

from mixlaw.errors import ExportError
from mixlaw.files import atomic_path, read_json

EXPORT = "export.json"
"""What was exported, and which files it wrote."""


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write every file before the first takes its place; an export.json takes it last, and a
    former one is gone before.

    Raises: ExportError: the folder is a file, or a name leads out of it or is that of a folder in
        it. StorageError.
    """
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file, and the configs need a folder; give another --out")
    for name in files:
        if not _is_inside(folder, name):
            raise ExportError(f"a file of the config is called {name!r}, which is not in {folder}")
        if (folder / name).is_dir():
            raise ExportError(
                f"{folder / name} is a folder where a file of the config is to be; give another "
                "--out, or remove it"
            )
    with contextlib.ExitStack() as writing:
        # The stack is undone backwards: what it begins with takes its place last.
        for name in sorted(files, key=lambda name: name != EXPORT):
            temporary = writing.enter_context(atomic_path(folder / name))
            temporary.write_text(files[name], encoding="utf-8")
        if EXPORT in files:
            (folder / EXPORT).unlink(missing_ok=True)


def replace_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files of one export, an export.json among them, in place of those of the export
    before.

    Raises: ExportError: a file of their names is there that no export wrote; as `write_files`.
    """
    former = _former(folder)
    foreign = [name for name in files if name not in former and (folder / name).is_file()]
    if foreign:
        raise ExportError(
            f"{folder} has files that no export wrote, and this one would write over: {foreign}; "
            "give another folder with --out, or remove them"
        )
    write_files(folder, files)
    for name in former - set(files):
        with contextlib.suppress(OSError):
            (folder / name).unlink()


def _former(folder: Path) -> set[str]:
    """Files of the export that its export.json tells of."""
    path = folder / EXPORT
    if not path.exists():
        return set()
    try:
        names = read_json(path)["files"]
        return {EXPORT, *(name for name in names if _is_inside(folder, name))}
    except (ValueError, TypeError, KeyError) as error:
        raise ExportError(
            f"{path} is of no export of mixlaw ({error}); give another folder with --out, or "
            f"remove it: rm {shlex.quote(str(path))}"
        ) from error


def _is_inside(folder: Path, name: str) -> bool:
    if not name or "\0" in name or Path(name).is_absolute() or not Path(name).parts:
        return False
    root = folder.resolve()
    return ".." not in Path(name).parts and (root / name).parent.resolve().is_relative_to(root)
