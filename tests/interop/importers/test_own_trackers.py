"""What mixlaw's own trackers wrote comes back as it was."""

from __future__ import annotations

import pytest

from mixlaw.interop.importers import recognise
from mixlaw.launch.tracking import TRACKERS, Follower, open_trackers
from mixlaw.mixture import Mixture
from mixlaw.runs import DONE, FAILED, RunResult, RunSpec
from mixlaw.store import RunStore

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of sqlalchemy
HORIZONS = (4000, 8000)
LOSSES = ({"loss/web": 2.5, "loss/code": 1.5}, {"loss/web": 2.25, "loss/code": 1.25})


def spec(seed: int) -> RunSpec:
    return RunSpec(
        mixture=Mixture({"web": 0.75, "code": 0.25}),
        label="m07",
        role="swarm",
        size="55k",
        num_params=55_000,
        horizon_tokens=HORIZONS,
        seed=seed,
        context="test",
    )


@pytest.mark.parametrize("name", TRACKERS)
def test_what_a_tracker_wrote_comes_back(name, tmp_path, monkeypatch):
    pytest.importorskip(name, reason="the tracker is not installed")
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    for kind in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    store, folder, runs = RunStore(tmp_path / "runs"), tmp_path / "tools", [spec(0), spec(1)]
    store.save(runs[0], RunResult(DONE, LOSSES))
    store.save(runs[1], RunResult(FAILED, (), "diverged"))
    with Follower(
        store, runs, open_trackers([name], folder=folder, project="p"), on_note=pytest.fail
    ):
        pass
    if name == "wandb":
        __import__(name).teardown()  # its process writes to the end
    source = str(folder / {"mlflow": "mlflow.db"}.get(name, name))
    found = recognise([source])
    assert found.name == name
    read = found.read([source], names=["eval/loss/web", "eval/loss/code"])
    logged = {int(float(run.fields["config.seed"])): run for run in read}
    assert set(logged) == {0, 1}
    run = logged[0]
    assert {
        key: float(run.fields[f"config.{key}"])
        for key in ("share/web", "share/code", "num_params", "train_tokens")
    } == {"share/web": 0.75, "share/code": 0.25, "num_params": 55_000, "train_tokens": 8000}
    for target in ("loss/web", "loss/code"):
        series = run.series[f"eval/{target}"]
        assert series.steps.tolist() == [*HORIZONS]  # the trackers' steps are tokens
        assert series.values.tolist() == [losses[target] for losses in LOSSES]
    assert runs[0].run_id[:6] in run.name
    assert (run.status, list(run.notes)) == (DONE, [])
    # TensorBoard is not told how a run ended.
    assert logged[1].status == (DONE if name == "tensorboard" else FAILED)
    assert not logged[1].series
