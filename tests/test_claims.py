"""Claims: each run has one holder, whatever dies, stops, is slow or has a wrong clock."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from mixlaw import claims
from mixlaw.claims import RunStatus, Watch, Worker, WorkStatus
from mixlaw.errors import StorageError
from mixlaw.mixture import Mixture
from mixlaw.runs import RunResult, RunSpec
from mixlaw.storage import LocalStorage
from mixlaw.store import RunStore

LEASE = 30.0
WORK = WorkStatus((RunStatus("r1", "m00", "55k", 2.5),), 120, 600, 35_000.0)

PEER = """
import json, sys
from mixlaw.claims import RunStatus, Worker, WorkStatus
from mixlaw.store import RunStore
options = json.loads(sys.argv[2])
with Worker(RunStore(sys.argv[1]), **options) as worker:
    print(json.dumps(worker.id), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(worker, name)(*arguments)), flush=True)
"""


class Peer:
    """A worker in a process of its own that does what it is told."""

    def __init__(self, root, **options):
        command = [sys.executable, "-c", PEER, str(root), json.dumps(options)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.id = self.answer()

    def ask(self, *call):
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def __call__(self, *call):
        self.ask(*call)
        return self.answer()

    def end(self):
        self.process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def peer():
    """Starts peers; they end with the test."""
    with contextlib.ExitStack() as stack:

        def start(root, **options):
            one = Peer(root, **options)
            stack.callback(one.end)
            return one

        yield start


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path)


class Clock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The clock of this process' observers."""
    clock = Clock()
    monkeypatch.setattr(claims, "monotonic", clock)
    return clock


def heartbeat_file(root, worker_id):
    return root / "workers" / f"{worker_id}.json"


def edit(root, worker_id, **changes):
    """Change a heartbeat as another machine could have written it."""
    path = heartbeat_file(root, worker_id)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def elsewhere(root, worker_id="far-1-ab", **changes):
    """A heartbeat of another machine that holds run r."""
    given = {"worker": worker_id, "host": "far", "boot": "other", "pid": 1, "started": "5"}
    given |= {"beat": 3, "lease_seconds": LEASE, "work": None}
    path = heartbeat_file(root, worker_id)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(given | changes))
    (root / "r").mkdir(exist_ok=True)
    (root / "r" / "claim-000001").write_text(json.dumps({"worker": worker_id}))


# One holder


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_two_workers_in_a_race_never_hold_the_same_run(peer, tmp_path, request, kind):
    root, count, rounds = tmp_path, 50, 20
    if kind == "s3":
        request.getfixturevalue("s3_server")
        root, count, rounds = f"s3://mixlaw/race-{tmp_path.name}", 10, 3
    peers, rng = [peer(root, lease_seconds=LEASE) for _ in range(2)], random.Random(0)
    for turn in range(rounds):
        runs = [f"run-{turn}-{i}" for i in range(count)]
        for one in peers:
            one.ask("claim", rng.sample(runs, count) if turn % 2 else runs)
        mine, theirs = (one.answer() for one in peers)
        assert sorted(mine + theirs) == sorted(runs)


def test_two_workers_in_a_race_for_the_runs_of_dead_ones(peer, tmp_path):
    peers = [peer(tmp_path, lease_seconds=LEASE) for _ in range(2)]
    for turn in range(5):
        runs = [f"run-{turn}-{i}" for i in range(50)]
        dead = peer(tmp_path, lease_seconds=LEASE)
        assert dead("claim", runs) == runs
        dead.process.kill()
        dead.process.wait()
        for one in peers:
            one.ask("claim", runs)
        mine, theirs = (one.answer() for one in peers)
        assert sorted(mine + theirs) == sorted(runs)


