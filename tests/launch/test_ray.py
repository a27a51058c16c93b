"""A real cluster of several nodes on this machine: whatever dies, each run gets its result."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

import ray
from ray.cluster_utils import Cluster

from mixlaw import __version__
from mixlaw.claims import Watch
from mixlaw.errors import CheckpointError, TrainError
from mixlaw.launch import ray as ray_launcher
from mixlaw.launch.driver import train_swarm, write_swarm
from mixlaw.launch.ray import OBJECT_STORE_BYTES, RayLauncher, Resources, _train
from mixlaw.launch.work import Outcome, Work
from mixlaw.launch.worker import run_work
from mixlaw.testing import (
    PretendSwarm,
    check_launcher,
    made_up_result,
    pretend_specs,
    times_trained,
)

NODE = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES}
# Until a killed node is noticed (some 15 s by default) works may be sent to it, and wait.
IMPATIENT = {
    "_system_config": {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 300,
        "health_check_failure_threshold": 5,
    }
}

DRIVER = """
import sys
from mixlaw.launch.driver import read_swarm, train_runs
from mixlaw.launch.ray import RayLauncher

swarm, specs = read_swarm(sys.argv[1])
with RayLauncher(sys.argv[2], device="cpu") as launcher:
    assert train_runs(swarm, specs, launcher) == {}
"""


@pytest.fixture(scope="module")
def cluster():
    """A head that trains nothing and two nodes of a core; tests may add and remove nodes."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False, **IMPATIENT},
    )
    for _ in range(2):
        cluster.add_node(**NODE)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def node(cluster):
    """Adds a node for one test."""
    nodes = []

    def add(**arguments):
        nodes.append(cluster.add_node(**{**NODE, **arguments}))
        return nodes[-1]

    yield add
    for node in nodes:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node)


@pytest.fixture
def swarm(tmp_path) -> PretendSwarm:
    return PretendSwarm(str(tmp_path), stack_size=2)


def check_results(swarm: PretendSwarm, specs) -> None:
    assert swarm.store.results(specs) == {spec.run_id: made_up_result(spec) for spec in specs}


def ids(specs) -> list[str]:
    return [spec.run_id for spec in specs]


def events(swarm, run_id: str) -> list[str]:
    return [line["event"] for line in swarm.store.metrics(run_id) if "event" in line]


def living(swarm: PretendSwarm) -> list[int]:
    return [beat.pid for beat in Watch(swarm.store, lease_seconds=60).heartbeats()]


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def drain(launcher: RayLauncher, count: int = 1) -> dict[str, Outcome]:
    ended: dict[str, Outcome] = {}
    wait_for(lambda: len(ended.update(launcher.poll()) or ended) == count)
    return ended


def test_the_contract(cluster, tmp_path):
    check_launcher(lambda: RayLauncher(cluster.address), tmp_path)


def test_each_run_is_trained_once(cluster, swarm):
    specs = pretend_specs(9)
    with RayLauncher(cluster.address) as launcher:
        assert launcher.slots == 2
        assert train_swarm(swarm, specs, launcher) == {}
    check_results(swarm, specs)
    assert times_trained(swarm.store, specs) == [1] * 9


def test_runs_of_a_killed_node_go_on_elsewhere_to_the_same_losses(
    cluster, node, tiny_study, tmp_path, caplog
):
    pytest.importorskip("torch", reason="training needs torch")
    from mixlaw.study import Study

    study = Study(tiny_study)
    specs = [replace(s, horizon_tokens=(16_000,)) for s in study.design() if s.size == "3k"][:6]
    swarm = study._own_runs.training.swarm(tmp_path / "undisturbed")
    hardware = replace(swarm.hardware, device="cpu", stack_size=2, lease_seconds=2)
    undisturbed = replace(swarm, hardware=hardware)
    disturbed = replace(undisturbed, runs=str(tmp_path / "disturbed"))
    for stack in undisturbed.unfinished(specs):
        run_work(Work(undisturbed, tuple(stack)))

    victim, killed = node(), []

    def kill_in_mid_run() -> None:
        raylet = victim.all_processes["raylet"][0].process.pid
        watch = Watch(disturbed.store, lease_seconds=60)
        while not killed:
            for beat in watch.heartbeats():
                runs = [run.run_id for run in beat.work.runs] if beat.work else []
                if beat.pid in descendants(raylet) and all(map(disturbed.store.checkpoints, runs)):
                    killed.extend(runs)
            time.sleep(0.02)
        cluster.remove_node(victim, allow_graceful=False)

    with RayLauncher(cluster.address) as launcher:
        assert launcher.slots == 3
        killer = threading.Thread(target=kill_in_mid_run, daemon=True)
        killer.start()
        assert train_swarm(disturbed, specs, launcher) == {}
        killer.join(10)
    # Ray may learn of the process' end before it learns of the node's.
    assert re.search("the node that trained it died|its process died", caplog.text)
    resumed = [run for run in ids(specs) if "resumed" in events(disturbed, run)]
    assert len(killed) == 2
    assert set(resumed) >= set(killed)
    assert disturbed.store.results(specs) == undisturbed.store.results(specs)


