"""Continued runs of a known truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from mixlaw.continual.forms import SETTINGS, ContinualPoints, make
from mixlaw.runs import RunTable

BASE = {"loss/web": 3.0, "loss/code": 2.5}
SHARES = (0.0, 0.1, 0.25, 0.4, 0.6, 0.8, 0.95)
AXES = {"num_params": 1e5, "train_tokens": 2e6, "rewarm": 1.0}


def old_loss(share: float, tokens: float = 2e6) -> float:
    """Crosses the base, 3, at .4 whatever the tokens."""
    return 3.0 + 0.05 * (np.exp(2 * share) - np.exp(0.8)) * (1 - (1 + tokens / 2e5) ** -0.5)


def new_loss(share: float, tokens: float = 2e6) -> float:
    return 2.5 - (0.9 * (share + 0.02) ** 0.2 - 0.3) * (1 - (1 + tokens / 2e5) ** -0.5)


def rows(
    shares: Sequence[float] = SHARES,
    *,
    tokens: Sequence[float] = (2e6,),
    seeds: int = 1,
    noise: float = 0.0,
    **extra,
) -> list[dict]:
    """One run per share and seed, its horizons as rows; `extra` columns are alike in all."""
    rng = np.random.default_rng(0)
    out = []
    for share in shares:
        for seed in range(seeds):
            for horizon in tokens:
                error = noise * rng.normal(size=2)
                row = {"run": f"{share}-{seed}", "seed": seed, "train_tokens": horizon}
                row |= {"weight/web": 1 - share, "weight/code": share}
                row |= {"loss/web": old_loss(share, horizon) + error[0]}
                row |= {"loss/code": new_loss(share, horizon) + error[1]}
                out.append(row | extra)
    return out


def table(shares: Sequence[float] = SHARES, **settings) -> RunTable:
    return RunTable.from_rows(rows(shares, **settings))


def points(num: int, rng: np.random.Generator, groups: int = 2) -> ContinualPoints:
    """Random settings around the references of `AXES`."""
    weights = rng.dirichlet(np.ones(groups), num)
    around = (AXES[axis] * np.exp(rng.normal(0, 0.5, num)) for axis in SETTINGS)
    num_params, train_tokens, rewarm = around
    return ContinualPoints(weights, num_params, train_tokens, rewarm=rewarm)


def form(name: str, axes: dict, sides: Sequence[int] = (0, 1)) -> SimpleNamespace:
    """A form of one new and one old target, and theta drawn near its prior's mean (2, p)."""
    law = make(name, axes, np.array(sides))

    def draw(at: ContinualPoints, rng: np.random.Generator, spread: float = 0.5) -> np.ndarray:
        mean, sd = law.for_targets(np.array([0, 1])).prior(at, np.array([1.0, 0.9]))
        return mean + np.minimum(sd, spread) * rng.normal(size=mean.shape)

    return SimpleNamespace(law=law, both=law.for_targets(np.array([0, 1])), draw=draw)


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """The helpers above, for tests."""
    helpers: list[Callable] = [old_loss, new_loss, rows, table, points, form]
    named = {helper.__name__: helper for helper in helpers}
    return SimpleNamespace(base=BASE, shares=SHARES, axes=AXES, **named)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
