"""However a command ends: one exit code, one message, no traceback that nobody asked for."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import typer

from mixlaw.cli.app import app
from mixlaw.errors import StudyError
from mixlaw.study import Study

COMMAND = [sys.executable, "-c", "from mixlaw.cli import main; main()"]

WAYS = {
    "ours": (StudyError("no such thing"), 1, "no such thing"),
    "permission": (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 1, "/x/y: Permi"),
    "full": (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 1, "free some space"),
    "network": (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), 1, "refused"),
    "memory": (MemoryError(), 1, "out of memory"),
    "extra": (ModuleNotFoundError("none", name="torch"), 1, "mixlaw[train]"),
    "interrupt": (KeyboardInterrupt(), 130, "run the same command to go on"),
    "bug": (KeyError("shares"), 70, "this is a bug of mixlaw"),
    "missing module of ours": (ModuleNotFoundError("none", name="mixlaw.x"), 70, "a bug"),
}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """`mixlaw status` ends so: its exit code, and a part of its message."""
    failed, code, message = WAYS[request.param]

    def end(study):
        raise failed

    monkeypatch.setattr(Study, "status", end)
    return code, message


def test_a_message_and_a_code(mixlaw, beside_study, way):
    code, message = way
    ended, out, err = mixlaw("status", "my-study")
    assert (ended, out) == (code, "")
    assert message in err
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_json_of_an_error_is_the_last_line_of_stderr(mixlaw, beside_study, way):
    code, message = way
    ended, out, err = mixlaw("status", "my-study", "--json")
    assert (ended, out) == (code, "")
    told = json.loads(err)["error"]
    assert told["exit_code"] == code
    assert message in told["message"]
    assert set(told) == {"kind", "message", "exit_code"}


@pytest.mark.parametrize(
    "given", [["status", "nowhere", "--debug"], ["--debug", "status", "nowhere"]]
)
def test_a_traceback_where_it_is_asked_for(mixlaw, beside_study, given, monkeypatch):
    code, out, err = mixlaw(*given)
    assert (code, out) == (1, "")
    assert "Traceback (most recent call last)" in err
    assert "StudyError" in err
    assert "error: no study file at nowhere/study.yaml" in err
    monkeypatch.setenv("MIXLAW_DEBUG", "1")
    without = [word for word in given if word != "--debug"]
    assert "Traceback" in mixlaw(*without)[2]
    monkeypatch.setenv("MIXLAW_DEBUG", "0")
    assert "Traceback" not in mixlaw(*without)[2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["fitt"], "Did you mean 'fit'"),
        (["optimise"], "Did you mean 'optimize'"),
        (["fit", "my-study", "--jsn"], "--json"),
        (["fit"], "STUDY"),
        (["fit", ""], "it is empty"),
        (["plan", "--budget", "much"], "--budget"),
    ],
)
def test_wrong_usage(mixlaw, beside_study, given, message):
    code, out, err = mixlaw(*given)
    assert (code, out) == (2, "")
    assert message in err
    assert "--help" in err
    code, out, err = mixlaw(*given, "--json")
    assert (code, out) == (2, "")
    assert message in json.loads(err)["error"]["message"]


def test_what_is_behind_two_dashes_is_no_option(mixlaw, beside_study):
    code, _, err = mixlaw("status", "--", "--debug")
    assert code == 1
    assert "no study file at --debug/study.yaml" in err


def test_every_answer_is_one_json_document(mixlaw, beside_study):
    """On standard output, with nothing beside it; commands that train answer in their own tests."""
    given = [
        ["init", "new"],
        ["import", "runs.csv"],
        ["import", "runs.csv", "--into", "imported"],
        ["import", "--into", "imported"],
        ["status", "my-study"],
        ["plan", "my-study", "--budget", "1e19"],
        ["design", "my-study", "--next", "1"],
        ["fit", "my-study"],
        ["optimize", "my-study"],
        ["predict", "my-study"],
        ["pareto", "my-study", "--points", "3"],
        ["report", "my-study", "--draws", "0", "--out", "page.html"],
        ["export", "my-study", "--to", "json"],
        ["edit", "my-study", "--add", "wiki=5_000_000_000"],
    ]
    for arguments in given:
        code, out, err = mixlaw(*arguments, "--json")
        assert (code, err) == (0, ""), arguments
        json.loads(out)


def test_every_command_knows_json():
    for name, command in typer.main.get_command(app).commands.items():  # pyright: ignore
        assert any("--json" in param.opts for param in command.params), name


def test_a_reader_that_leaves(fitted_folder):
    """Nothing on standard error, not even at the end of the process."""
    for more in ([], ["--json"]):
        process = subprocess.Popen(
            [*COMMAND, "optimize", str(fitted_folder), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.close()  # before a word is read
        assert process.stderr is not None
        said = process.stderr.read()
        process.stderr.close()
        assert (process.wait(), said) == (141, b"")


def test_an_interrupt_is_quiet(fitted_folder):
    """Ctrl-C at any moment of a command that only computes."""
    code = "import time, mixlaw.study as s; s.Study.status = lambda study: time.sleep(60); "
    code += "import sys; sys.argv = ['mixlaw', 'status', 'x']; s.Study.__init__ = lambda *a: None; "
    code += "print('ready', flush=True); from mixlaw.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "error: stopped; run the same command to go on\n")


def test_a_terminal_of_few_characters(fitted_folder):
    """Where the encoding has no ±, it is shown as an escape, and nothing fails."""
    found = subprocess.run(
        [*COMMAND, "optimize", str(fitted_folder)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert found.returncode == 0
    assert rb"\xb1" in found.stdout
