"""`mixlaw schedule` as a user meets it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.study.staged import SCARCE, STUDY, staged_rows, static_rows, write_study

COMMAND = [sys.executable, "-c", "from mixlaw.cli import main; main()"]


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def decided(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A study of a table in which a scarce domain belongs to the end, and what was printed."""
    folder = tmp_path_factory.mktemp("cli") / "study"
    write_study(folder, static_rows() + staged_rows(), STUDY + SCARCE + "schedule: {}\n")
    return folder, run("schedule", folder)


def test_stages_dose_and_gain_are_shown(decided):
    _, found = decided
    assert found.returncode == 0, found.stderr
    shown = " ".join(found.stdout.split())
    for text in (
        "share 0-80% 80-100% dose epochs best static its epochs",
        "forecast (weight) staged same dose best static",
        "lower than the best static mixture; probability",
        "the order alone: forecast",
        "stage law recency; squared error on held-out staged runs",
        "recommended: staged:",
        "dose of web at its upper bound 0.15 (epoch cap)",
    ):
        assert text in shown


def test_as_json(decided):
    folder, _ = decided
    found = json.loads(run("schedule", folder, "--json").stdout)
    assert found["worthwhile"] is True
    assert [share for share, _ in found["recommended"]] == [0.8, 0.2]
    assert found["recommended"] == found["staged"]["schedule"]
    assert found["forms"]["dose"]["error"] == pytest.approx(1)
    assert found["forms"]["recency"]["mae"]["loss/web"] > 0


def test_status_knows_the_step(decided):
    folder, _ = decided
    found = json.loads(run("status", folder, "--json").stdout)
    assert found["steps"]["schedule"] == "schedule.json"
    assert list(found["steps"])[-2:] == ["schedule", "report"]


def test_the_report_tells_of_it(decided, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from mixlaw.report import write_report
    from mixlaw.study import Study

    folder = Path(shutil.copytree(decided[0], tmp_path / "study"))
    page = write_report(Study(folder)).read_text(encoding="utf-8")
    assert "The order of the data" in page
    assert "Change the mixture during training: it is forecast" in page
    assert "web rises most" in page
    (folder / "schedule.json").unlink()
    assert "The order of the data" not in write_report(Study(folder)).read_text(encoding="utf-8")


def test_a_static_answer_is_shown_as_such(tmp_path):
    folder = write_study(tmp_path, static_rows() + staged_rows())
    found = run("schedule", folder)
    assert "recommended: static:" in found.stdout
    page = run("schedule", folder, "--json")
    assert [share for share, _ in json.loads(page.stdout)["recommended"]] == [1.0]


def test_mistakes_are_told_in_one_line(decided, tmp_path):
    folder, _ = decided
    for arguments, told in (
        ((folder, "--online"), "--online trains online runs beside those of --verify"),
        ((folder, "--verify"), "works from the table runs.csv"),
        ((write_study(tmp_path, static_rows()),), "no finished run changed its mixture"),
    ):
        found = run("schedule", *arguments)
        assert found.returncode == 1
        assert told in found.stderr
        assert len(found.stderr.strip().splitlines()) == 1