def test_a_killed_driver_takes_its_tasks_along_and_the_next_goes_on(cluster, swarm):
    swarm = replace(swarm, steps_per_run=40, step_seconds=0.05)
    specs = pretend_specs(4)
    write_swarm(swarm, specs)
    command = [sys.executable, "-c", DRIVER, swarm.runs, cluster.address]
    driver = subprocess.Popen(command)
    wait_for(lambda: len(living(swarm)) == 2 and all(map(swarm.store.checkpoints, ids(specs))))
    driver.kill()
    driver.wait()
    wait_for(lambda: not living(swarm), seconds=10)
    assert swarm.store.finished() == set()
    subprocess.run(command, check=True, timeout=60)
    check_results(swarm, specs)


def test_a_driver_outside_of_the_cluster(cluster, swarm):
    pytest.importorskip("grpc", reason="ray:// needs grpcio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ray.util.client.server", "--host=127.0.0.1"]
    command += ["--mode=legacy", f"--port={port}", f"--address={cluster.address}"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port))
        slow = replace(swarm, steps_per_run=100_000, runs=swarm.runs + "/slow")
        with RayLauncher(f"ray://127.0.0.1:{port}") as launcher:
            assert launcher.slots == 2
            assert train_swarm(swarm, pretend_specs(5), launcher) == {}
            launcher.submit([Work(slow, tuple(pretend_specs(1)))])
            wait_for(lambda: living(slow))
        assert not living(slow)
    finally:
        server.terminate()
        server.wait()
    check_results(swarm, pretend_specs(5))


def answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_small_stacks_share_a_gpu(cluster, node, swarm):
    """The GPU is only claimed: what trains there finds none and uses the CPU."""
    node(num_cpus=4, num_gpus=1)
    swarm = replace(swarm, steps_per_run=30, step_seconds=0.05)
    specs, at_once = pretend_specs(8), []
    with RayLauncher(cluster.address, resources=Resources(gpus=0.5)) as launcher:
        assert launcher.slots == 2
        train_swarm(swarm, specs, launcher, on_progress=lambda p: at_once.append(len(p.workers)))
    assert max(at_once) == 2
    check_results(swarm, specs)
    with RayLauncher(cluster.address) as launcher:
        assert launcher.slots == 1  # by default a work takes a whole one
    with RayLauncher(cluster.address, device="cpu", resources=Resources(gpus=0.5)) as launcher:
        assert launcher.slots == 6


def test_sizes_of_one_and_of_several_processes_share_a_cluster(cluster, node, tmp_path):
    node(num_cpus=2)
    small = PretendSwarm(str(tmp_path / "small"))
    large = PretendSwarm(str(tmp_path / "large"), group=2)
    larger = PretendSwarm(str(tmp_path / "larger"), group=3)
    specs = pretend_specs(3)
    with RayLauncher(cluster.address) as launcher:
        assert launcher.slots == 4
        works = [Work(large, (specs[0],)), *(Work(small, (spec,)) for spec in specs)]
        tickets = launcher.submit(works)
        assert drain(launcher, 4) == dict.fromkeys(tickets, Outcome())
        launcher.submit([Work(larger, tuple(specs))])
        (outcome,) = drain(launcher).values()
        assert isinstance(outcome.error, TrainError)
        assert "3 x 1k needs 3 cores and 0 GPUs on one machine" in str(outcome.error)
        assert "have 0 cores and 0 GPUs; 1 cores and 0 GPUs; 2 cores" in str(outcome.error)
    check_results(small, specs)
    check_results(large, specs[:1])


def test_works_that_ask_for_a_gpu_do_not_train_on_a_cpu(cluster, swarm):
    with RayLauncher(cluster.address, device="cuda") as launcher:
        launcher.submit([Work(swarm, tuple(pretend_specs(2)))])
        (outcome,) = drain(launcher).values()
    assert isinstance(outcome.error, TrainError)
    assert "2 x 1k needs 1 cores and 1 GPUs on one machine" in str(outcome.error)


def test_on_an_autoscaling_cluster_large_works_wait_for_their_node(cluster, node, swarm):
    swarm = replace(swarm, stack_size=4)
    specs = pretend_specs(3)
    resources = Resources(cpus=2)
    with RayLauncher(cluster.address, resources=resources, autoscaling=True) as launcher:
        tickets = launcher.submit([Work(swarm, tuple(specs))])
        time.sleep(0.5)
        assert launcher.poll() == {}
        node(num_cpus=2)
        assert drain(launcher) == {tickets[0]: Outcome()}
    check_results(swarm, specs)


