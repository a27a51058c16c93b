"""Tables of runs to fit: made by a known law, or published (skipped where the data is absent)."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest

from mixlaw.laws import Law, Points, make
from mixlaw.runs import RunTable

AXES = {"num_params": 1e5, "train_tokens": 1e6}
DOMAINS = ("code", "docs", "web")


def grid(rng: np.random.Generator, *, mixtures: int, sizes: int = 3, horizons: int = 3) -> Points:
    """Random mixtures of `DOMAINS`, each at every scale around the references of `AXES`."""
    weights = rng.dirichlet(np.ones(len(DOMAINS)), mixtures)
    num_params = AXES["num_params"] * 2.0 ** (np.arange(sizes) - sizes // 2)
    train_tokens = AXES["train_tokens"] * 2.0 ** (np.arange(horizons) - horizons // 2)
    m, s, h = np.indices((mixtures, sizes, horizons)).reshape(3, -1)
    return Points(weights[m], num_params[s], train_tokens[h])


def table(points: Points, targets: Mapping[str, np.ndarray], **columns) -> RunTable:
    """A run table: one run per (mixture, size), its horizons as rows; `columns` are extra."""
    rows = []
    for i in range(len(points)):
        row = {f"weight/{d}": w for d, w in zip(DOMAINS, points.weights[i], strict=True)}
        row |= {"run": f"{points.weights[i]}-{points.num_params[i]}"}
        row |= {axis: getattr(points, axis)[i] for axis in AXES}
        row |= {name: values[i] for name, values in (targets | columns).items()}
        rows.append(row)
    return RunTable.from_rows(rows)


class OneTarget:
    """A law for one target, whose own domain is the first; theta (p,) without the batch."""

    def __init__(self, law: Law):
        self.law = law.for_targets(np.array([0]))
        self.num_parameters = self.law.num_parameters
        self.num_identified = self.law.num_identified
        self.needs, self.convex = law.needs, law.convex

    def predict(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self.law.value(theta[None], points)[0]

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        value, jacobian = self.law.evaluate(theta[None], points)
        return value[0], jacobian[0]

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self.law.gradient(theta[None], points)[0]

    def prior(self, points: Points, level: float) -> tuple[np.ndarray, np.ndarray]:
        mean, sd = self.law.prior(points, np.array([level]))
        return mean[0], sd[0]


def law_named(name: str) -> OneTarget:
    """A law of the catalogue over both axes."""
    recipe = make(name, AXES)
    assert isinstance(recipe, Law)
    return OneTarget(recipe)


def plausible_theta(law: OneTarget, points: Points, rng: np.random.Generator) -> np.ndarray:
    """Parameters that give losses of about 3 nats."""
    mean, sd = law.prior(points, 3.0)
    return mean + np.minimum(sd, 0.5) * rng.normal(size=len(mean))


@pytest.fixture
def lab() -> SimpleNamespace:
    """The helpers above, for tests."""
    helpers = (grid, table, law_named, plausible_theta)
    return SimpleNamespace(axes=AXES, domains=DOMAINS, **{f.__name__: f for f in helpers})


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
