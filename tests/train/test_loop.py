"""The loop against what it promises: stacking, branching, failing and resuming change no number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from mixlaw.train.byhand import MemberStep  # noqa: E402
from mixlaw.train.loop import Report, Snapshot, StackJob, train_stack  # noqa: E402
from mixlaw.train.model import losses  # noqa: E402
from mixlaw.train.recipe import ModelConfig, Recipe, Size  # noqa: E402
from mixlaw.train.state import TrainState  # noqa: E402
from mixlaw.train.step import StackStep  # noqa: E402

CONFIG = ModelConfig(vocab_size=40, width=32, num_layers=1)
RECIPE = Recipe(0.01, batch_size=2, sequence_length=8, warmup_steps=3)
SIZE = Size(CONFIG, RECIPE)
HORIZONS = [10, 20]


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


class Memory:
    """A journal that keeps checkpoints in memory, and is killed or faulty when told."""

    def __init__(self, every: int = 2):
        self.every, self.kept, self.events, self.reports = every, None, [], []
        self.seen = self.saved = 0
        self.kill_at: int | None = None

    def restore(self) -> list[Snapshot] | None:
        self.saved = self.seen = 0
        return self.kept

    def due(self) -> bool:
        return self.seen - self.saved >= self.every

    def save(self, steps_done: int, members: Iterable[Snapshot]) -> None:
        self.kept = [({k: v.clone() for k, v in t.items()}, s) for t, s in members]
        self.saved = steps_done

    def report(self, report: Report) -> None:
        self.seen = report.steps_done
        self.reports.append(report)
        if self.kill_at is not None and report.steps_done >= self.kill_at:
            raise Killed

    def event(self, member: int, kind: str, step: int, **details: Any) -> None:
        self.events.append((member, kind, step))


def batches(members: int, offset: int = 0):
    def batch(step: int):
        # Member k's data depends on k + offset and the step alone.
        rows = [
            np.random.default_rng([k + offset, step]).integers(0, 40, (2, 9))
            for k in range(members)
        ]
        return torch.from_numpy(np.stack(rows))

    return batch


def evaluate(parameters):
    fixed = torch.from_numpy(np.random.default_rng(9).integers(0, 40, (1, 4, 9)))
    members = parameters["embedding"].shape[0]
    with torch.no_grad():
        found = losses(CONFIG, parameters, fixed.expand(members, 4, 9))
    return [{"loss/x": value} for value in found.tolist()]


STEPS = [MemberStep, StackStep]


def job(members: int = 3, *, step=MemberStep, **changes) -> StackJob:
    size = changes.get("size", SIZE)
    base = StackJob(
        size=size,
        horizon_steps=HORIZONS,
        seeds=list(range(members)),
        step=step(size),
        batches=batches(members),
        evaluate=evaluate,
        report_steps=1,
    )
    return replace(base, **changes)


def with_recipe(**changes) -> Size:
    return replace(SIZE, recipe=replace(RECIPE, **changes))


@pytest.mark.parametrize(
    ("step", "precision", "rel"),
    [(MemberStep, precision, 0) for precision in ("float32", "float64", "bf16")]
    + [(StackStep, "float32", 2e-6), (StackStep, "float64", 1e-9), (StackStep, "bf16", 1e-3)],
)
def test_a_stack_trains_each_member_as_if_alone(step, precision, rel):
    """To the last bit on a CPU; all at once, as on a GPU, up to the order of sums."""
    torch.set_num_threads(1)
    size = with_recipe(precision=precision)
    together = train_stack(job(3, step=step, size=size)).targets
    for k in range(3):
        one = {"size": size, "seeds": [k], "batches": batches(1, offset=k)}
        alone = train_stack(job(1, step=step, **one)).targets
        for h in range(len(HORIZONS)):
            expected = alone[h][0]["loss/x"]
            assert together[h][k]["loss/x"] == pytest.approx(expected, rel=rel, abs=0)


def test_no_bit_of_a_member_depends_on_who_shares_its_stack():
    torch.set_num_threads(1)
    size = Size(ModelConfig(256, 48, 2), replace(RECIPE, sequence_length=64, batch_size=8))
    data = torch.randint(0, 256, (4, 6, 8, 65), generator=torch.Generator().manual_seed(0))
    advance = MemberStep(size)

    def trained(members: list[int]) -> dict[int, list]:
        state = TrainState.fresh(size, members, "cpu")
        for i in range(4):
            advance(state, data[i, members], 0.01)
        return {m: list(state.member("x", i).values()) for i, m in enumerate(members)}

    expected = trained([0, 1, 2, 3, 4, 5])
    for members in ([3], [5, 0], [2, 4, 1], [5, 4, 3, 2, 1]):
        for member, tensors in trained(members).items():
            assert all(map(torch.equal, tensors, expected[member]))


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_a_branch_is_the_run_to_that_horizon_alone(schedule):
    size = with_recipe(schedule=schedule, final_rate=0.1)
    both = train_stack(job(size=size))
    short = train_stack(job(size=size, horizon_steps=[HORIZONS[0]]))
    assert both.targets[0] == short.targets[0]
    long = train_stack(job(size=size, horizon_steps=[HORIZONS[1]]))
    assert both.targets[1] == long.targets[0]


def test_horizons_share_all_that_they_can():
    journal = Memory()
    train_stack(job(journal=journal))
    assert journal.reports[-1].steps_done == RECIPE.total_steps(HORIZONS) == 8 + 2 + 8 + 4
    cosine = replace(RECIPE, schedule="cosine")
    assert cosine.total_steps(HORIZONS) == 3 + 7 + 17


def test_training_learns():
    constant = torch.arange(9).expand(1, 2, 9)
    found = train_stack(
        job(
            1,
            batches=lambda step: constant,
            horizon_steps=[60],
            evaluate=lambda p: [{"loss/x": losses(CONFIG, p, constant).item()}],
        )
    )
    assert found.targets[0][0]["loss/x"] < 0.5 < np.log(40)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_killed_at_random_steps_and_resumed_gives_the_same_bits(seed, precision, step):
    rng, size = np.random.default_rng(seed), with_recipe(precision=precision)
    expected = train_stack(job(size=size, step=step)).targets
    journal, total = Memory(), RECIPE.total_steps(HORIZONS)
    kills = iter(sorted(rng.choice(np.arange(1, total), 3, replace=False).tolist()))
    while True:
        journal.kill_at = next(kills, None)
        try:
            found = train_stack(job(size=size, step=step, journal=journal)).targets
            assert found == expected
            break
        except Killed:
            continue


def test_how_often_it_is_looked_at_changes_nothing():
    assert train_stack(job()).targets == train_stack(job(report_steps=7)).targets


def faulty(at_step: int, times: int, change):
    """A step in which member 1's loss is changed, so many times; its weights, too, if to NaN."""

    def make(size: Size):
        real, left = MemberStep(size), [times]

        def step(state, sequences, rate):
            loss, norm = real(state, sequences, rate)
            if state.step == at_step and left[0]:
                left[0] -= 1
                loss[1] = change(loss[1])
                for weight in state.parameters.values():
                    weight[1] *= loss[1] / loss[1]  # NaN spreads as it would
            return loss, norm

        return step

    return make


