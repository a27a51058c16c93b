import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.corpus.tokens import open_token_file, write_megatron
from mixlaw.errors import StorageError, TokenFileError


def write(prefix, documents, vocab_size=1000):
    with write_megatron(prefix, vocab_size=vocab_size) as writer:
        for document in documents:
            writer.add(np.array(document))
    return prefix.with_name(prefix.name + ".bin"), prefix.with_name(prefix.name + ".idx")


def test_the_bytes_are_megatrons(tmp_path):
    data, index = write(tmp_path / "web.train", [[1, 2, 3], [999]])
    assert data.read_bytes() == struct.pack("<4H", 1, 2, 3, 999)
    expected = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 2, 3)
    assert len(expected) == 34
    expected += struct.pack("<2i", 3, 1) + struct.pack("<2q", 0, 6) + struct.pack("<3q", 0, 1, 2)
    assert index.read_bytes() == expected


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 99_999), min_size=1, max_size=9), min_size=1, max_size=9),
    st.sampled_from([100_000, 65_536]),
)
def test_round_trip(tmp_path_factory, documents, vocab_size):
    documents = [[token % vocab_size for token in document] for document in documents]
    prefix = tmp_path_factory.mktemp("t") / "a.b"
    write(prefix, documents, vocab_size)
    file = open_token_file(f"{prefix}.bin", vocab_size=vocab_size)
    file.check_ids(vocab_size)
    assert file.tokens.tolist() == [token for document in documents for token in document]
    assert len(file) == sum(map(len, documents))
    assert file.document_starts.tolist() == np.cumsum([0, *map(len, documents[:-1])]).tolist()
    assert file.tokens.dtype == ("<u2" if vocab_size == 65_536 else "<i4")
    assert isinstance(file.tokens, np.memmap)


@pytest.mark.parametrize("name", ["a.bin", "a.idx", "a"])
def test_any_name_of_the_pair_opens_it(tmp_path, name):
    write(tmp_path / "a", [[1, 2]])
    assert open_token_file(tmp_path / name, vocab_size=9).tokens.tolist() == [1, 2]


def test_documents_of_several_sequences(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(6)))
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 1, 3, 3)
    body = struct.pack("<3i3q3q", 1, 2, 3, 0, 1, 3, 0, 2, 3)
    (tmp_path / "a.idx").write_bytes(head + body)
    assert open_token_file(tmp_path / "a", vocab_size=6).document_starts.tolist() == [0, 3]


def patched(offset, data):
    def patch(index):
        return index[:offset] + data + index[offset + len(data) :]

    return patch


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (patched(0, b"TROUBLE!"), r"a\.idx starts with .* it is no Megatron index"),
        (patched(9, struct.pack("<Q", 2)), "has version 2; only version 1"),
        (patched(17, b"\x06"), "has dtype code 6"),
        (patched(17, b"\x04"), r"has 8 bytes, its index promises 16 \(4 tokens of 4 bytes\)"),
        (patched(18, struct.pack("<Q", 7)), r"has 82 bytes; 7 sequences and 3 document marks take"),
        (patched(34, struct.pack("<2i", 1, 3)), "do not lie end to end"),
        (patched(34, struct.pack("<2i", -1, 5)), "do not lie end to end"),
        (patched(58, struct.pack("<q", 1)), "document marks must ascend from 0 to 2"),
        (lambda index: index[:20], "ends after 20 of 34 header bytes"),
        (lambda index: index[:-1], "has 81 bytes; .* it was cut short"),
        (lambda index: b"", "is empty"),
    ],
)
def test_foreign_and_truncated_indices(tmp_path, change, message):
    _, index = write(tmp_path / "a", [[1, 2, 3], [4]])
    index.write_bytes(change(index.read_bytes()))
    with pytest.raises(TokenFileError, match=message):
        open_token_file(tmp_path / "a", vocab_size=1000)


def test_truncated_or_missing_data(tmp_path):
    data, index = write(tmp_path / "a", [[1, 2, 3], [4]])
    data.write_bytes(data.read_bytes()[:-2])
    with pytest.raises(TokenFileError, match=r"has 6 bytes, its index promises 8"):
        open_token_file(data, vocab_size=1000)
    data.unlink()
    with pytest.raises(TokenFileError, match=r"could not read the token file .*a\.bin"):
        open_token_file(index, vocab_size=1000)


def test_an_id_beyond_the_vocabulary_is_located(tmp_path):
    data, _ = write(tmp_path / "a", [[1, 2, 3], [777]])
    file = open_token_file(data, vocab_size=777)
    with pytest.raises(TokenFileError, match=r"token 3 has id 777, outside the vocabulary of 777"):
        file.check_ids(777)
    file.check_ids(778)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "<u2"), (65_537, "<u4")])
def test_headerless_npy(tmp_path, vocab_size, dtype):
    np.array([5, 6, 7], dtype=dtype).tofile(tmp_path / "a.npy")
    file = open_token_file(tmp_path / "a.npy", vocab_size=vocab_size)
    assert file.tokens.tolist() == [5, 6, 7]
    assert file.document_starts.tolist() == [0]


def test_odd_npy(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"123")
    with pytest.raises(TokenFileError, match="has 3 bytes, not whole uint16 ids"):
        open_token_file(tmp_path / "a.npy", vocab_size=9)


def test_npy_with_a_header_is_read_by_it(tmp_path):
    np.save(tmp_path / "a.npy", np.array([5, 6], dtype=np.int64))
    assert open_token_file(tmp_path / "a.npy", vocab_size=9).tokens.tolist() == [5, 6]
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    with pytest.raises(TokenFileError, match=r"holds float64 of shape \(2, 2\)"):
        open_token_file(tmp_path / "a.npy", vocab_size=9)
    np.save(tmp_path / "a.npy", np.arange(100))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-9])
    with pytest.raises(TokenFileError, match="cut short or damaged"):
        open_token_file(tmp_path / "a.npy", vocab_size=9)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, call):
    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"os.{call}", refuse)
    with pytest.raises(StorageError, match="No space left on device"):
        write(tmp_path / "a", [[1, 2, 3]])
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing(tmp_path):
    class Interrupt(BaseException):
        pass

    def interrupted():
        with write_megatron(tmp_path / "a", vocab_size=9) as writer:
            writer.add(np.array([1]))
            raise Interrupt

    with pytest.raises(Interrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
