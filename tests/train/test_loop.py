"""The loop against what it promises: stacking, branching, failing and resuming change no number."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest

from mixlaw.errors import CheckpointError, StorageError

torch = pytest.importorskip("torch", reason="training needs torch")

from mixlaw.train.loop import StackJob, TrainState, advance, train_stack  # noqa: E402
from mixlaw.train.model import losses  # noqa: E402
from mixlaw.train.recipe import ModelConfig, Recipe  # noqa: E402

CONFIG = ModelConfig(vocab_size=40, width=32, num_layers=1, sequence_length=8)
RECIPE = Recipe(batch_size=2, sequence_length=8, warmup_steps=3, checkpoint_steps=2)
HORIZONS = [10, 20]


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


def batches(members: int, offset: int = 0):
    def batch(step: int) -> np.ndarray:
        # Member k's data depends on k + offset and the step alone.
        return np.stack(
            [
                np.random.default_rng([k + offset, step]).integers(0, 40, (2, 9))
                for k in range(members)
            ]
        )

    return batch


def evaluate(parameters):
    fixed = torch.from_numpy(np.random.default_rng(9).integers(0, 40, (1, 4, 9)))
    members = parameters["embedding"].shape[0]
    with torch.no_grad():
        found = losses(CONFIG, parameters, fixed.expand(members, 4, 9))
    return [{"loss/x": value} for value in found.tolist()]


def job(members: int = 3, **changes) -> StackJob:
    base = StackJob(
        config=CONFIG,
        recipe=RECIPE,
        horizon_steps=HORIZONS,
        seeds=list(range(members)),
        learning_rates=[0.01] * members,
        batches=batches(members),
        evaluate=evaluate,
    )
    return replace(base, **changes)


def test_a_stack_trains_each_member_as_if_alone():
    together = train_stack(job(3)).targets
    for k in range(3):
        alone = train_stack(job(1, seeds=[k], batches=batches(1, offset=k))).targets
        for h in range(len(HORIZONS)):
            assert together[h][k]["loss/x"] == pytest.approx(alone[h][0]["loss/x"], rel=2e-5)


def test_learning_rates_are_per_member():
    result = train_stack(job(2, seeds=[0, 0], learning_rates=[0.01, 0.02], batches=batches(2)))
    slow = train_stack(job(1, seeds=[0], learning_rates=[0.01], batches=batches(1)))
    assert result.targets[-1][0]["loss/x"] == pytest.approx(slow.targets[-1][0]["loss/x"], rel=2e-5)
    assert result.targets[-1][1]["loss/x"] != result.targets[-1][0]["loss/x"]


def test_clipping_is_per_member():
    """A member with huge gradients does not change how another is clipped."""
    state = TrainState.fresh(CONFIG, [0, 0])
    state.parameters["embedding"][1] *= 50
    alone = TrainState.fresh(CONFIG, [0])
    sequences = torch.from_numpy(batches(1)(0))
    advance(state, CONFIG, RECIPE, sequences.expand(2, 2, 9), torch.tensor([0.1, 0.1]))
    advance(alone, CONFIG, RECIPE, sequences, torch.tensor([0.1]))
    for name, weight in alone.parameters.items():
        torch.testing.assert_close(state.parameters[name][:1], weight, rtol=1e-5, atol=1e-6)


def test_a_branch_is_the_run_to_that_horizon_alone():
    both = train_stack(job())
    short = train_stack(job(horizon_steps=[HORIZONS[0]]))
    assert both.targets[0] == short.targets[0]
    long = train_stack(job(horizon_steps=[HORIZONS[1]]))
    assert both.targets[1] == long.targets[0]


def test_training_learns():
    constant = np.tile(np.arange(9), (1, 2, 1))
    found = train_stack(
        job(
            1,
            batches=lambda step: constant,
            horizon_steps=[60],
            evaluate=lambda p: [{"loss/x": losses(CONFIG, p, torch.from_numpy(constant)).item()}],
        )
    )
    assert found.targets[0][0]["loss/x"] < 0.5 < np.log(40)


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_steps_and_resumed_gives_the_same_bits(tmp_path, seed):
    rng = np.random.default_rng(seed)
    expected = train_stack(job()).targets
    path = tmp_path / "stack.safetensors"
    total = RECIPE.total_steps(HORIZONS)
    kills = iter(sorted(rng.choice(np.arange(1, total), 3, replace=False).tolist()))
    next_kill = next(kills)

    def killer(done: int) -> None:
        if next_kill is not None and done >= next_kill:
            raise Killed

    while True:
        try:
            result = train_stack(job(checkpoint=path), killer)
            break
        except Killed:
            next_kill = next(kills, None)
    assert result.targets == expected


def test_killed_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    expected = train_stack(job()).targets
    path = tmp_path / "stack.safetensors"
    real, calls = os.replace, []

    def replace_then_die(source, target):
        calls.append(target)
        if len(calls) == 4:
            raise Killed
        real(source, target)

    monkeypatch.setattr(os, "replace", replace_then_die)
    with pytest.raises(Killed):
        train_stack(job(checkpoint=path))
    monkeypatch.undo()
    assert train_stack(job(checkpoint=path)).targets == expected


def test_a_diverged_member_is_marked_and_harms_no_other():
    rates = [0.01, float("inf"), 0.01]
    result = train_stack(job(3, learning_rates=rates))
    assert result.failed_step[0] == result.failed_step[2] == -1
    assert result.failed_step[1] >= 0
    assert result.targets[-1][1] == {}
    clean = train_stack(job(3))
    for h in range(len(HORIZONS)):
        assert result.targets[h][0] == clean.targets[h][0]
        assert result.targets[h][2] == clean.targets[h][2]


def test_a_checkpoint_cut_short_is_named(tmp_path):
    path = tmp_path / "stack.safetensors"
    with pytest.raises(Killed):
        train_stack(job(checkpoint=path), lambda done: _die_after(done, 9))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"stack\.safetensors.*Delete it"):
        train_stack(job(checkpoint=path))


def test_a_checkpoint_of_another_stack_is_refused(tmp_path):
    path = tmp_path / "stack.safetensors"
    with pytest.raises(Killed):
        train_stack(job(checkpoint=path, identity="a"), lambda done: _die_after(done, 9))
    with pytest.raises(CheckpointError, match="another training"):
        train_stack(job(checkpoint=path, identity="b"))


def test_a_full_disk_is_said_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "stack.safetensors"
    with pytest.raises(Killed):
        train_stack(job(checkpoint=path), lambda done: _die_after(done, 5))
    before = path.read_bytes()

    def no_space(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageError, match="No space left"):
        train_stack(job(checkpoint=path))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert train_stack(job(checkpoint=path)).targets == train_stack(job()).targets


def _die_after(done: int, step: int) -> None:
    if done >= step:
        raise Killed
