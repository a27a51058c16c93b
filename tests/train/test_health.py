"""When a loss is a fault."""

from __future__ import annotations

import numpy as np
import pytest

from mixlaw.train.health import WINDOW_STEPS, Health


def falling(steps: int, seed: int = 0) -> list[float]:
    """As a training loss falls, with the noise of a small batch."""
    noise = np.random.default_rng(seed).normal(0, 0.15, steps)
    return (2 + 5 * np.exp(-np.arange(steps) / 40) + noise).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_ordinary_training_is_sound(seed):
    assert Health().judge(1, falling(2000, seed)) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_a_fault_at_once(bad):
    fault = Health().judge(1, [7.0, bad, 7.0])
    assert fault is not None
    assert (fault.kind, fault.step) == ("failed", 2)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_spike_is_found_wherever_the_reports_are_cut(chunk):
    losses = falling(900)
    losses[700] += 3
    health, faults = Health(), []
    for start in range(0, len(losses), chunk):
        faults.append(health.judge(start + 1, losses[start : start + chunk]))
        if faults[-1]:
            break
    assert (faults[-1].kind, faults[-1].step) == ("spike", 701)
    assert f"{losses[700]:.3f} at step 701" in faults[-1].reason
    assert not any(faults[:-1])


def test_one_spike_is_one_fault():
    health, losses = Health(), falling(700) + [9.0] * 30 + falling(300)[250:]
    first = health.judge(1, losses)
    health.accept(first)
    assert health.judge(first.step, losses[first.step - 1 :]) is None


def test_restarts_are_bounded():
    health = Health()
    assert health.restart()
    assert not health.restart()


def test_its_state_survives_json():
    health = Health()
    health.judge(1, falling(WINDOW_STEPS + 10))
    health.restart()
    assert Health.from_dict(health.to_dict()) == health
    assert len(health.recent) == WINDOW_STEPS
