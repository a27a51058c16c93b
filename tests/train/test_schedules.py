"""Runs whose mixture changes over training: the trainer follows the schedule, and no bit else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from mixlaw.claims import Worker  # noqa: E402
from mixlaw.corpus import BatchSampler, load_corpus  # noqa: E402
from mixlaw.errors import MixtureError  # noqa: E402
from mixlaw.mixture import Mixture  # noqa: E402
from mixlaw.runs import DONE, RunSpec  # noqa: E402
from mixlaw.schedule import Schedule  # noqa: E402
from mixlaw.study import Study  # noqa: E402
from mixlaw.train import record  # noqa: E402
from mixlaw.train.swarm import Swarm  # noqa: E402

ABC = Mixture({"abc": 0.7, "digits": 0.2, "words": 0.1})
WORDS = Mixture({"abc": 0.1, "digits": 0.1, "words": 0.8})
DIGITS = Mixture({"digits": 1.0})
STEPS, TOKENS_PER_STEP = 40, 32
SHORT = 20 * TOKENS_PER_STEP


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


@pytest.fixture
def swarm(tiny_study) -> Swarm:
    study = Study(tiny_study)
    study.design()
    return elsewhere(study._own_runs.training.swarm(tiny_study / "runs"), tiny_study / "runs")


@pytest.fixture
def static(swarm, tiny_study) -> RunSpec:
    spec = next(spec for spec in Study(tiny_study).design() if spec.size == "3k")
    assert spec.horizon_tokens == (10 * 32, 20 * 32, 40 * 32)
    return replace(spec, mixture=ABC, horizon_tokens=(SHORT, STEPS * TOKENS_PER_STEP))


def elsewhere(swarm: Swarm, folder: Path, **hardware) -> Swarm:
    return replace(swarm, runs=str(folder), hardware=replace(swarm.hardware, **hardware))


def scheduled(spec: RunSpec, *stages: tuple[float, Mixture], **changes) -> RunSpec:
    schedule = Schedule.of(stages)
    return replace(spec, mixture=schedule.dose, schedule=schedule, **changes)


def train(swarm: Swarm, *specs: RunSpec) -> list:
    """All in this process; their results."""
    with Worker(swarm.store) as worker:
        for stack in swarm.unfinished(specs):
            swarm.train(stack, worker)
    results = [swarm.store.load(spec) for spec in specs]
    assert all(result.status == DONE for result in results)
    return results


def told(swarm: Swarm, spec: RunSpec) -> list[dict]:
    """The metrics of the steps."""
    return [line for line in swarm.store.metrics(spec.run_id) if "event" not in line]


def test_a_schedule_of_equal_stages_is_the_static_run(swarm, static, tmp_path):
    equal = scheduled(static, (0.25, ABC), (0.5, ABC), (0.25, ABC))
    assert equal == static
    assert equal.run_id == static.run_id
    other = elsewhere(swarm, tmp_path / "other")
    assert train(swarm, static) == train(other, equal)
    assert told(swarm, static) == told(other, equal)


def test_no_bit_of_a_run_depends_on_the_schedules_of_its_stack(swarm, static, tmp_path):
    """Which also cuts the static run up into equal segments, at the others' boundaries."""
    specs = [
        scheduled(static, (0.5, WORDS), (0.5, ABC)),
        static,
        scheduled(static, (0.3, ABC), (0.3, DIGITS), (0.4, WORDS)),
    ]
    together = train(elsewhere(swarm, tmp_path / "together", stack_size=3), *specs)
    alone = train(elsewhere(swarm, tmp_path / "alone", stack_size=1), *specs)
    assert together == alone
    for spec in specs:
        metrics = [told(elsewhere(swarm, tmp_path / at), spec) for at in ("together", "alone")]
        assert metrics[0] == metrics[1]
    assert len({result.targets[-1]["loss/mixed"] for result in alone}) == 3


def test_a_run_is_its_static_mixture_until_the_stage_changes(swarm, static):
    spec = scheduled(static, (0.75, ABC), (0.25, DIGITS))
    (plain, staged) = train(swarm, static, spec)
    # The horizon of 20 steps lies before the change at step 30, that of 40 behind it.
    assert staged.targets[0] == plain.targets[0]
    assert staged.targets[1]["loss/digits"] < plain.targets[1]["loss/digits"]


def test_epochs_and_shares_are_those_of_the_stages(swarm, static):
    spec = scheduled(static, (0.25, WORDS), (0.5, DIGITS), (0.25, ABC))
    result = train(swarm, spec)[0]
    corpus, recipe = load_corpus(swarm.corpus), swarm.sizes["3k"].recipe
    names = [domain.name for domain in corpus.domains]
    sampler = BatchSampler(
        [corpus.train_tokens(name) for name in names],
        sequence_length=recipe.sequence_length,
        batch_size=recipe.batch_size,
        seed=spec.seed,
    )
    drawn = dict(zip(names, sampler.windows * list(result.epochs.values()), strict=True))
    sequences = STEPS * recipe.batch_size
    for name in names:
        assert abs(drawn[name] - spec.mixture[name] * sequences) <= 3


