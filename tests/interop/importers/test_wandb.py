"""Offline files of the real client, whole and broken, and runs of a stand-in of its cloud."""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from mixlaw.errors import MissingExtraError, RunTableError
from mixlaw.interop import Hints, import_runs
from mixlaw.interop.importers import recognise
from mixlaw.interop.importers.wandb import WeightsAndBiases
from mixlaw.interop.logged import LoggedRun
from mixlaw.runs import DONE, FAILED

CONFIG = {"mixture": {"web": 0.75, "c++": 0.25}, "layers": 4, "betas": [0.9, 0.95]}


@pytest.fixture(scope="module")
def wandb(tmp_path_factory):
    """The client, which leaves nothing outside its folders."""
    client = pytest.importorskip("wandb", reason="the tracker is not installed")
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("CONFIG", "CACHE", "DATA"):
            patch.setenv(f"WANDB_{kind}_DIR", str(tmp_path_factory.mktemp("wandb")))
        patch.setenv("WANDB_MODE", "offline")
        yield client


@pytest.fixture(scope="module")
def begin(wandb):
    """Opens an offline run of an id in a folder."""

    def begin(folder: Path, run_id: str, **options):
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, x_disable_stats=True
        )
        return wandb.init(
            project="p", id=run_id, dir=str(folder), config=CONFIG, settings=settings, **options
        )

    return begin


@pytest.fixture(scope="module")
def folder(tmp_path_factory, wandb, begin) -> Path:
    """Three runs: one with all kinds of values, one that failed, one without history."""
    folder = tmp_path_factory.mktemp("offline")
    run = begin(folder, "first", name="the first")
    run.define_metric("tokens")
    run.define_metric("eval/*", step_metric="tokens")
    run.define_metric("deep.er", step_metric="tokens")
    for step in range(5):
        row = {"train/loss": 3 - step / 4, "deep": {"er": step}, "tokens": 1000 * step}
        run.log(row | ({"eval/loss/web": 2 - step / 8} if step % 2 == 0 else {}))
    run.log({"odd": math.nan, "up": math.inf, "told": "in words", "yes": True, "list": [1, 2]})
    run.log({"histogram": wandb.Histogram([1, 2, 3])})
    run.config.update({"later": {"deep": 5}})
    run.summary["best"] = 1.5
    run.finish()
    run = begin(folder, "second")
    run.log({"train/loss": 9.0})
    run.finish(exit_code=1)
    begin(folder, "third").finish()
    wandb.teardown()  # its process writes to the end
    return folder


def read(*sources: Path | str, names=None) -> dict[str, LoggedRun]:
    found = WeightsAndBiases().read(list(map(str, sources)), names=names)
    return {run.run: run for run in found}


def curve(run: LoggedRun, name: str) -> list[tuple[float, float]]:
    series = run.series[name]
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def test_runs_of_the_client(folder):
    assert recognise([str(folder)]).name == "wandb"
    runs = read(folder / "wandb")
    assert {name: run.status for name, run in runs.items()} == {
        "first": DONE,
        "second": FAILED,
        "third": DONE,
    }
    assert not any(run.notes for run in runs.values())
    assert (runs["first"].name, runs["third"].series) == ("the first", {})
    assert curve(runs["first"], "train/loss") == [(4, 2.0)]
    fields = dict(runs["first"].fields)
    assert math.isnan(fields.pop("summary.odd"))
    assert fields == {
        "config.mixture.web": 0.75,
        "config.mixture.c++": 0.25,
        "config.layers": 4,
        "config.betas": [0.9, 0.95],
        "config.later.deep": 5,
        "summary.train/loss": 2.0,
        "summary.eval/loss/web": 1.5,
        "summary.deep.er": 4,
        "summary.tokens": 4000,
        "summary.up": math.inf,
        "summary.told": "in words",
        "summary.yes": True,
        "summary.list": [1, 2],
        "summary.best": 1.5,
    }
    assert set(runs["first"].series) == {
        *("train/loss", "eval/loss/web", "deep.er", "tokens", "odd", "up")
    }


