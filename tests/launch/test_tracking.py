"""Every point once in every tool, read back with the tool itself, whatever was killed meanwhile."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mixlaw.errors import MissingExtraError, StudyError
from mixlaw.interop.records import WandbRecords
from mixlaw.interop.wandb_file import history
from mixlaw.launch.tracking import TRACKERS, Follower, open_trackers
from mixlaw.launch.tracking.base import Event, Point, describe, events, points
from mixlaw.launch.tracking.wandb import WeightsAndBiases, _held
from mixlaw.mixture import Mixture
from mixlaw.runs import DONE, FAILED, RunResult, RunSpec, Start
from mixlaw.schedule import Online, Schedule
from mixlaw.store import RunStore

HORIZONS = (4000, 8000)
REAL = pytest.mark.parametrize("name", TRACKERS)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of sqlalchemy


def spec(seed: int = 0) -> RunSpec:
    return RunSpec(
        mixture=Mixture({"web": 0.75, "c++": 0.25}),
        label="m07",
        role="swarm",
        size="55k",
        num_params=55_000,
        horizon_tokens=HORIZONS,
        seed=seed,
        context="test",
    )


def line(step: int, horizon: int | None = None, **values) -> dict:
    values = {"loss": 10 / step, "rate": 0.5, "grad_norm": 2.0, **values}
    return {"step": step, "horizon": horizon, "tokens": 100 * step, **values}


def evaluated(step: int, loss: float) -> dict:
    targets = {"loss/web": loss, "loss/c++": 2 * loss}
    return {"event": "evaluated", "step": step, "horizon": 100 * step, "targets": targets}


BEFORE = [
    {"event": "started", "step": 0},
    *(line(step) for step in (10, 20, 30)),
    line(40, 4000, loss=0.2),
    evaluated(40, 0.2),
]
AFTER = [
    {"event": "spike", "step": 42, "reason": "loss 9.1 after 2.2"},
    *(line(step) for step in (40, 50, 60)),
    *(line(step, 8000) for step in (70, 80)),
    evaluated(80, 0.1),
    {"event": "done", "step": 80},
]
RESULT = RunResult(DONE, ({"loss/web": 0.2, "loss/c++": 0.4}, {"loss/web": 0.1, "loss/c++": 0.2}))
CURVES = {
    "train/loss": [(100 * step, 10 / step) for step in (10, 20, 30, 40, 50, 60, 70, 80)],
    "train/rate": [(100 * step, 0.5) for step in (10, 20, 30, 40, 50, 60, 70, 80)],
    "train/grad_norm": [(100 * step, 2.0) for step in (10, 20, 30, 40, 50, 60, 70, 80)],
    "horizon/4000/loss": [(4000, 0.2)],
    "horizon/4000/rate": [(4000, 0.5)],
    "horizon/4000/grad_norm": [(4000, 2.0)],
    "eval/loss/web": [(4000, 0.2), (8000, 0.1)],
    "eval/loss/c++": [(4000, 0.4), (8000, 0.2)],
}
EVENTS = ["step 0: started", "step 42: spike, loss 9.1 after 2.2", "step 80: done"]


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory) -> Path:
    """An empty database: MLflow takes seconds to make one."""
    tracking = pytest.importorskip("mlflow.tracking", reason="MLflow is not installed")
    pytest.importorskip("sqlalchemy", reason="MLflow's database is not installed")
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    tracking.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tools(tmp_path, monkeypatch, request) -> Path:
    """The folder of the tools' files; nothing outside it is touched."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    for kind in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    if "mlflow" in request.node.name:
        shutil.copy(request.getfixturevalue("mlflow_database"), folder)
    return folder


def follow(store, specs, folder, *names) -> Follower:
    pytest.importorskip(names[0], reason="the tracker is not installed")
    trackers = open_trackers(names, folder=folder, project="p")
    return Follower(store, specs, trackers, on_note=pytest.fail)


def read(name: str, folder: Path, run: RunSpec) -> tuple[dict, list[str]]:
    """Curves and events of a run, by the tool's own reader."""
    return {"tensorboard": read_tensorboard, "wandb": read_wandb, "mlflow": read_mlflow}[name](
        folder, run
    )