def test_a_run_is_claimed_once_and_free_again_when_released(storage_url):
    store = RunStore(storage_url)
    with Worker(store) as first, Worker(store) as second:
        assert first.claim(["a", "b"]) == ["a", "b"]
        assert first.claim(["b", "c"]) == ["b", "c"]
        assert second.claim(["a", "b", "c", "d"]) == ["d"]
        assert first.holds("a")
        assert not second.holds("a")
        assert not first.holds("nothing")
        first.release(["a", "nothing"])
        assert not first.holds("a")
        assert second.claim(["a", "b"]) == ["a"]
        assert first.claim(["a"]) == []
    assert store.storage.names("workers") == []
    with Worker(store) as third:
        assert third.claim(["a", "b", "c", "d"]) == ["a", "b", "c", "d"]


def test_a_stack_in_a_slow_bucket_is_let_go_of_in_time(store, monkeypatch):
    """Many requests at once: an interrupted process has seconds only."""
    create, now, most, lock = LocalStorage.create, [], [], threading.Lock()

    def slow(self, name, data):
        with lock:
            now.append(name)
            most.append(len(now))
        time.sleep(0.01)
        with lock:
            now.remove(name)
        return create(self, name, data)

    runs = [f"run-{i}" for i in range(64)]
    with Worker(store) as worker, Worker(store) as other:
        monkeypatch.setattr(LocalStorage, "create", slow)
        assert worker.claim(runs) == runs
        assert max(most) > 4
        most.clear()
        worker.release(runs)
        assert max(most) > 4
        assert other.claim(runs) == runs


def test_a_finished_run_is_nobodys(store):
    spec = RunSpec(Mixture({"a": 1.0}), "m", "swarm", "xs", 10, (100,), 0, "c")
    store.save(spec, RunResult("done", ({"loss/a": 1.0},)))
    with Worker(store) as worker:
        assert worker.claim([spec.run_id, "other"]) == ["other"]


def test_a_finished_run_that_lacks_the_model_it_is_to_keep_is_claimed(store):
    spec = RunSpec(Mixture({"a": 1.0}), "m", "swarm", "xs", 10, (100,), 0, "c", keep=True)
    store.save(spec, RunResult("done", ({"loss/a": 1.0},)))
    with Worker(store) as worker:
        assert worker.claim([spec.run_id], keeping=[spec.run_id]) == [spec.run_id]
        worker.release([spec.run_id])
        with store.save_model(spec.run_id) as path:
            path.write_bytes(b"x")
        assert worker.claim([spec.run_id], keeping=[spec.run_id]) == []


def test_a_diverged_run_has_no_model_to_keep_and_is_nobodys(store):
    spec = RunSpec(Mixture({"a": 1.0}), "m", "swarm", "xs", 10, (100,), 0, "c", keep=True)
    store.save(spec, RunResult("failed", (), "the loss was not finite"))
    assert (store.status(spec.run_id), store.status("other")) == ("failed", "missing")
    with Worker(store) as worker:
        assert worker.claim([spec.run_id, "other"], keeping=[spec.run_id, "other"]) == ["other"]


def test_a_run_that_is_finished_while_it_is_claimed_is_given_back(store, tmp_path, monkeypatch):
    create = LocalStorage.create

    def late(self, name, data):
        (tmp_path / "r").mkdir(exist_ok=True)
        (tmp_path / "r" / "run.json").write_text("{}")
        return create(self, name, data)

    with Worker(store) as worker:
        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "create", late)
            assert worker.claim(["r"]) == []
        assert not worker.holds("r")


def test_a_claim_whose_answer_was_lost_is_held(store, monkeypatch):
    create = LocalStorage.create
    with Worker(store) as worker, monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "create", lambda *given: create(*given) and False)
        assert worker.claim(["r"]) == ["r"]
        assert worker.holds("r")


def test_a_claim_cut_by_a_crash_of_its_machine_is_free(store, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "claim-000007").write_bytes(b"")
    with Worker(store) as worker:
        assert worker.claim(["r"]) == ["r"]
    assert json.loads((tmp_path / "r" / "claim-000008").read_text()) == {"worker": worker.id}


# Holders that die or stop


