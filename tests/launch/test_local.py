"""Worker processes of this machine: their devices, their deaths, and real training by them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mixlaw.claims import Watch
from mixlaw.errors import CorpusError, RunTableError, TrainError
from mixlaw.launch import driver, local
from mixlaw.launch.driver import train_swarm
from mixlaw.launch.local import LocalLauncher
from mixlaw.launch.work import Outcome, Work
from mixlaw.launch.worker import run_work
from mixlaw.runs import DONE, FAILED
from mixlaw.store import RunStore
from mixlaw.study import Study
from mixlaw.testing import PretendSwarm, pretend_specs, times_trained


@pytest.fixture
def swarm(tmp_path) -> PretendSwarm:
    return PretendSwarm(str(tmp_path / "runs"))


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    monkeypatch.setattr(driver, "LOOK_SECONDS", 0.1)


def works_of(swarm: PretendSwarm, count: int) -> list[Work]:
    return [Work(swarm, (spec,)) for spec in pretend_specs(count)]


def wait_for(launcher: LocalLauncher, count: int) -> dict[str, Outcome]:
    ended: dict[str, Outcome] = {}
    deadline = time.monotonic() + 60
    while len(ended) < count:
        assert time.monotonic() < deadline, ended
        ended |= launcher.poll()
        time.sleep(0.01)
    return ended


def trained_by(swarm: PretendSwarm, count: int) -> list[dict]:
    """The process and devices that trained each run."""
    return [swarm.store.metrics(spec.run_id)[-1] for spec in pretend_specs(count)]


def living(store: RunStore) -> list[int]:
    return [beat.pid for beat in Watch(store, lease_seconds=60).heartbeats()]


def test_a_process_serves_many_works(swarm):
    with LocalLauncher(device="cpu", workers=1) as launcher:
        wait_for(launcher, len(launcher.submit(works_of(swarm, 3))))
        wait_for(launcher, len(launcher.submit(works_of(swarm, 5))))
    assert len({done["pid"] for done in trained_by(swarm, 5)}) == 1


def test_the_costliest_work_comes_first(swarm):
    cheap, dear = works_of(swarm, 2)[0], pretend_specs(1, size="9k", num_params=9000)
    with LocalLauncher(device="cpu", workers=1) as launcher:
        tickets = launcher.submit([cheap, Work(swarm, tuple(dear))])
        assert list(wait_for(launcher, 2)) == tickets[::-1]


def test_each_gpu_has_one_process_that_sees_no_other(swarm, monkeypatch):
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0", "GPU-7f"])
    with LocalLauncher() as launcher:
        assert launcher.slots == 2
        wait_for(launcher, len(launcher.submit(works_of(replace(swarm, step_seconds=0.05), 6))))
    done = trained_by(swarm, 6)
    assert {d["devices"] for d in done} == {"0", "GPU-7f"}
    assert len({d["pid"] for d in done}) == 2


def test_gpus_are_counted_as_the_environment_names_them(monkeypatch):
    devices = pytest.importorskip("mixlaw.train.devices", reason="training needs torch")
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7f")
    assert local.visible_gpus() == ["3", "GPU-7f"]
    assert LocalLauncher(workers=1).slots == 1


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(local, "visible_gpus", list)
    with pytest.raises(TrainError, match="PyTorch finds no GPU"):
        LocalLauncher(device="cuda")
    assert LocalLauncher(workers=3).slots == 3


def test_no_workers():
    with pytest.raises(TrainError, match="workers is 0; it must be at least 1"):
        LocalLauncher(device="cpu", workers=0)


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_cores_are_those_of_the_container(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda pid: range(4), raising=False)
    monkeypatch.setattr(local, "CPU_QUOTA", tmp_path / "cpu.max")
    assert local.available_cores() == 4
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert local.available_cores() == cores


def test_a_process_that_lost_a_work_gets_no_other(swarm, monkeypatch):
    """After an error of CUDA no other would succeed in it."""
    monkeypatch.setattr(local, "FIRST_REST_SECONDS", 1000)  # not where there is no other device
    with LocalLauncher(device="cpu", workers=1) as launcher:
        wait_for(
            launcher, len(launcher.submit(works_of(replace(swarm, faults={"r001": "bug"}), 3)))
        )
    first, _, last = (swarm.store.metrics(spec.run_id)[-1:] for spec in pretend_specs(3))
    assert first[0]["pid"] != last[0]["pid"]


def test_a_device_that_lost_a_work_rests_while_others_train(swarm, monkeypatch):
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setattr(local, "FIRST_REST_SECONDS", 1000)
    with LocalLauncher() as launcher:
        works = works_of(replace(swarm, faults={"r000": "kill"}), 5)
        wait_for(launcher, len(launcher.submit(works)))
    told = [swarm.store.metrics(spec.run_id)[-1] for spec in pretend_specs(5)[1:]]
    assert {done["devices"] for done in told} == {"1"}


def test_a_frozen_process_leaves_when_its_work_is_cancelled(swarm, monkeypatch):
    monkeypatch.setattr(local, "GRACE_SECONDS", 0.2)
    slow = replace(swarm, steps_per_run=100_000)
    first, second = pretend_specs(2)
    with LocalLauncher(device="cpu", workers=1) as launcher:
        (frozen,) = launcher.submit([Work(slow, (first,))])
        deadline = time.monotonic() + 60
        while not (pids := living(swarm.store)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(pids[0], signal.SIGSTOP)
        launcher.cancel(frozen)
        tickets = launcher.submit([Work(swarm, (second,))])
        assert wait_for(launcher, 1) == {tickets[0]: Outcome()}


def test_what_prints_at_the_start_of_a_process_is_no_outcome(swarm, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('a greeting', flush=True)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with LocalLauncher(device="cpu", workers=1) as launcher:
        assert set(wait_for(launcher, len(launcher.submit(works_of(swarm, 1)))).values()) == {
            Outcome()
        }


def test_files_of_the_current_folder_hide_no_module(swarm, monkeypatch, tmp_path):
    pytest.importorskip("torch", reason="groups run under torchrun")
    for name in ("queue.py", "json.py", "torch.py"):
        (tmp_path / name).write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    with LocalLauncher(device="cpu", workers=2) as launcher:
        assert set(wait_for(launcher, len(launcher.submit(works_of(swarm, 1)))).values()) == {
            Outcome()
        }
        group = replace(swarm, runs=f"{swarm.runs}2", group=2)
        assert set(wait_for(launcher, len(launcher.submit(works_of(group, 1)))).values()) == {
            Outcome()
        }


def test_a_group_takes_its_devices_at_once(swarm, monkeypatch):
    pytest.importorskip("torch", reason="groups run under torchrun")
    monkeypatch.setattr(local, "visible_gpus", lambda: ["4", "5", "6"])
    single, group = works_of(swarm, 1)[0], replace(swarm, group=2)
    pair = Work(group, tuple(pretend_specs(2)[1:]))
    with LocalLauncher() as launcher:
        # Three idle processes hold a device each before the group asks for two.
        wait_for(launcher, len(launcher.submit(works_of(replace(swarm, runs=swarm.runs + "0"), 3))))
        assert set(wait_for(launcher, len(launcher.submit([pair, single]))).values()) == {Outcome()}
    alone, together = trained_by(swarm, 2)
    assert len(alone["devices"].split(",")) == 1
    assert len(together["devices"].split(",")) == 2


def test_a_group_too_large_for_the_machine(swarm):
    with LocalLauncher(device="cpu", workers=2) as launcher:
        (ticket,) = launcher.submit(works_of(replace(swarm, group=3), 1))
        assert "takes 3 devices at once, this machine lends 2" in str(launcher.poll()[ticket].error)


@pytest.mark.parametrize("fault", ["kill", "error"])
def test_what_happens_in_a_group_is_told(swarm, fault):
    pytest.importorskip("torch", reason="groups run under torchrun")
    swarm = replace(swarm, group=2, faults={"r000": fault})
    with LocalLauncher(device="cpu", workers=2) as launcher:
        (ticket,) = launcher.submit(works_of(swarm, 1))
        outcome = wait_for(launcher, 1)[ticket]
    assert "died" in str(outcome.reason) or "Delete it" in str(outcome.error)
    assert (outcome.error is None) == (fault == "kill")


@pytest.mark.parametrize("end", ["interrupted", "killed"])
def test_a_group_ends_with_its_process(swarm, end):
    pytest.importorskip("torch", reason="groups run under torchrun")
    swarm = replace(swarm, group=2, steps_per_run=100_000)
    with LocalLauncher(device="cpu", workers=2) as launcher:
        launcher.submit(works_of(swarm, 1))
        deadline = time.monotonic() + 60
        while not swarm.store.checkpoints(pretend_specs(1)[0].run_id):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if end == "killed":
            launcher._seats[0].process.kill()
    while living(swarm.store):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_that_cannot_start_is_told(swarm, monkeypatch, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with LocalLauncher(device="cpu", workers=1) as launcher:
        (ticket,) = launcher.submit(works_of(swarm, 1))
        assert "exit code 7" in str(wait_for(launcher, 1)[ticket].reason)


def test_runs_held_by_nobody_are_trained_once(swarm):
    specs = pretend_specs(4)
    with LocalLauncher(device="cpu", workers=2) as launcher:
        # The same work twice: the second finds nothing to do.
        tickets = launcher.submit([Work(swarm, tuple(specs)), Work(swarm, tuple(specs))])
        assert wait_for(launcher, 2) == dict.fromkeys(tickets, Outcome())
    assert times_trained(swarm.store, specs) == [1] * 4


@pytest.fixture
def study(tiny_study) -> Study:
    pytest.importorskip("torch", reason="training needs torch")
    return Study(tiny_study)


def real_swarm(study: Study, folder: Path):
    return study._own_runs.training.swarm(folder)


def test_killed_workers_change_no_result(study, tmp_path):
    specs, undisturbed = study.design(), real_swarm(study, tmp_path / "undisturbed")
    for stack in undisturbed.unfinished(specs):
        run_work(Work(undisturbed, tuple(stack)))
    disturbed = real_swarm(study, tmp_path / "disturbed")
    disturbed = replace(disturbed, hardware=replace(disturbed.hardware, checkpoint_seconds=0))
    killed: list[int] = []
    over = threading.Event()

    def kill_workers() -> None:
        while not over.wait(0.005) and len(killed) < 2:
            for pid in set(living(disturbed.store)) - set(killed):
                time.sleep(0.01 * len(killed))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill_workers)
    killer.start()
    with LocalLauncher(device="cpu", workers=2) as launcher:
        assert train_swarm(disturbed, specs, launcher, max_attempts=10) == {}
    over.set()
    killer.join()
    assert len(killed) == 2
    assert disturbed.store.results(specs) == undisturbed.store.results(specs)


def test_a_killed_call_goes_on_where_it_was(study, tiny_study, trained_folder):
    code = "import sys; from mixlaw.study import Study; Study(sys.argv[1]).train()"
    call = subprocess.Popen([sys.executable, "-c", code, str(tiny_study)])
    while not (workers := living(study.store)):
        assert call.poll() is None
        time.sleep(0.005)
    call.kill()
    call.wait()
    deadline = time.monotonic() + 30
    while living(study.store):
        assert time.monotonic() < deadline, f"{workers} train on without their driver"
        time.sleep(0.01)
    assert len(study.store.finished()) < 20
    study.train()
    assert (tiny_study / "runs.csv").read_bytes() == (trained_folder / "runs.csv").read_bytes()


def test_an_error_of_a_worker_reaches_the_caller(study, tmp_path):
    swarm = replace(real_swarm(study, tmp_path), corpus=str(tmp_path / "nowhere"))
    with (
        LocalLauncher(device="cpu", workers=2) as launcher,
        pytest.raises(CorpusError, match="nowhere"),
    ):
        train_swarm(swarm, study.design(), launcher)


def test_progress_of_a_study_ends_at_all(study, tiny_study):
    seen = []
    study.train(seen.append)
    assert seen[-1].runs_done == seen[-1].runs_total == 20
    assert (seen[-1].share_done, seen[-1].seconds_left) == (1, 0)
    described = json.loads((tiny_study / "runs" / "swarm.json").read_text())
    assert len(described["specs"]) == 20
    study.train(lambda now: pytest.fail("nothing to do"))


def test_a_swarm_that_diverged_whole_says_so(tiny_study):
    pytest.importorskip("torch", reason="training needs torch")
    path = tiny_study / "study.yaml"
    text = path.read_text()
    for layers in (1, 2):
        old = f"{{width: 16, layers: {layers}}}"
        text = text.replace(old, old[:-1] + ", learning_rate: 1e30}")
    path.write_text(text)
    with pytest.raises(RunTableError, match=r"all 20 runs diverged.*learning_rate"):
        Study(tiny_study).train()


def test_a_diverged_size_is_marked_failed_kept_and_left_out(tiny_study):
    pytest.importorskip("torch", reason="training needs torch")
    path = tiny_study / "study.yaml"
    text = path.read_text().replace(
        "{width: 16, layers: 1}", "{width: 16, layers: 1, learning_rate: 1e30}"
    )
    path.write_text(text)
    study = Study(tiny_study)
    table = study.train()
    assert set(table.status[table.num_params == 3072]) == {FAILED}
    assert set(table.status[table.num_params == 6144]) == {DONE}
    failed = next(spec for spec in study.design() if spec.size == "3k")
    assert "not finite at step" in study.store.load(failed).reason
    fitted = study.fit()
    assert set(
        fitted.cross_validation.runs.num_params[fitted.cross_validation.runs.status == DONE]
    ) == {6144}
    assert any("failed" in warning for warning in fitted.warnings)
