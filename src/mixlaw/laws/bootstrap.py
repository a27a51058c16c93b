"""Which mixture is best, and how sure: refits to resampled mixtures.

Every draw takes as many mixtures as were trained, with replacement, with all their rows, and fits
the chosen law anew; a bootstrap of the parameters alone covers far too little (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Fitted, Law, Recipe
from mixlaw.laws.batch import Batch
from mixlaw.laws.combination import FittedSum
from mixlaw.laws.fitting import batch_of
from mixlaw.laws.points import Points
from mixlaw.laws.residual import FittedResidual
from mixlaw.laws.selection import FittedLaws
from mixlaw.laws.together import Together

NUM_DRAWS = 200


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Refits of one law.

    Attributes:
        draws: R mappings target -> fitted law, each of one resample.
    """

    draws: Sequence[Mapping[str, Fitted]]

    def objective(self, coefficients: np.ndarray, points: Points) -> np.ndarray:
        """(R, n) values of `coefficients (T,) @ targets`."""
        counts = np.flatnonzero(coefficients)
        laws = [list(draw.values())[t] for draw in self.draws for t in counts]
        values = Together(laws).predict(points).reshape(-1, len(self.draws), len(counts))
        return (values @ np.asarray(coefficients, float)[counts]).T

    def probability_best(self, coefficients: np.ndarray, points: Points) -> np.ndarray:
        """(n,) share of the draws in which each candidate mixture is the lowest."""
        best = np.argmin(self.objective(coefficients, points), axis=1)
        return np.bincount(best, minlength=len(points)) / len(self.draws)

    def confidence_set(
        self, coefficients: np.ndarray, points: Points, *, level: float = 0.9
    ) -> np.ndarray:
        """Indices of the fewest candidates that hold the best in `level` of the draws, likeliest
        first."""
        probability = self.probability_best(coefficients, points)
        order = np.argsort(-probability, kind="stable")
        needed = int(np.searchsorted(np.cumsum(probability[order]), level - 1e-12)) + 1
        return order[:needed]

    def probability_better(self, coefficients: np.ndarray, points: Points) -> np.ndarray:
        """(n, n) probability that candidate i is lower than candidate k, from the spread of the
        refits, shrunk towards 1/2 as if by one more draw. It does not know the law's own misfit:
        `FittedLaws.probability_better` reads that from held-out residuals."""
        values = self.objective(coefficients, points)
        lower = (values[:, :, None] < values[:, None, :]).sum(axis=0)
        equal = (values[:, :, None] == values[:, None, :]).sum(axis=0)
        return (lower + 0.5 * equal + 0.5) / (len(values) + 1)


def bootstrap(fitted: FittedLaws, *, num_draws: int = NUM_DRAWS, seed: int = 0) -> Bootstrap:
    """Refit the chosen law to resampled mixtures.

    Args:
        fitted: its law, or each law of its stack, is refitted to its own runs; the prior strength
            and, of a stack, the shares are kept.
        num_draws: R.
    Raises: FitError: fewer than one draw, or draws that cannot be fitted.
    """
    if num_draws < 1:
        raise FitError(f"num_draws is {num_draws}; it must be at least 1")
    batch = batch_of(fitted.cross_validation.runs, fitted.targets)
    needed = max(_needed(law, len(batch.domains)) for law in fitted.laws.values())
    use = _resampled(batch.mixture_ids, num_draws, needed, np.random.default_rng(seed))
    laws = list(fitted.laws.values())
    if any(law.start is not None and law.start.prior is None for law in laws):
        # A stored fit does not hold the prior that was learned; the same rows teach it again.
        laws = laws[0].recipe.fit_batch(batch, seed=seed)
    of_target = [_refit(law, batch.select([t]), use, seed) for t, law in enumerate(laws)]
    return Bootstrap(
        [dict(zip(fitted.targets, laws, strict=True)) for laws in zip(*of_target, strict=True)]
    )


def _needed(law: Fitted, num_domains: int) -> int:
    """Distinct mixtures that a draw must have for the law to be fitted."""
    if isinstance(law, FittedSum):
        return max(_needed(part, num_domains) for part in law.parts)
    if isinstance(law, FittedResidual):
        return _needed(law.base, num_domains)
    return law.recipe.num_required(num_domains) if isinstance(law.recipe, Law) else 1


def _resampled(
    mixture_ids: np.ndarray, num_draws: int, needed: int, rng: np.random.Generator
) -> np.ndarray:
    """(R, n) how often each row was drawn, with all rows of its mixture; draws of fewer than
    `needed` different mixtures are drawn again."""
    mixtures, which = np.unique(mixture_ids, return_inverse=True)
    m = len(mixtures)
    counts = rng.multinomial(m, np.full(m, 1 / m), num_draws)
    while len(thin := np.flatnonzero((counts > 0).sum(axis=1) < min(needed, m))):
        counts[thin] = rng.multinomial(m, np.full(m, 1 / m), len(thin))
    return counts[:, which.reshape(-1)].astype(float)


def _refit(law: Fitted, batch: Batch, use: np.ndarray, seed: int) -> list[Fitted]:
    """R refits of one target's law."""
    if isinstance(law, FittedSum):
        parts = [_refit(part, batch, use, seed) for part in law.parts]
        return [
            FittedSum(law.name, law.target, draw, law.shares) for draw in zip(*parts, strict=True)
        ]
    recipe: Recipe = law.recipe
    start = law.start and replace(law.start, keep=True)
    resampled = batch.times(use, np.zeros(len(use), int))
    return recipe.fit_batch(resampled, seed=seed, starts=[start] * len(use))
