"""Where runs lie: a folder of this machine or network, or a bucket, behind one small interface."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mixlaw.errors import MissingExtraError, StorageError

OBJECT_STORES = frozenset(
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "tos", "memory")
)
"""Protocols whose files appear whole or not at all, as a run's files must. Others (sftp, hdfs)
show half of a file that is being written; mounted, they are folders and are used as such."""

NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS))


class Storage(Protocol):
    """Files by name, a relative posix path. Plain data: it may be pickled.

    All methods raise StorageError when the disk or the bucket refuses.
    """

    @property
    def url(self) -> str: ...

    def read(self, name: str) -> bytes | None:
        """The content; None when there is no such file."""
        ...

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """The contents of those that exist; from a bucket many at once."""
        ...

    def write(self, name: str, data: bytes, *, sync: bool = True) -> None:
        """Replace the file: a reader sees the old content or the whole new one.

        Args:
            sync: survive a power cut; without it the old or no content may come back.
        """
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that must be new, whole. False: it exists already, and stays as it is."""
        ...

    def append(self, name: str, lines: bytes) -> None:
        """Add whole lines. A last line that was torn (the disk was full) is closed first.

        A bucket has no append: there the whole file is written anew, which suits small files
        with one writer.
        """
        ...

    def names(self, folder: str = "") -> list[str]:
        """What lies directly in a folder, sorted; [] when there is no such folder."""
        ...

    def folders_with(self, name: str) -> set[str]:
        """The folders directly under the root that hold a file of this name."""
        ...

    def delete(self, name: str) -> None:
        """Remove the file, if it is there."""
        ...

    def sweep(self, prefix: str) -> None:
        """Remove what killed writers left of files whose names begin so."""
        ...

    def writing(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A local path to fill; it becomes the file, whole, when the block ends well."""
        ...

    def reading(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A local path with the content. Raises: StorageError: there is no such file."""
        ...


def open_storage(url: str | Path) -> Storage:
    """The storage at a path, a `file:` URL, or a URL of an object store (s3://bucket/folder).

    Credentials of a bucket come from where its own tools look for them (for S3 the environment
    or ~/.aws; for any, fsspec's configuration files).
    Raises:
        MissingExtraError: a bucket, and fsspec is not installed.
        StorageError: a file system that cannot keep runs, or whose package is not installed; a
            URL that was made a Path, which has lost a slash.
    """
    protocol, marker, rest = str(url).partition("://")
    if not marker:
        first = str(url).partition("/")[0]
        if first.removesuffix(":") in OBJECT_STORES and first.endswith(":"):
            raise StorageError(
                f"{url} is a URL that lost a slash in becoming a path; give it as text, as it "
                f"begins: {first}//"
            )
        return LocalStorage(Path(str(url).removeprefix("file:")).expanduser().absolute())
    if protocol in ("file", "local"):
        return LocalStorage(Path(rest).absolute())
    if protocol not in OBJECT_STORES:
        raise StorageError(
            f"{url}: {protocol}:// cannot show a file whole or not at all, which runs need; "
            f"mount it and give its path, or use one of {', '.join(sorted(OBJECT_STORES))}"
        )
    storage = RemoteStorage(str(url).rstrip("/"))
    with _refusals("open", storage.url):
        _filesystem(storage.url)
    return storage


@dataclass(frozen=True)
class LocalStorage:
    """A folder, by its absolute path; it may be on a network file system."""

    root: Path

    @property
    def url(self) -> str:
        return str(self.root)

    def read(self, name: str) -> bytes | None:
        path = self.root / name
        with self._refusals("read", name):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
                return path.read_bytes()  # another machine has just replaced it (NFS)

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        found = ((name, self.read(name)) for name in names)
        return {name: data for name, data in found if data is not None}

    def write(self, name: str, data: bytes, *, sync: bool = True) -> None:
        with self._temporary(name) as temporary:
            _fill(temporary, data, sync)
            os.replace(temporary, self.root / name)

    def create(self, name: str, data: bytes) -> bool:
        with self._temporary(name) as temporary:
            _fill(temporary, data, sync=False)
            try:
                os.link(temporary, self.root / name)
            except FileExistsError:
                # A network file system may have made the link and lost the answer.
                return os.stat(temporary).st_nlink == 2
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                # No hard links here: still only one creates it, but it is empty for an instant.
                try:
                    with open(self.root / name, "xb") as handle:
                        handle.write(data)
                except FileExistsError:
                    return False
            return True

    def append(self, name: str, lines: bytes) -> None:
        with self._refusals("write", name):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab+", buffering=0, opener=_not_through_a_link) as handle:
                if handle.tell():
                    handle.seek(-1, os.SEEK_END)
                    lines = lines if handle.read(1) == b"\n" else b"\n" + lines
                while lines:  # a full disk takes a part, and says no only to the next
                    lines = lines[handle.write(lines) :]

    def names(self, folder: str = "") -> list[str]:
        with self._refusals("list", folder):
            try:
                found = os.listdir(self.root / folder)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(name for name in found if not _is_temporary(name))

    def folders_with(self, name: str) -> set[str]:
        return {f for f in self.names() if os.path.exists(self.root / f / name)}

    def delete(self, name: str) -> None:
        with self._refusals("delete", name):
            (self.root / name).unlink(missing_ok=True)

    def sweep(self, prefix: str) -> None:
        folder, _, start = prefix.rpartition("/")
        with self._refusals("clean", folder), contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.root / folder):
                if _is_temporary(name) and name.startswith(f".{start}"):
                    (self.root / folder / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with self._temporary(name) as temporary:
            yield temporary
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, self.root / name)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        path = self.root / name
        if not path.is_file():
            raise _absent(self.url, name)
        yield path

    @contextlib.contextmanager
    def _temporary(self, name: str) -> Iterator[Path]:
        """A sibling of the file that no other process or machine uses; gone after the block."""
        path = self.root / name
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        with self._refusals("write", name):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield temporary
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)

    def _refusals(self, verb: str, name: str) -> contextlib.AbstractContextManager[None]:
        return _refusals(verb, str(self.root / name), OSError)


