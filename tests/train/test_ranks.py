"""Several processes under torchrun train what one process trains."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from mixlaw.claims import Worker  # noqa: E402
from mixlaw.mixture import Mixture  # noqa: E402
from mixlaw.schedule import Schedule  # noqa: E402
from mixlaw.store import model_facts  # noqa: E402
from mixlaw.study import Study  # noqa: E402

RANK = """\
import json, sys
from mixlaw.claims import Worker
from mixlaw.runs import RunSpec
from mixlaw.train.swarm import Swarm
data = json.load(open(sys.argv[1]))
swarm = Swarm.from_dict(data["swarm"])
with Worker(swarm.store) as worker:
    swarm.train([RunSpec.from_dict(spec) for spec in data["specs"]], worker)
"""


def test_two_processes_give_the_losses_of_one(tiny_study, tmp_path):
    """Also of a run on a schedule that continues the model that the first has kept."""
    study = Study(tiny_study)
    spec = next(spec for spec in study.design() if spec.size == "3k")
    swarm = study._own_runs.training.swarm(tmp_path / "one")
    size = swarm.sizes["3k"]
    exact = replace(size, recipe=replace(size.recipe, precision="float64"), processes=2)
    swarm = replace(swarm, sizes={"3k": exact})
    base = replace(spec, keep=True, seed=spec.seed + 1)
    with Worker(swarm.store) as worker:
        swarm.train([base], worker)
        schedule = Schedule.of([(0.3, spec.mixture), (0.7, Mixture({"digits": 1.0}))])
        spec = replace(spec, mixture=schedule.dose, schedule=schedule)
        spec = replace(spec, keep=True, start=swarm.store.start(base.run_id, optimizer=True))
        swarm.train([spec], worker)
    expected = swarm.store.load(spec)
    assert expected.at_start == swarm.store.load(base).targets[-1]

    together = replace(swarm, runs=str(tmp_path / "two"))
    (tmp_path / "work.json").write_text(
        json.dumps({"swarm": together.to_dict(), "specs": [spec.to_dict()]})
    )
    (tmp_path / "rank.py").write_text(RANK)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [sys.executable, "-m", *torchrun, str(tmp_path / "rank.py"), str(tmp_path / "work.json")],
        check=True,
        timeout=300,
    )
    found = together.store.load(spec)
    for ours, theirs in zip(found.targets, expected.targets, strict=True):
        assert ours == pytest.approx(dict(theirs), rel=1e-9)
    assert found.epochs == expected.epochs
    assert found.schedules == expected.schedules
    assert found.schedules[-1] == schedule
    assert found.at_start == pytest.approx(dict(expected.at_start), rel=1e-12)
    assert model_facts(together.store.model_url(spec.run_id)).updates == 80
    told = together.store.metrics(spec.run_id)
    assert sum("event" not in line for line in told) == sum(
        "event" not in line for line in swarm.store.metrics(spec.run_id)
    )