def lost(loss):
    return loss * float("nan")


@pytest.mark.parametrize("at_step", [1, 7, 9, 15, 20])
def test_a_fault_of_the_machine_heals(at_step):
    """NaN once: back to the last checkpoint, and the result is that of an undisturbed run."""
    expected, journal = train_stack(job()).targets, Memory()
    result = train_stack(job(journal=journal, step=faulty(at_step, 1, lost)))
    assert result.targets == expected
    assert result.failed == ["", "", ""]
    assert (1, "restart", at_step) in journal.events
    assert sum(kind == "restart" for _, kind, _ in journal.events) == 1


def test_a_fault_of_the_training_fails_the_member_and_harms_no_other():
    expected, journal = train_stack(job()).targets, Memory()
    result = train_stack(job(journal=journal, step=faulty(7, 100, lost)))
    assert result.failed == ["", "the loss was not finite at step 7", ""]
    for h in range(len(HORIZONS)):
        assert result.targets[h] == [expected[h][0], {}, expected[h][2]]
    assert [e[1:] for e in journal.events if e[0] == 1] == [("restart", 7), ("failed", 7)]


def test_a_spike_is_tried_again_then_recorded_and_trained_through():
    long = {"horizon_steps": [120], "seeds": [0, 1], "batches": batches(2)}
    expected, journal = train_stack(job(**long)).targets, Memory(every=30)
    spiky = faulty(100, 100, lambda loss: loss + 50)
    result = train_stack(job(**long, journal=journal, step=spiky))
    assert result.failed == ["", ""]
    assert result.targets == expected
    assert [e[1:] for e in journal.events if e[0] == 1][:2] == [("restart", 100), ("spike", 100)]


def test_a_validation_loss_that_is_not_finite_fails_the_member():
    def nan_for_one(parameters):
        found = evaluate(parameters)
        found[2]["loss/x"] = float("nan")
        return found

    result = train_stack(job(evaluate=nan_for_one))
    assert result.failed == ["", "", "a validation loss was not finite at step 10"]
    assert result.targets[0][2] == result.targets[1][2] == {}


