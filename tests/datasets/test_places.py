"""A source that does not answer, a folder that is none, an extra that is missing."""

from __future__ import annotations

import socket
import sys
import threading

import pytest

from mixlaw import datasets
from mixlaw.errors import MissingExtraError, RunTableError, StorageError


@pytest.fixture
def online(monkeypatch, tmp_path):
    """Sets the address of the source; the cache is empty, and no folder of tables is known."""
    pytest.importorskip("pooch", reason="downloads need pooch")
    monkeypatch.delenv("MIXLAW_DATA", raising=False)
    monkeypatch.setenv("MIXLAW_CACHE", str(tmp_path / "cache"))

    def at(port: int) -> None:
        monkeypatch.setattr("mixlaw.datasets.about.RAW", f"http://127.0.0.1:{port}")

    return at


@pytest.fixture
def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def kept(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_no_answer_is_one_line(online, free_port, tmp_path):
    online(free_port)
    with pytest.raises(RunTableError) as error:
        datasets.load("olmix/dclm")
    said = str(error.value)
    assert f"could not download http://127.0.0.1:{free_port}/allenai/olmix/b98f5e" in said
    assert said.endswith(
        "(ConnectionError); go online, or set MIXLAW_DATA to a folder that has "
        "olmix_swarms/dclm_swarm.parquet"
    )
    assert "\n" not in said
    assert not kept(tmp_path)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "status 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nindex,train", "ChunkedEncodingError"),
    ],
)
def test_no_file_or_half_of_it(online, tmp_path, reply, why):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection = listener.accept()[0]
            with connection:
                connection.recv(4096)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        online(listener.getsockname()[1])
        with pytest.raises(RunTableError, match=why):
            datasets.load("regmix/train-1m")
        thread.join()
    assert not kept(tmp_path)


def test_a_cache_that_cannot_be_written(online, free_port, tmp_path):
    online(free_port)
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(StorageError, match="set MIXLAW_CACHE to another folder"):
        datasets.load("olmix/dclm")


def test_what_is_hosted_nowhere(monkeypatch, tmp_path):
    monkeypatch.delenv("MIXLAW_DATA", raising=False)
    expected = "tiny-env is hosted nowhere; set MIXLAW_DATA to a folder that has tiny_env_swarm"
    with pytest.raises(RunTableError, match=expected):
        datasets.load("tiny-env")
    monkeypatch.setenv("MIXLAW_DATA", str(tmp_path))
    with pytest.raises(RunTableError, match=expected):
        datasets.load("tiny-env")


def test_a_folder_that_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("MIXLAW_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(RunTableError, match=r"MIXLAW_DATA is '.*nowhere', which is no folder"):
        datasets.load("regmix")


def test_missing_extras(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setenv("MIXLAW_DATA", str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"'pooch'.*mixlaw\[datasets\]"):
        datasets.load("regmix")
    (tmp_path / "regmix_pile").mkdir()
    (tmp_path / "regmix_pile/runs.parquet").touch()
    with pytest.raises(MissingExtraError, match=r"'pyarrow'.*mixlaw\[parquet\]"):
        datasets.load("regmix")
