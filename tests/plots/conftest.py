"""A fitted and decided study of two scales per axis, from a known law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from mixlaw.laws import FittedLaws, fit_laws
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize import Decision, Objective, optimize
from mixlaw.runs import RunTable

DOMAINS = ("web", "code", "wiki")
TARGETS = ("loss/web", "loss/code", "loss/law")
PULL = np.array([[1.6, 0.2, 0.5], [0.1, 2.0, 0.3], [0.7, 0.2, 1.2]])
SCALES = [(n, d) for n in (1e5, 3e5, 1e6) for d in (1e7, 3e7, 1e8)]


def truth(weights: np.ndarray, num_params: float, train_tokens: float) -> np.ndarray:
    """(n, T)"""
    level = 1.5 + 30 * num_params**-0.3 + 40 * train_tokens**-0.3
    return level + 0.6 * np.exp(-weights @ PULL.T)


@dataclass(frozen=True)
class Made:
    """What the pictures are drawn from."""

    runs: RunTable
    fitted: FittedLaws
    decision: Decision
    domains: tuple[Domain, ...]


@pytest.fixture(scope="session")
def made() -> Made:
    rng = np.random.default_rng(5)
    rows = []
    for m, mixture in enumerate(rng.dirichlet(np.ones(3), 14)):
        for num_params, train_tokens in SCALES:
            losses = truth(mixture[None], num_params, train_tokens)[0]
            for seed in range(2 if m == 0 else 1):
                row = {"run": f"r{m}-{num_params}-{seed}", "label": f"m{m}", "seed": seed}
                row |= {"num_params": num_params, "train_tokens": train_tokens}
                row |= {f"weight/{d}": w for d, w in zip(DOMAINS, mixture, strict=True)}
                row |= dict(zip(TARGETS, losses + rng.normal(0, 0.002, 3), strict=True))
                rows.append(row)
    runs = RunTable.from_rows(rows)
    fitted = fit_laws(runs, candidates=["exponential-chinchilla"], seed=0)
    domains = tuple(
        Domain(name, available_tokens=tokens)
        for name, tokens in zip(DOMAINS, (10**9, 10**8, 5 * 10**7), strict=True)
    )
    decision = optimize(
        fitted,
        Objective({"loss/web": 2, "loss/law": 1}),
        domains=domains,
        constraints=Constraints(max_epochs=4),
        num_params=3e6,
        train_tokens=3e8,
        support=np.unique(runs.weights, axis=0),
        baselines={"uniform": Mixture.uniform(DOMAINS), "natural": Mixture.natural(domains)},
    )
    return Made(runs, fitted, decision, domains)
