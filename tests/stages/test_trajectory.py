"""The regression of steps finds the equation that made them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mixlaw.errors import FitError
from mixlaw.mixture import Mixture
from mixlaw.runs import RunTable
from mixlaw.schedule import Schedule
from mixlaw.stages.trajectory import fit_trajectory, steps_of

NAMES = ("a", "b", "c")
PULL, FADE = np.array([-0.3, -0.1, 0.05]), 0.5
HORIZONS = np.array([1e5, 2e5, 4e5, 8e5])


def made_by_the_equation(noise: float = 0.0) -> RunTable:
    """d log L / d log D = 1 + B p - g log L, exactly integrated, for static and staged runs."""
    rng = np.random.default_rng(0)
    rows = []
    for run in range(16):
        one, other = (Mixture.from_array(NAMES, p) for p in rng.dirichlet(np.ones(3), 2))
        schedule = Schedule.of([(0.75, one), (0.25, one if run < 10 else other)])
        level, before = 1.5 + 0.2 * rng.random(), HORIZONS[0]
        for tokens in HORIZONS:
            seen = schedule.until(tokens / HORIZONS[-1])
            for edge in (0.75 * HORIZONS[-1], tokens):
                if before < edge <= tokens:
                    mixture = schedule.at((before + 1) / HORIZONS[-1]).array(NAMES)
                    level_there = (1 + PULL @ mixture) / FADE
                    level = level_there + (level - level_there) * (edge / before) ** -FADE
                    before = edge
            row = {"run": str(run), "num_params": 1e4, "train_tokens": tokens}
            row |= {f"weight/{name}": share for name, share in seen.dose.items()}
            row |= {"loss/x": float(np.exp(level + noise * rng.normal()))}
            row |= {} if seen.is_static else {"schedule": json.dumps(seen.to_list())}
            rows.append(row)
    return RunTable.from_rows(rows)


def test_the_equation_is_recovered():
    found = fit_trajectory(made_by_the_equation(), ("loss/x",))
    assert found.fade == pytest.approx([FADE])
    # A constant may move between B and a, since shares sum to one.
    centred = found.pull[0] - found.pull[0].mean()
    np.testing.assert_allclose(centred, PULL - PULL.mean(), atol=1e-3)
    assert found.first_tokens == HORIZONS[0]


def test_steps_join_neighbouring_horizons_of_a_run():
    runs = made_by_the_equation()
    shuffled = runs.select(np.random.default_rng(1).permutation(len(runs)))
    steps = steps_of(shuffled)
    assert len(steps.length) == 16 * 3
    assert (shuffled.run[steps.before] == shuffled.run[steps.after]).all()
    np.testing.assert_allclose(steps.length, np.log(2))


def test_one_horizon_has_no_steps():
    runs = made_by_the_equation()
    with pytest.raises(FitError, match=r"at least 8 steps .* has 0; measure runs at several"):
        fit_trajectory(runs.select(runs.train_tokens == HORIZONS[-1]), ("loss/x",))
