"""A swarm in its run folder: no number depends on stacks, interruptions or damage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from mixlaw.claims import Worker  # noqa: E402
from mixlaw.corpus import BatchSampler, load_corpus  # noqa: E402
from mixlaw.errors import TrainError  # noqa: E402
from mixlaw.runs import DONE, FAILED, RunSpec  # noqa: E402
from mixlaw.store import RunStore  # noqa: E402
from mixlaw.study import Study  # noqa: E402
from mixlaw.train import checkpoint, record  # noqa: E402
from mixlaw.train.swarm import Swarm  # noqa: E402


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


@pytest.fixture
def swarm(tiny_study) -> Swarm:
    study = Study(tiny_study)
    study.design()
    swarm = study._own_runs.training.swarm(tiny_study / "runs")
    return elsewhere(swarm, tiny_study / "runs", stack_size=16)


@pytest.fixture
def specs(tiny_study, swarm) -> list[RunSpec]:
    """The runs of the smaller size."""
    return [spec for spec in Study(tiny_study).design() if spec.size == "3k"]


def elsewhere(swarm: Swarm, folder: Path, **hardware) -> Swarm:
    return replace(swarm, runs=str(folder), hardware=replace(swarm.hardware, **hardware))


def train(swarm: Swarm, specs) -> list:
    """All in this process; their results."""
    with Worker(swarm.store) as worker:
        for stack in swarm.unfinished(specs):
            swarm.train(stack, worker)
    return [swarm.store.load(spec) for spec in specs]


def test_it_travels_as_json(swarm):
    assert Swarm.from_dict(json.loads(json.dumps(swarm.to_dict()))) == swarm


def test_no_result_depends_on_stacks_or_order(swarm, specs, tmp_path):
    expected = train(swarm, specs)
    assert all(result.status == DONE for result in expected)
    for size, order in ((1, specs[:3]), (3, specs[::-1])):
        other = elsewhere(swarm, tmp_path / f"stacks-of-{size}", stack_size=size)
        assert train(other, order) == [expected[specs.index(spec)] for spec in order]


def killing(monkeypatch, after_saves: int, half_way: bool) -> None:
    """Kill the process in or after a checkpoint of a stack."""
    real, saves = record.save_checkpoint, [0]

    def save(path, tensors, state) -> None:
        real(path, tensors, state)
        saves[0] += 1
        if saves[0] == after_saves:
            if half_way:
                data = path.read_bytes()
                path.write_bytes(data[: len(data) // 2])
            raise Killed

    monkeypatch.setattr(record, "save_checkpoint", save)


@pytest.mark.parametrize("after_saves", [1, 14, 23, 47])
def test_killed_while_saving_the_stack_goes_on_from_what_all_have(
    swarm, specs, tmp_path, monkeypatch, after_saves
):
    expected = train(elsewhere(swarm, tmp_path / "undisturbed"), specs)
    killing(monkeypatch, after_saves, half_way=True)
    with pytest.raises(Killed):
        train(swarm, specs)
    monkeypatch.undo()
    assert train(swarm, specs) == expected
    if after_saves > 2 * len(specs):
        told = swarm.store.metrics(specs[-1].run_id)
        assert "resumed" in {line.get("event") for line in told}


def checkpoints(store: RunStore, spec: RunSpec) -> Iterator[Path]:
    for number in store.checkpoints(spec.run_id):
        with store.read_checkpoint(spec.run_id, number) as path:
            yield path


@pytest.mark.parametrize("damage", ["cut", "flipped", "all"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    swarm, specs, tmp_path, monkeypatch, damage
):
    expected = train(elsewhere(swarm, tmp_path / "undisturbed"), specs)
    killing(monkeypatch, 5 * len(specs) + 1, half_way=False)
    with pytest.raises(Killed):
        train(swarm, specs)
    monkeypatch.undo()
    newest, before = checkpoints(swarm.store, specs[1])
    data = bytearray(newest.read_bytes())
    data[-100] ^= 1
    newest.write_bytes(data[:-200] if damage == "cut" else data)
    if damage == "all":
        before.write_bytes(b"")
    assert train(swarm, specs) == expected
    events = [line for line in swarm.store.metrics(specs[1].run_id) if "event" in line]
    told = [line["reason"] for line in events if line["event"] == "damaged"]
    assert len(told) == (2 if damage == "all" else 1)
    assert ("cut short" if damage == "cut" else "checksum") in told[0]


def of_format(number: int, path: Path) -> None:
    """Make a checkpoint one of another format: of the second, which had no starts, or unknown."""
    tensors, state = checkpoint._load(path)
    if number == checkpoint.BEFORE_STARTS:
        del state["earlier"], state["start"]
    checkpoint._save(path, tensors, state | {"format": number})


@pytest.mark.parametrize("number", [2, 4])
def test_a_checkpoint_of_another_format(swarm, specs, tmp_path, monkeypatch, number):
    """Of an older mixlaw it is gone on from; an unknown one is left as it is."""
    expected = train(elsewhere(swarm, tmp_path / "undisturbed"), specs)
    killing(monkeypatch, 5 * len(specs), half_way=False)
    with pytest.raises(Killed):
        train(swarm, specs)
    monkeypatch.undo()
    paths = [path for spec in specs for path in checkpoints(swarm.store, spec)]
    for path in paths:
        of_format(number, path)
    if number == 2:
        assert train(swarm, specs) == expected
        told = swarm.store.metrics(specs[0].run_id)
        assert {"resumed"} == {e["event"] for e in told if e.get("event") in ("resumed", "damaged")}
    else:
        with pytest.raises(TrainError, match=rf"{specs[0].run_id}/.* of format 4, and this mixlaw"):
            train(swarm, specs)
        assert all(path.exists() for path in paths)


def test_checkpoints_go_when_the_results_are_there(swarm, specs):
    train(swarm, specs)
    assert not any(swarm.store.checkpoints(spec.run_id) for spec in specs)


def test_runs_at_different_places_are_trained_apart(swarm, specs, tmp_path, monkeypatch):
    """Two were interrupted, the others never began."""
    expected = train(elsewhere(swarm, tmp_path / "undisturbed"), specs)
    killing(monkeypatch, 8, half_way=False)
    with pytest.raises(Killed):
        train(swarm, specs[:2])
    monkeypatch.undo()
    assert [len(group) for group in swarm._at_one_place(specs)] == [2, len(specs) - 2]
    assert train(swarm, specs) == expected


def test_runs_that_others_hold_are_left_to_them(swarm, specs):
    with Worker(swarm.store) as other:
        other.claim([spec.run_id for spec in specs[:3]])
        with Worker(swarm.store) as worker:
            swarm.train(specs, worker)
    assert swarm.store.finished() == {spec.run_id for spec in specs[3:]}


def test_a_worker_that_was_taken_over_writes_no_more(swarm, specs):
    class Lost(Worker):
        def holds(self, run_id: str) -> bool:
            return run_id == specs[0].run_id

    with Lost(swarm.store) as worker:
        swarm.train(specs, worker)
    assert swarm.store.finished() == {specs[0].run_id}

    class AllLost(Worker):
        def holds(self, run_id: str) -> bool:
            return False

    with AllLost(swarm.store) as worker:
        swarm.train(specs[1:], worker)
    assert swarm.store.finished() == {specs[0].run_id}


def test_epochs_are_counted_as_drawn(swarm, specs):
    """Every window that the run saw, one by one."""
    result, spec = train(swarm, specs[:1])[0], specs[0]
    corpus, recipe = load_corpus(swarm.corpus), swarm.sizes["3k"].recipe
    names = [domain.name for domain in corpus.domains]
    sampler = BatchSampler(
        [corpus.train_tokens(name) for name in names],
        sequence_length=recipe.sequence_length,
        batch_size=recipe.batch_size,
        seed=spec.seed,
    )
    shares, counts = spec.mixture.array(names)[None], np.zeros(len(names))
    steps = spec.horizon_tokens[-1] // recipe.tokens_per_step
    for step in range(steps):
        counts += np.bincount(sampler.windows_of(step, shares)[0][0], minlength=len(names))
    assert result.epochs == dict(zip(names, counts / sampler.windows, strict=True))
    # Proportions are exact to one sequence per domain.
    drawn = shares[0] * steps * recipe.batch_size
    assert np.abs(counts - drawn).max() <= 1


def test_a_diverged_run_says_why(swarm, specs):
    size = swarm.sizes["3k"]
    wild = replace(size, recipe=replace(size.recipe, learning_rate=1e30))
    results = train(replace(swarm, sizes={"3k": wild}), specs[:2])
    assert [result.status for result in results] == [FAILED, FAILED]
    assert "not finite at step" in results[0].reason
    events = [line.get("event") for line in swarm.store.metrics(specs[0].run_id)]
    assert "restart" in events
    assert "failed" in events


def test_metrics_tell_every_step_once(swarm, specs):
    train(swarm, specs)
    lines = [line for line in swarm.store.metrics(specs[0].run_id) if "event" not in line]
    trunk = [line["step"] for line in lines if line["horizon"] is None]
    assert trunk == [5, 8, 13, 16, 21, 26, 31, 32]
    assert [line["step"] for line in lines if line["horizon"] == 640] == [20]
    assert all(line["tokens"] == 32 * line["step"] for line in lines)


def test_a_stack_that_does_not_fit_is_halved_until_it_does(swarm, specs, tmp_path, monkeypatch):
    expected = train(elsewhere(swarm, tmp_path / "undisturbed"), specs)
    real, sizes = Swarm._train_stack, []

    def small(self, stack, *args):
        sizes.append(len(stack))
        if len(stack) > 3:
            raise torch.OutOfMemoryError("no memory left")
        real(self, stack, *args)

    monkeypatch.setattr(Swarm, "_train_stack", small)
    assert train(swarm, specs) == expected
    assert sizes == [10, 5, 2, 3, 5, 2, 3]

    def never(self, stack, *args):
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(Swarm, "_train_stack", never)
    with pytest.raises(TrainError, match="one 3k does not fit in the memory of cpu"):
        train(elsewhere(swarm, tmp_path / "never"), specs)


def test_a_curve_stays_one_when_it_is_reported_otherwise_after_a_kill(swarm, specs, monkeypatch):
    killing(monkeypatch, 4 * len(specs) + 1, half_way=False)
    with pytest.raises(Killed):
        train(swarm, specs)
    monkeypatch.undo()
    train(elsewhere(swarm, Path(swarm.runs), report_steps=7), specs)
    lines = [line for line in swarm.store.metrics(specs[0].run_id) if "event" not in line]
    done = [line["done"] for line in lines]
    assert done == sorted(set(done))
    assert {line["done"] for line in lines} >= {5, 46}
