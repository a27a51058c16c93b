"""Jobs on a real Slurm of one node, which these tests set up: `make test-slurm`.

`make test` does not collect them, because of this file's name: they install Slurm, need root, and
take minutes.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
# Jobs and drivers find the telling swarm there.
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])

from telling_swarm import TellingSwarm  # noqa: E402

from mixlaw.claims import Watch  # noqa: E402
from mixlaw.errors import CheckpointError, TrainError  # noqa: E402
from mixlaw.launch import slurm  # noqa: E402
from mixlaw.launch.driver import train_swarm, write_swarm  # noqa: E402
from mixlaw.launch.local import LocalLauncher  # noqa: E402
from mixlaw.launch.slurm import SlurmLauncher, SlurmOptions  # noqa: E402
from mixlaw.launch.work import Launcher, Outcome, Work  # noqa: E402
from mixlaw.runs import RunSpec  # noqa: E402
from mixlaw.testing import (  # noqa: E402
    CHECKPOINT_STEPS,
    check_launcher,
    made_up_result,
    pretend_specs,
    times_trained,
)

OPTIONS = SlurmOptions(gpus_per_process=0, cpus_per_process=1, minutes=30, parallel=3)
DRIVER = """
import sys
from mixlaw.launch.driver import read_swarm, train_runs
from mixlaw.launch.slurm import SlurmLauncher, SlurmOptions

swarm, specs = read_swarm(sys.argv[1])
options = SlurmOptions(gpus_per_process=0, cpus_per_process=1, minutes=30, parallel=3)
with SlurmLauncher(sys.argv[2], options, look_seconds=1) as launcher:
    assert train_runs(swarm, specs, launcher) == {}
