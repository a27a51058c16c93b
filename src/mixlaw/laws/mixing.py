"""Loss against the mixture at one scale: the paper's M1 to M4 and two log-linear laws.

Source: Ye et al., "Data Mixing Laws", arXiv 2403.16952, section 3. `r` is the mixture.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from mixlaw.laws.base import Law
from mixlaw.laws.points import MIXTURE, Points
from mixlaw.laws.terms import Constant, Term, TermLaw, bounded_exp

SLOPE_SD = 2.0
"""Prior sd of a mixture slope t at the noise that suits the runs. Without a prior M4 diverges on
sparse swarms (docs/decisions.md); between 1 and 3 the choice hardly shows."""

LOG_FLOOR = 0.01
"""Added to a share before its log is taken, so that an absent domain has a finite one."""


class _MixtureTerm(Term):
    needs = frozenset({MIXTURE})
    decreasing = False


def _with_column_of_ones(features: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(features)), features])


def _free_level(level: np.ndarray, num_slopes: int, sd: float):
    """Prior of (level, slopes): the level free, the slopes around 0."""
    mean = np.concatenate([np.log(level)[:, None], np.zeros((len(level), num_slopes))], axis=1)
    spread = np.concatenate([[np.inf], np.full(num_slopes, sd)])
    return mean, np.tile(spread, (len(level), 1))


class Exponential(_MixtureTerm):
    """exp(level + sum_j t_j r_j). Theta is (level, t_1..t_M).

    Since sum r = 1 a shift of every t is a change of level; the prior on t fixes that gauge, and
    at its optimum the t are centred.
    """

    log_convex = True
    num_gauges = 1
    script = """(theta) => {
      const level = theta[0], t = theta.subarray(1);
      return (at) => exp(level + dot(t, at.r));
    }"""

    def num_parameters(self, num_domains: int) -> int:
        return 1 + num_domains

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return bounded_exp(theta[:, :1] + theta[:, 1:] @ points.weights.T)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        value = self.value(theta, points)
        return value, value[:, :, None] * _with_column_of_ones(points.weights)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self.value(theta, points)[:, :, None] * theta[:, None, 1:]

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _free_level(level, points.weights.shape[1], SLOPE_SD)


class SumOfExponentials(_MixtureTerm):
    """sum_j exp(level_j + t_j r_j). Theta is (level_1..level_M, t_1..t_M); `shared` has one level.

    As a regression it has 2M (or 1 + M) parameters and no gauge.
    """

    script = """(theta, own, { shared }) => (at) => {
      const num = at.r.length, slopes = theta.length - num;
      let sum = 0;
      for (let j = 0; j < num; j++) sum += exp(theta[shared ? 0 : j] + theta[slopes + j] * at.r[j]);
      return sum;
    }"""

    def __init__(self, *, shared: bool):
        self.shared = shared
        self.constants = {"shared": shared}

    def num_parameters(self, num_domains: int) -> int:
        return (1 if self.shared else num_domains) + num_domains

    def _terms(self, theta: np.ndarray, points: Points) -> np.ndarray:
        num_domains = points.weights.shape[1]
        levels, slopes = theta[:, None, :-num_domains], theta[:, None, -num_domains:]
        return bounded_exp(levels + slopes * points.weights)

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self._terms(theta, points).sum(axis=2)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        terms = self._terms(theta, points)
        value = terms.sum(axis=2)
        levels = value[:, :, None] if self.shared else terms
        return value, np.concatenate([levels, terms * points.weights], axis=2)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self._terms(theta, points) * theta[:, None, -points.weights.shape[1] :]

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num_problems, num_domains = len(level), points.weights.shape[1]
        num_levels = 1 if self.shared else num_domains
        levels = np.tile(np.log(level / num_domains)[:, None], (1, num_levels))
        level_sd = np.full((num_problems, num_levels), np.inf if self.shared else 2.0)
        slopes = np.zeros((num_problems, num_domains))
        return (
            np.concatenate([levels, slopes], axis=1),
            np.concatenate([level_sd, slopes + SLOPE_SD], axis=1),
        )


class ExponentialOfProduct(_MixtureTerm):
    """exp(level + t prod_j (M r_j)). Theta is (level, t); the paper's t is prod_j t_j.

    Only the product of the paper's t_j is identified; the factor M^M keeps t of order one.
    """

    convex = False
    script = """(theta) => (at) =>
      exp(theta[0] + theta[1] * at.r.reduce((product, r) => product * r * at.r.length, 1))"""

    def num_parameters(self, num_domains: int) -> int:
        return 2

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        product = np.prod(points.weights * points.weights.shape[1], axis=1)
        value = bounded_exp(theta[:, :1] + theta[:, 1:] * product)
        return value, value[:, :, None] * _with_column_of_ones(product[:, None])

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        num_domains = points.weights.shape[1]
        scaled = points.weights * num_domains
        others = np.stack(
            [np.prod(np.delete(scaled, j, axis=1), axis=1) for j in range(num_domains)], axis=1
        )
        slope = self.value(theta, points) * theta[:, 1:] * num_domains
        return slope[:, :, None] * others

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _free_level(level, 1, 1.0)


class PowerProduct(_MixtureTerm):
    """exp(level) prod_j (r_j + floor)^b_j: log loss linear in log shares. Theta is (level, b).

    The slopes have either sign, so it can express a harmful domain but is not convex.
    """

    convex = False
    constants = MappingProxyType({"floor": LOG_FLOOR})
    script = """(theta, own, { floor }) => {
      const level = theta[0], b = theta.subarray(1);
      return (at) => exp(level + dot(b, at.log(floor)));
    }"""

    def num_parameters(self, num_domains: int) -> int:
        return 1 + num_domains

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return bounded_exp(theta[:, :1] + theta[:, 1:] @ np.log(points.weights + LOG_FLOOR).T)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        value = self.value(theta, points)
        logs = np.log(points.weights + LOG_FLOOR)
        return value, value[:, :, None] * _with_column_of_ones(logs)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        value = self.value(theta, points)
        return value[:, :, None] * theta[:, None, 1:] / (points.weights + LOG_FLOOR)

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _free_level(level, points.weights.shape[1], 0.1)


def m1() -> Law:
    """One exponential per domain, each with its own factor."""
    term = Constant() + SumOfExponentials(shared=False)
    return TermLaw("m1", "c + sum_j k_j exp(t_j r_j)", term)


def m2() -> Law:
    """One exponential per domain with a common factor."""
    return TermLaw("m2", "c + k sum_j exp(t_j r_j)", Constant() + SumOfExponentials(shared=True))


def m3() -> Law:
    """The exponential of a product of shares."""
    return TermLaw("m3", "c + k exp(t prod_j r_j)", Constant() + ExponentialOfProduct())


def m4() -> Law:
    """The paper's choice: the exponential of a linear form."""
    return TermLaw("m4", "c + k exp(sum_j t_j r_j)", Constant() + Exponential())


def log_linear() -> Law:
    """log L linear in the shares: M4 without its floor."""
    return TermLaw("log-linear", "exp(k + sum_j t_j r_j)", Exponential())


def log_ridge() -> Law:
    """log L linear in the log shares, by ridge regression."""
    return TermLaw("log-ridge", "exp(k) prod_j (r_j + .01)^b_j", PowerProduct())
