"""A worker process: what it leaves behind, however it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mixlaw.errors import CheckpointError, TrainError
from mixlaw.launch.work import Outcome, Work
from mixlaw.launch.worker import attempt, death, run_work
from mixlaw.testing import PretendHardware, PretendSwarm, made_up_result, pretend_specs

COMMAND = [sys.executable, "-m", "mixlaw.launch.worker"]


@pytest.fixture
def swarm(tmp_path) -> PretendSwarm:
    return PretendSwarm(str(tmp_path / "runs"))


def work_of(swarm: PretendSwarm, count: int = 2) -> Work:
    return Work(swarm, tuple(pretend_specs(count)))


def write(work: Work, folder: Path) -> str:
    file = folder / "work.json"
    file.write_text(work.to_json(), encoding="utf-8")
    return str(file)


def wait_for_a_checkpoint(swarm: PretendSwarm) -> None:
    deadline = time.monotonic() + 30
    while not swarm.store.checkpoints(pretend_specs(1)[0].run_id):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_work_is_trained_and_its_runs_let_go(swarm):
    work = work_of(swarm)
    run_work(work)
    assert swarm.store.results(work.stack) == {s.run_id: made_up_result(s) for s in work.stack}
    assert swarm.store.storage.names("workers") == []


def test_what_goes_wrong_is_told(swarm, capsys):
    error = attempt(work_of(replace(swarm, faults={"r001": "error"}))).error
    assert isinstance(error, CheckpointError)
    memory = attempt(work_of(replace(swarm, faults={"r001": "memory"})))
    assert isinstance(memory.error, TrainError)
    assert "lower stack_size below 2" in str(memory.reason)
    bug = attempt(work_of(replace(swarm, faults={"r001": "bug"})))
    assert (bug.error, bug.reason) == (None, "ValueError: a bug in the training of r001")
    assert "testing.py" in capsys.readouterr().err
    assert swarm.store.storage.names("workers") == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.\nMore"), True),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_torch_runs_out_of_memory_in_its_own_words(swarm, error, told, monkeypatch, capsys):
    def train(self, stack, worker):
        raise error

    monkeypatch.setattr(PretendSwarm, "train", train)
    outcome = attempt(work_of(swarm))
    assert isinstance(outcome.error, TrainError) == told
    assert str(error).partition("\n")[0] in str(outcome.reason)


def test_one_work_from_a_file(swarm, tmp_path):
    outcome = tmp_path / "outcome.json"
    file = write(work_of(swarm), tmp_path)
    subprocess.run([*COMMAND, file, str(outcome)], check=True)
    assert Outcome.from_json(outcome.read_bytes()) == Outcome()
    assert len(swarm.store.finished()) == 2

    file = write(work_of(replace(swarm, runs=f"{swarm.runs}2", faults={"r000": "error"})), tmp_path)
    ended = subprocess.run([*COMMAND, file, str(outcome)], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "error: the checkpoint of r000 is damaged. Delete it\n"
    assert isinstance(Outcome.from_json(outcome.read_bytes()).error, CheckpointError)


def test_a_file_that_is_no_work(tmp_path):
    (tmp_path / "work.json").write_text("{}")
    for name, told in (("work.json", "cannot be read here"), ("other.json", "No such file")):
        ended = subprocess.run([*COMMAND, tmp_path / name], capture_output=True, text=True)
        assert ended.returncode == 1
        assert told in ended.stderr
        assert "Traceback" not in ended.stderr


def test_an_attended_worker_lets_go_when_standard_input_closes(swarm, tmp_path):
    swarm = replace(swarm, steps_per_run=100_000)
    file = write(work_of(swarm), tmp_path)
    worker = subprocess.Popen([*COMMAND, "--attended", file], stdin=subprocess.PIPE)
    wait_for_a_checkpoint(swarm)
    worker.communicate()
    assert worker.returncode == 130
    assert swarm.store.storage.names("workers") == []


def test_a_training_that_no_longer_moves_ends_its_worker(swarm, tmp_path):
    hardware = PretendHardware(lease_seconds=1, stuck_seconds=0.5)
    file = write(work_of(replace(swarm, step_seconds=1000, hardware=hardware)), tmp_path)
    ended = subprocess.run([*COMMAND, file], timeout=60)
    assert "no longer moved" in death(ended.returncode)


def test_reasons_of_deaths():
    assert "-9: out of memory is the usual reason, then lower stack_size" in death(-9)
    assert "SIGSEGV" in death(-11)
    assert "exit code 3" in death(3)