"""


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("slurm")
    up = subprocess.run([HERE / "cluster.sh", "up", folder], stderr=subprocess.PIPE, text=True)
    if up.returncode == 77:
        pytest.skip(up.stderr.strip())
    assert up.returncode == 0, up.stderr
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield
    subprocess.run([HERE / "cluster.sh", "down", folder], check=True)


@pytest.fixture
def swarm(tmp_path) -> TellingSwarm:
    return TellingSwarm(str(tmp_path / "runs"), steps_per_run=20, step_seconds=0.1, stack_size=1)


@pytest.fixture
def slow(swarm) -> TellingSwarm:
    """Slow enough to be ended by Slurm before it ends by itself."""
    return replace(swarm, steps_per_run=40, step_seconds=0.4)


@pytest.fixture
def launcher(tmp_path) -> Iterator[SlurmLauncher]:
    with SlurmLauncher(tmp_path / "jobs", OPTIONS, look_seconds=1) as launcher:
        yield launcher


# The launcher


@pytest.mark.parametrize("wrong", [{"minutes": 3}, {"parallel": 0}, {"gpus_per_process": -1}])
def test_options_that_no_job_can_do_with_are_refused(wrong):
    with pytest.raises(TrainError, match="minutes"):
        SlurmOptions(**wrong)


def test_contract(tmp_path):
    few = replace(OPTIONS, parallel=2)
    make = functools.partial(SlurmLauncher, tmp_path / "jobs", few, look_seconds=1)
    check_launcher(make, tmp_path / "runs", patience_seconds=120)


def test_works_of_one_shape_are_one_array_with_its_resources(swarm, tmp_path):
    pair = replace(swarm, group=2)
    first, second, *rest = pretend_specs(5)
    works = [Work(pair, (first,)), Work(pair, (second,))]
    options = replace(OPTIONS, gpus_per_process=1, memory_gb=0.5)
    with SlurmLauncher(tmp_path / "jobs", options) as launcher:
        launcher.submit([*works, *(Work(swarm, (spec,)) for spec in rest)])
        found = sorted(tuple(line.split()) for line in squeue("--format=%C %b %m %l %F"))
    singles, pairs = found[:3], found[3:]
    assert {job[:-1] for job in singles} == {("1", "gres:gpu:1", "512M", "30:00")}
    assert {job[:-1] for job in pairs} == {("2", "gres:gpu:2", "512M", "30:00")}
    assert len(set(singles)) == len(set(pairs)) == 1  # by array


def test_a_requeued_job_goes_on_where_it_was(slow, launcher):
    (spec,) = pretend_specs(1)
    (ticket,) = launcher.submit([Work(slow, (spec,))])
    wait_for(lambda: len(slow.told(spec)) > 12)
    command("scontrol", "requeue", *queued())
    assert outcomes(launcher, 1) == {ticket: Outcome()}
    assert_resumed(slow, spec)


def test_a_job_that_is_told_to_end_requeues_itself(slow, launcher):
    (spec,) = pretend_specs(1)
    (ticket,) = launcher.submit([Work(slow, (spec,))])
    wait_for(lambda: len(slow.told(spec)) > 12)
    command("scancel", "--signal=USR2", *queued())
    assert outcomes(launcher, 1) == {ticket: Outcome()}
    assert_resumed(slow, spec)


def test_a_preempted_job_goes_on_afterwards(slow, launcher, tmp_path):
    (spec,) = pretend_specs(1)
    (ticket,) = launcher.submit([Work(slow, (spec,))])
    wait_for(lambda: len(slow.told(spec)) > 12)
    urgent = ["--partition=urgent", "--exclusive", f"--output={tmp_path / 'urgent.log'}"]
    command("sbatch", *urgent, "--wrap=sleep 3")
    assert outcomes(launcher, 1) == {ticket: Outcome()}
    assert_resumed(slow, spec)


def test_a_job_longer_than_its_time_limit_finishes(swarm, tmp_path):
    long = replace(swarm, steps_per_run=70, step_seconds=1.0)
    (spec,) = pretend_specs(1)
    options = replace(OPTIONS, minutes=1, warning_seconds=15)  # the shortest that Slurm knows
    with SlurmLauncher(tmp_path / "jobs", options, look_seconds=1) as launcher:
        (ticket,) = launcher.submit([Work(long, (spec,))])
        assert outcomes(launcher, 1, seconds=300) == {ticket: Outcome()}
    assert_resumed(long, spec)


def test_a_lost_job_is_told_with_its_reason(slow, launcher):
    specs = pretend_specs(2)
    tickets = launcher.submit([Work(slow, (spec,)) for spec in specs])
    wait_for(lambda: all(len(slow.told(spec)) > 2 for spec in specs))
    command("scancel", min(queued()))
    for beat in Watch(slow.store).heartbeats():
        if beat.work is not None and beat.work.runs[0].run_id == specs[1].run_id:
            os.kill(beat.pid, signal.SIGKILL)  # as the kernel does when memory runs out
    found = outcomes(launcher, 2)
    assert "it was cancelled" in str(found[tickets[0]].reason)
    assert "it failed" in str(found[tickets[1]].reason)
    assert [found[ticket].error for ticket in tickets] == [None, None]


def test_what_a_user_must_mend_is_an_error_and_a_failure_of_the_job(swarm, launcher):
    (spec,) = pretend_specs(1)
    broken = replace(swarm, faults={spec.label: "error"})
    (ticket,) = launcher.submit([Work(broken, (spec,))])
    (job,) = queued()
    assert isinstance(outcomes(launcher, 1)[ticket].error, CheckpointError)
    wait_for(lambda: command("squeue", "-h", "--states=all", "-j", job, "-o%T") == ["FAILED"])


def test_options_that_slurm_refuses_are_told(swarm, tmp_path):
    options = replace(OPTIONS, partition="nowhere")
    with (
        SlurmLauncher(tmp_path / "jobs", options) as launcher,
        pytest.raises(TrainError, match="invalid partition"),
    ):
        launcher.submit([Work(swarm, tuple(pretend_specs(1)))])


def test_a_limit_on_jobs_names_what_makes_them_fewer(swarm, tmp_path, monkeypatch):
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    told = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    sbatch.write_text(f'#!/bin/sh\necho "{told}" >&2\nexit 1\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    works = [Work(swarm, (spec,)) for spec in pretend_specs(2)]
    with (
        SlurmLauncher(tmp_path / "jobs", OPTIONS) as launcher,
        pytest.raises(TrainError, match=r"refused 2 jobs \(.*submit limit.*raise stack_size"),
    ):
        launcher.submit(works)


@pytest.mark.parametrize("where", ["here", "on another machine"])
def test_the_next_launcher_waits_for_the_jobs_of_the_last(swarm, tmp_path, monkeypatch, where):
    monkeypatch.setattr(slurm, "LEASE_SECONDS", 3)
    specs = pretend_specs(5)
    left = SlurmLauncher(tmp_path / "jobs", OPTIONS, look_seconds=1)
    left.submit([Work(swarm, tuple(specs[:2])), Work(swarm, tuple(specs[2:4]))])
    jobs = queued()
    heartbeat = tmp_path / "jobs" / "arrays" / "workers" / f"{left._driver.id}.json"
    content = heartbeat.read_text()
    left._driver.__exit__()  # as when it is killed, but for its heartbeat
    if where != "here":
        heartbeat.write_text(json.dumps(json.loads(content) | {"host": "far"}))
    with SlurmLauncher(tmp_path / "jobs", OPTIONS, look_seconds=1) as launcher:
        # The stacks are cut differently now, and there is one run more.
        works = [Work(swarm, (spec,)) for spec in specs[:3]]
        tickets = launcher.submit([*works, Work(swarm, tuple(specs[3:]))])
        assert len(set(queued()) - set(jobs)) == 1
        assert outcomes(launcher, 4) == dict.fromkeys(tickets, Outcome())
    assert_trained_once(swarm, specs)


def test_a_launcher_leaves_the_jobs_of_a_living_one_alone(slow, tmp_path):
    specs = pretend_specs(2)
    with SlurmLauncher(tmp_path / "jobs", OPTIONS, look_seconds=1) as first:
        (ticket,) = first.submit([Work(slow, tuple(specs[:1]))])
        (job,) = queued()
        with SlurmLauncher(tmp_path / "jobs", OPTIONS, look_seconds=1) as second:
            second.submit([Work(slow, tuple(specs))])
            assert len(queued()) == 2
        assert queued() == [job]
        assert outcomes(first, 1) == {ticket: Outcome()}
    assert_trained_once(slow, specs[:1])


def test_a_driver_that_others_took_for_dead_cancels_nothing_of_theirs(slow, tmp_path):
    (spec,) = pretend_specs(1)
    slept = SlurmLauncher(tmp_path / "jobs", OPTIONS, look_seconds=1)
    slept.submit([Work(slow, (spec,))])
    slept._driver._stop.set()
    slept._driver._thread.join()
    (tmp_path / "jobs" / "arrays" / "workers" / f"{slept._driver.id}.json").unlink()
    with SlurmLauncher(tmp_path / "jobs", OPTIONS, look_seconds=1) as launcher:
        (ticket,) = launcher.submit([Work(slow, (spec,))])
        slept.close()
        assert outcomes(launcher, 1) == {ticket: Outcome()}


SUBMITTER = """
import os, sys
from submitit import SlurmExecutor
from mixlaw.launch.driver import read_swarm
from mixlaw.launch.slurm import SlurmLauncher, SlurmOptions
from mixlaw.launch.work import Work

