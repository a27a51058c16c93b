"""Power laws of the data of single domains: BiMix and AutoScale.

`r_i` is the share of the target's own domain; `D` the training tokens in units of their reference.
"""

from __future__ import annotations

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Law
from mixlaw.laws.points import MIXTURE, TRAIN_TOKENS, Axes, Points
from mixlaw.laws.scaling import Decay
from mixlaw.laws.terms import Constant, Term, TermLaw, bounded_exp

OWN_FLOOR = 1e-3
"""Added to a share before its power is taken, so that an absent domain has a finite loss."""

SHARE_EXPONENT_MEAN, SHARE_EXPONENT_SD = np.log(0.2), 0.7
"""Prior of a log exponent of a share: .05 to .8 in nineteen cases of twenty."""

HEAD_START_MEAN, HEAD_START_SD = np.log(0.3), 2.0
"""Prior of a log N0, what a domain is worth before its first token, in units of D: .006 to 15
in nineteen cases of twenty, from next to nothing to so much that its tokens hardly matter."""


def _tokens(points: Points, reference: float | None) -> np.ndarray | float:
    """D (n,), or 1 where the law does not read it."""
    return 1.0 if reference is None else points.train_tokens / reference


class OwnPower(Term):
    """A (D (r_i + floor))^-p, p > 0, of the share r_i of the target's own domain.

    Theta is (log A, log p).

    Args:
        own: index of the own domain of each target; see `for_targets`.
        amplitude: False drops A, for a factor of a product that carries its level elsewhere.
        rising: the power is +p instead.
        reference: of D; None: D is 1.
    """

    script = """(theta, own, { amplitude, rising, floor, reference }) => {
      const level = amplitude ? theta[0] : 0;
      const power = exp(theta[theta.length - 1]) * (rising ? 1 : -1);
      return (at) => {
        const tokens = reference === null ? 1 : at.train_tokens / reference;
        return exp(level + power * Math.log(tokens * (at.r[own] + floor)));
      };
    }"""
    needs_own = True

    def __init__(
        self,
        own: np.ndarray | None = None,
        *,
        amplitude: bool = True,
        rising: bool = False,
        reference: float | None = None,
    ):
        self.own, self.amplitude, self.rising, self.reference = own, amplitude, rising, reference
        self.needs = frozenset({MIXTURE} if reference is None else {MIXTURE, TRAIN_TOKENS})
        self.convex = self.log_convex = self.decreasing = not rising
        self.constants = {
            "amplitude": amplitude,
            "rising": rising,
            "floor": OWN_FLOOR,
            "reference": reference,
        }

    def for_targets(self, own: np.ndarray) -> Term:
        return OwnPower(own, amplitude=self.amplitude, rising=self.rising, reference=self.reference)

    def num_parameters(self, num_domains: int) -> int:
        return 1 + self.amplitude

    def num_carried(self, num_domains: int) -> int:
        return 1

    def _share(self, points: Points) -> np.ndarray:
        """r_i + floor (B, n)."""
        if self.own is None:
            raise FitError("the share of a target's own domain is asked for, but it has none")
        return points.weights.T[self.own] + OWN_FLOOR

    def _powers(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """The signed power (B, 1) and log (D (r_i + floor)) (B, n)."""
        power = bounded_exp(theta[:, -1:]) * (1 if self.rising else -1)
        return power, np.log(_tokens(points, self.reference) * self._share(points))

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        power, logs = self._powers(theta, points)
        return bounded_exp((theta[:, :1] if self.amplitude else 0.0) + power * logs)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        power, logs = self._powers(theta, points)
        value = self.value(theta, points)
        jacobian = np.repeat(value[:, :, None], theta.shape[1], axis=2)
        jacobian[:, :, -1] *= power * logs
        return value, jacobian

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        power, _ = self._powers(theta, points)
        out = super().gradient(theta, points)
        slope = self.value(theta, points) * power / self._share(points)
        out[np.arange(len(theta)), :, self.own] = slope
        return out

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = np.full((len(level), 1 + self.amplitude), SHARE_EXPONENT_MEAN)
        sd = np.full_like(mean, SHARE_EXPONENT_SD)
        if self.amplitude:
            power, logs = self._powers(mean, points)
            mean[:, 0] = np.log(level) - (power * logs).mean(axis=1)
            sd[:, 0] = np.inf
        return mean, sd


def bimix(axes: Axes) -> Law:
    """(A / r_i^alpha) (B / D^beta + C); A is absorbed by B and C. At one horizon: A / r_i^alpha.

    It reads neither the other domains nor the parameters, and a target must have an own domain.

    Source: Ge et al., "BiMix", arXiv 2405.14908.
    """
    if TRAIN_TOKENS not in axes:
        return TermLaw("bimix", "A / r_i^alpha", OwnPower())
    reference = axes[TRAIN_TOKENS]
    term = (Constant() + Decay(TRAIN_TOKENS, reference)) * OwnPower(amplitude=False)
    return TermLaw("bimix", "r_i^-alpha (B / D^beta + C)", term, {TRAIN_TOKENS: reference})


class DomainPowers(Term):
    """k sum_j (N0_j + D r_j)^-gamma_j. Theta is (log k, log N0_1..M, log gamma_1..M).

    The logarithm of every power is convex and falling, and so is that of the sum.
    """

    log_convex = True
    script = """(theta, own, { reference }) => {
      const level = theta[0], num = (theta.length - 1) / 2;
      const head_start = theta.slice(1, 1 + num).map(exp), gamma = theta.slice(1 + num).map(exp);
      return (at) => {
        const tokens = reference === null ? 1 : at.train_tokens / reference;
        let sum = 0;
        for (let j = 0; j < num; j++) {
          sum += exp(level - gamma[j] * Math.log(head_start[j] + tokens * at.r[j]));
        }
        return sum;
      };
    }"""

    def __init__(self, reference: float | None):
        self.reference = reference
        self.constants = {"reference": reference}
        self.needs = frozenset({MIXTURE} if reference is None else {MIXTURE, TRAIN_TOKENS})

    def num_parameters(self, num_domains: int) -> int:
        return 1 + 2 * num_domains

    def num_carried(self, num_domains: int) -> int:
        """The exponents, as in `Decay`."""
        return num_domains

    def _parts(self, theta: np.ndarray, points: Points):
        """N0, gamma (B, 1, M); D (n, 1) or 1; N0 + D r and the summands (B, n, M)."""
        num_domains = points.weights.shape[1]
        head_start = bounded_exp(theta[:, None, 1 : 1 + num_domains])
        gamma = bounded_exp(theta[:, None, 1 + num_domains :])
        tokens = _tokens(points, self.reference)
        tokens = tokens[:, None] if isinstance(tokens, np.ndarray) else tokens
        data = head_start + tokens * points.weights
        return (
            head_start,
            gamma,
            tokens,
            data,
            bounded_exp(theta[:, :1, None] - gamma * np.log(data)),
        )

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self._parts(theta, points)[-1].sum(axis=2)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        head_start, gamma, _, data, terms = self._parts(theta, points)
        value, falling = terms.sum(axis=2), -gamma * terms
        columns = [value[:, :, None], falling * head_start / data, falling * np.log(data)]
        return value, np.concatenate(columns, axis=2)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        _, gamma, tokens, data, terms = self._parts(theta, points)
        return -gamma * terms * tokens / data

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num_domains = points.weights.shape[1]
        shape = np.repeat([HEAD_START_MEAN, SHARE_EXPONENT_MEAN], num_domains)
        mean = np.tile(np.concatenate([[0.0], shape]), (len(level), 1))
        mean[:, 0] = np.log(level) - np.mean(np.log(self.value(mean, points)), axis=1)
        sd = np.repeat([HEAD_START_SD, SHARE_EXPONENT_SD], num_domains)
        return mean, np.tile(np.concatenate([[np.inf], sd]), (len(level), 1))


def autoscale(axes: Axes) -> Law:
    """k sum_j (N0_j + D r_j)^-gamma_j + L; at one horizon D is 1. It does not read the parameters.

    The paper has no k: its D are raw counts, whose unit sets the level. Ours are in units of their
    reference, so that the level needs a factor.

    Source: Kang et al., "AutoScale", arXiv 2407.20177, section 3.
    """
    read = {axis: axes[axis] for axis in axes if axis == TRAIN_TOKENS}
    term = Constant() + DomainPowers(read.get(TRAIN_TOKENS))
    data = "D r_j" if read else "r_j"
    return TermLaw("autoscale", f"k sum_j (N0_j + {data})^-gamma_j + L", term, read)
