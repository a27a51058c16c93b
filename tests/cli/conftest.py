"""The command line in this process, for speed, and in a terminal; a study that is fitted once."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mixlaw.cli import main
from mixlaw.runs import RunTable
from mixlaw.study import Study

STUDY = """\
table: runs.csv
domains:
  web: {available_tokens: 6_000_000_000}
  code: {available_tokens: 2_000_000_000}
  books: {available_tokens: 1_000_000_000}
objective: {loss/web: 1, loss/code: 1}
tradeoffs: {books: {loss/books: 1}}
constraints: {max_epochs: 4}
target: {num_params: 100_000_000, train_tokens: 2_000_000_000}
"""

DRIVER = """
import json, sys
from mixlaw.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as stopped:
        sys.stdout.flush()
        sys.stderr.flush()
        print(f"\\x1e{stopped.code}\\x1e", end="", flush=True)
"""
"""Many commands in one process: most of a second goes into imports."""

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
DRAWN_OVER = re.compile(r"[^\n]*\r(?!\n)")
UNDONE = re.compile(r"[^\n]*\n\x1b\[\?25h\r\x1b\[1A\x1b\[2K")
"""A last line of what moves, and the codes that go up to it and clear it."""


@dataclass(frozen=True)
class Screen:
    """What a terminal got of a command."""

    sent: str
    code: int

    @property
    def lines(self) -> list[str]:
        """What stays on it, without colours and without lines that were drawn over."""
        text = CODES.sub("", UNDONE.sub("", self.sent)).replace("\r\n", "\n")
        return DRAWN_OVER.sub("", text).split("\n")

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.lines).split())


@pytest.fixture
def mixlaw(monkeypatch, capsys):
    """Run a command: (exit code, stdout, stderr), both with single spaces."""

    def run(*arguments) -> tuple[int, str, str]:
        code, out, err = run_as_it_is(monkeypatch, capsys, arguments)
        return code, " ".join(out.split()), " ".join(err.split())

    return run


@pytest.fixture
def exact(monkeypatch, capsys):
    """Run a command: (exit code, stdout, stderr), to the letter."""
    return lambda *arguments: run_as_it_is(monkeypatch, capsys, arguments)


def run_as_it_is(monkeypatch, capsys, arguments) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["mixlaw", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.fixture(scope="session")
def fitted_folder(tmp_path_factory) -> Path:
    """A study of a table of runs on web, code and books, fitted and decided. Copy before use."""
    folder = tmp_path_factory.mktemp("fitted") / "my-study"
    folder.mkdir()
    RunTable.from_rows(rows()).write(folder / "runs.csv")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    Study(folder).optimize()
    return folder


@pytest.fixture
def beside_study(fitted_folder, tmp_path, monkeypatch) -> Path:
    """The working directory, with my-study and runs.csv, as the examples of the help have them."""
    shutil.copytree(fitted_folder, tmp_path / "my-study")
    shutil.copy(fitted_folder / "runs.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows() -> list[dict]:
    """18 mixtures at two sizes and two horizons; each loss falls with its own domain."""
    rng = np.random.default_rng(4)
    found = []
    for share in rng.dirichlet([1.5, 1.5, 1.5], 18):
        for num_params in (5e6, 2e7):
            for train_tokens in (1e8, 3e8):
                row = dict(zip(("weight/web", "weight/code", "weight/books"), share, strict=True))
                row |= {"num_params": num_params, "train_tokens": train_tokens}
                scale = (2e7 / num_params) ** 0.3 + (3e8 / train_tokens) ** 0.3
                for j, name in enumerate(("web", "code", "books")):
                    loss = 1.5 + 0.5 * scale + (0.6 + 0.2 * j) * np.exp(-3 * share[j])
                    row[f"loss/{name}"] = float(loss + rng.normal(0, 0.005))
                found.append(row)
    return found


@pytest.fixture
def in_terminal():
    """Run commands in a terminal, one after the other in one process: their screens.

    Also takes its width and changes to the environment (None: not set).
    """

    def show(*commands, columns: int = 80, **changes) -> list[Screen]:
        environment = {**os.environ, "TERM": "xterm-256color"}
        for name in ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR", "CI", "MIXLAW_DEBUG"):
            environment.pop(name, None)
        environment |= changes
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        given = json.dumps([list(map(str, arguments)) for arguments in commands])
        with subprocess.Popen(
            [sys.executable, "-c", DRIVER, given],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
        ):
            os.close(theirs)
            text = read(ours).decode()
        parts = text.split("\x1e")
        screens = [Screen(parts[k], int(parts[k + 1])) for k in range(0, len(parts) - 1, 2)]
        assert len(screens) == len(commands), text
        return screens

    return show


def read(terminal: int) -> bytes:
    """All until the other side is closed, which some systems call an error."""
    found = b""
    try:
        while got := os.read(terminal, 65536):
            found += got
    except OSError:
        pass
    os.close(terminal)
    return found
