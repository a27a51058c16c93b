"""A write is whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from mixlaw import files
from mixlaw.errors import StorageError


def refuse(*arguments, **named):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", [(Path, "write_text"), (os, "fsync"), (os, "replace")])
def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, call):
    path = tmp_path / "table.json"
    files.write_json(path, {"old": 1})
    with monkeypatch.context() as patch:
        patch.setattr(*call, refuse)
        with pytest.raises(StorageError, match=r"table\.json: No space left.*free some space"):
            files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["table.json"]


def test_a_failed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(KeyError), files.atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_never_share_a_temporary_file(tmp_path):
    """Not even of two machines on one network folder, where process numbers may be equal."""
    path = tmp_path / "a.txt"
    with files.atomic_path(path) as one, files.atomic_path(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # renamed last
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not write"):
        files.write_text(tmp_path / "file" / "below.txt", "x")


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_digests_depend_on_values_only(tmp_path):
    assert files.digest({"a": 1, "b": [2]}) == files.digest({"b": [2], "a": 1})
    assert files.digest({"a": 1}) != files.digest({"a": 2})
    (tmp_path / "one").write_bytes(b"x")
    (tmp_path / "two").write_bytes(b"x")
    assert files.file_digest(tmp_path / "one") == files.file_digest(tmp_path / "two")