def test_the_rate_of_each_schedule():
    wsd = replace(RECIPE, warmup_steps=4, decay_fraction=0.5)
    rates = [wsd.rate(step, 12) for step in range(12)]
    assert rates[:6] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert rates[6:] == pytest.approx([6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7])
    cosine = replace(wsd, schedule="cosine", final_rate=0.1)
    rates = [cosine.rate(step, 100) for step in range(100)]
    assert rates[3] == 1
    assert rates[52] == pytest.approx(0.55, abs=0.01)
    assert rates[-1] == pytest.approx(0.1, abs=0.001)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_a_branch_is_no_past_of_the_trunk():
    """After a branch has decayed, the trunk's losses are higher again: that is no spike."""
    size = with_recipe(schedule="cosine")
    real = MemberStep(size)

    def make(_):
        def step(state, sequences, rate):
            loss, norm = real(state, sequences, rate)
            return torch.full_like(loss, 3 + 100 * rate), norm  # falls with the rate

        return step

    journal = Memory(every=1000)
    many = {"horizon_steps": [100, 200], "seeds": [0, 1, 2], "journal": journal}
    train_stack(job(size=size, step=make, **many))
    assert not [event for event in journal.events if event[1] in ("restart", "spike")]
    assert sum(report.losses.shape[1] for report in journal.reports) == 3 + 97 + 197


def test_many_faults_at_once_are_one_way_back():
    journal = Memory(every=1000)
    real = MemberStep(SIZE)

    def make(_):
        def step(state, sequences, rate):
            loss, norm = real(state, sequences, rate)
            if state.step >= 5:
                loss[:2] = float("nan")
            return loss, norm

        return step

    result = train_stack(job(step=make, journal=journal))
    assert [kind for _, kind, _ in journal.events if kind in ("restart", "failed")] == (
        ["restart", "restart", "failed", "failed"]
    )
    assert [bool(reason) for reason in result.failed] == [True, True, False]
    assert sum(report.losses.shape[1] for report in journal.reports) <= 4 + 22


def test_a_stack_without_a_living_member_ends():
    journal = Memory()
    result = train_stack(job(horizon_steps=[500], step=faulty_all, journal=journal))
    assert all("step 3" in reason for reason in result.failed)
    assert journal.reports[-1].steps_done <= 4


def faulty_all(size: Size):
    real = MemberStep(size)

    def step(state, sequences, rate):
        loss, norm = real(state, sequences, rate)
        return (loss * float("nan") if state.step >= 3 else loss), norm

    return step


def begin() -> TrainState:
    """As if the members continued models whose moments are of different ages."""
    return replace(TrainState.fresh(SIZE, [5, 6, 7], "cpu"), earlier=(4, 0, 90))


def test_what_the_members_begin_with_is_evaluated():
    result = train_stack(job(begin=begin))
    assert result.start == evaluate(begin().parameters)
    assert train_stack(job()).start == [{}, {}, {}]
    assert result.state.updates == [24, 20, 110]
    assert result.targets[-1] == evaluate(result.state.parameters)


@pytest.mark.parametrize("at_step", [1, 7, 15])
@pytest.mark.parametrize("every", [2, 1000])
def test_a_continued_training_that_is_sent_back_or_killed_gives_the_same_bits(at_step, every):
    expected = train_stack(job(begin=begin))
    journal = Memory(every=every)
    journal.kill_at = at_step + 2
    step = faulty(at_step, 1, lost)
    with pytest.raises(Killed):
        train_stack(job(begin=begin, journal=journal, step=step))
    journal.kill_at = None
    result = train_stack(job(begin=begin, journal=journal, step=step))
    assert (result.start, result.targets) == (expected.start, expected.targets)
    assert result.state.updates == expected.state.updates


def test_a_model_without_finite_losses_fails_before_the_first_step():
    def broken() -> TrainState:
        state = begin()
        state.parameters["embedding"][1] = float("nan")
        return state

    result = train_stack(job(begin=broken))
    assert result.failed == ["", "a validation loss was not finite at step 0", ""]
    assert result.start[1] == {}
    assert [bool(found) for found in result.targets[-1]] == [True, False, True]


def test_rewarming_is_the_recipe_at_another_peak():
    low = replace(SIZE, recipe=replace(RECIPE, learning_rate=0.5 * RECIPE.learning_rate))
    found, expected = Memory(), Memory()
    assert (
        train_stack(job(rewarm=0.5, journal=found)).targets
        == train_stack(job(size=low, journal=expected)).targets
    )
    assert [report.rate for report in found.reports] == [r.rate for r in expected.reports]
