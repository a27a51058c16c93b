import gzip
import json
import sys

import pytest
import zstandard

from mixlaw.corpus.sources import Document, read_documents, sample_paths
from mixlaw.errors import CorpusError, MissingExtraError

ROWS = [
    {"text": "one", "license": "MIT", "url": "https://example.org/1"},
    {"text": "  \n"},
    {"text": "zwei ü", "source": "book", "url": "ignored"},
    {"text": "three"},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
DOCUMENTS = [
    Document("one", "https://example.org/1", "MIT"),
    Document("zwei ü", "book", "unknown"),
    Document("three", "rows:4", "unknown"),
]


def named(origin):
    return [d if d.origin != "rows:4" else Document(d.text, origin) for d in DOCUMENTS]


def zstd_frames(*parts):
    return b"".join(zstandard.ZstdCompressor().compress(part) for part in parts)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl", LINES.rstrip(b"\n")),
        ("a.jsonl.gz", gzip.compress(LINES)),
        ("a.jsonl.zst", zstd_frames(LINES)),
        ("a.jsonl.zst", zstd_frames(LINES[:30], LINES[30:])),
    ],
)
def test_json_lines_of_every_packing(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert list(read_documents(tmp_path / name)) == named(f"{name}:4")


def test_parquet(tmp_path):
    import pyarrow
    from pyarrow import parquet

    columns = ("text", "license", "source", "url")
    rows = [{c: row.get(c) for c in columns} for row in [*ROWS, {}]]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert list(read_documents(tmp_path / "a.parquet")) == [
        DOCUMENTS[0],
        DOCUMENTS[1],
        Document("three", "a.parquet:4"),
    ]


def test_folder_is_read_in_sorted_order_without_hidden_and_binary_files(tmp_path):
    root = tmp_path / "web"
    (root / "sub").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "b.md").write_text("second")
    (root / "sub" / "c.txt").write_text("\ufeffthird", encoding="utf-8")
    (root / "a.jsonl").write_text('{"text": "first"}\n')
    (root / ".git" / "x.txt").write_text("hidden")
    (root / "picture.png").write_bytes(b"\x89PNG")
    (root / "empty.txt").write_text(" \n")
    found = [(d.text, d.origin) for d in read_documents(root)]
    assert found == [("first", "web/a.jsonl:1"), ("second", "web/b.md"), ("third", "web/sub/c.txt")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"a\.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', r"line 2 has no string field 'text'.*body"),
        ("a.jsonl", b'["x"]\n', r"line 1 has no string field 'text'.*list"),
        ("a.jsonl", b'{"text": "\xff"}\n', r"line 1 is not UTF-8"),
        ("a.txt", b"abc\xff", r"a\.txt is not UTF-8 text \(byte 0xff at offset 3\)"),
        ("a.jsonl.gz", gzip.compress(LINES)[:-12], "damaged or cut short"),
        ("a.jsonl.gz", b"no gzip", "damaged or cut short after line 0"),
        ("a.jsonl.zst", zstd_frames(LINES * 99)[:-20], "damaged or cut short"),
        ("a.jsonl.zst", b"no zstd at all", "damaged or cut short after line 0"),
        ("a.parquet", b"PAR1 and no more", r"a\.parquet is not a whole Parquet file"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorpusError, match=message):
        list(read_documents(tmp_path / name))


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(CorpusError, match=r"no file or folder at .*nowhere"):
        list(read_documents(tmp_path / "nowhere"))


def test_parquet_without_a_text_column(tmp_path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([{"body": "x"}]), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"no column 'text' \(found \['body'\]\)"):
        list(read_documents(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [("zstandard", "a.jsonl.zst", "train"), ("pyarrow", "a.parquet", "parquet")],
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module, name, extra):
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"mixlaw\[{extra}\]"):
        list(read_documents(tmp_path / name))


def test_a_lone_surrogate_is_replaced(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800b"}\n')
    assert [d.text for d in read_documents(tmp_path / "a.jsonl")] == ["a\ufffdb"]


def test_a_capped_sample_counts_all_and_ignores_file_names(tmp_path):
    texts = [f"text number {i:03d}" for i in range(100)]
    for folder, order in (("one", texts), ("two", texts[::-1])):
        (tmp_path / folder).mkdir()
        for i, text in enumerate(order):
            (tmp_path / folder / f"{i:03d}.txt").write_text(text)
    one, two = (
        sample_paths([tmp_path / folder], max_bytes=500, seed=3) for folder in ("one", "two")
    )
    assert one.exact
    assert one.found_bytes == two.found_bytes == 1500
    assert 450 < sum(d.num_bytes for d in one.documents) <= 500
    assert [d.text for d in one.documents] == [d.text for d in two.documents]
    other = sample_paths([tmp_path / "one"], max_bytes=500, seed=4)
    assert {d.text for d in other.documents} != {d.text for d in one.documents}
    assert len(sample_paths([tmp_path / "one"], max_bytes=None, seed=3).documents) == 100
