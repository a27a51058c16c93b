"""The example notebook runs as a script, and is a notebook without faults."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def notebook(tmp_path) -> Path:
    pytest.importorskip("marimo", reason="marimo is not installed")
    pytest.importorskip("matplotlib", reason="the notebook draws")
    shutil.copytree(EXAMPLES / "tiny-env", tmp_path / "tiny-env")
    return Path(shutil.copy(EXAMPLES / "notebook.py", tmp_path))


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_as_a_script(notebook):
    told = run(sys.executable, "-W", "error", notebook)
    assert "recommended Mixture(" in told
    assert "what if: " in told


def test_as_a_page(notebook):
    run(sys.executable, "-m", "marimo", "check", "--strict", notebook)
    page = notebook.with_suffix(".html")
    run(sys.executable, "-m", "marimo", "export", "html", notebook, "-o", page)
    text = page.read_text(encoding="utf-8")
    assert "What if?" in text
    assert "Traceback" not in text