submit = SlurmExecutor._internal_process_submissions

def cut_short(*given):
    submit(*given)
    if sys.argv[3] == "killed":
        os._exit(9)
    raise KeyboardInterrupt

SlurmExecutor._internal_process_submissions = cut_short
swarm, specs = read_swarm(sys.argv[1])
options = SlurmOptions(gpus_per_process=0, cpus_per_process=1, minutes=30, parallel=3)
with SlurmLauncher(sys.argv[2], options) as launcher:
    launcher.submit([Work(swarm, (spec,)) for spec in specs])
"""


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_a_driver_that_ends_in_the_instant_of_submitting_leaves_no_orphan(
    swarm, tmp_path, how, number
):
    specs = pretend_specs(number)
    if how == "interrupted":  # Slurm gives what it cancels some seconds, enough for a short run
        swarm = replace(swarm, step_seconds=0.5)
    write_swarm(swarm, specs)
    places = [str(tmp_path / "runs"), str(tmp_path / "jobs")]
    ended = subprocess.run([sys.executable, "-c", SUBMITTER, *places, how], stderr=subprocess.PIPE)
    if how == "interrupted":
        assert b"KeyboardInterrupt" in ended.stderr
        wait_for(lambda: queued() == [])
        assert swarm.store.finished() == set()
        return
    jobs = queued()
    assert len(jobs) == number
    with SlurmLauncher(tmp_path / "jobs", OPTIONS, look_seconds=1) as launcher:
        tickets = launcher.submit([Work(swarm, (spec,)) for spec in specs])
        assert set(queued()) <= set(jobs)
        assert outcomes(launcher, number) == dict.fromkeys(tickets, Outcome())
    assert_trained_once(swarm, specs)


# The driver


def test_a_swarm(swarm, launcher, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):  # of the driver, not of its jobs
        monkeypatch.setenv(name, "1")
    specs = pretend_specs(8)
    assert train_swarm(swarm, specs, launcher) == {}
    assert_trained_once(swarm, specs)


def test_the_driver_submits_again_what_was_cancelled(slow, launcher):
    specs = pretend_specs(3)
    done = []

    def cancel_one(progress) -> None:
        if not done and any(len(slow.told(spec)) > 7 for spec in specs):
            done.append(command("scancel", min(queued())))

    assert train_swarm(slow, specs, launcher, on_progress=cancel_one) == {}
    assert done
    assert times_trained(slow.store, specs) == [1, 1, 1]


def test_after_a_killed_driver_the_next_finishes_and_trains_nothing_twice(swarm, tmp_path):
    specs = pretend_specs(9)
    write_swarm(swarm, specs)
    command_line = [sys.executable, "-c", DRIVER, str(tmp_path / "runs"), str(tmp_path / "jobs")]
    with subprocess.Popen(command_line) as driver:
        wait_for(lambda: bool(swarm.store.finished()))
        driver.send_signal(signal.SIGKILL)
    assert 0 < len(swarm.store.finished()) < len(specs)
    arrays = set(squeue("--states=all", "--format=%F"))
    subprocess.run(command_line, check=True, timeout=120)
    assert_trained_once(swarm, specs)
    assert set(squeue("--states=all", "--format=%F")) == arrays  # it waited for the old one


def test_an_interrupted_driver_cancels_its_jobs(slow, tmp_path):
    specs = pretend_specs(6)
    write_swarm(slow, specs)
    command_line = [sys.executable, "-c", DRIVER, str(tmp_path / "runs"), str(tmp_path / "jobs")]
    with subprocess.Popen(command_line, stderr=subprocess.DEVNULL) as driver:
        wait_for(lambda: any(slow.told(spec) for spec in specs))
        driver.send_signal(signal.SIGINT)
    assert queued() == []
    assert Watch(slow.store).heartbeats() == []


# Real training


def test_a_real_swarm_that_is_disturbed_gives_the_losses_of_a_local_one(tiny_study, tmp_path):
    pytest.importorskip("torch", reason="training needs torch")
    from mixlaw.study import Study
    from mixlaw.study.own_runs import OwnRuns

    file = tiny_study / "study.yaml"
    text = file.read_text().replace("horizon_steps: [10, 20, 40]", "horizon_steps: [500, 9000]")
    text = text.replace("  mixtures: 8", "  mixtures: 8\n  max_epochs: 1000")
    file.write_text(text.replace("checkpoint_seconds: 0,", "checkpoint_seconds: 1,"))
    own = OwnRuns(Study(tiny_study).config, file)
    specs = own.design()[:4]
    undisturbed = own.training.swarm(tmp_path / "local")
    with LocalLauncher(device="cpu", workers=1) as local:
        assert train_swarm(undisturbed, specs, local) == {}

    disturbed = own.training.swarm(tmp_path / "slurm")
    requeued = []

    def requeue_one(progress) -> None:
        running = squeue("--states=running", "--format=%F_%K")
        if not requeued and running and any(map(disturbed.store.checkpoints, ids)):
            requeued.append(command("scontrol", "requeue", running[0].strip()))

    ids = [spec.run_id for spec in specs]
    two = replace(OPTIONS, parallel=2)
    with SlurmLauncher(tmp_path / "jobs", two, look_seconds=1) as launcher:
        assert train_swarm(disturbed, specs, launcher, on_progress=requeue_one) == {}
    assert requeued
    events = [line.get("event") for run_id in ids for line in disturbed.store.metrics(run_id)]
    assert "resumed" in events
    assert disturbed.store.results(specs) == undisturbed.store.results(specs)


def outcomes(launcher: Launcher, count: int, *, seconds: float = 120) -> dict[str, Outcome]:
    """Poll until so many works ended."""
    found: dict[str, Outcome] = {}

    def enough() -> bool:
        found.update(launcher.poll())
        return len(found) >= count

    wait_for(enough, seconds=seconds)
    return found


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not after {seconds} s; in Slurm's queue: {squeue()}"
        time.sleep(0.2)


def assert_trained_once(swarm: TellingSwarm, specs: list[RunSpec]) -> None:
    assert swarm.store.results(specs) == {spec.run_id: made_up_result(spec) for spec in specs}
    for spec in specs:
        assert swarm.told(spec) == list(range(1, swarm.steps_per_run + 1))


def assert_resumed(swarm: TellingSwarm, spec: RunSpec) -> None:
    """It was trained to its end from checkpoints, never from the start again."""
    claims = [name for name in swarm.store.storage.names(spec.run_id) if "claim" in name]
    assert len(claims) >= 3  # a worker's, perhaps given up; another's, given up
    told = swarm.told(spec)
    resumed = sum(after <= before for before, after in itertools.pairwise(told))
    assert len(told) <= swarm.steps_per_run + CHECKPOINT_STEPS * resumed
    assert told.count(1) == 1
    assert times_trained(swarm.store, [spec]) == [1]
    assert swarm.store.results([spec]) == {spec.run_id: made_up_result(spec)}


def command(*words: str) -> list[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def squeue(*options: str) -> list[str]:
    return command("squeue", "--me", "--array", "--noheader", *options)


def queued() -> list[str]:
    """Ids of the jobs that wait or run."""
    return [line.strip().removesuffix("_N/A") for line in squeue("--format=%F_%K")]
