"""The run store: results, checkpoints and metrics, the same in a folder, in memory and in a
bucket."""

import json
import os
import pickle
import random
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from mixlaw.errors import CheckpointError, RunTableError, StorageError
from mixlaw.mixture import Mixture
from mixlaw.runs import DONE, RunResult, RunSpec, Start
from mixlaw.schedule import Schedule
from mixlaw.store import ModelFacts, RunStore, model_facts, start_from

RESULT = RunResult("done", ({"loss/web": 3.0}, {"loss/web": 2.5}))


def spec(**changes):
    mixture = Mixture({"web": 0.75, "code": 0.25})
    given = {"label": "m00", "role": "swarm", "size": "xs", "num_params": 1000}
    given |= {"horizon_tokens": (100, 200), "seed": 0, "context": "c"}
    return RunSpec(**{"mixture": mixture, **given, **changes})


@pytest.fixture
def store(storage_url):
    return RunStore(storage_url)


def save_checkpoint(store, run_id, number, data):
    with store.save_checkpoint(run_id, number) as path:
        path.write_bytes(data)


# Results


def test_a_result_is_read_back(store, storage_url):
    one, other = spec(), spec(seed=1)
    assert store.root == storage_url
    assert not store.has(one)
    assert store.finished() == set()
    with pytest.raises(RunTableError, match=r"m00 .* has no result yet"):
        store.load(one)
    store.save(one, RESULT)
    assert store.has(one)
    assert not store.has(other)
    assert store.load(one) == RESULT
    assert store.finished() == {one.run_id}
    assert store.results([one, other]) == {one.run_id: RESULT}
    again = pickle.loads(pickle.dumps(store))
    assert again.load(one) == RESULT


def test_a_result_says_no_more_than_it_is(store):
    """A static run that began afresh has neither a beginning nor a schedule of its own."""
    one, other, third = spec(), spec(start=Start("base", "abc")), spec(seed=1)
    store.save(one, RESULT)
    written = json.loads(store.storage.read(f"{one.run_id}/run.json"))
    assert list(written["result"]) == ["status", "targets", "reason", "epochs"]
    schedule = Schedule.of([(0.5, Mixture({"web": 1.0})), (0.5, Mixture({"code": 1.0}))])
    store.save(other, replace(RESULT, at_start={"loss/web": 4.0}))
    store.save(third, replace(RESULT, schedules=(schedule, schedule)))
    written = json.loads(store.storage.read(f"{other.run_id}/run.json"))
    assert written["result"]["at_start"] == {"loss/web": 4.0}
    assert store.load(other).at_start == {"loss/web": 4.0}
    assert store.load(third).schedules == (schedule, schedule)


def test_a_run_that_only_began_is_not_finished(store):
    one = spec()
    store.append_metrics(one.run_id, [{"event": "started", "step": 0}])
    save_checkpoint(store, one.run_id, 5, b"x")
    assert store.finished() == set()
    assert not store.has(one)