def test_a_branch_is_the_run_to_that_horizon_on_the_beginning_of_the_schedule(
    swarm, static, tmp_path
):
    for number, stages in enumerate(
        ([(0.25, ABC), (0.75, WORDS)], [(0.5, ABC), (0.5, WORDS)], [(0.4, DIGITS), (0.6, ABC)])
    ):
        spec = scheduled(static, *stages)
        begun = Schedule.of(stages).until(0.5)
        short = replace(
            spec,
            mixture=begun.dose,
            schedule=begun,
            horizon_tokens=(SHORT,),
        )
        assert (short.schedule is None) == (number == 1)
        long = replace(spec, horizon_tokens=spec.horizon_tokens[1:])
        both = train(elsewhere(swarm, tmp_path / f"both-{number}"), spec)[0]
        alone = train(elsewhere(swarm, tmp_path / f"alone-{number}"), short, long)
        assert both.targets == (alone[0].targets[0], alone[1].targets[0])


@pytest.mark.parametrize("after_saves", [6, 13, 18])
def test_killed_in_any_stage_and_resumed_gives_the_same_bits(
    swarm, static, tmp_path, monkeypatch, after_saves
):
    specs = [scheduled(static, (0.5, WORDS), (0.5, ABC)), static]
    expected = train(elsewhere(swarm, tmp_path / "undisturbed"), *specs)
    real, saves = record.save_checkpoint, [0]

    def save(*args) -> None:
        real(*args)
        saves[0] += 1
        if saves[0] == after_saves:
            raise Killed

    monkeypatch.setattr(record, "save_checkpoint", save)
    with pytest.raises(Killed):
        train(swarm, *specs)
    monkeypatch.undo()
    assert train(swarm, *specs) == expected
    events = {line.get("event") for line in swarm.store.metrics(specs[0].run_id)}
    assert "resumed" in events


def test_pools_are_drawn_from_evenly_across_stages(swarm, static, monkeypatch):
    pools = {"abc": 160, "digits": 320, "words": 480}
    spec = scheduled(static, (0.5, ABC), (0.5, WORDS), pools=pools)
    drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    class Recording(BatchSampler):
        def windows_of(self, step, proportions, *, num_steps=1):
            found = super().windows_of(step, proportions, num_steps=num_steps)
            for i in range(num_steps):
                here = slice(i * self.batch_size, (i + 1) * self.batch_size)
                drawn[step + i] = found[0][0, here], found[1][0, here]
            return found

    monkeypatch.setattr("mixlaw.train.stack.BatchSampler", Recording)
    result = train(swarm, spec)[0]
    domain, start = (np.concatenate([drawn[step][i] for step in range(STEPS)]) for i in (0, 1))
    names = [d.name for d in load_corpus(swarm.corpus).domains]
    for j, name in enumerate(names):
        windows, counts = np.unique(start[domain == j], return_counts=True)
        assert len(windows) == min(pools[name] // 16, counts.sum())
        assert np.ptp(counts) <= 1
        assert result.epochs[name] == counts.sum() / (pools[name] // 16)


def test_the_table_tells_no_stage_that_a_horizon_has_not_begun(swarm, static):
    """A stage that begins at .49 of 40 steps begins at step 20, where the shorter horizon ends."""
    spec = scheduled(static, (0.49, ABC), (0.51, WORDS))
    train(swarm, spec)
    table = swarm.store.table([spec], ["abc", "digits", "words"])
    assert list(table.schedule) == [None, Schedule.of([(0.5, ABC), (0.5, WORDS)])]


def test_a_stage_without_a_step_is_refused(swarm, static):
    spec = scheduled(static, (0.99, ABC), (0.01, WORDS))
    with pytest.raises(MixtureError, match=r"40 steps would give .* \[40, 0\] of them"):
        train(swarm, spec)


def test_the_table_tells_what_each_horizon_has_seen(swarm, static):
    spec = scheduled(static, (0.75, ABC), (0.25, WORDS))
    train(swarm, spec)
    table = swarm.store.table([spec], ["abc", "digits", "words"])
    assert list(table.schedule) == [None, spec.schedule]
    np.testing.assert_allclose(table.weights[0], ABC.array(["abc", "digits", "words"]))
    np.testing.assert_allclose(table.weights[1], spec.mixture.array(["abc", "digits", "words"]))
