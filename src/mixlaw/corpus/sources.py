"""Text in: folders, text files, JSON lines (plain, gzip, zstd), Parquet; document by document."""

from __future__ import annotations

import gzip
import hashlib
import heapq
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlaw.errors import CorpusError, MissingExtraError
from mixlaw.files import parse_json

UNKNOWN_LICENSE = "unknown"

_PROSE = [".txt", ".text", ".md", ".markdown", ".rst", ".tex", ".org", ".adoc", ".html", ".htm"]
_TABLES = [".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".ipynb"]
_CODE = [".py", ".pyi", ".pyx", ".pxd", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".hh", ".cu"]
_CODE += [".cuh", ".java", ".kt", ".scala", ".go", ".rs", ".js", ".jsx", ".ts", ".tsx", ".rb"]
_CODE += [".php", ".pl", ".lua", ".r", ".jl", ".m", ".swift", ".sh", ".sql", ".css", ".hs", ".ml"]

TEXT_SUFFIXES = frozenset(_PROSE + _TABLES + _CODE)
"""Files in a folder that are read as one document each; other kinds are passed over."""

RECORD_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
"""Files that hold many documents."""


CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Document:
    """One unit of text, kept or removed as a whole.

    Attributes:
        text: never blank, always encodable as UTF-8.
        origin: where it came from: a URL, a path relative to its source, or `path:line`.
        license: an SPDX expression where known, else "unknown".
    """

    text: str
    origin: str
    license: str = UNKNOWN_LICENSE

    @property
    def num_bytes(self) -> int:
        """Length of the text in UTF-8 bytes."""
        return len(self.text) if self.text.isascii() else len(self.text.encode())


@dataclass(frozen=True)
class Sample:
    """What a source gave under a byte cap.

    Attributes:
        documents: unbiased sample of the source, in the order of `order_key`.
        found_bytes: bytes of text that the whole source holds.
        exact: False when `found_bytes` is extrapolated from the part that was visited.
    """

    documents: list[Document]
    found_bytes: int
    exact: bool


def order_key(seed: int, name: str) -> bytes:
    """Sort key that shuffles names by seed, alike on every machine and for every listing order."""
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=12).digest()


def sample_paths(paths: Sequence[str | Path], *, max_bytes: int | None, seed: int) -> Sample:
    """Read every document of `paths` and keep a uniform sample of at most `max_bytes`.

    Everything is read once, so `found_bytes` is exact; only the kept documents stay in memory.
    Raises: CorpusError: see `read_documents`.
    """
    kept: list[tuple[bytes, int, Document]] = []  # a heap whose root has the largest key
    found_bytes = kept_bytes = 0
    for number, document in enumerate(doc for path in paths for doc in read_documents(path)):
        found_bytes += document.num_bytes
        kept_bytes += document.num_bytes
        # Keyed by content: renamed or reordered files give the same sample.
        key = order_key(seed, document.text)
        heapq.heappush(kept, (bytes(255 - byte for byte in key), -number, document))
        while max_bytes is not None and kept_bytes > max_bytes and len(kept) > 1:
            kept_bytes -= heapq.heappop(kept)[2].num_bytes
    documents = [entry[2] for entry in sorted(kept, key=lambda entry: entry[:2], reverse=True)]
    return Sample(documents, found_bytes, exact=True)


def read_documents(path: str | Path) -> Iterator[Document]:
    """Yield the documents of a file or, recursively and in sorted order, of a folder.

    `.jsonl`, `.jsonl.gz`, `.jsonl.zst` and `.parquet` hold one document per row (field `text`;
    optional `license`, and `source` or `url` for the origin). Any other file is one document; in a
    folder only `TEXT_SUFFIXES` are, and hidden files are passed over. Blank documents are skipped.

    Raises:
        CorpusError: a missing path, text that is not UTF-8, a malformed or truncated file; names
            the file and the line.
        MissingExtraError: zstandard or pyarrow is needed and not installed.
    """
    path = Path(path)
    for file in list_files(path):
        name = file.relative_to(path.parent).as_posix()
        try:
            for document in _read_file(file, name):
                if document.text.strip():
                    yield document
        except OSError as error:
            raise CorpusError(f"could not read {file}: {error.strerror or error}") from error


