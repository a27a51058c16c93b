"""A worker process: what it leaves behind, however it ends."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mixlaw.claims import RunStatus, Worker, WorkStatus
from mixlaw.errors import CheckpointError, StorageError, TrainError
from mixlaw.launch.work import Outcome, Work
from mixlaw.launch.worker import attempt, death, run_work
from mixlaw.store import RunStore
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
    alone = attempt(work_of(replace(swarm, faults={"r000": "memory"}), 1))
    assert "fewer sequences per step (batch_size), or use fewer workers" in str(alone.reason)
    busy = attempt(work_of(replace(swarm, faults={"r001": "busy"})))
    assert (busy.error, busy.reason) == (None, f"could not write r001: {os.strerror(errno.EBUSY)}")
    full = attempt(work_of(replace(swarm, faults={"r001": "full"})))
    assert isinstance(full.error, StorageError)
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
    assert "signal 40" in death(-40)
    assert "exit code 3" in death(3)


@pytest.mark.parametrize("told", ["its runs", "nothing yet"])
def test_a_job_that_is_started_again_elsewhere_outwaits_its_former_self(swarm, told):
    swarm = replace(swarm, hardware=PretendHardware(lease_seconds=1))
    work, storage = work_of(swarm), swarm.store.storage
    runs = tuple(RunStatus(s.run_id, s.label, s.size, None) for s in work.stack)
    with Worker(swarm.store, lease_seconds=1) as former:
        former.claim([spec.run_id for spec in work.stack])
        name = f"workers/{former.id}.json"
        beat = json.loads(storage.read(name)) | {"host": "elsewhere"}
    if told == "its runs":
        beat["work"] = {"runs": [vars(run) for run in runs]}
        beat["work"] |= {"steps_done": 1, "steps_total": 10, "tokens_per_second": 1.0}
    storage.write(name, json.dumps(beat).encode())
    assert attempt(work) == Outcome()
    assert len(swarm.store.finished()) == 2


def test_runs_of_a_living_worker_are_not_waited_for(swarm):
    work = work_of(swarm)
    runs = tuple(RunStatus(s.run_id, s.label, s.size, None) for s in work.stack)
    with Worker(swarm.store, lease_seconds=3) as other:
        other.claim([spec.run_id for spec in work.stack])
        other.report(WorkStatus(runs, 1, 10, 1.0))
        assert attempt(work) == Outcome()
        assert all(map(other.holds, [spec.run_id for spec in work.stack]))


def test_it_is_told_who_has_the_runs_before_the_first_step(swarm, monkeypatch):
    told = []
    monkeypatch.setattr(Worker, "report", lambda self, work: told.append(work))
    monkeypatch.setattr(PretendSwarm, "train", lambda self, stack, worker: None)
    work = work_of(swarm)
    run_work(work)
    assert [(len(now.runs), now.steps_done, now.steps_total) for now in told] == [(2, 0, 10)]


def test_a_group_around_is_not_ours(swarm, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    run_work(work_of(swarm))
    assert len(swarm.store.finished()) == 2
    pytest.importorskip("torch", reason="groups run under torchrun")
    monkeypatch.setenv("WORLD_SIZE", "2")
    run_work(work_of(replace(swarm, runs=f"{swarm.runs}2", group=2)))
    assert len(RunStore(f"{swarm.runs}2").finished()) == 2
