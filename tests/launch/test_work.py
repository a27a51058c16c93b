"""Works and outcomes travel as JSON, whole."""

from __future__ import annotations

import errno
import json
import os

import pytest

from mixlaw import errors
from mixlaw.errors import (
    CheckpointError,
    MissingExtraError,
    MixlawError,
    StorageError,
    TrainError,
)
from mixlaw.launch.work import Outcome, Work, may_pass
from mixlaw.testing import PretendHardware, PretendSwarm, pretend_specs


def test_a_work_comes_back_equal():
    swarm = PretendSwarm("s3://b/runs", hardware=PretendHardware("cuda"), faults={"r001": "kill"})
    work = Work(swarm, tuple(pretend_specs(3)))
    again = Work.from_json(work.to_json())
    assert again == work
    assert (again.name, again.processes) == ("3 x 1k", 1)
    assert again.flops == 6 * 1000 * 300 * 10


def test_a_real_swarm_comes_back_equal(tiny_study):
    pytest.importorskip("torch", reason="training needs torch")
    from mixlaw.study import Study

    study = Study(tiny_study)
    swarm = study._own_runs.training.swarm(tiny_study / "runs")
    work = Work(swarm, tuple(study.design()[:3]))
    assert Work.from_json(work.to_json()) == work


@pytest.mark.parametrize(
    "change",
    [
        lambda data: [],
        lambda data: {"swarm": data["swarm"]},
        lambda data: data | {"swarm": data["swarm"] | {"class": "mixlaw.nowhere:Swarm"}},
        lambda data: data | {"swarm": data["swarm"] | {"class": "mixlaw.testing:Nothing"}},
        lambda data: data | {"swarm": data["swarm"] | {"unknown": 1}},
    ],
)
def test_what_is_no_work_is_an_error(change):
    data = json.loads(Work(PretendSwarm("runs"), tuple(pretend_specs(1))).to_json())
    with pytest.raises(TrainError, match="cannot be read here"):
        Work.from_json(json.dumps(change(data)))


def test_outcomes_keep_the_class_of_their_error():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    for kind in kinds:
        error = kind("numpy", "train") if kind is MissingExtraError else kind("say why")
        assert isinstance(error, MixlawError)
        again = Outcome.from_json(Outcome(str(error), error).to_json())
        assert (type(again.error), str(again.error)) == (kind, str(error))
        assert again.reason == str(error)
    for outcome in (Outcome(), Outcome("it died")):
        assert Outcome.from_json(outcome.to_json()) == outcome


def test_an_error_of_another_package_comes_back_as_its_base():
    class NoCluster(CheckpointError):
        pass

    again = Outcome.from_json(Outcome("no", NoCluster("no")).to_json())
    assert type(again.error) is CheckpointError


@pytest.mark.parametrize(
    ("cause", "passes"),
    [
        (OSError(errno.EBUSY, "Please reduce your request rate."), True),
        (TimeoutError("read timed out"), True),
        (RuntimeError("an error of a client library"), True),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
        (RuntimeError(f"I/O error: {os.strerror(errno.ENOSPC)} (os error 28)"), False),
        (PermissionError("AccessDenied"), False),
        (ImportError("s3fs"), False),
        (None, False),
    ],
)
def test_what_a_storage_may_take_later(cause, passes):
    error = StorageError(f"could not write: {cause}")
    error.__cause__ = cause
    assert may_pass(error) == passes