def list_files(path: Path) -> list[Path]:
    """The files that `read_documents` reads, sorted. Raises: CorpusError: no such path."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CorpusError(f"no file or folder at {path}; check the paths of the domain")
    files = (
        file
        for file in path.rglob("*")
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
        and (file.suffix.lower() in TEXT_SUFFIXES or file.name.lower().endswith(RECORD_SUFFIXES))
        and file.is_file()
    )
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


def _read_file(file: Path, name: str) -> Iterator[Document]:
    lowered = file.name.lower()
    if lowered.endswith(".parquet"):
        yield from _read_parquet(file, name)
    elif lowered.endswith(RECORD_SUFFIXES):
        yield from _read_jsonl(file, name)
    else:
        yield Document(_decode(file.read_bytes(), str(file)), name)


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{where} is not UTF-8 text (byte {data[error.start]:#04x} at offset {error.start}); "
            "convert it to UTF-8 or take it out of the domain"
        ) from error


def _read_jsonl(file: Path, name: str) -> Iterator[Document]:
    number = 0
    try:
        for number, line in enumerate(_lines(file), start=1):
            where = f"{file}, line {number}"
            if line.strip():
                yield _from_record(_parse_json(line, where), where, f"{name}:{number}")
    except (EOFError, gzip.BadGzipFile, zlib.error, _DamagedError) as error:
        raise CorpusError(
            f"{file} is damaged or cut short after line {number} ({error}); fetch it again"
        ) from error


def _parse_json(line: bytes, where: str) -> Any:
    try:
        return parse_json(_decode(line, where))
    except ValueError as error:
        raise CorpusError(
            f"{where} is not JSON ({error}): {line[:60]!r}; "
            "each line must be one object with a field 'text'"
        ) from error


def _from_record(record: Any, where: str, origin: str) -> Document:
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        seen = sorted(record)[:8] if isinstance(record, dict) else type(record).__name__
        raise CorpusError(f"{where} has no string field 'text' (found {seen}); rename the field")
    source = record.get("source") or record.get("url") or origin
    return Document(_encodable(text), str(source), str(record.get("license") or UNKNOWN_LICENSE))


def _encodable(text: str) -> str:
    """Lone surrogates, which JSON can carry and UTF-8 cannot, become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class _DamagedError(Exception):
    """A compressed stream that does not end where its format says."""


def _lines(file: Path) -> Iterator[bytes]:
    name = file.name.lower()
    if name.endswith(".zst"):
        yield from _zstd_lines(file)
        return
    with gzip.open(file) if name.endswith(".gz") else open(file, "rb") as handle:
        yield from handle


def _zstd_lines(file: Path) -> Iterator[bytes]:
    """Lines of a zstd file, frame by frame: the stream reader of `zstandard` takes a truncated
    file for a finished one, a decompression object knows whether its frame ended."""
    zstandard = _import_zstandard()
    frame, rest = zstandard.ZstdDecompressor().decompressobj(), b""
    frame_is_open = True
    with open(file, "rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            while chunk:
                if not frame_is_open:
                    frame, frame_is_open = zstandard.ZstdDecompressor().decompressobj(), True
                try:
                    text = rest + frame.decompress(chunk)
                except zstandard.ZstdError as error:
                    raise _DamagedError(str(error)) from error
                *lines, rest = text.split(b"\n")
                yield from lines
                chunk, frame_is_open = frame.unused_data, not frame.eof
    if frame_is_open:
        raise _DamagedError("the last zstd frame is incomplete")
    if rest:
        yield rest


def _import_zstandard():
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError("zstandard", "train") from None
    return zstandard


def _read_parquet(file: Path, name: str) -> Iterator[Document]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet") from None
    try:
        with parquet.ParquetFile(file) as table:
            columns = [
                c for c in ("text", "license", "source", "url") if c in table.schema_arrow.names
            ]
            if "text" not in columns:
                raise CorpusError(
                    f"{file} has no column 'text' (found {table.schema_arrow.names[:8]}); rename it"
                )
            row = 0
            for batch in table.iter_batches(batch_size=1024, columns=columns):
                for record in batch.to_pylist():
                    row += 1
                    if record["text"] is not None:
                        yield _from_record(record, f"{file}, row {row}", f"{name}:{row}")
    except pyarrow.ArrowInvalid as error:
        raise CorpusError(f"{file} is not a whole Parquet file: {error}; fetch it again") from error
