"""How others turn predictions into a mixture: RegMix's search and Olmix's exact proposer.

Both take any predictor of one objective, weights (n, M) -> (n,), and the prior mixture (M,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.optimize import minimize

Objective = Callable[[np.ndarray], np.ndarray]

NUM_SAMPLES, NUM_BEST = 100_000, 100


def regmix_samples(prior: np.ndarray, rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """(num_samples, M) mixtures of Dirichlet(prior), as RegMix searches.

    Source: github.com/sail-sg/regmix, regression_fitting/regression.ipynb (100,000 samples).
    """
    return rng.dirichlet(prior, num_samples)


def regmix_average(samples: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """RegMix's proposal (M,): the mean of the 100 samples predicted lowest.

    Source: Liu et al., arXiv 2407.01492, section 3.
    """
    return samples[np.argpartition(predicted, NUM_BEST)[:NUM_BEST]].mean(axis=0)


LEAST_SHARE = 1e-9
STEP = 1e-5
"""Of central differences: a peer is known by its values only."""


def divergence(weights: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """KL(r || prior) (n,) of mixtures (n, M)."""
    shares = np.maximum(weights, LEAST_SHARE)
    return (shares * np.log(shares / prior)).sum(axis=1)


def olmix_exact(objective: Objective, prior: np.ndarray, kl_weight: float) -> np.ndarray:
    """Olmix's proposal (M,): the minimum of objective + kl_weight KL(r || prior) on the simplex.

    The objective, a sum of exponentials, is convex; SLSQP stands for their cvxpy.

    Source: github.com/allenai/olmix, fit, proposer "exact".
    """
    num_domains = len(prior)
    steps = STEP * np.vstack([np.eye(num_domains), -np.eye(num_domains)])

    def value_and_slope(r: np.ndarray) -> tuple[float, np.ndarray]:
        values = objective(np.vstack([r, r + steps]))
        up, down = values[1:].reshape(2, -1)
        slope = (up - down) / (2 * STEP)
        slope += kl_weight * (np.log(np.maximum(r, LEAST_SHARE) / prior) + 1)
        return float(values[0] + kl_weight * divergence(r[None], prior)[0]), slope

    sums_to_one = {"type": "eq", "fun": lambda r: r.sum() - 1, "jac": np.ones_like}
    found = minimize(
        value_and_slope,
        prior,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * num_domains,
        constraints=sums_to_one,
        options={"maxiter": 300, "ftol": 1e-10},
    )
    proposal = np.clip(found.x, 0.0, None)
    return proposal / proposal.sum()


PILE = {
    "arxiv": 0.113285273,
    "freelaw": 0.079608651,
    "nih_exporter": 0.003913491,
    "pubmed_central": 0.185375901,
    "wikipedia_en": 0.051081359,
    "dm_mathematics": 0.015962925,
    "github": 0.101750772,
    "philpapers": 0.003707518,
    "stackexchange": 0.066529351,
    "enron_emails": 0.001750772,
    "gutenberg_pg_19": 0.027085479,
    "pile_cc": 0.236869207,
    "ubuntu_irc": 0.01184346,
    "europarl": 0.007929969,
    "hackernews": 0.008032956,
    "pubmed_abstracts": 0.038825953,
    "uspto_backgrounds": 0.046446962,
}
"""Natural shares of tokens. Source: github.com/sail-sg/regmix, synthesize_mixture.py."""

SLIMPAJAMA = {
    "commoncrawl": 0.522,
    "c4": 0.267,
    "github": 0.052,
    "book": 0.042,
    "arxiv": 0.046,
    "wikipedia": 0.038,
    "stackexchange": 0.033,
}
"""Natural shares of tokens, as commonly quoted for SlimPajama (Soboleva et al., 2023)."""


def prior_mixture(shares: Mapping[str, float], domains: tuple[str, ...]) -> np.ndarray:
    """(M,) in the order of `domains`; raises KeyError for a domain without a share."""
    prior = np.array([shares[domain] for domain in domains])
    return prior / prior.sum()
