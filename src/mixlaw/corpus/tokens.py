"""Token files: Megatron `.bin/.idx` written and read, headerless `.npy` (OLMo) read.

The `.bin` is the tokens, end to end. The `.idx` is little-endian: `MMIDIDX\\0\\0`, u64 version 1,
u8 dtype code, u64 number of sequences, u64 number of document marks, then per sequence its length
(i32) and byte offset (i64), then the document marks (i64, indices of sequences, from 0).
Source: Megatron-LM, megatron/core/datasets/indexed_dataset.py.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixlaw.errors import TokenFileError
from mixlaw.files import atomic_path

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: np.dtype("u1"), 3: np.dtype("<i2"), 4: np.dtype("<i4"), 5: np.dtype("<i8")}
DTYPES |= {8: np.dtype("<u2")}
CODES = {dtype: code for code, dtype in DTYPES.items()}

CHECK_TOKENS = 1 << 22
"""Tokens read at once when a file's ids are checked."""


@dataclass(frozen=True, eq=False)
class TokenFile:
    """A memory-mapped token file.

    Attributes:
        path: the file of the tokens.
        tokens: (n,) ids, read-only, of the file's own integer type.
        document_starts: (d,) ascending indices into `tokens`; [0] when the file does not say.
    """

    path: Path
    tokens: np.memmap
    document_starts: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def check_ids(self, vocab_size: int) -> None:
        """Read every id once. Raises: TokenFileError: one is outside [0, vocab_size)."""
        for start in range(0, len(self), CHECK_TOKENS):
            chunk = self.tokens[start : start + CHECK_TOKENS]
            low, high = int(chunk.min()), int(chunk.max())
            if low < 0 or high >= vocab_size:
                bad = (chunk < 0) | (chunk >= vocab_size)
                where = start + int(np.argmax(bad))
                raise TokenFileError(
                    f"{self.path}: token {where:,} has id {int(self.tokens[where])}, outside the "
                    f"vocabulary of {vocab_size:,}; give the tokenizer that the file was made with"
                )