def test_a_killed_holder_of_this_machine_is_taken_over_at_once(peer, store, tmp_path):
    holder = peer(tmp_path, lease_seconds=LEASE)
    assert holder("claim", ["a", "b"]) == ["a", "b"]
    with Worker(store, lease_seconds=LEASE) as worker:
        assert worker.claim(["a", "b"]) == []
        holder.process.kill()
        # Not yet reaped by its parent, so its number is still taken: dead all the same.
        os.waitid(os.P_PID, holder.process.pid, os.WEXITED | os.WNOWAIT)
        assert worker.claim(["a", "b"]) == ["a", "b"]
        holder.process.wait()
        assert worker.claim(["a", "b"]) == ["a", "b"]
        assert store.storage.names("workers") == [f"{worker.id}.json"]


def test_a_stopped_holder_is_taken_over_after_the_lease_and_sees_it(peer, store, tmp_path, clock):
    holder = peer(tmp_path, lease_seconds=LEASE)
    assert holder("claim", ["a", "b"]) == ["a", "b"]
    holder.process.send_signal(signal.SIGSTOP)
    with Worker(store, lease_seconds=LEASE) as worker:
        assert worker.claim(["a"]) == []
        clock.now += LEASE - 1
        assert worker.claim(["a"]) == []
        clock.now += 1
        assert worker.claim(["a"]) == ["a"]
        holder.process.send_signal(signal.SIGCONT)
        assert holder("holds", "a") is False
        assert holder("holds", "b") is True
        assert holder("claim", ["a", "b"]) == ["b"]
        holder("release", ["a", "b"])
        assert worker.holds("a")


def test_a_number_given_to_another_process_is_no_sign_of_life(peer, store, tmp_path):
    with Worker(store, lease_seconds=LEASE) as worker:
        holder = peer(tmp_path, lease_seconds=LEASE)
        assert holder("claim", ["r"]) == ["r"]
        started = json.loads(heartbeat_file(tmp_path, holder.id).read_text())["started"]
        edit(tmp_path, holder.id, started=str(int(started) - 1))
        assert worker.claim(["r"]) == ["r"]


@pytest.mark.parametrize("other", ["host", "boot"])
def test_a_process_of_another_machine_is_judged_by_the_lease_only(
    peer, store, tmp_path, clock, other
):
    holder = peer(tmp_path, lease_seconds=LEASE)
    assert holder("claim", ["r"]) == ["r"]
    holder.process.kill()
    holder.process.wait()
    edit(tmp_path, holder.id, **{other: "other"})
    with Worker(store, lease_seconds=LEASE) as worker:
        assert worker.claim(["r"]) == []
        clock.now += LEASE - 1
        assert worker.claim(["r"]) == []
        clock.now += 1
        assert worker.claim(["r"]) == ["r"]


def test_a_beating_worker_of_another_machine_keeps_its_runs(store, tmp_path, clock):
    with Worker(store, lease_seconds=LEASE) as worker:
        for beat in range(5):
            elsewhere(tmp_path, beat=beat)
            assert worker.claim(["r"]) == []
            clock.now += LEASE * 100  # it was not looked at for so long
        assert worker.claim(["r"]) == ["r"]


def test_the_longer_lease_counts(store, tmp_path, clock):
    elsewhere(tmp_path, lease_seconds=10 * LEASE)
    watch = Watch(store, lease_seconds=LEASE)
    assert watch.alive("far-1-ab")
    clock.now += 9 * LEASE
    assert watch.alive("far-1-ab")
    clock.now += LEASE
    assert not watch.alive("far-1-ab")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"worker": "far-1-ab"}'])
def test_a_heartbeat_cut_by_a_crash_of_its_machine_is_dead(store, tmp_path, content):
    elsewhere(tmp_path)
    heartbeat_file(tmp_path, "far-1-ab").write_text(content)
    assert not Watch(store, lease_seconds=LEASE).alive("far-1-ab")
    assert Watch(store, lease_seconds=LEASE).heartbeats() == []