def test_series_lie_over_the_metric_that_the_run_defined_for_them(folder):
    names = ["train/loss", "eval/loss/web", "deep.er", "tokens", "odd", "absent"]
    run = read(folder, names=names)["first"]
    assert curve(run, "train/loss") == [(step, 3 - step / 4) for step in range(5)]
    assert curve(run, "eval/loss/web") == [(0, 2), (2000, 1.75), (4000, 1.5)]
    assert curve(run, "deep.er") == [(1000 * step, step) for step in range(5)]
    assert curve(run, "tokens") == [(1000 * step, 1000 * step) for step in range(5)]
    assert math.isnan(run.series["odd"].values[0])
    assert "absent" not in run.series


def test_series_know_their_axis_and_the_end_is_that_of_all(folder):
    runs = read(folder, names=["train/loss", "eval/loss/web"])
    losses, evals = (runs["first"].series[name] for name in ("train/loss", "eval/loss/web"))
    assert (losses.axis, losses.counts) == ("_step", None)
    assert evals.axis == "tokens"
    assert evals.counts is not None
    assert evals.counts.tolist() == [0, 2, 4]
    # What came after is no number of training.
    assert runs["first"].ends == {"_step": 4, "tokens": 4000}
    assert [run.ended for run in runs.values()] == [True, False, True]