def test_a_work_that_waits_for_a_node_that_is_gone_is_refused(cluster, node, swarm, monkeypatch):
    monkeypatch.setattr(ray_launcher, "ROOM_SECONDS", 0.5)
    large, slow = node(num_cpus=2), replace(swarm, steps_per_run=100_000)
    with RayLauncher(cluster.address, resources=Resources(cpus=2)) as launcher:
        (first,) = launcher.submit([Work(slow, tuple(pretend_specs(1)))])
        wait_for(lambda: living(slow))
        (waiting,) = launcher.submit([Work(swarm, tuple(pretend_specs(3)[1:]))])
        cluster.remove_node(large, allow_graceful=False)
        ended = drain(launcher, 2)
    assert ended[first].error is None  # it died, and may be tried again
    assert isinstance(ended[waiting].error, TrainError)
    assert "2 x 1k needs 2 cores and 0 GPUs on one machine" in str(ended[waiting].error)


def test_each_work_has_a_process_of_its_own(cluster, swarm):
    """After an error of CUDA no other would succeed in it."""
    specs = pretend_specs(6)
    with RayLauncher(cluster.address) as launcher:
        launcher.submit([Work(swarm, (spec,)) for spec in specs])
        drain(launcher, 6)
    assert len({swarm.store.metrics(spec.run_id)[-1]["pid"] for spec in specs}) == 6


def test_an_error_tells_its_node(cluster, swarm):
    work = Work(replace(swarm, faults={"r000": "error"}), tuple(pretend_specs(2)))
    with RayLauncher(cluster.address) as launcher:
        launcher.submit([work])
        (outcome,) = drain(launcher).values()
    assert isinstance(outcome.error, CheckpointError)
    assert str(outcome.error).startswith(f"on node {os.uname().nodename}: the checkpoint of r000")


def test_a_node_that_lacks_something_says_what(cluster, swarm):
    text = Work(swarm, tuple(pretend_specs(2))).to_json()
    with RayLauncher(cluster.address):
        task = ray.remote(_train)
        answers = [task.remote(text, True, __version__), task.remote(text, False, "0.0.1")]
        folder, version = (Outcome.from_json(answer) for answer in ray.get(answers))
    assert isinstance(folder.error, TrainError)
    assert f"run folder {swarm.runs} has no swarm.json here" in str(folder.error)
    assert isinstance(version.error, TrainError)
    assert f"mixlaw is {__version__} here and 0.0.1 where" in str(version.error)


def test_a_node_without_mixlaw_is_named_so(cluster, node, swarm, tmp_path):
    (tmp_path / "mixlaw.py").write_text("")
    node(num_gpus=2, env_vars={"PYTHONPATH": str(tmp_path)})
    with RayLauncher(cluster.address, resources=Resources(gpus=2)) as launcher:
        launcher.submit([Work(swarm, tuple(pretend_specs(1)))])
        (outcome,) = drain(launcher).values()
    assert isinstance(outcome.error, TrainError)
    assert "cannot import mixlaw.launch.ray; install mixlaw" in str(outcome.error)


def test_an_own_cluster_leaves_no_process(swarm, capfd, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    specs, before = pretend_specs(4), descendants(os.getpid())
    with RayLauncher(device="cpu") as launcher:
        assert train_swarm(swarm, specs, launcher) == {}
        pids = descendants(os.getpid())
        slow = replace(swarm, steps_per_run=100_000, runs=swarm.runs + "/slow")
        launcher.submit([Work(slow, tuple(specs))])
        wait_for(lambda: living(slow))
        pids |= descendants(os.getpid())
    assert len(pids - before) > 2
    check_results(swarm, specs)
    assert slow.store.storage.names("workers") == []  # it was interrupted and let go
    wait_for(lambda: not any(map(runs, pids - before)), 5)
    assert capfd.readouterr() == ("", "")


def test_a_connection_of_the_user_is_used_and_kept(cluster, swarm):
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        with pytest.raises(TrainError, match="connected to one already"):
            RayLauncher(cluster.address)
        with RayLauncher() as launcher:
            launcher.submit([Work(swarm, tuple(pretend_specs(1)))])
            assert list(drain(launcher).values()) == [Outcome()]
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    with pytest.raises(TrainError, match=r"connection to the Ray cluster is lost.*same command"):
        launcher.submit([])


@pytest.mark.parametrize("address", ["ray://127.0.0.1:9", "127.0.0.1:9", "nonsense"])
def test_no_cluster_at_the_address(address):
    with pytest.raises(
        TrainError, match=f"cannot connect to the Ray cluster {address}: .*is it up"
    ):
        RayLauncher(address)
    assert not ray.is_initialized()


@pytest.mark.parametrize("bad", [{"cpus": -1}, {"gpus": -0.5}, {"gpus": 1.5}])
def test_resources_that_make_no_sense(bad):
    with pytest.raises(TrainError, match="cannot reserve"):
        Resources(**bad)


def test_ray_is_imported_only_when_asked_for():
    code = "import sys, mixlaw.cli.app, mixlaw.launch.driver; print('ray' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def descendants(pid: int) -> set[int]:
    """Processes that this one started, and those that these started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            parents[int(path.parent.name)] = int(fields[1])
    found, size = {pid}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}
