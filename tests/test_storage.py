"""Storage: whole files or none, exclusive creation, and plain words when a disk refuses; the same
for a folder, memory and a bucket."""

import contextlib
import errno
import functools
import os
import pickle
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mixlaw.errors import MissingExtraError, StorageError
from mixlaw.storage import LocalStorage, open_storage


@pytest.fixture
def storage(storage_url):
    return open_storage(storage_url)


def fill(storage, name, data):
    """Fill a path with bytes, or fail half way with the error given."""
    with storage.writing(name) as path:
        path.write_bytes(b"half" if isinstance(data, Exception) else data)
        if isinstance(data, Exception):
            raise data


def test_what_is_written_is_read(storage):
    assert storage.read("a/b") is None
    storage.write("a/b", b"one")
    storage.write("a/b", b"two")
    storage.write("c", b"", sync=False)
    assert storage.read("a/b") == b"two"
    assert storage.read("c") == b""
    assert storage.read_all(["a/b", "none", "c"]) == {"a/b": b"two", "c": b""}
    assert storage.read_all([]) == {}
    storage.delete("a/b")
    storage.delete("a/b")
    assert storage.read("a/b") is None


def test_only_the_first_creation_succeeds(storage):
    assert storage.create("run/claim-000001", b"one")
    assert not storage.create("run/claim-000001", b"two")
    assert storage.read("run/claim-000001") == b"one"
    assert storage.names("run") == ["claim-000001"]


def test_names_are_of_one_folder(storage):
    assert storage.names() == storage.names("none") == []
    assert storage.folders_with("run.json") == set()
    for name in ("r1/run.json", "r1/metrics.jsonl", "r2/metrics.jsonl", "r3/run.json", "run.json"):
        storage.write(name, b"{}")
    storage.write("r4/deep/run.json", b"{}")
    assert storage.names() == ["r1", "r2", "r3", "r4", "run.json"]
    assert storage.names("r1") == ["metrics.jsonl", "run.json"]
    assert storage.names("r4") == ["deep"]
    assert storage.folders_with("run.json") == {"r1", "r3"}


def test_what_others_write_is_seen_at_once(storage):
    other = pickle.loads(pickle.dumps(storage))
    assert other == storage
    assert storage.names("r") == []
    other.write("r/a", b"1")
    assert storage.names("r") == ["a"]
    other.write("r/b", b"1")
    assert storage.names("r") == ["a", "b"]
    other.delete("r/a")
    assert storage.names("r") == ["b"]
    assert storage.read("r/a") is None


def test_what_other_machines_put_in_a_bucket_is_seen_at_once(s3_server):
    storage = open_storage("s3://mixlaw/others")
    other = pytest.importorskip("s3fs").S3FileSystem(skip_instance_cache=True)
    for turn in range(1, 4):
        other.pipe_file("mixlaw/others/r/a", b"x" * turn)
        other.pipe_file(f"mixlaw/others/r/b{turn}", b"")
        assert storage.names("r") == ["a", *(f"b{i + 1}" for i in range(turn))]
        assert storage.read("r/a") == b"x" * turn
        with storage.reading("r/a") as path:
            assert path.read_bytes() == b"x" * turn


@pytest.mark.parametrize("folder", ["[1]", "a*", "what?"])
def test_a_folder_whose_name_looks_like_a_pattern(storage_url, folder):
    storage = open_storage(f"{storage_url}/{folder}")
    storage.append("r/m", b"1\n")
    storage.append("r/m", b"2\n")
    assert storage.create("r/claim", b"me")
    assert storage.names("r") == ["claim", "m"]
    assert storage.read_all(["r/m", "r/none"]) == {"r/m": b"1\n2\n"}
    with storage.reading("r/m") as path:
        assert path.read_bytes() == b"1\n2\n"
    assert open_storage(storage_url).read("1/r/m") is None


def test_appended_lines_follow_each_other(storage):
    storage.append("r/m", b"1\n2\n")
    storage.append("r/m", b"3\n")
    assert storage.read("r/m") == b"1\n2\n3\n"


