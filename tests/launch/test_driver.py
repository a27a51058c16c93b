"""Whatever dies meanwhile, each run gets its result, and undisturbed each is trained once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from mixlaw.claims import Watch, Worker
from mixlaw.errors import CheckpointError, StorageError, TrainError
from mixlaw.launch import driver, local
from mixlaw.launch.driver import read_swarm, train_swarm, write_swarm
from mixlaw.launch.local import LocalLauncher
from mixlaw.launch.work import Outcome
from mixlaw.runs import FAILED, RunResult
from mixlaw.storage import LocalStorage
from mixlaw.store import RunStore
from mixlaw.testing import (
    PretendHardware,
    PretendSwarm,
    made_up_result,
    pretend_specs,
    times_trained,
)

DRIVER = """
import sys
from mixlaw.launch.driver import read_swarm, train_runs
from mixlaw.launch.local import LocalLauncher

swarm, specs = read_swarm(sys.argv[1])
with LocalLauncher(device="cpu", workers=2) as launcher:
    assert train_runs(swarm, specs, launcher) == {}
"""


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    monkeypatch.setattr(driver, "LOOK_SECONDS", 0.1)


@pytest.fixture
def swarm(tmp_path) -> PretendSwarm:
    return PretendSwarm(str(tmp_path))


@pytest.fixture
def launcher():
    with LocalLauncher(device="cpu", workers=2) as launcher:
        yield launcher


def check_results(swarm: PretendSwarm, specs) -> None:
    assert swarm.store.results(specs) == {spec.run_id: made_up_result(spec) for spec in specs}


def living(swarm: PretendSwarm) -> list[int]:
    return [beat.pid for beat in Watch(swarm.store, lease_seconds=60).heartbeats()]


def start_driver(swarm: PretendSwarm) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", DRIVER, swarm.runs], start_new_session=True)


def test_every_run_is_trained_once_and_progress_ends_at_all(swarm, launcher):
    specs, seen = pretend_specs(9), []
    assert train_swarm(swarm, [*specs, specs[0]], launcher, on_progress=seen.append) == {}
    check_results(swarm, specs)
    assert times_trained(swarm.store, specs) == [1] * 9
    assert (seen[-1].runs_done, seen[-1].runs_total) == (9, 9)
    assert (seen[-1].share_done, seen[-1].seconds_left, seen[-1].workers) == (1, 0, ())
    shares = [now.share_done for now in seen]
    assert shares == sorted(shares)


def test_a_finished_swarm_is_left_alone(swarm, launcher):
    specs = pretend_specs(3)
    for spec in specs:
        swarm.store.save(spec, made_up_result(spec))
    told = []
    assert train_swarm(swarm, specs, launcher, on_progress=told.append) == {}
    assert told == []


def test_progress_comes_from_heartbeats(tmp_path, launcher):
    hardware = PretendHardware(lease_seconds=0.6)  # a beat each tenth of a second
    swarm = PretendSwarm(str(tmp_path), steps_per_run=100, hardware=hardware)
    specs, seen = pretend_specs(8), []
    train_swarm(swarm, specs, launcher, on_progress=seen.append)
    moving = [now for now in seen if now.workers]
    assert {len(now.workers) for now in moving} <= {1, 2}
    assert moving[0].doing.startswith("4 x 1k")
    now = moving[-1]
    # Pretended steps of 400 tokens take a hundredth of a second, as their workers say.
    assert now.tokens_per_second == pytest.approx(40_000 * len(now.workers))
    left = (1 - now.share_done) * 8 * 100 * 100
    assert now.seconds_left == pytest.approx(left / now.tokens_per_second)


def test_a_run_that_lost_its_worker_once_is_trained_again(swarm, launcher, caplog):
    swarm = replace(swarm, faults={"r002": "kill:1", "r005": "bug:2"})
    specs = pretend_specs(8)
    assert train_swarm(swarm, specs, launcher) == {}
    check_results(swarm, specs)
    assert "4 x 1k: the worker process died (exit code -9" in caplog.text


def test_a_run_that_kills_every_worker_is_given_up_and_takes_no_other_with_it(swarm, launcher):
    swarm = replace(swarm, faults={"r002": "kill", "r005": "bug"})
    specs = pretend_specs(8)
    seen = []
    missing = train_swarm(swarm, specs, launcher, on_progress=seen.append)
    assert set(missing) == {specs[2].run_id, specs[5].run_id}
    assert "out of memory is the usual reason" in missing[specs[2].run_id]
    assert "a bug in the training of r005" in missing[specs[5].run_id]
    check_results(swarm, [spec for spec in specs if spec.run_id not in missing])
    assert (seen[-1].runs_done, seen[-1].runs_failed) == (6, 2)


def test_diverged_runs_are_counted_apart(swarm, launcher):
    specs, seen = pretend_specs(4), []
    swarm.store.save(specs[1], RunResult(FAILED, (), "the loss was not finite"))
    assert train_swarm(swarm, specs, launcher, on_progress=seen.append) == {}
    assert (seen[-1].runs_done, seen[-1].runs_failed, seen[-1].runs_total) == (3, 1, 4)


def test_a_run_that_comes_further_each_time_is_not_given_up(tmp_path, launcher):
    # It dies half-way to its end, so at 20, 27 and 32 of 40 steps; a checkpoint comes each fifth.
    swarm = PretendSwarm(str(tmp_path), steps_per_run=40, faults={"r000": "exit:3"})
    assert train_swarm(swarm, pretend_specs(1), launcher, max_attempts=2) == {}
    check_results(swarm, pretend_specs(1))


def test_an_error_that_a_user_must_mend_ends_the_call(swarm, launcher):
    swarm = replace(swarm, step_seconds=0.05, faults={"r001": "error"})
    specs = pretend_specs(12)
    with pytest.raises(CheckpointError, match="r001 is damaged"):
        train_swarm(swarm, specs, launcher)
    assert len(swarm.store.finished()) < len(specs)
    with pytest.raises(TrainError, match="lower stack_size below 4"):
        train_swarm(replace(swarm, faults={"r002": "memory"}), specs, launcher)


def test_runs_of_a_living_worker_are_waited_for(swarm, launcher):
    specs = pretend_specs(4)
    answers = []
    with Worker(swarm.store, lease_seconds=3) as other:
        assert other.claim([specs[1].run_id]) == [specs[1].run_id]
        call = threading.Thread(
            # At the first loss a run is given up: that somebody else has it is none.
            target=lambda: answers.append(train_swarm(swarm, specs, launcher, max_attempts=1)),
            daemon=True,
        )
        call.start()
        while len(swarm.store.finished()) < 3:
            time.sleep(0.05)
        call.join(1.5)
        assert call.is_alive()
        assert times_trained(swarm.store, specs) == [1, 0, 1, 1]
    call.join(30)  # the other has let go
    assert answers == [{}]
    assert times_trained(swarm.store, specs) == [1, 1, 1, 1]


def test_runs_of_a_dead_worker_of_another_machine_are_taken_over(swarm, launcher):
    swarm = replace(swarm, hardware=PretendHardware(lease_seconds=1))
    specs, storage = pretend_specs(4), swarm.store.storage
    with Worker(swarm.store, lease_seconds=1) as other:
        other.claim([specs[1].run_id])
        beat = json.loads(storage.read(f"workers/{other.id}.json"))
        claim = storage.read(f"{specs[1].run_id}/claim-000001")
    storage.delete(f"{specs[1].run_id}/claim-000002")
    storage.write(f"{specs[1].run_id}/claim-000001", claim)
    silent = beat | {"host": "elsewhere"}
    storage.write(f"workers/{other.id}.json", json.dumps(silent).encode())
    assert train_swarm(swarm, specs, launcher) == {}
    check_results(swarm, specs)
    assert storage.names("workers") == []


def test_two_drivers_share_a_run_folder_and_train_each_run_once(swarm):
    swarm = replace(swarm, stack_size=2, step_seconds=0.02)
    specs = pretend_specs(24)
    write_swarm(swarm, specs)
    drivers = [start_driver(swarm) for _ in range(2)]
    assert [call.wait(60) for call in drivers] == [0, 0]
    check_results(swarm, specs)
    assert times_trained(swarm.store, specs) == [1] * 24


def test_a_driver_takes_over_from_a_killed_one(swarm):
    swarm = replace(swarm, stack_size=2, step_seconds=0.05)
    specs = pretend_specs(16)
    write_swarm(swarm, specs)
    killed, other = [start_driver(swarm) for _ in range(2)]
    while len(swarm.store.finished()) < 4:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert other.wait(60) == 0
    check_results(swarm, specs)


def test_workers_end_with_a_killed_driver(swarm):
    swarm = replace(swarm, steps_per_run=100_000)
    specs = pretend_specs(8)
    write_swarm(swarm, specs)
    call = start_driver(swarm)
    deadline = time.monotonic() + 30
    while len(pids := living(swarm)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    call.kill()
    call.wait()
    while living(swarm):
        assert time.monotonic() < deadline, f"{pids} train on without their driver"
        time.sleep(0.05)
    # They were told, not only killed: who comes next need not wait for a lease.
    assert swarm.store.storage.names("workers") == []


def test_an_interrupt_of_the_group_ends_driver_and_workers(swarm):
    swarm = replace(swarm, steps_per_run=100_000)
    write_swarm(swarm, pretend_specs(8))
    call = start_driver(swarm)
    deadline = time.monotonic() + 30
    while len(living(swarm)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(call.pid, signal.SIGINT)
    assert call.wait(30) in (1, 130, -signal.SIGINT)
    assert living(swarm) == []


def test_kills_at_random_moments_lose_nothing(swarm):
    swarm = replace(swarm, stack_size=2, step_seconds=0.03)
    specs, chance = pretend_specs(20), random.Random(0)
    write_swarm(swarm, specs)
    for _ in range(3):
        call = start_driver(swarm)
        for _ in range(3):
            time.sleep(chance.uniform(0.1, 0.8))
            for pid in living(swarm)[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        call.kill()
        call.wait()
    assert start_driver(swarm).wait(60) == 0
    check_results(swarm, specs)


def test_what_the_folder_describes_is_the_swarm(swarm, tmp_path):
    specs = pretend_specs(3)
    write_swarm(swarm, specs)
    assert read_swarm(str(tmp_path)) == (swarm, specs)
    with pytest.raises(TrainError, match=r"has no swarm\.json"):
        read_swarm(str(tmp_path / "elsewhere"))


def test_a_later_call_adds_its_specs_to_what_the_folder_describes(swarm, tmp_path):
    specs, others = pretend_specs(3), pretend_specs(2, size="9k")
    write_swarm(swarm, specs)
    faster = replace(swarm, hardware=PretendHardware(lease_seconds=9))
    write_swarm(faster, [*others, specs[0]])
    assert read_swarm(str(tmp_path)) == (faster, [*specs, *others])
    longer = replace(swarm, steps_per_run=20)
    write_swarm(longer, others)
    assert read_swarm(str(tmp_path)) == (longer, others)


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff", b"[]", b"{}", b'{"swarm": {"class": "mixlaw.nowhere:Swarm"}, "specs": []}'],
)
def test_a_folder_that_describes_nothing_of_ours(swarm, tmp_path, content):
    swarm.store.storage.write("swarm.json", content)
    with pytest.raises(TrainError, match=r"swarm\.json of .* cannot be read here"):
        read_swarm(str(tmp_path))
    write_swarm(swarm, pretend_specs(1))
    assert read_swarm(str(tmp_path)) == (swarm, pretend_specs(1))


def test_a_worker_that_stands_still_loses_its_work(swarm, launcher, monkeypatch, caplog):
    monkeypatch.setattr(local, "GRACE_SECONDS", 0.2)
    hardware = PretendHardware(lease_seconds=1)
    swarm = replace(swarm, hardware=hardware, stack_size=2, steps_per_run=60, step_seconds=0.02)
    specs, answers = pretend_specs(4), []
    call = threading.Thread(
        target=lambda: answers.append(train_swarm(swarm, specs, launcher)), daemon=True
    )
    call.start()
    deadline = time.monotonic() + 60
    while not (pids := living(swarm)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)  # until the driver has seen it, too
    os.kill(pids[0], signal.SIGSTOP)
    call.join(60)
    assert answers == [{}]
    check_results(swarm, specs)
    assert "2 x 1k: its worker gave no sign of life any more" in caplog.text


def test_what_a_storage_may_take_later_ends_no_swarm(swarm, launcher, monkeypatch):
    swarm = replace(swarm, faults={"r002": "busy:1"})
    specs, looks, real = pretend_specs(8), [], LocalStorage.folders_with

    def folders_with(self, name):
        looks.append(name)
        if len(looks) == 3:
            raise StorageError("could not list") from TimeoutError("read timed out")
        return real(self, name)

    monkeypatch.setattr(LocalStorage, "folders_with", folders_with)
    assert train_swarm(swarm, specs, launcher) == {}
    check_results(swarm, specs)


@pytest.mark.parametrize("cause", [TimeoutError("read timed out"), PermissionError("forbidden")])
def test_a_storage_that_refuses_for_long_or_for_good_ends_the_call(
    swarm, launcher, monkeypatch, cause
):
    def refuse(self, living):
        raise StorageError("could not list") from cause

    monkeypatch.setattr(driver._Call, "_progress", refuse)
    if isinstance(cause, TimeoutError):
        monkeypatch.setattr(driver, "REFUSED_SECONDS", 0.5)
    with pytest.raises(StorageError, match="could not list"):
        train_swarm(replace(swarm, step_seconds=1.0), pretend_specs(4), launcher)


def test_a_full_disk_of_a_worker_ends_the_call(swarm, launcher):
    with pytest.raises(StorageError, match="could not write r001"):
        train_swarm(replace(swarm, faults={"r001": "full"}), pretend_specs(4), launcher)


def test_outcomes_that_a_launcher_repeats_or_loses_do_no_harm(swarm):
    """A launcher that says of every first work that it died, though it was trained."""

    class Pessimist(LocalLauncher):
        def poll(self):
            return {ticket: Outcome("the line went dead") for ticket in super().poll()}

    specs = pretend_specs(6)
    with Pessimist(device="cpu", workers=2) as launcher:
        assert train_swarm(swarm, specs, launcher) == {}
    check_results(swarm, specs)


# Models to keep


@pytest.fixture
def kept(swarm):
    """A run that has its result, and is to keep its model now."""
    (spec,) = pretend_specs(1)
    swarm.store.save(spec, made_up_result(spec))
    return replace(spec, keep=True)


def test_a_run_that_dies_for_its_model_is_given_up(swarm, launcher, kept, monkeypatch):
    submit, works = launcher.submit, []

    def counted(more):
        works.extend(more)
        assert len(works) <= 3, "it was to be given up by now"
        return submit(more)

    monkeypatch.setattr(launcher, "submit", counted)
    missing = train_swarm(replace(swarm, faults={"r000": "kill"}), [kept], launcher)
    assert set(missing) == {kept.run_id}
    assert len(works) == 3
    check_results(swarm, [kept])


def test_a_run_that_dies_for_its_model_goes_on_from_its_checkpoints(swarm, launcher, kept):
    # As above: at 20, 27 and 32 of 40 steps, and so further each time.
    swarm = replace(swarm, steps_per_run=40, faults={"r000": "exit:3"})
    assert train_swarm(swarm, [kept], launcher, max_attempts=2) == {}
    assert swarm.store.models() == {kept.run_id}


def test_what_lacks_its_model_at_the_end_is_told(swarm, launcher, kept, monkeypatch):
    monkeypatch.setattr(RunStore, "models", lambda store: set())
    assert set(train_swarm(swarm, [kept], launcher, max_attempts=1)) == {kept.run_id}


@pytest.mark.parametrize("order", [1, -1])
def test_a_run_that_is_asked_for_twice_keeps_its_model_if_once_it_should(swarm, launcher, order):
    (plain,) = pretend_specs(1)
    asked = [plain, replace(plain, keep=True)][::order]
    for spec in asked:
        write_swarm(swarm, [spec])
    assert [spec.keep for spec in read_swarm(swarm.runs)[1]] == [True]
    assert train_swarm(swarm, asked, launcher) == {}
    assert swarm.store.models() == {plain.run_id}
    assert times_trained(swarm.store, [plain]) == [1]