def dtype_for(vocab_size: int) -> np.dtype:
    """The smallest type that trainers agree on: uint16 where it fits, else int32."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<i4")


class TokenWriter:
    """Appends documents to an open `.bin`; made by `write_megatron`."""

    def __init__(self, handle, dtype: np.dtype):
        self._handle = handle
        self._dtype = dtype
        self.lengths: list[int] = []

    def add(self, tokens: np.ndarray) -> None:
        """Append one document, ids (tokens,)."""
        self._handle.write(tokens.astype(self._dtype).tobytes())
        self.lengths.append(len(tokens))


@contextmanager
def write_megatron(prefix: Path, *, vocab_size: int) -> Iterator[TokenWriter]:
    """Write `<prefix>.bin` and `<prefix>.idx`, streaming; both appear whole, or neither.

    The index is renamed last, so that a `.bin` with an index is always complete.
    Raises: StorageError: the disk refused.
    """
    dtype = dtype_for(vocab_size)
    with ExitStack() as stack:
        index_path = stack.enter_context(atomic_path(with_suffix(prefix, ".idx")))
        with atomic_path(with_suffix(prefix, ".bin")) as data_path:
            with open(data_path, "wb") as handle:
                writer = TokenWriter(handle, dtype)
                yield writer
            _write_index(index_path, np.array(writer.lengths, dtype=np.int64), dtype)


def _write_index(path: Path, lengths: np.ndarray, dtype: np.dtype) -> None:
    offsets = (np.cumsum(lengths) - lengths) * dtype.itemsize
    with open(path, "wb") as handle:
        handle.write(HEADER.pack(MAGIC, VERSION, CODES[dtype], len(lengths), len(lengths) + 1))
        handle.write(lengths.astype("<i4").tobytes())
        handle.write(offsets.astype("<i8").tobytes())
        handle.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())


def with_suffix(prefix: Path, suffix: str) -> Path:
    """`prefix` + `suffix`, whatever dots the prefix has."""
    return prefix.with_name(prefix.name + suffix)


def open_token_file(path: str | Path, *, vocab_size: int) -> TokenFile:
    """Open a Megatron pair (by its `.bin`, its `.idx` or their common prefix) or an `.npy`.

    Sizes and headers are checked; ids are not (see `TokenFile.check_ids`).
    Raises: TokenFileError: missing, truncated or foreign; names the file and the numbers.
    """
    files = token_parts(Path(path))
    return _open_npy(*files, vocab_size) if len(files) == 1 else _open_megatron(*files)


def token_parts(path: Path) -> tuple[Path] | tuple[Path, Path]:
    """The files behind one token file: the `.npy`, or the `.bin` and the `.idx`."""
    if path.suffix == ".npy":
        return (path,)
    prefix = path.with_suffix("") if path.suffix in (".bin", ".idx") else path
    return with_suffix(prefix, ".bin"), with_suffix(prefix, ".idx")


def _open_megatron(data_path: Path, index_path: Path) -> TokenFile:
    data_bytes, index_bytes = _size(data_path), _size(index_path)
    dtype, num_sequences, num_marks = _read_header(index_path, index_bytes)
    lengths = np.fromfile(index_path, "<i4", num_sequences, offset=HEADER.size).astype(np.int64)
    after_lengths = HEADER.size + 4 * num_sequences
    offsets = np.fromfile(index_path, "<i8", num_sequences, offset=after_lengths)
    marks = np.fromfile(index_path, "<i8", num_marks, offset=after_lengths + 8 * num_sequences)
    sizes = lengths * dtype.itemsize
    if sizes.sum() != data_bytes:
        raise TokenFileError(
            f"{data_path} has {data_bytes:,} bytes, its index promises {int(sizes.sum()):,} "
            f"({int(lengths.sum()):,} tokens of {dtype.itemsize} bytes); it was cut short or "
            "belongs to another index"
        )
    if (lengths < 0).any() or (offsets != np.cumsum(sizes) - sizes).any():
        raise TokenFileError(
            f"{index_path}: the sequences do not lie end to end in {data_path.name}; "
            "write the file again without gaps"
        )
    if not len(marks) or marks[0] != 0 or marks[-1] > num_sequences or (np.diff(marks) < 0).any():
        raise TokenFileError(
            f"{index_path}: document marks must ascend from 0 to {num_sequences:,}, "
            f"they are {marks[:3].tolist()}...{marks[-1:].tolist()}"
        )
    starts = np.concatenate([[0], np.cumsum(lengths)])[marks]
    tokens = np.memmap(data_path, dtype=dtype, mode="r")
    return TokenFile(data_path, tokens, np.unique(starts[starts < len(tokens)]))


def _read_header(path: Path, num_bytes: int) -> tuple[np.dtype, int, int]:
    with open(path, "rb") as handle:
        header = handle.read(HEADER.size)
    if not header.startswith(MAGIC):
        raise TokenFileError(
            f"{path} starts with {header[:9]!r}, not {MAGIC!r}; it is no Megatron index"
        )
    if len(header) < HEADER.size:
        raise TokenFileError(f"{path} ends after {len(header)} of {HEADER.size} header bytes")
    _, version, code, num_sequences, num_marks = HEADER.unpack(header)
    if version != VERSION:
        raise TokenFileError(f"{path} has version {version}; only version {VERSION} is known")
    if code not in DTYPES:
        raise TokenFileError(
            f"{path} has dtype code {code}; token ids have one of "
            f"{ {code: dtype.name for code, dtype in DTYPES.items()} }"
        )
    expected = HEADER.size + 12 * num_sequences + 8 * num_marks
    if num_bytes != expected:
        raise TokenFileError(
            f"{path} has {num_bytes:,} bytes; {num_sequences:,} sequences and {num_marks:,} "
            f"document marks take {expected:,}: it was cut short or is no Megatron index"
        )
    return DTYPES[code], num_sequences, num_marks


def _open_npy(path: Path, vocab_size: int) -> TokenFile:
    """OLMo's `.npy` is bare ids, uint16 or uint32 by vocabulary; NumPy's own has a header."""
    num_bytes = _size(path)
    with open(path, "rb") as handle:
        has_header = handle.read(6) == b"\x93NUMPY"
    if has_header:
        tokens = _load_numpy(path)
    else:
        dtype = np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")
        if num_bytes % dtype.itemsize:
            raise TokenFileError(
                f"{path} has {num_bytes:,} bytes, not whole {dtype.name} ids (the type for a "
                f"vocabulary of {vocab_size:,}); it was cut short or has another type"
            )
        tokens = np.memmap(path, dtype=dtype, mode="r")
    return TokenFile(path, tokens, np.zeros(1, dtype=np.int64))


def _load_numpy(path: Path) -> np.memmap:
    try:
        tokens = np.load(path, mmap_mode="r")
    except ValueError as error:
        raise TokenFileError(f"{path} is cut short or damaged: {error}") from error
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise TokenFileError(
            f"{path} holds {tokens.dtype.name} of shape {tokens.shape}; "
            "token ids are integers of one dimension"
        )
    return tokens


def _size(path: Path) -> int:
    """Bytes of a token file. Raises: TokenFileError: missing or empty."""
    try:
        num_bytes = os.stat(path).st_size
    except OSError as error:
        raise TokenFileError(f"could not read the token file {path}: {error.strerror}") from error
    if num_bytes == 0:
        raise TokenFileError(f"the token file {path} is empty; write it again")
    return num_bytes
