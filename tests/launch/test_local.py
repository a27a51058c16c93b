"""Workers that die, fail or finish; nothing trained twice, nothing lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")

from mixlaw.errors import CheckpointError, RunTableError, TrainError
from mixlaw.launch.local import train_local
from mixlaw.runs import DONE, FAILED
from mixlaw.study import Study


def children() -> list[int]:
    tasks = Path(f"/proc/{os.getpid()}/task")
    found = [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
    # The resource tracker is a child, too.
    return [int(p) for p in found if "spawn_main" in Path(f"/proc/{p}/cmdline").read_text()]


def test_stacks_are_balanced_and_cover_every_run(tiny_study):
    study = Study(tiny_study)
    specs, swarm = study.design(), study._own_runs.training.swarm(tiny_study)
    stacks = swarm.unfinished(specs, workers=2)
    assert sorted(s.run_id for stack in stacks for s in stack) == sorted(s.run_id for s in specs)
    assert {len(stack) for stack in stacks} == {5}
    assert all(len({spec.size for spec in stack}) == 1 for stack in stacks)
    costs = [swarm.flops(stack) for stack in stacks]
    assert costs == sorted(costs, reverse=True)


def test_progress_ends_at_all(tiny_study):
    study, seen = Study(tiny_study), []
    specs = study.design()[:6]
    train_local(
        study._own_runs.training.swarm(tiny_study), specs, workers=2, on_progress=seen.append
    )
    assert seen[-1].runs_done == seen[-1].runs_total == 6
    assert seen[-1].share_done == pytest.approx(1)
    assert seen[-1].seconds_left == pytest.approx(0, abs=1e-6)
    shares = [now.share_done for now in seen]
    assert shares == sorted(shares)
    train_local(
        study._own_runs.training.swarm(tiny_study),
        specs,
        on_progress=lambda now: pytest.fail("nothing to do"),
    )


def test_a_killed_worker_is_an_error_and_the_next_call_goes_on(tiny_study, trained_folder):
    study = Study(tiny_study)
    specs = study.design()

    def kill(_) -> None:
        for pid in children():
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(TrainError, match=r"died \(exit code -9.*same command"):
        train_local(study._own_runs.training.swarm(tiny_study), specs, workers=2, on_progress=kill)
    assert children() == []
    study.train()
    table = (tiny_study / "runs.csv").read_bytes()
    assert table == (trained_folder / "runs.csv").read_bytes()


def test_an_error_of_a_worker_reaches_the_caller(tiny_study):
    study = Study(tiny_study)
    specs, swarm = study.design(), study._own_runs.training.swarm(tiny_study)
    stack = swarm.unfinished(specs, workers=2)[0]
    checkpoint = swarm._checkpoint(stack)
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="Delete it"):
        train_local(swarm, specs, workers=2)
    checkpoint.unlink()
    train_local(swarm, specs, workers=2)


def test_a_swarm_that_diverged_whole_says_so(tiny_study):
    path = tiny_study / "study.yaml"
    text = path.read_text()
    for layers in (1, 2):
        old = f"{{width: 16, layers: {layers}}}"
        text = text.replace(old, old[:-1] + ", learning_rate: 1e30}")
    path.write_text(text)
    with pytest.raises(RunTableError, match=r"all 20 runs diverged.*learning_rate"):
        Study(tiny_study).train()


def test_a_diverged_size_is_marked_failed_kept_and_left_out(tiny_study):
    path = tiny_study / "study.yaml"
    text = path.read_text().replace(
        "{width: 16, layers: 1}", "{width: 16, layers: 1, learning_rate: 1e30}"
    )
    path.write_text(text)
    study = Study(tiny_study)
    table = study.train()
    assert set(table.status[table.num_params == 3072]) == {FAILED}
    assert set(table.status[table.num_params == 6144]) == {DONE}
    failed = next(spec for spec in study.design() if spec.size == "3k")
    assert "not finite at step" in study.store.load(failed).reason
    fitted = study.fit()
    assert set(
        fitted.cross_validation.runs.num_params[fitted.cross_validation.runs.status == DONE]
    ) == {6144}
    assert any("failed" in warning for warning in fitted.warnings)
