"""The command line as a user meets it: real processes, real files, real kills."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixlaw.runs import RunTable

COMMAND = [sys.executable, "-c", "from mixlaw.cli import main; main()"]


def run(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, **options
    )


def table_study(folder: Path) -> Path:
    rows = [
        {
            "weight/web": share,
            "weight/code": 1 - share,
            "loss/web": 3 - share**0.5,
            "loss/code": 2.5 - (1 - share) ** 0.5,
        }
        for share in (0.05, 0.15, 0.3, 0.4, 0.55, 0.6, 0.75, 0.85, 0.95, 0.5)
    ]
    RunTable.from_rows(rows).write(folder / "runs.csv")
    (folder / "study.yaml").write_text("table: runs.csv\nobjective: {loss/web: 1, loss/code: 1}\n")
    return folder


def test_help_tells_the_steps():
    found = run("--help")
    assert found.returncode == 0
    for step in ("init", "corpus", "design", "train", "fit", "predict", "optimize", "verify"):
        assert step in found.stdout


def test_init_status_and_a_second_init(tmp_path):
    assert run("init", tmp_path / "new").returncode == 0
    found = run("status", tmp_path / "new", "--json")
    assert json.loads(found.stdout)["next"] == "corpus"
    again = run("init", tmp_path / "new")
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_from_a_table_in_json(tmp_path):
    study = table_study(tmp_path)
    fitted = run("fit", study, "--json")
    assert fitted.returncode == 0, fitted.stderr
    assert json.loads(fitted.stdout)["law"]
    decision = json.loads(run("optimize", study, "--json").stdout)
    shares = decision["forecast"]["mixture"]
    assert sum(shares.values()) == pytest.approx(1)
    forecast = run("predict", study, "-m", "web=0.25,code=0.75", "--json")
    values = json.loads(forecast.stdout)["forecasts"][0]["targets"]
    assert values["loss/web"]["value"] == pytest.approx(2.5, abs=0.02)
    assert json.loads(forecast.stdout)["forecasts"][0]["extrapolates"] == []
    far = run("predict", study, "-m", "web=1")
    assert "outside the trained range (web 1, trained 0.05 to 0.95" in " ".join(far.stdout.split())


def test_what_speaks_against_a_fit_is_told(tmp_path):
    study = table_study(tmp_path)
    table = RunTable.read(study / "runs.csv")
    rows = [row | {"weight/sea": 0.0} for row in table.rows()]
    RunTable.from_rows(rows).write(study / "runs.csv")
    found = json.loads(run("fit", study, "--json").stdout)["findings"]
    (absent,) = (finding for finding in found if finding["kind"] == "absent domain")
    assert absent["names"] == ["sea"]
    shown = " ".join(run("fit", study).stdout.split())
    assert shown.index("Read this") < shown.index("absent domain: domain sea is absent")
    assert shown.count("sea is absent from all runs") == 1


def test_from_a_table_for_people(tmp_path):
    study = table_study(tmp_path)
    shown = run("fit", study).stdout
    for text in ("squared error", "* ", "rank corr.", "90% here", "seed noise"):
        assert text in shown
    shown = run("optimize", study).stdout
    guess = "The runs cannot tell yet; the best guess is 50% code and 50% web."
    assert shown.startswith(guess)
    assert "lower than uniform, 5" in shown  # half and half is the best, and uniform
    assert "% sure that it is lower" in shown
    assert "next: mixlaw report" in run("status", study).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere"], "no study file at nowhere/study.yaml"),
        (["fit", __file__], f"mixlaw import {__file__} --into my-study"),
        (["predict", "{study}", "-m", "web=0.4,code=0.4"], "sum to 0.8"),
        (["predict", "{study}", "-m", "web=nan,code=1"], "proportion of 'web' is nan"),
        (["predict", "{study}", "-m", "web=-1,code=2"], "proportion of 'web' is -1"),
        (["predict", "{study}", "-m", "web:0.4"], "form domain=0.5"),
        (["predict", "{study}", "-m", "web=.5,web=.5"], "named twice"),
        (["predict", "{study}", "-m", "sea=1"], "'sea'"),
        (["train", "{study}"], "works from the table"),
        (["corpus", "{study}"], "works from the table"),
        (["design", "{study}"], "for the runs to do next: --next 8"),
    ],
)
def test_errors_have_no_traceback_and_exit_with_one(tmp_path, arguments, message):
    study = table_study(tmp_path)
    found = run(*[a.format(study=study) for a in arguments])
    assert found.returncode == 1
    assert message in " ".join(found.stderr.split())
    assert "Traceback" not in found.stderr
    assert found.stdout == ""


@pytest.mark.parametrize("option", ["--num-params", "--train-tokens"])
@pytest.mark.parametrize("value", ["0", "-5"])
def test_a_scale_is_positive(tmp_path, option, value):
    found = run("predict", table_study(tmp_path), option, value)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr


def test_markup_in_a_name_is_text(tmp_path):
    study = table_study(tmp_path)
    found = run("predict", study, "-m", "[bold]web[/bold]=1")
    assert "[bold]web[/bold]" in found.stderr


def test_without_torch_the_extra_is_named(tiny_study, tmp_path):
    """A user without the train extra is told what to install."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('none', name='torch')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = run("train", tiny_study, env=environment)
    assert found.returncode == 1
    assert "mixlaw[train]" in found.stderr
    assert "Traceback" not in found.stderr


def test_killed_at_random_moments_it_ends_with_the_same_bits(tiny_study, trained_folder):
    """`kill -9` of the driver, three times, then to the end: the table equals the undisturbed."""
    pytest.importorskip("torch", reason="training needs torch")
    moments = random.Random(1)
    run("design", tiny_study)
    for _ in range(3):
        # More work per run than the undisturbed study cannot be had, so the kills come early.
        process = subprocess.Popen(
            [*COMMAND, "train", str(tiny_study)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        before = len(list(tiny_study.glob("*/*")))
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(tiny_study.glob("*/*"))) != before:
                time.sleep(moments.uniform(0, 0.15))
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = run("train", tiny_study)
    assert finished.returncode == 0, finished.stderr
    assert (tiny_study / "runs.csv").read_bytes() == (trained_folder / "runs.csv").read_bytes()
    assert not list(tiny_study.glob("runs/*/checkpoint-*"))


def test_control_c_says_how_to_go_on(tiny_study):
    pytest.importorskip("torch", reason="training needs torch")
    process = subprocess.Popen(
        [*COMMAND, "train", str(tiny_study)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell ignores it for what it runs in the background, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tiny_study.glob("runs/*/checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command to go on" in stderr
    assert "Traceback" not in stderr


def test_every_step_of_a_study_end_to_end(trained_study):
    """From text to report, through the command line."""
    pytest.importorskip("torch", reason="training needs torch")
    for step in ("fit", "optimize", "verify", "report"):
        found = run(step, trained_study)
        assert found.returncode == 0, found.stderr
    assert json.loads(run("status", trained_study, "--json").stdout)["next"] is None
    assert "<html" in (trained_study / "report.html").read_text(encoding="utf-8")
