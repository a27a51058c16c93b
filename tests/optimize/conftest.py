"""A law whose truth is known, and the question that is asked of it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize.decide import Question, optimize
from mixlaw.optimize.objective import Objective
from mixlaw.optimize.problem import Problem

NAMES = ("web", "code", "books", "wiki")
DOMAINS = [Domain(name, available_tokens=1000 * (j + 1)) for j, name in enumerate(NAMES)]
SUPPORT = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.5, 0.3, 0.1], [0.2, 0.2, 0.2, 0.4]])


class KnownLaw:
    """c_i + sum_j k_ij exp(-t_ij r_j): convex; the standard error of every target is 0.1."""

    law = "known"
    convex = True
    decreasing = True

    def __init__(self, domains=NAMES, seed=0, targets=("loss/t0", "loss/t1", "loss/t2")):
        rng = np.random.default_rng(seed)
        self.domains, self.targets = tuple(domains), tuple(targets)
        self.rate = rng.uniform(1, 5, (len(targets), len(domains)))
        self.size = rng.uniform(0.2, 2, (len(targets), len(domains)))

    def renamed(self, order):
        """The same law with its domains in another order."""
        twin = KnownLaw([self.domains[j] for j in order])
        twin.targets, twin.rate, twin.size = self.targets, self.rate[:, order], self.size[:, order]
        return twin

    def predict(self, weights, num_params, train_tokens, *, available_tokens=None):
        assert weights.shape[1] == len(self.domains)
        return 1 + (self.size * np.exp(-self.rate * weights[:, None, :])).sum(axis=2)

    def gradient(self, weights, num_params, train_tokens, *, available_tokens=None):
        return -self.rate * self.size * np.exp(-self.rate * weights[:, None, :])

    def half_width(
        self, coefficients, weights, num_params, train_tokens, *, level, available_tokens=None
    ):
        return np.full(len(weights), 0.1 * float(np.linalg.norm(coefficients)))

    def difference_scale(
        self, coefficients, weights, num_params, train_tokens, *, available_tokens=None
    ):
        return 0.1


def arguments_of(law, changes):
    """An objective, and the other arguments of `optimize`."""
    arguments = {
        "domains": DOMAINS,
        "constraints": Constraints(),
        "num_params": 1e6,
        "train_tokens": 1000.0,
        "support": None,
        "baselines": {"uniform": Mixture.uniform(NAMES), "natural": Mixture.natural(DOMAINS)},
    }
    objective = changes.pop("objective", None) or Objective(dict.fromkeys(law.targets, 1.0))
    return objective, {**arguments, **changes}


def decide(law=None, **changes):
    """The decision for the known law."""
    law = law or KnownLaw()
    objective, arguments = arguments_of(law, changes)
    return optimize(law, objective, **arguments)


def problem_of(law=None, **changes) -> Problem:
    """The problem behind that decision, within the support."""
    law = law or KnownLaw()
    objective, arguments = arguments_of(law, changes)
    question = Question(law, objective, **arguments)
    return question.guarded(question.problem())


@pytest.fixture(scope="session")
def lab() -> SimpleNamespace:
    """The helpers above, for tests."""
    return SimpleNamespace(
        names=NAMES,
        domains=DOMAINS,
        support=SUPPORT,
        KnownLaw=KnownLaw,
        decide=decide,
        problem_of=problem_of,
    )
