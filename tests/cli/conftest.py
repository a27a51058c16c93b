"""The command line in this process, for speed."""

from __future__ import annotations

import sys

import pytest

from mixlaw.cli import main


@pytest.fixture
def mixlaw(monkeypatch, capsys):
    """Run a command: (exit code, stdout, stderr), both with single spaces."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mixlaw", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        shown = capsys.readouterr()
        return code, " ".join(shown.out.split()), " ".join(shown.err.split())

    return run