def _not_through_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@dataclass(frozen=True)
class RemoteStorage:
    """A bucket, or a folder of one, through fsspec. `url` has no slash at its end."""

    url: str

    def read(self, name: str) -> bytes | None:
        return self.read_all([name]).get(name)

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        if not names:
            return {}
        fs, root = _filesystem(self.url)
        with self._refusals("read", names[0]):
            # Not `cat`, to which brackets in a name are a pattern.
            found = fs.cat_ranges([f"{root}/{name}" for name in names], None, None)
            for data in found:
                if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                    raise data
        contents = zip(names, found, strict=True)
        return {name: data for name, data in contents if isinstance(data, bytes)}

    def write(self, name: str, data: bytes, *, sync: bool = True) -> None:
        fs, root = _filesystem(self.url)
        with self._refusals("write", name):
            fs.pipe_file(f"{root}/{name}", data)

    def create(self, name: str, data: bytes) -> bool:
        _check_exclusive(self.url)
        return self._create(name, data)

    def _create(self, name: str, data: bytes) -> bool:
        fs, root = _filesystem(self.url)
        with self._refusals("create", name):
            try:
                fs.pipe_file(f"{root}/{name}", data, mode="create")
            except FileExistsError:
                return False
            except (NotImplementedError, TypeError, ValueError) as error:
                raise _not_exclusive(self.url) from error
            except Exception:
                # Not all stores say in the same words that it exists.
                if self.read(name) is None:
                    raise
                return False
        return True

    def append(self, name: str, lines: bytes) -> None:
        self.write(name, (self.read(name) or b"") + lines)

    def names(self, folder: str = "") -> list[str]:
        return sorted({name.partition("/")[0] for name in self._below(folder)})

    def folders_with(self, name: str) -> set[str]:
        split = (below.partition("/") for below in self._below(""))
        return {folder for folder, _, rest in split if rest == name}

    def _below(self, folder: str) -> list[str]:
        """The files at any depth of a folder, by their names in it: a thousand per request.

        (Listing one level is dearer: where it finds nothing, s3fs lists all siblings.)
        """
        fs, root = _filesystem(self.url)
        path = f"{root}/{folder}".strip("/")
        with self._refusals("list", folder):
            found = fs.find(path)
        return [name for file in found if (name := file.strip("/")[len(path) + 1 :])]

    def delete(self, name: str) -> None:
        fs, root = _filesystem(self.url)
        with self._refusals("delete", name), contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{root}/{name}")

    def sweep(self, prefix: str) -> None:
        """A bucket shows nothing of an upload that was not finished."""

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        fs, root = _filesystem(self.url)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(name).name)
            with _refusals("write", str(path), OSError):  # the disk here, or the caller's error
                yield path
            with self._refusals("write", name):
                fs.put_file(str(path), f"{root}/{name}")

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        fs, root = _filesystem(self.url)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(name).name)
            with self._refusals("read", name):
                try:
                    fs.get_file(f"{root}/{name}", str(path))
                except FileNotFoundError:
                    raise _absent(self.url, name) from None
            yield path

    def _refusals(self, verb: str, name: str) -> contextlib.AbstractContextManager[None]:
        return _refusals(verb, f"{self.url}/{name}")


def _filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL (kept by fsspec, one per process) and the path in it."""
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations
    except ImportError:
        raise MissingExtraError("fsspec", "cloud") from None
    try:
        # Other machines write here too: a remembered listing would hide their claims and results.
        fs, root = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        package = known_implementations[url.partition("://")[0]]["class"].partition(".")[0]
        raise StorageError(
            f"{url} needs the package {package!r}, which cannot be imported here; install it "
            f"with: pip install {package}"
        ) from error
    return fs, root.rstrip("/")


@functools.lru_cache
def _check_exclusive(url: str) -> None:
    """Try once per process that the second of two creations of one file is refused.

    Some object stores ignore the condition of a conditional write, and two workers would then
    believe that they hold the same run.
    """
    storage, name = RemoteStorage(url), f"exclusive-{secrets.token_hex(8)}"
    try:
        exclusive = storage._create(name, b"a") and not storage._create(name, b"b")
    finally:
        storage.delete(name)
    if not exclusive:
        raise _not_exclusive(url)


def _not_exclusive(url: str) -> StorageError:
    return StorageError(
        f"{url} does not refuse to create a file twice, so workers cannot claim runs in it; use a "
        "store with conditional writes (S3, GCS, Azure, MinIO; a recent s3fs or gcsfs), or a "
        "shared folder"
    )


def _fill(path: Path, data: bytes, sync: bool) -> None:
    with open(path, "wb") as handle:
        handle.write(data)
        if sync:
            handle.flush()
            os.fsync(handle.fileno())


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _absent(url: str, name: str) -> StorageError:
    return StorageError(f"{url} has no file {name}; it was deleted, or never written")


@contextlib.contextmanager
def _refusals(verb: str, where: str, kind: type[Exception] = Exception) -> Iterator[None]:
    """Turn what a disk or a bucket refuses into one line. Buckets raise errors of many families,
    none of them ours to import, hence the broad default."""
    try:
        yield
    except (StorageError, MissingExtraError):
        raise
    except kind as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StorageError(
            f"could not {verb} {where}: {' '.join(str(reason).split())}; check space, rights and "
            "connection there, or choose another place, then run the same command again"
        ) from error
