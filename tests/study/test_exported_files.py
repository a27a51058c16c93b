"""Files of an export: inside their folder, all or none, and over nobody else's."""

from __future__ import annotations

import json

import pytest

from mixlaw.errors import ExportError, StorageError
from mixlaw.study.exported_files import EXPORT, replace_files, write_files


def files(*names: str) -> dict[str, str]:
    return {name: f"{name} of {names}" for name in names} | {
        EXPORT: json.dumps({"files": list(names)})
    }


class TestFiles:
    @pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "", ".", "a\0b"])
    def test_none_leaves_the_folder(self, tmp_path, name):
        folder = tmp_path / "in"
        with pytest.raises(ExportError, match="is not in"):
            write_files(folder, {"fine": "", name: ""})
        assert not folder.exists()
        assert list(tmp_path.iterdir()) == []

    def test_nor_through_a_link(self, tmp_path):
        folder = tmp_path / "in"
        folder.mkdir()
        (folder / "link").symlink_to(tmp_path)
        with pytest.raises(ExportError, match="is not in"):
            write_files(folder, {"link/out": ""})

    def test_a_link_is_replaced_and_what_it_points_to_stays(self, tmp_path):
        (tmp_path / "theirs").write_text("theirs")
        folder = tmp_path / "in"
        folder.mkdir()
        (folder / "out").symlink_to(tmp_path / "theirs")
        write_files(folder, {"out": "ours"})
        assert (folder / "out").read_text() == "ours"
        assert (tmp_path / "theirs").read_text() == "theirs"

    def test_all_or_none(self, tmp_path):
        replace_files(tmp_path, files("a", "b"))
        (tmp_path / "file").write_text("no folder")
        before = {path.name: path.read_text() for path in tmp_path.iterdir()}
        with pytest.raises(StorageError):
            replace_files(tmp_path, files("a", "file/c", "b"))
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before

    def test_a_folder_in_its_place(self, tmp_path):
        (tmp_path / "b").mkdir()
        with pytest.raises(ExportError, match="is a folder where a file of the config is to be"):
            replace_files(tmp_path, files("a", "b"))
        assert [path.name for path in tmp_path.iterdir()] == ["b"]

    def test_a_file_in_place_of_the_folder(self, tmp_path):
        (tmp_path / "out").write_text("mine")
        with pytest.raises(ExportError, match=r"out is a file.*--out"):
            write_files(tmp_path / "out", {"a.json": "{}"})
        assert (tmp_path / "out").read_text() == "mine"


class TestFormerFiles:
    def test_those_of_the_export_before_are_replaced_or_removed(self, tmp_path):
        replace_files(tmp_path, files("a", "b"))
        (tmp_path / "mine").write_text("mine")
        replace_files(tmp_path, files("b", "c"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c", EXPORT, "mine"]

    def test_those_of_others_stay(self, tmp_path):
        (tmp_path / "a").write_text("precious")
        with pytest.raises(ExportError, match=r"\['a'\]; give another folder with --out"):
            replace_files(tmp_path, files("a", "b"))
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").read_text() == "precious"

    @pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"files": 3}'])
    def test_an_export_json_of_others_stays(self, tmp_path, text):
        (tmp_path / EXPORT).write_text(text)
        with pytest.raises(ExportError, match="is of no export of mixlaw"):
            replace_files(tmp_path, files("a"))
        assert (tmp_path / EXPORT).read_text() == text

    def test_names_that_lead_out_are_not_removed(self, tmp_path):
        folder = tmp_path / "in"
        folder.mkdir()
        (tmp_path / "out").write_text("theirs")
        (folder / EXPORT).write_text(json.dumps({"files": ["../out"]}))
        replace_files(folder, files("a"))
        assert (tmp_path / "out").read_text() == "theirs"