@pytest.mark.parametrize("days", [-1, 1])
def test_wrong_clocks_change_nothing(store, tmp_path, clock, monkeypatch, days):
    wrong = time.time() + days * 86_400
    monkeypatch.setattr(time, "time", lambda: wrong)
    elsewhere(tmp_path)
    os.utime(heartbeat_file(tmp_path, "far-1-ab"), (wrong, wrong))
    with Worker(store, lease_seconds=LEASE) as worker:
        assert worker.claim(["r"]) == []
        clock.now += LEASE - 1
        os.utime(heartbeat_file(tmp_path, "far-1-ab"), (wrong + 5, wrong + 5))
        assert worker.claim(["r"]) == []
        clock.now += 1
        assert worker.claim(["r"]) == ["r"]


# The heartbeat


def beats(root, worker_id):
    return json.loads(heartbeat_file(root, worker_id).read_text())["beat"]


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def test_observers_read_what_workers_report(storage_url):
    store = RunStore(storage_url)
    watch = Watch(store, lease_seconds=LEASE)
    with Worker(store, lease_seconds=0.1) as worker:
        assert [h.worker for h in watch.heartbeats()] == [worker.id]
        worker.report(WORK)
        wait_for(lambda: any(h.work == WORK for h in watch.heartbeats()))
        (heartbeat,) = watch.heartbeats()
        assert heartbeat.pid == os.getpid()
        assert watch.alive(worker.id)
    assert not watch.alive(worker.id)
    assert watch.heartbeats() == []


def test_beats_come_quickly_enough_to_watch(store, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "VIEW_SECONDS", 0.01)
    with Worker(store, lease_seconds=3600) as worker:
        for step in range(3):
            work = replace(WORK, steps_done=step)
            worker.report(work)
            wait_for(lambda work=work: Watch(store).heartbeats()[0].work == work)


def test_slow_beats_come_seldom(store, tmp_path, monkeypatch):
    """A hundredth of the time may go into them, as long as the lease is kept."""
    monkeypatch.setattr(claims, "VIEW_SECONDS", 0.01)
    write, pauses, worker = LocalStorage.write, [], Worker(store, lease_seconds=9.0)
    wait = worker._stop.wait

    def slow(self, name, data, *, sync=True):
        time.sleep(0.01)
        write(self, name, data, sync=sync)

    def pause(seconds):
        pauses.append(seconds)
        return wait(0.01)

    monkeypatch.setattr(LocalStorage, "write", slow)
    monkeypatch.setattr(worker._stop, "wait", pause)
    with worker:
        wait_for(lambda: len(pauses) > 3)
    assert pauses[0] == 0.01
    assert min(pauses[1:]) >= 1.0
    assert max(pauses) <= 9.0 / claims.BEATS_PER_LEASE


@pytest.mark.parametrize("look", ["alive", "heartbeats"])
def test_the_heartbeat_of_a_dead_worker_is_removed(peer, store, tmp_path, look):
    holder = peer(tmp_path, lease_seconds=LEASE)
    watch = Watch(store, lease_seconds=LEASE)
    assert [h.worker for h in watch.heartbeats()] == [holder.id]
    holder.process.kill()
    holder.process.wait()
    assert not (watch.alive(holder.id) if look == "alive" else watch.heartbeats())
    assert store.storage.names("workers") == []


def test_who_may_only_read_sees_the_dead_as_dead(store, tmp_path, clock, monkeypatch):
    def refuse(*arguments):
        raise StorageError("could not delete: Read-only file system")

    monkeypatch.setattr(LocalStorage, "delete", refuse)
    elsewhere(tmp_path)
    watch = Watch(store, lease_seconds=LEASE)
    assert watch.alive("far-1-ab")
    clock.now += LEASE
    assert not watch.alive("far-1-ab")
    assert watch.heartbeats() == []


def test_a_failed_beat_is_tried_again(store, tmp_path, monkeypatch):
    refused, write = [], LocalStorage.write

    def refuse(self, name, data, *, sync=True):
        refused.append(name)
        raise StorageError("could not write: No space left on device")

    with Worker(store, lease_seconds=0.1) as worker:
        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "write", refuse)
            wait_for(lambda: len(refused) >= 3)
        assert LocalStorage.write is write
        before = beats(tmp_path, worker.id)
        wait_for(lambda: beats(tmp_path, worker.id) > before + 2)