def test_a_torn_line_is_closed_before_the_next(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.write("m", b"1\n2")
    storage.append("m", b"3\n")
    assert storage.read("m") == b"1\n2\n3\n"


def test_a_path_that_is_filled_appears_whole(storage):
    with storage.writing("r/c") as path:
        path.write_bytes(b"x" * 100_000)
        assert storage.names("r") == []
    assert storage.names("r") == ["c"]
    with storage.reading("r/c") as path:
        assert path.read_bytes() == b"x" * 100_000
    with pytest.raises(RuntimeError, match="the trainer's own"):
        fill(storage, "r/d", RuntimeError("the trainer's own"))
    with pytest.raises(StorageError, match="No space left"):
        fill(storage, "r/c", OSError(errno.ENOSPC, "No space left on device"))
    assert storage.names("r") == ["c"]
    with pytest.raises(StorageError, match="has no file r/d"), storage.reading("r/d"):
        pass


def test_creators_in_a_race_have_one_winner(storage):
    threads, rounds = 4, 10
    barrier, won = threading.Barrier(threads), [[] for _ in range(rounds)]

    def create(me):
        for turn in range(rounds):
            barrier.wait()
            if storage.create(f"race/{turn}", str(me).encode() * 50):
                won[turn].append(me)

    crowd = [threading.Thread(target=create, args=(me,)) for me in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert [len(winners) for winners in won] == [1] * rounds
    for turn, (winner,) in enumerate(won):
        assert storage.read(f"race/{turn}") == str(winner).encode() * 50


@pytest.mark.parametrize("form", ["{}", "file:{}", "file://{}", "local://{}"])
def test_urls_of_a_folder(tmp_path, form):
    assert open_storage(form.format(tmp_path)) == LocalStorage(tmp_path)
    assert open_storage(tmp_path) == LocalStorage(tmp_path)
    assert open_storage("runs").url == os.path.abspath("runs")  # for workers elsewhere
    assert (
        open_storage("~/runs") == open_storage(Path("~/runs")) == LocalStorage(Path.home() / "runs")
    )


@pytest.mark.parametrize("url", [Path("s3://bucket/runs"), "gs:/bucket/runs"])
def test_a_url_that_was_made_a_path_is_no_folder(url):
    with pytest.raises(StorageError, match=r"lost a slash .* as text, as it begins: (s3|gs)://$"):
        open_storage(url)


def test_a_file_system_without_whole_files_is_refused():
    with pytest.raises(StorageError, match=r"sftp:// cannot show a file whole.*mount it"):
        open_storage("sftp://host/runs")


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError, match=r"mixlaw\[cloud\]"):
        open_storage("s3://bucket/runs")


def test_without_the_package_of_a_bucket_it_is_named(monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StorageError, match=r"gs://bucket/runs needs .*'gcsfs'.*pip install gcsfs$"):
        open_storage("gs://bucket/runs")


def test_fsspec_is_loaded_for_buckets_only():
    code = "import sys, mixlaw.store, mixlaw.claims; mixlaw.store.RunStore('x'); "
    code += "print('fsspec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_bucket_that_is_not_there(s3_server):
    storage = open_storage("s3://nowhere/runs")
    with pytest.raises(StorageError, match=r"could not write s3://nowhere/runs/a: .*bucket"):
        storage.write("a", b"")
    with pytest.raises(StorageError, match=r"could not create s3://nowhere/runs"):
        storage.create("a", b"")


@pytest.mark.parametrize("fault", ["overwrites", "not implemented"])
def test_a_bucket_that_cannot_create_exclusively_is_refused(monkeypatch, fault):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    original = type(memory).pipe_file

    def pipe_file(self, path, value, mode="overwrite", **options):
        if fault == "not implemented" and mode == "create":
            raise NotImplementedError
        return original(self, path, value, **options)

    monkeypatch.setattr(type(memory), "pipe_file", pipe_file)
    storage = open_storage(f"memory://exclusive-{fault.replace(' ', '-')}")
    with pytest.raises(StorageError, match="does not refuse to create a file twice"):
        storage.create("a", b"")
    assert storage.names() == []


def test_a_store_that_says_in_its_own_words_that_a_file_exists(monkeypatch):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    original = type(memory).pipe_file

    def pipe_file(self, path, value, mode="overwrite", **options):
        try:
            return original(self, path, value, mode=mode, **options)
        except FileExistsError:
            raise OSError(errno.EINVAL, "PreconditionFailed") from None

    monkeypatch.setattr(type(memory), "pipe_file", pipe_file)
    storage = open_storage("memory://own-words")
    assert storage.create("a", b"1")
    assert not storage.create("a", b"2")


def test_a_reader_that_cannot_read_is_no_absent_file(monkeypatch):
    memory = pytest.importorskip("fsspec").filesystem("memory")

    def refuse(self, path, *arguments, **options):
        raise PermissionError(errno.EACCES, "Access Denied")

    storage = open_storage("memory://refused")
    storage.write("a", b"1")
    monkeypatch.setattr(type(memory), "cat_file", refuse)
    with pytest.raises(StorageError, match="could not read memory://refused/a: Access Denied"):
        storage.read_all(["a", "b"])


def test_without_hard_links_still_only_one_creates(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    storage = LocalStorage(tmp_path)
    assert storage.create("a", b"1")
    assert not storage.create("a", b"2")
    assert storage.read("a") == b"1"
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_whose_answer_was_lost_counts(tmp_path, monkeypatch):
    link = os.link

    def lossy(source, target):
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", lossy)
    assert LocalStorage(tmp_path).create("a", b"1")


def test_only_what_must_last_is_synced(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(number) or fsync(number))
    storage = LocalStorage(tmp_path)
    storage.write("heartbeat", b"1", sync=False)
    storage.append("metrics", b"1\n")
    storage.create("claim", b"1")
    assert synced == []
    storage.write("result", b"1")
    with storage.writing("checkpoint") as path:
        path.write_bytes(b"1")
    assert len(synced) == 2


@pytest.mark.parametrize("how", ["write", "create", "append", "writing"])
def test_a_full_disk(full_disk, how):
    storage, data = LocalStorage(full_disk), os.urandom(200_000)
    write = functools.partial(fill, storage) if how == "writing" else getattr(storage, how)
    storage.write("before", b"1")
    with pytest.raises(StorageError, match=r"could not write .*/r/a: No space left.*check space"):
        write("r/a", data)
    assert storage.read("before") == b"1"
    if how != "append":
        assert os.listdir(full_disk / "r") == []
        write("r/a", b"2")
        assert storage.read("r/a") == b"2"


@pytest.fixture
def full_disk(tmp_path):
    """A disk of 64 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    with contextlib.suppress(OSError):
        if subprocess.run(mount, capture_output=True).returncode == 0:
            yield tmp_path
            subprocess.run(["umount", "-l", str(tmp_path)], check=True)
            return
    pytest.skip("mounting a small disk takes root")


WRITER = """
import os, sys
from mixlaw.storage import open_storage
storage = open_storage(sys.argv[1])
for turn in range(10**9):
    data = bytes([turn % 256]) * 300_000
    storage.write("r/result", data, sync=False)
    storage.create(f"r/claim-{os.getpid()}-{turn}", data[:5000])
    with storage.writing("r/checkpoint-1") as path:
        path.write_bytes(data)
    print(turn, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_whole_files(tmp_path):
    rng, storage = random.Random(0), LocalStorage(tmp_path)
    for _ in range(30):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.03))
        writer.kill()
        writer.communicate()
        for name in storage.names("r"):
            data = storage.read(f"r/{name}")
            assert len(data) == (5000 if name.startswith("claim") else 300_000)
            assert len(set(data)) == 1
    assert storage.names("r")
    storage.sweep("r/")
    assert sorted(os.listdir(tmp_path / "r")) == storage.names("r")