def read_tensorboard(folder: Path, run: RunSpec):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (path,) = (folder / "tensorboard").glob(f"m07-55k-seed-{run.seed}-*")
    found = EventAccumulator(str(path), {"scalars": 0, "tensors": 0}).Reload()
    curves = {
        tag: [(p.step, pytest.approx(p.value, rel=1e-6)) for p in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }
    return curves, [e.tensor_proto.string_val[0].decode() for e in found.Tensors("events")]


def read_mlflow(folder: Path, run: RunSpec):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("p")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`mixlaw.run_id` = '{run.run_id}'")
    assert len(found) == 1
    curves = {
        tag.replace("c__", "c++"): [
            (metric.step, metric.value)
            for metric in client.get_metric_history(found[0].info.run_id, tag)
        ]
        for tag in found[0].data.metrics
    }
    tags = found[0].data.tags
    return curves, [tags[tag] for tag in sorted(tags) if tag.startswith("mixlaw.event.")]


def read_wandb(folder: Path, run: RunSpec):
    import wandb

    wandb.teardown()  # its process writes to the end
    curves, told = {}, []
    for path in sorted(folder.glob(f"wandb/offline-run-*-{run.run_id}*/*.wandb")):
        for record in WandbRecords(io.BytesIO(path.read_bytes())):
            row = {key: json.loads(bytes(value)) for key, value in history(record).items()}
            tokens = next((v for key, v in row.items() if key.endswith("/tokens")), None)
            for key, value in row.items():
                if key == "events/text":
                    told.append(value)
                elif tokens is not None and not key.startswith("_") and not key.endswith("/tokens"):
                    curves.setdefault(key, []).append((tokens, value))
    return curves, told


def test_points_of_a_run():
    run = spec()
    made = points(run, [*BEFORE, *AFTER], None)
    longest = [point.tokens for point in made if point.series == "train"]
    assert longest == [1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000]
    assert [p.tokens for p in made if p.series == "horizon/4000"] == [4000]
    assert points(run, [line(1, loss=None, grad_norm=float("inf"))], None)[0].values == {
        "train/rate": 0.5
    }
    assert [event.text for event in events([*BEFORE, *AFTER])] == EVENTS
    assert [event.tokens for event in events([*BEFORE, *AFTER])] == [0, 4000, 8000]


def test_a_result_stands_in_for_evaluations_that_no_line_tells():
    (first, second) = points(spec(), [], RESULT)
    assert (first.tokens, first.values) == (4000, {"eval/loss/web": 0.2, "eval/loss/c++": 0.4})
    assert second.tokens == 8000
    assert points(spec(), [], RunResult(FAILED, (), "diverged")) == []


def test_what_an_online_run_decided_is_told():
    mixture, kept = {"web": 0.6251, "c++": 0.3749}, "a target was not finite; it is kept"
    lines = [line(40), {"event": "mixture", "step": 42, "mixture": mixture, "reason": ""}]
    lines.append({"event": "mixture", "step": 60, "mixture": mixture, "reason": kept})
    assert [event.text for event in events(lines)] == [
        "step 42: mixture web 0.625, c++ 0.375",
        f"step 60: mixture web 0.625, c++ 0.375, {kept}",
    ]


def test_losses_before_the_first_step_of_a_continued_run_are_points():
    first, *_ = points(spec(), [], replace(RESULT, at_start={"loss/web": 3.0}))
    assert (first.series, first.tokens, first.values) == ("eval", 0, {"eval/loss/web": 3.0})


def test_what_runs_are_told_apart_by():
    plain = describe(spec())
    assert plain["share/c++"] == 0.25
    assert not [key for key in plain if key.startswith(("stage", "start", "online"))]
    stages = [(0.5, Mixture({"web": 1.0})), (0.5, Mixture({"web": 0.5, "c++": 0.5}))]
    staged = describe(replace(spec(), schedule=Schedule.of(stages)))
    assert staged["stage/1/of_training"] == 0.5
    assert (staged["stage/1/share/web"], staged["stage/2/share/c++"]) == (1.0, 0.5)
    continued = describe(replace(spec(), start=Start("base", "0123456789abcdef", True, 0.5)))
    told = {key: value for key, value in continued.items() if key not in plain}
    assert told == {"start/model": "0123456789ab", "start/rewarm": 0.5, "start/optimizer": True}
    online = describe(replace(spec(), online=Online({"loss/web": 2.0}, rounds=4)))
    assert (online["online/rounds"], online["online/weight/loss/web"]) == (4, 2.0)
    for facts in (staged, continued, online):
        assert all(isinstance(value, str | int | float) for value in facts.values())


@REAL
def test_a_run_of_a_schedule_and_a_start_is_taken_by_every_tool(name, tmp_path, tools):
    stages = [(0.5, Mixture({"web": 1.0})), (0.5, Mixture({"web": 0.5, "c++": 0.5}))]
    start = Start("base", "0123456789abcdef", rewarm=0.5)
    run = replace(spec(), schedule=Schedule.of(stages), start=start)
    store = RunStore(tmp_path / "runs")
    store.append_metrics(run.run_id, BEFORE)
    store.save(run, replace(RESULT, at_start={"loss/web": 3.0}))
    with follow(store, [run], tools, name):
        pass
    curves, _ = read(name, tools, run)
    assert curves["eval/loss/web"] == [(0, 3.0), *CURVES["eval/loss/web"]]


@REAL
def test_what_is_logged_in_pieces_is_read_back_whole(name, tmp_path, tools):
    store, run = RunStore(tmp_path / "runs"), spec()
    follower = follow(store, [run, spec(1)], tools, name)
    with follower._worker:
        for lines in (BEFORE, AFTER):
            store.append_metrics(run.run_id, lines)
            follower.advance()
            follower.advance()
        store.save(run, RESULT)
        follower.advance()
    curves, told = read(name, tools, run)
    assert curves == CURVES
    assert told == EVENTS


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from test_tracking import AFTER, spec
from mixlaw.launch.tracking import Follower, open_trackers
from mixlaw.store import RunStore

runs, folder, name = sys.argv[1:4]
store = RunStore(runs)
(tracker,) = open_trackers([name], folder=Path(folder), project="p")
follower = Follower(store, [spec()], [tracker], on_note=sys.exit)
with follower._worker:
    follower.advance()
    store.append_metrics(spec().run_id, AFTER[:3])
    log = tracker.log
    def last_words(*args):
        log(*args)
        os.kill(os.getpid(), signal.SIGKILL)
    tracker.log = last_words
    follower.advance()
"""


@REAL
def test_a_killed_follower_neither_loses_nor_doubles(name, tmp_path, tools):
    """Killed when the tool has been told but nothing else could be noted."""
    pytest.importorskip(name, reason="the tracker is not installed")
    store, run = RunStore(tmp_path / "runs"), spec()
    store.append_metrics(run.run_id, BEFORE)
    command = [sys.executable, "-W", "ignore", "-c", KILLED, store.root, str(tools), name]
    killed = subprocess.run([*command, str(Path(__file__).parent)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # Trained on, while nobody follows, after a resume that tells a step again.
    store.append_metrics(run.run_id, [line(50), *AFTER[3:]])
    store.save(run, RESULT)
    with follow(store, [run], tools, name):
        pass
    curves, told = read(name, tools, run)
    assert curves == CURVES
    assert told == EVENTS


def test_a_torn_record_of_tensorboard_hides_nothing(tmp_path, tools):
    store, run = RunStore(tmp_path / "runs"), spec()
    store.append_metrics(run.run_id, BEFORE)
    with follow(store, [run], tools, "tensorboard"):
        pass
    (path,) = tools.rglob("*tfevents*")
    path.write_bytes(path.read_bytes()[:-7])
    store.append_metrics(run.run_id, AFTER)
    store.save(run, RESULT)
    with follow(store, [run], tools, "tensorboard"):
        pass
    assert read_tensorboard(tools, run)[0] == CURVES


def test_tensorboard_compares_runs_by_mixture_and_size(tmp_path, tools):
    store, run = RunStore(tmp_path / "runs"), spec()
    store.append_metrics(run.run_id, BEFORE)
    with follow(store, [run], tools, "tensorboard"):
        pass
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

    (path,) = tools.rglob("*tfevents*")
    data = EventAccumulator(str(path)).Reload().summary_metadata["_hparams_/session_start_info"]
    info = parse_session_start_info_plugin_data(data.plugin_data.content)
    assert info.hparams["share/c++"].number_value == 0.25
    assert info.hparams["size"].string_value == "55k"


class Recorder:
    """A tracker that remembers what it was told, and may fail."""

    destination = "recorder"

    def __init__(self, fails: str = ""):
        self.fails, self.told = fails, []

    def _tell(self, method: str, spec: RunSpec, *rest) -> None:
        if method == self.fails:
            raise OSError("no space left on device")
        self.told.append((method, spec.seed, *rest))

    def begin(self, spec: RunSpec) -> dict[str, int]:
        self._tell("begin", spec)
        return {}

    def log(self, spec: RunSpec, points: Sequence[Point], events: Sequence[Event]) -> None:
        self._tell("log", spec, len(points), len(events))

    def finish(self, spec: RunSpec, result: RunResult) -> None:
        self._tell("finish", spec, result.status)

    def close(self) -> None:
        self.told.append("close")


@pytest.fixture
def store(storage_url) -> RunStore:
    return RunStore(storage_url)


def test_runs_of_others_are_caught_up_with_and_then_left_alone(store, monkeypatch):
    runs = [spec(seed) for seed in range(4)]
    store.append_metrics(runs[0].run_id, BEFORE)
    store.save(runs[1], RunResult(FAILED, (), "diverged"))
    store.append_metrics(runs[2].run_id, BEFORE)
    store.save(runs[2], RESULT)
    tracker = Recorder()
    with Follower(store, runs, [tracker], on_note=pytest.fail):
        pass
    assert tracker.told == [
        ("begin", 0),
        ("log", 0, 5, 1),
        ("begin", 1),
        ("finish", 1, FAILED),
        ("begin", 2),
        ("log", 2, 6, 1),
        ("finish", 2, DONE),
        "close",
    ]
    looked = []
    monkeypatch.setattr(store, "metrics", lambda run_id: looked.append(run_id) or [])
    with Follower(store, runs, [Recorder()], on_note=pytest.fail):
        pass
    assert set(looked) == {runs[0].run_id}


def test_of_two_followers_one_works_and_the_other_takes_over(store):
    runs, first, second = [spec()], Recorder(), Recorder()
    store.append_metrics(runs[0].run_id, BEFORE)
    one, other = (Follower(store, runs, [t], on_note=pytest.fail) for t in (first, second))
    with one._worker, other._worker:
        one.advance()
        other.advance()
        assert (len(first.told), second.told) == (2, [])
        store.storage.delete(f"workers/{one._worker.id}.json")  # as if silent for too long
        other.advance()
        assert second.told == [("begin", 0), ("log", 0, 5, 1)]
        store.append_metrics(runs[0].run_id, AFTER)
        one.advance()  # it was only slow
        assert first.told[2:] == ["close"]


@pytest.mark.parametrize("fails", ["begin", "log", "finish"])
def test_a_tracker_that_fails_is_left_out_and_said_once(tmp_path, fails):
    store, runs, notes = RunStore(tmp_path), [spec(0), spec(1)], []
    bad, good = Recorder(fails), Recorder()
    bad.destination = "bad"
    for run in runs:
        store.append_metrics(run.run_id, BEFORE)
        store.save(run, RESULT)
    with Follower(store, runs, [bad, good], on_note=notes.append):
        pass
    assert [told for told in good.told if told[0] == "finish"] == [
        ("finish", 0, DONE),
        ("finish", 1, DONE),
    ]
    (note,) = notes
    assert "bad is left out" in note
    assert "no space left" in note
    assert tracked(store) == {"recorder"}
    healed = Recorder()
    healed.destination = "bad"
    with Follower(store, runs, [healed], on_note=pytest.fail):
        pass
    assert [told[0] for told in healed.told].count("finish") == 2
    assert tracked(store) == {"bad", "recorder"}


def tracked(store: RunStore) -> set[str]:
    """The trackers that have whole runs."""
    return set(json.loads(store.storage.read("tracking.json") or b"{}"))


def test_an_interrupted_training_waits_for_no_tracker(tmp_path):
    store, runs = RunStore(tmp_path), [spec(0), spec(1)]
    for run in runs:
        store.append_metrics(run.run_id, BEFORE)
    begun = threading.Event()

    class Slow(Recorder):
        def begin(self, spec: RunSpec) -> dict[str, int]:
            begun.set()
            time.sleep(0.2)  # the interrupt comes meanwhile
            return super().begin(spec)

    tracker = Slow()

    def interrupted() -> None:
        with Follower(store, runs, [tracker], on_note=pytest.fail):
            begun.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert tracker.told == [("begin", 0), ("log", 0, 5, 1), "close"]


def test_a_store_that_refuses_ends_nothing(tmp_path):
    store, notes = RunStore(tmp_path), []
    (tmp_path / spec().run_id).mkdir()
    (tmp_path / spec().run_id / "metrics.jsonl").mkdir()
    tracker = Recorder()
    with Follower(store, [spec()], [tracker], on_note=notes.append) as follower:
        follower._thread.join(0.2)
        (tmp_path / spec().run_id / "metrics.jsonl").rmdir()
        store.append_metrics(spec().run_id, BEFORE)
    assert len(notes) == 1
    assert tracker.told[:2] == [("begin", 0), ("log", 0, 5, 1)]


@pytest.mark.parametrize("content", ["{", "[1]", '{"recorder": 5}', '{"recorder": ["no'])
def test_a_damaged_state_is_made_anew_by_asking_the_trackers(tmp_path, content):
    store, run, tracker = RunStore(tmp_path), spec(), Recorder()
    store.append_metrics(run.run_id, BEFORE)
    store.save(run, RESULT)
    store.storage.write("tracking.json", content.encode())
    with Follower(store, [run], [tracker], on_note=pytest.fail):
        pass
    assert tracker.told == [("begin", 0), ("log", 0, 6, 1), ("finish", 0, DONE), "close"]
    assert tracked(store) == {"recorder"}


def test_a_damaged_result_is_said_and_ends_nothing(tmp_path):
    store, run, tracker, notes = RunStore(tmp_path), spec(), Recorder(), []
    store.storage.write(f"{run.run_id}/run.json", b"{")
    store.append_metrics(run.run_id, BEFORE)
    follower = Follower(store, [run], [tracker], on_note=notes.append)
    with follower._worker:
        follower.advance()
        store.save(run, RESULT)
        follower.advance()
    (note,) = notes
    assert "could not be tracked" in note
    assert f"{run.run_id}/run.json" in note.replace("\\", "/")
    assert [told[0] for told in tracker.told] == ["begin", "log", "finish"]


def test_without_login_wandb_is_left_out(tmp_path, tools, monkeypatch):
    pytest.importorskip("wandb", reason="the tracker is not installed")
    import wandb

    tracker, notes = WeightsAndBiases(tools, "p"), []
    tracker.mode = "online"
    monkeypatch.setattr(wandb, "login", lambda prompt: prompt)
    store = RunStore(tmp_path / "runs")
    store.append_metrics(spec().run_id, BEFORE)
    with Follower(store, [spec()], [tracker], on_note=notes.append):
        pass
    assert "wandb login" in notes[0]


def test_a_run_of_wandb_tells_how_far_each_series_came(tmp_path, tools):
    """What the server gives back of a resumed run is its summary."""
    pytest.importorskip("wandb", reason="the tracker is not installed")
    tracker, run = WeightsAndBiases(tools, "p"), spec()
    lines = [*BEFORE, *AFTER]
    tracker.begin(run)
    tracker.log(run, points(run, lines, None), events(lines))
    held = _held(dict(tracker._runs[run.run_id].summary))
    assert held == {"train": 8000, "horizon/4000": 4000, "eval": 8000, "events": 3}
    tracker.close()


def test_names_are_checked_before_training(tmp_path):
    with pytest.raises(StudyError, match=r"'tensorbord'; use tensorboard, wandb, mlflow"):
        open_trackers(["tensorbord"], folder=tmp_path, project="p")


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("tensorboard", "tensorboard.compat.proto.event_pb2"),
        ("wandb", "wandb"),
        ("mlflow", "sqlalchemy"),
    ],
)
def test_a_missing_extra_is_told_before_training(name, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'mixlaw\[{name}\]'"):
        open_trackers([name], folder=tmp_path, project="p")