def test_many_results_take_few_listings(s3_server, monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    store, specs = RunStore("s3://mixlaw/many"), [spec(seed=s) for s in range(40)]
    for one in specs:
        store.save(one, RESULT)
        store.append_metrics(one.run_id, [{"step": 1}])
    calls, original = [], s3fs.S3FileSystem._call_s3

    def counted(self, method, *arguments, **options):
        calls.append(method)
        return original(self, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    pages, lister = [], s3fs.S3FileSystem._iterdir

    def listed(self, *arguments, **options):
        pages.append(arguments)
        return lister(self, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_iterdir", listed)
    assert store.finished() == {one.run_id for one in specs}
    assert len(calls) + len(pages) <= 2


def test_a_save_that_is_killed_leaves_what_was_there(tmp_path, monkeypatch):
    store, one, other = RunStore(tmp_path), spec(), spec(seed=1)
    store.save(one, RESULT)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            store.save(other, RESULT)
        with pytest.raises(KeyboardInterrupt):
            store.save(one, RunResult("failed", (), "diverged"))
    assert not store.has(other)
    assert store.load(one) == RESULT


# Tables


def test_a_table_has_a_row_for_each_horizon_and_keeps_failures(store):
    good, bad, absent = spec(), spec(seed=1), spec(seed=2)
    store.save(good, RESULT)
    store.save(bad, RunResult("failed", (), "loss became NaN at step 7"))
    runs = store.table([good, bad, absent], ["web", "code"])
    assert list(runs.status) == ["done", "done", "failed", "failed"]
    np.testing.assert_array_equal(runs.train_tokens, [100, 200, 100, 200])
    np.testing.assert_array_equal(runs.column("loss/web"), [3.0, 2.5, np.nan, np.nan])
    assert len(runs.done()) == 2


def test_missing_runs_are_rows_without_values_where_asked(tmp_path):
    store, specs = RunStore(tmp_path), [spec(seed=s, pools={"web": 500}) for s in range(3)]
    store.save(specs[1], RESULT)
    store.save(specs[2], RunResult("failed", (), "diverged"))
    runs = store.table(specs, ["web", "code"], missing=True)
    assert list(runs.status) == ["missing"] * 2 + ["done"] * 2 + ["failed"] * 2
    assert list(runs.run[:2]) == [specs[0].run_id] * 2
    np.testing.assert_allclose(runs.weights, [[0.75, 0.25]] * 6)
    np.testing.assert_array_equal(runs.train_tokens[:2], [100, 200])
    np.testing.assert_array_equal(runs.available_tokens[:2], [[500, np.inf]] * 2)
    assert np.isnan(runs.values[:2]).all()
    assert set(runs.done().run) == {specs[1].run_id}


@pytest.mark.parametrize(
    ("failed", "missing", "message"),
    [
        (0, 3, "none of 3 runs has a result yet; train them"),
        (1, 2, r"none of 2 runs has a result yet \(1 more diverged\); train them"),
        (3, 0, "all 3 runs diverged.*lower learning_rate"),
    ],
)
def test_a_table_without_a_loss_says_what_to_do(tmp_path, failed, missing, message):
    store, specs = RunStore(tmp_path), [spec(seed=s) for s in range(failed + missing)]
    for one in specs[:failed]:
        store.save(one, RunResult("failed", (), "diverged"))
    with pytest.raises(RunTableError, match=message):
        store.table(specs, ["web", "code"], missing=True)


# Checkpoints


def test_the_last_two_checkpoints_are_kept(store):
    assert store.checkpoints("r") == []
    for number in (5, 10, 600, 1_200):
        save_checkpoint(store, "r", number, str(number).encode())
    assert store.checkpoints("r") == [1_200, 600]
    assert store.storage.names("r")[-1] == "checkpoint-000001200.safetensors"
    with store.read_checkpoint("r", 600) as path:
        assert path.read_bytes() == b"600"
    save_checkpoint(store, "r", 1_200, b"again")
    assert store.checkpoints("r") == [1_200, 600]
    with store.read_checkpoint("r", 1_200) as path:
        assert path.read_bytes() == b"again"
    with pytest.raises(StorageError, match="checkpoint-000000005"), store.read_checkpoint("r", 5):
        pass
    store.delete_checkpoints("r")
    assert store.checkpoints("r") == []
    store.delete_checkpoints("r")


def test_a_checkpoint_of_a_training_that_began_anew_is_kept(store):
    for number in (500, 600, 100):
        save_checkpoint(store, "r", number, b"x")
    assert store.checkpoints("r") == [600, 100]


def test_a_checkpoint_that_fails_takes_none_away(store):
    save_checkpoint(store, "r", 5, b"5")
    save_checkpoint(store, "r", 10, b"10")
    with pytest.raises(StorageError, match="No space left"), store.save_checkpoint("r", 15) as path:
        raise OSError(28, f"No space left on device: {path.name}")
    assert store.checkpoints("r") == [10, 5]


CHECKPOINTER = """
import sys
from mixlaw.store import RunStore
store = RunStore(sys.argv[1])
start = max(store.checkpoints("r"), default=0)
for number in range(start + 1, 10**9):
    with store.save_checkpoint("r", number) as path:
        path.write_bytes(number.to_bytes(4) * 100_000)
    store.append_metrics("r", [{"step": number, "loss": 1.5}])
    print(number, flush=True)
"""


def test_a_trainer_killed_at_any_moment_has_a_whole_checkpoint_to_go_on_from(tmp_path):
    rng, store = random.Random(1), RunStore(tmp_path)
    for _ in range(10):
        command = [sys.executable, "-c", CHECKPOINTER, str(tmp_path)]
        trainer = subprocess.Popen(command, stdout=subprocess.PIPE)
        trainer.stdout.readline()
        time.sleep(rng.uniform(0, 0.03))
        trainer.kill()
        trainer.communicate()
        numbers = store.checkpoints("r")
        for number in numbers:
            with store.read_checkpoint("r", number) as path:
                assert path.read_bytes() == number.to_bytes(4) * 100_000
        metrics = store.metrics("r")
        assert all(set(line) == {"step", "loss"} for line in metrics)
        assert numbers[0] - 1 <= metrics[-1]["step"] <= numbers[0]
    store.delete_checkpoints("r")
    assert os.listdir(tmp_path / "r") == ["metrics.jsonl"]


# Metrics


def test_metrics_come_back_in_order(store):
    assert store.metrics("r") == []
    lines = [
        {"event": "started", "step": 0},
        {"step": 60, "horizon": None, "loss": 3.1},
        {"step": 60, "horizon": 307_200, "loss": 2.9},
        {"event": "evaluated", "step": 60, "horizon": 307_200, "targets": {"loss/web": 2.2}},
    ]
    store.append_metrics("r", lines[:2])
    store.append_metrics("r", lines[2:])
    assert store.metrics("r") == lines
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.append_metrics("r", [{"step": 1, "loss": float("nan")}])


def test_steps_told_twice_count_once(store):
    store.append_metrics("r", [{"step": s, "horizon": None, "loss": s / 8} for s in (1, 2, 3)])
    store.append_metrics("r", [{"event": "resumed", "step": 1}])
    store.append_metrics("r", [{"step": s, "horizon": None, "loss": s / 4} for s in (2, 3, 4)])
    steps = [(line["step"], line["loss"]) for line in store.metrics("r") if "loss" in line]
    assert steps == [(1, 0.125), (2, 0.5), (3, 0.75), (4, 1.0)]
    assert [line["step"] for line in store.metrics("r") if "event" in line] == [1]


def test_a_torn_line_is_left_out_and_harms_no_other(tmp_path):
    store = RunStore(tmp_path)
    store.append_metrics("r", [{"step": 1}, {"step": 2}])
    with open(tmp_path / "r" / "metrics.jsonl", "ab") as handle:
        handle.write(json.dumps({"step": 3, "reason": "é"}, ensure_ascii=False).encode()[:-3])
    assert [line["step"] for line in store.metrics("r")] == [1, 2]
    store.append_metrics("r", [{"step": 3}, {"step": 4}])
    assert [line["step"] for line in store.metrics("r")] == [1, 2, 3, 4]


@pytest.mark.parametrize("damage", [b"", b'{"result": {"sta', b"[]", b'{"result": {"status": 1}}'])
def test_a_damaged_result_is_named_and_said_how_to_mend(tmp_path, damage):
    store = RunStore(tmp_path)
    store.save(spec(), RESULT)
    file = tmp_path / spec().run_id / "run.json"
    file.write_bytes(damage)
    with pytest.raises(RunTableError, match=r"run\.json is damaged .*delete it"):
        store.load(spec())
    file.unlink()
    assert not store.has(spec())


# Schedules, and models to continue from


def test_each_horizon_shows_the_schedule_so_far(store):
    web, code = Mixture({"web": 1.0}), Mixture({"code": 1.0})
    schedule = Schedule.of([(0.5, web), (0.25, code), (0.25, web)])
    staged = spec(mixture=schedule.dose, schedule=schedule, horizon_tokens=(100, 150, 200))
    store.save(staged, RunResult(DONE, ({"loss/web": 2.0},) * 3))
    runs = store.table([staged], ["web", "code"])
    assert list(runs.schedule) == [None, schedule.until(0.75), schedule]
    np.testing.assert_allclose(runs.weights, [[1, 0], [2 / 3, 1 / 3], [0.75, 0.25]])


def test_what_a_run_continued_is_in_its_rows(store):
    run = spec(start=Start("base", "abc", rewarm=0.5))
    result = RunResult(DONE, ({"loss/web": 2.0}, {"loss/web": 1.5}), at_start={"loss/web": 3.0})
    store.save(run, result)
    assert store.load(run) == result
    runs = store.table([run], ["web", "code"])
    assert list(runs.start[:, 0]) == [3.0, 3.0]
    assert list(runs.rewarm) == [0.5, 0.5]


def test_models_are_kept_whole(store):
    assert store.models() == set()
    with pytest.raises(ZeroDivisionError), store.save_model("r1") as path:
        path.write_bytes(b"half" * (1 // 0))
    assert store.models() == set()
    with store.save_model("r1") as path:
        path.write_bytes(b"whole")
    assert store.models() == {"r1"}
    assert store.storage.read("r1/model.safetensors") == b"whole"
    assert store.model_url("r1") == f"{store.root}/r1/model.safetensors"


FACTS = {"num_params": 3, "config": {"width": 1}, "recipe": {"learning_rate": 0.1}}
FACTS |= {"vocabulary": {"name": "byte", "digest": "byte"}, "updates": 40}


def write_model(path, state, tensors=("model/parameters/a", "model/first/a"), sha256="abc"):
    """A safetensors file without its content, by hand: its facts are read without torch."""
    header = {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in tensors}
    header["__metadata__"] = {"state": json.dumps(state), "sha256": sha256}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def test_a_kept_model_tells_what_it_is_and_what_a_run_starts_from(store):
    with store.save_model("r") as path:
        write_model(path, {"model_format": 1, **FACTS})
    assert store.models() == {"r"}
    facts = model_facts(store.model_url("r"))
    assert facts == ModelFacts(digest="abc", optimizer=True, **FACTS)
    expected = Start(f"{store.root}/r/model.safetensors", "abc", True, 0.5)
    assert store.start("r", optimizer=True, rewarm=0.5) == expected
    with store.save_model("r") as path:
        write_model(path, {"model_format": 1, **FACTS}, ["model/parameters/a"])
    assert not model_facts(store.model_url("r")).optimizer
    with pytest.raises(StorageError, match="has no file model"):
        store.start("other")


def test_a_relative_place_of_a_model_is_made_absolute(tmp_path, monkeypatch):
    write_model(tmp_path / "own.safetensors", {"model_format": 1, **FACTS})
    monkeypatch.chdir(tmp_path)
    for place in ("own.safetensors", "./own.safetensors", tmp_path / "own.safetensors"):
        assert start_from(place) == Start(f"{tmp_path}/own.safetensors", "abc")


@pytest.mark.parametrize(
    "state", [{}, {"model_format": 2, **FACTS}, {"model_format": 1}, {"format": 3}, [1], None]
)
def test_another_file_is_no_model(tmp_path, state):
    write_model(tmp_path / "x.safetensors", state)
    with pytest.raises(CheckpointError, match=r"x\.safetensors is no model that a run kept"):
        model_facts(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="cut short"):
        model_facts(tmp_path / "x.safetensors")


def test_unfinished_is_what_lacks_its_result_or_its_model(store):
    specs = [spec(seed=seed, keep=seed > 0) for seed in range(5)]
    for one in specs[:4]:
        result = RunResult("failed", (), "diverged") if one.seed == 3 else RESULT
        store.save(one, result)
    with store.save_model(specs[1].run_id) as path:
        path.write_bytes(b"x")
    assert store.unfinished(specs) == [specs[2], specs[4]]
    assert store.unfinished(specs[:2]) == []