def test_a_store_that_refuses_from_the_start_is_told(store, monkeypatch):
    def refuse(*arguments, **options):
        raise StorageError("could not write: Permission denied")

    monkeypatch.setattr(LocalStorage, "write", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        Worker(store).__enter__()


def test_an_error_of_the_block_is_not_hidden_by_one_of_the_store(store, monkeypatch):
    def refuse(*arguments, **options):
        raise StorageError("could not delete: the bucket is gone")

    with pytest.raises(RuntimeError, match="the trainer's own"):
        fail_while_held(store, monkeypatch, refuse)


def fail_while_held(store, monkeypatch, refuse):
    with Worker(store) as worker:
        worker.claim(["r"])
        monkeypatch.setattr(LocalStorage, "delete", refuse)
        raise RuntimeError("the trainer's own")


# Stuck


def test_a_stuck_loop_ends_the_process_and_says_so(peer, store, tmp_path):
    holder = peer(tmp_path, lease_seconds=LEASE, stuck_seconds=0.3)
    assert holder("claim", ["a", "b"]) == ["a", "b"]
    assert holder.process.wait(timeout=60) == claims.STUCK_EXIT_CODE
    for run_id in ("a", "b"):
        (event,) = store.metrics(run_id)
        assert (event["event"], event["step"]) == ("stuck", 0)
        assert "no progress for" in event["reason"]
    with Worker(store, lease_seconds=LEASE) as worker:
        assert worker.claim(["a", "b"]) == ["a", "b"]


HANGING = """
import sys, threading
from mixlaw.claims import Worker
from mixlaw.storage import LocalStorage
from mixlaw.store import RunStore
with Worker(RunStore(sys.argv[1]), lease_seconds=0.2, stuck_seconds=0.3) as worker:
    worker.claim(["r"])
    hang = threading.Event()
    LocalStorage.write = LocalStorage.names = lambda *given, **options: hang.wait()
    hang.wait()
"""


def test_a_file_system_that_hangs_does_not_keep_a_stuck_process(tmp_path):
    """Neither its heartbeat nor its last words come through."""
    command = [sys.executable, "-c", HANGING, str(tmp_path)]
    assert subprocess.run(command, timeout=30).returncode == claims.STUCK_EXIT_CODE


REPORTER = """
import sys, time
from mixlaw.claims import RunStatus, Worker, WorkStatus
from mixlaw.store import RunStore
with Worker(RunStore(sys.argv[1]), lease_seconds=30, stuck_seconds=1.0) as worker:
    time.sleep(1.5)  # with nothing to do it waits as long as it likes
    worker.claim(["r"])
    for step in range(30):
        time.sleep(0.05)
        worker.report(WorkStatus((), step, 30, 1.0))
    if "stop" in sys.argv:
        time.sleep(60)
print("well")
"""


def test_a_loop_that_reports_is_not_stuck(tmp_path, store):
    command = [sys.executable, "-c", REPORTER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "well\n")
    assert store.metrics("r") == []


def test_the_step_of_a_stuck_loop_is_told(tmp_path, store):
    command = [sys.executable, "-c", REPORTER, str(tmp_path), "stop"]
    assert subprocess.run(command, timeout=60).returncode == claims.STUCK_EXIT_CODE
    assert [line["step"] for line in store.metrics("r")] == [29]


def test_a_process_that_was_stopped_is_not_stuck(peer, tmp_path):
    holder = peer(tmp_path, lease_seconds=LEASE, stuck_seconds=2.0)
    assert holder("claim", ["r"]) == ["r"]
    holder.process.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    holder.process.send_signal(signal.SIGCONT)
    assert holder("holds", "r") is True
    with pytest.raises(subprocess.TimeoutExpired):
        holder.process.wait(timeout=0.5)


def test_a_report_survives_json():
    assert WorkStatus.from_dict(json.loads(json.dumps(asdict(WORK)))) == WORK