def test_targets_over_an_epoch_and_over_steps(tmp_path, wandb, begin):
    """Ten epochs of ten steps: a step of one is not a step of the other."""
    run = begin(tmp_path, "both")
    run.define_metric("epoch")
    run.define_metric("eval/web/loss", step_metric="epoch")
    for step in range(1, 101):
        row = {"eval/code/loss": 5 - step / 100, "tokens": 1000 * step}
        row |= {"epoch": step // 10, "eval/web/loss": 3 - step / 100} if step % 10 == 0 else {}
        run.log(row, step=step)
    run.finish()
    wandb.teardown()
    found = import_runs([tmp_path], hints=Hints(mixture="config.mixture.*"))
    assert found.table.values.tolist() in ([[4.0, 2.0]], [[2.0, 4.0]])
    assert found.table.train_tokens.tolist() == [100_000]
    assert found.notes == ()


def test_an_axis_that_was_not_logged_to_the_end_says_nothing_of_it(tmp_path, wandb, begin):
    run = begin(tmp_path, "half")
    run.define_metric("epoch")
    run.define_metric("eval/*", step_metric="epoch")
    for step in range(1, 101):
        more = {"epoch": step, "eval/web/loss": 3.0} if step <= 50 else {}
        run.log({"train/loss": 3.0} | more, step=step)
    run.finish()
    wandb.teardown()
    assert read(tmp_path, names=["eval/web/loss"])["half"].ends == {"_step": 100, "epoch": math.inf}
    hints = Hints(mixture="config.mixture.*", train_tokens=1e6)
    found = import_runs([tmp_path], hints=hints)
    assert math.isnan(found.table.train_tokens[0])
    assert "half (step 50 of more)" in found.notes[0]


def test_a_file_a_folder_and_many(folder):
    (place,) = folder.glob("wandb/offline-run-*-second")
    assert set(read(place)) == set(read(place / "run-second.wandb")) == {"second"}
    (other,) = folder.glob("wandb/offline-run-*-third")
    assert set(read(place, other)) == {"second", "third"}
    assert set(read(folder / "wandb" / "latest-run", other)) == {"third"}


def test_files_of_one_id_are_one_resumed_run(tmp_path, wandb, begin):
    for number, rows in enumerate([range(4), range(2, 6)]):
        run = begin(tmp_path, "again")
        run.define_metric("own", step_metric="tokens")
        for step in rows:
            run.log({"loss": 10 * number + step, "own": step, "tokens": 100 * step}, step=step)
        run.config.update({f"part{number}": True})
        run.finish(exit_code=1 - number)
        (made,) = tmp_path.glob("wandb/offline-run-*-again")
        wandb.teardown()
        made.rename(tmp_path / f"offline-run-20260101_00000{2 - number}-again")
    # The later part has the earlier name: the order is that of the names' times.
    run = read(tmp_path, names=["loss", "own"])["again"]
    assert curve(run, "loss") == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert run.notes == ["8 points were left out that a restart trained again"]
    assert run.status == FAILED
    for number in (1, 2):
        (tmp_path / f"offline-run-20260101_00000{number}-again").rename(tmp_path / f"x{number}")
    (tmp_path / "x2").rename(tmp_path / "offline-run-20260101_000001-again")
    (tmp_path / "x1").rename(tmp_path / "offline-run-20260101_000002-again")
    run = read(tmp_path, names=["loss", "own"])["again"]
    assert curve(run, "loss") == [(0, 0), (1, 1), (2, 12), (3, 13), (4, 14), (5, 15)]
    assert curve(run, "own") == [(100 * step, step) for step in range(6)]
    assert run.status == DONE
    assert run.fields["config.part0"] is run.fields["config.part1"] is True


def test_a_run_that_was_preempted_did_not_fail(tmp_path, wandb, begin):
    run = begin(tmp_path, "once")
    run.mark_preempting()
    run.finish(exit_code=1)
    wandb.teardown()
    assert read(tmp_path)["once"].status == DONE


def test_a_step_metric_without_values_is_told(tmp_path, wandb, begin):
    run = begin(tmp_path, "lost")
    run.define_metric("loss", step_metric="tokens", step_sync=False)
    run.log({"loss": 1.0})
    run.log({"loss": 2.0, "tokens": 50})
    run.finish()
    wandb.teardown()
    found = read(tmp_path, names=["loss"])["lost"]
    assert curve(found, "loss") == [(50, 2.0)]
    assert found.notes == ["1 points of loss had no value of its step metric tokens"]


@pytest.fixture
def content(folder, tmp_path) -> bytes:
    (path,) = folder.glob("wandb/offline-run-*-first/run-first.wandb")
    return path.read_bytes()


def test_cut_at_any_byte_it_gives_what_was_whole_and_says_so(tmp_path, content):
    path = tmp_path / "run-first.wandb"
    draw = random.Random(0)
    path.write_bytes(content)
    whole = curve(read(path, names=["train/loss"])["first"], "train/loss")
    longest = 0
    for cut in sorted([0, 5, 7, 8, *(draw.randrange(len(content)) for _ in range(150))]):
        path.write_bytes(content[:cut])
        (run,) = read(path, names=["train/loss"]).values()
        points = curve(run, "train/loss") if run.series else []
        assert points == whole[: len(points)]
        assert len(points) >= longest
        longest = len(points)
        assert run.notes[-1] == (
            "run-first.wandb: no end was logged; it still trains, or was killed"
        )
    assert longest == 5


def test_any_byte_that_changed_costs_little_and_is_said(tmp_path, content):
    path = tmp_path / "run-first.wandb"
    draw = random.Random(1)
    for _ in range(100):
        broken = bytearray(content)
        at = draw.randrange(7, len(content))
        broken[at] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        (run,) = read(path, names=["train/loss"]).values()
        assert run.notes
        points = curve(run, "train/loss") if run.series else []
        assert all(3 - step / 4 == loss for step, loss in points)
        assert len(points) >= 4 or len(run.notes) > 1  # of the rest, a length is damaged


def test_no_file_needs_the_client(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert len(read(folder)) == 3
    with pytest.raises(MissingExtraError, match=r"pip install 'mixlaw\[wandb\]'"):
        read("wandb://team/project")


def test_what_is_none_of_wandbs(tmp_path):
    (tmp_path / "runs.csv").write_text("a,b\n")
    found = WeightsAndBiases()
    for sources in ([], [str(tmp_path)], [str(tmp_path / "runs.csv")], ["none"], ["s3://x/y"]):
        assert not found.recognises(sources)
    with pytest.raises(RunTableError, match=r"no .wandb file in .*runs.csv; name a run's folder"):
        read(tmp_path / "runs.csv")


class Cloud:
    """Stands in for `wandb.Api`. Its runs are the client's own, answered by this in place of a
    server; their histories are rows that have all the keys asked for."""

    def __init__(self, state: str = "finished"):
        self.state, self.asked = state, []

    def runs(self, path: str):
        self.asked.append(path)
        return [self._run(f"{path}/abc", {"name": "abc", "displayName": "x", "state": self.state})]

    def run(self, path: str):
        return self._run(path, None)

    def _run(self, path: str, attributes):
        from wandb.apis.public import Run

        run: Any = Run(cast(Any, self), *path.split("/"), attrs=attributes)
        run.scan_history = self.scan_history
        return run

    def execute_graphql(self, query: str, variables: dict, **_):
        """As ServiceApi does, of the run's own query."""
        if variables["entity"] == "nobody":
            return {"project": None}
        metrics = [{"1": "tokens"}, {"2": "eval/*", "5": 1}, {"1": "train/loss"}]
        config = {key: {"value": value, "desc": None} for key, value in CONFIG.items()}
        config["_wandb"] = {"value": {"m": metrics}, "desc": None}
        summary = {"_step": 2, "train/loss": 1, "eval/a": "NaN", "tokens": 200}
        heavy = {"config": json.dumps(config), "summaryMetrics": json.dumps(summary)}
        run = {"name": variables["name"], "displayName": "my run", "state": self.state}
        return {"project": {"run": run | heavy if "summaryMetrics" in query else run}}

    def scan_history(self, keys: list[str]):
        self.asked.append(keys)
        for step in range(3):
            row = {"_step": step, "train/loss": 3 - step, "tokens": 100 * step}
            row |= {"eval/a": "NaN" if step else 4} if step != 1 else {}
            if all(key in row for key in keys):
                yield {key: row[key] for key in keys}


def test_runs_of_the_cloud(wandb, monkeypatch):
    cloud = Cloud()
    monkeypatch.setattr(wandb, "Api", lambda: cloud)
    assert recognise(["wandb://team/p"]).name == "wandb"
    run = read("wandb://team/p")["abc"]
    assert cloud.asked == ["team/p"]
    assert (run.name, run.origin, run.status) == ("my run", "wandb://team/p/abc", DONE)
    assert not [name for name in run.fields if "_wandb" in name]
    assert run.fields["config.mixture.c++"] == 0.25
    assert math.isnan(run.fields["summary.eval/a"])
    assert "summary._step" not in run.fields
    assert curve(run, "train/loss") == [(2, 1)]
    assert curve(run, "tokens") == [(200, 200)]
    assert math.isnan(run.series["eval/a"].values[0])
    whole = read("wandb://team/p/abc/", names=["train/loss", "eval/a", "tokens"])["abc"]
    assert cloud.asked[1:] == [
        *(["eval/a", "tokens", "_step"], ["tokens", "_step"], ["train/loss", "_step"])
    ]
    counts = whole.series["eval/a"].counts
    assert counts is not None
    assert counts.tolist() == [0, 2]
    assert whole.ends == {"_step": 2, "tokens": 200}
    assert curve(whole, "train/loss") == [(0, 3), (1, 2), (2, 1)]
    assert whole.series["eval/a"].steps.tolist() == [0, 200]
    assert curve(whole, "tokens") == [(0, 0), (100, 100), (200, 200)]


@pytest.mark.parametrize(
    ("state", "status", "notes"),
    [("failed", FAILED, []), ("crashed", DONE, ["its state is 'crashed'"])],
)
def test_states_of_the_cloud(wandb, monkeypatch, state, status, notes):
    monkeypatch.setattr(wandb, "Api", lambda: Cloud(state))
    run = read("wandb://team/p/abc")["abc"]
    assert (run.status, run.notes) == (status, notes)


def test_addresses_of_the_cloud(wandb, monkeypatch):
    monkeypatch.setattr(wandb, "Api", Cloud)
    for address in ("wandb://team", "wandb://", "wandb://a/b/c/d"):
        with pytest.raises(RunTableError, match=r"names no project; write wandb://entity/project"):
            read(address)
    with pytest.raises(RunTableError, match=r"Could not find run .* `wandb login`"):
        read("wandb://nobody/p")


def test_a_folder_that_was_moved_is_still_the_run(tmp_path, folder):
    (path,) = folder.glob("wandb/offline-run-*-second/run-second.wandb")
    shutil.copy(path, tmp_path / "kept")
    assert WeightsAndBiases().recognises([str(tmp_path / "kept")])
    assert set(read(tmp_path / "kept")) == {"second"}
