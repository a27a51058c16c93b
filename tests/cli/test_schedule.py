"""`mixlaw schedule` as a user meets it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mixlaw.cli import show_schedule
from mixlaw.mixture import Mixture
from mixlaw.report.schedule_words import (
    BETTER,
    NOISE,
    WORSE,
    advice,
    is_better,
    seed_interval,
    seeds_say,
)
from mixlaw.schedule import Schedule
from mixlaw.study import Study
from mixlaw.study.schedule_verification import Adapted, ScheduleVerification
from mixlaw.study.verification import Gain, Verification, Verified
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


@pytest.mark.parametrize("command", [("fit",), ("edit", "--remove", "books")])
def test_what_works_on_static_rows_says_so(decided, command):
    found = run(command[0], decided[0], *command[1:])
    assert "10 rows changed their mixture during training: they are left out here" in found.stdout


def test_targets_that_no_staged_run_measured_are_blank(tmp_path):
    unmeasured = [{**row, "loss/books": None} for row in staged_rows()]
    found = run("schedule", write_study(tmp_path, static_rows() + unmeasured), "--json")
    assert found.returncode == 0, found.stderr
    data = json.loads(found.stdout, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert data["forms"]["recency"]["mae"]["loss/books"] is None
    assert data["staged"]["targets"]["loss/books"]["half_width"] is None


def test_status_knows_the_step(decided):
    folder, _ = decided
    found = json.loads(run("status", folder, "--json").stdout)
    assert found["steps"]["schedule"] == "schedule.json"
    assert list(found["steps"])[-2:] == ["schedule", "report"]


def test_the_report_tells_of_it(decided, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from mixlaw.report import write_report

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


@pytest.mark.parametrize(
    ("by_seed", "verdict"),
    [
        ([0.010, 0.012, 0.011], BETTER),
        ([-0.010, -0.012, -0.011], WORSE),
        ([0.010, -0.005, 0.001], NOISE),
        ([0.010], NOISE),
    ],
)
def test_what_seeds_say(by_seed, verdict):
    assert seeds_say(by_seed) == verdict


def test_the_interval_over_seeds_is_students():
    low, high = seed_interval([0.01, 0.02, 0.03])
    half = stats.t.ppf(0.95, 2) * 0.01 / np.sqrt(3)
    assert (low, high) == pytest.approx((0.02 - half, 0.02 + half))


def test_what_was_trained_stands_above_the_forecast(decided, capsys):
    found = Study(decided[0]).schedule_decision()
    assert found is not None
    assert found.worthwhile
    losses = {"staged": (2.52, 2.53), "static": (2.51, 2.52), "same dose": (2.55, 2.57)}
    forecasts = {"staged": found.staged, "static": found.static, "same dose": found.same_dose}
    mixtures = {
        name: Verified(forecasts[name].objective, seen, {}, ((1e6, sum(seen) / 2),))
        for name, seen in losses.items()
    }
    gains = {
        "static": Gain(0.03, (-0.01, -0.0101), None, False),
        "same dose": Gain(0.04, (0.03, 0.04), 1.0, True),
    }
    online = Adapted((2.53,), {"staged": (-0.01,)}, (Schedule.static(Mixture({"web": 1.0})),))
    verified = ScheduleVerification(Verification(mixtures, gains), online)
    show_schedule.verification(found, verified)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Keep one mixture: trained at the target scale" in shown
    assert "the staged schedule is WORSE" in shown
    assert "online against staged: −0.0100 observed; one seed cannot tell it from noise" in shown
    assert not is_better(found, verified)
    assert is_better(found, None)


def test_a_schedule_that_loses_to_its_own_dose_is_not_advised(decided):
    found = Study(decided[0]).schedule_decision()
    assert found is not None
    gains = {
        "static": Gain(0.03, (0.02, 0.0201), None, False),
        "same dose": Gain(0.04, (-0.03, -0.0301), 1.0, True),
    }
    verified = ScheduleVerification(Verification({}, gains))
    assert not is_better(found, verified)
    assert "Keep one mixture, and look at that of the schedule's dose" in advice(found, verified)
    gains["same dose"] = Gain(0.04, (0.01, 0.0101), 1.0, True)
    assert is_better(found, verified)
    assert advice(found, verified).startswith("Change the mixture during training: trained at")


def test_mistakes_are_told_in_one_line(decided, tmp_path):
    folder, _ = decided
    for arguments, told in (
        ((folder, "--online"), "--online trains online runs beside those of --verify"),
        ((folder, "--verify"), "works from the table runs.csv"),
        ((write_study(tmp_path / "a", static_rows()),), "no finished run changed its mixture"),
        ((write_study(tmp_path / "b", staged_rows()),), "changed its mixture during training, and"),
    ):
        found = run("schedule", *arguments)
        assert found.returncode == 1
        assert told in found.stderr
        assert len(found.stderr.strip().splitlines()) == 1
