"""Loss against training tokens, against parameters, and against both; no mixture.

Sources: step law E + B/S^beta and size law E + A/N^alpha, Ye et al., arXiv 2403.16952, eq. 2 and 3;
both at once, Hoffmann et al., "Chinchilla", arXiv 2203.15556.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np

from mixlaw.laws.base import Law
from mixlaw.laws.points import NUM_PARAMS, TRAIN_TOKENS, Axes, Points
from mixlaw.laws.terms import Constant, Sum, Term, TermLaw, bounded_exp

EXPONENT_MEAN, EXPONENT_SD = np.log(0.3), 0.5
"""Prior of a log exponent: .11 to .82 in nineteen cases of twenty, wide enough for every published
one; it is what lets two sizes or two horizons suffice."""

OUTER_SD = 0.5
"""Prior sd of a log outer exponent around 0, which is Chinchilla's law."""

SYMBOL = {NUM_PARAMS: "N", TRAIN_TOKENS: "D"}


class Decay(Term):
    """A (x / reference)^-p of one count x, with A > 0 and p > 0; theta is (log A, log p).

    Args:
        axis: the count, "num_params" or "train_tokens".
        reference: A is the value at this count. Near the middle of the runs it keeps A and p from
            trading off along a curved valley, in which the minimiser crawls (ten times more steps).
        amplitude: False drops A, for a factor of a product that carries its level elsewhere.
        exponent: mean and sd of the prior of log p.
        alike: between-target sd of log p, whose mean over targets is then learned; NaN: not.
    """

    script = """(theta, own, { axis, reference, amplitude }) => {
      const level = amplitude ? theta[0] : 0, p = exp(theta[theta.length - 1]);
      return (at) => exp(level - p * Math.log(at[axis] / reference));
    }"""

    def __init__(
        self,
        axis: str,
        reference: float,
        *,
        amplitude: bool = True,
        exponent: tuple[float, float] = (EXPONENT_MEAN, EXPONENT_SD),
        alike: float = np.nan,
    ):
        self.axis, self.reference, self.amplitude = axis, reference, amplitude
        self.exponent, self.between = exponent, alike
        self.needs = frozenset({axis})
        self.log_convex = True
        self.constants = {"axis": axis, "reference": reference, "amplitude": amplitude}

    def num_parameters(self, num_domains: int) -> int:
        return 1 + self.amplitude

    def num_carried(self, num_domains: int) -> int:
        return 1

    def alike(self, num_domains: int) -> np.ndarray:
        return np.array([np.nan] * self.amplitude + [self.between])

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        logs = np.log(getattr(points, self.axis) / self.reference)
        level = theta[:, :1] if self.amplitude else 0.0
        return bounded_exp(level - bounded_exp(theta[:, -1:]) * logs)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        logs = np.log(getattr(points, self.axis) / self.reference)
        value = self.value(theta, points)
        jacobian = np.repeat(value[:, :, None], theta.shape[1], axis=2)
        jacobian[:, :, -1] *= -bounded_exp(theta[:, -1:]) * logs
        return value, jacobian

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, sd = (np.full((len(level), 1), number) for number in self.exponent)
        if self.amplitude:
            mean = np.concatenate([np.log(level)[:, None], mean], axis=1)
            sd = np.concatenate([np.full((len(level), 1), np.inf), sd], axis=1)
        return mean, sd


def scale_terms(axes: Axes) -> Term:
    """Constant + one decay per axis: E + A/N^alpha + B/D^beta."""
    return reduce(add, [Decay(axis, axes[axis]) for axis in sorted(axes)], Constant())


def scaling_law(axes: Axes) -> Law:
    """The step law, the size law or Chinchilla's, by which counts it reads.

    It ignores the mixture, so in selection it shows what the mixture is worth.
    """
    formula = {
        frozenset({TRAIN_TOKENS}): "E + B/D^beta",
        frozenset({NUM_PARAMS}): "E + A/N^alpha",
        frozenset({NUM_PARAMS, TRAIN_TOKENS}): "E + A/N^alpha + B/D^beta",
    }[frozenset(axes)]
    return TermLaw("scaling", formula, scale_terms(axes), axes)


class OuterPower(Term):
    """Another term to a power k > 0. Theta is (log k, theta of the inner term).

    Args:
        inner: does not read the mixture (a power of a convex term need not be convex).
        power: mean and sd of the prior of log k.
        alike: as of `Decay`.
    """

    script = """(theta, own, constants, [inner]) => {
      const power = exp(theta[0]);
      return (at) => exp(power * Math.log(inner(at)));
    }"""

    def __init__(
        self,
        inner: Term,
        *,
        power: tuple[float, float] = (0.0, OUTER_SD),
        alike: float = np.nan,
    ):
        self.inner, self.parts, self.needs = inner, (inner,), inner.needs
        self.power, self.between = power, alike
        self.decreasing, self.log_convex = inner.decreasing, inner.log_convex
        self.num_gauges = inner.num_gauges

    def num_parameters(self, num_domains: int) -> int:
        return 1 + self.inner.num_parameters(num_domains)

    def num_carried(self, num_domains: int) -> int:
        return 1 + self.inner.num_carried(num_domains)

    def alike(self, num_domains: int) -> np.ndarray:
        return np.concatenate([[self.between], self.inner.alike(num_domains)])

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        logs = np.log(self.inner.value(theta[:, 1:], points))
        return bounded_exp(bounded_exp(theta[:, :1]) * logs)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        inner, jacobian = self.inner.evaluate(theta[:, 1:], points)
        power = bounded_exp(theta[:, :1])
        logs = np.log(inner)
        value = bounded_exp(power * logs)
        in_power = (value * power * logs)[:, :, None]
        in_inner = (value * power / inner)[:, :, None] * jacobian
        return value, np.concatenate([in_power, in_inner], axis=2)

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, sd = self.inner.prior(points, level ** np.exp(-self.power[0]))
        outer, outer_sd = (np.full((len(level), 1), number) for number in self.power)
        return np.concatenate([outer, mean], axis=1), np.concatenate([outer_sd, sd], axis=1)


def scaling_power(axes: Axes) -> Law:
    """Chinchilla's law with an outer exponent; over one axis it is absorbed, and left out.

    Source: with E = 0, Kaplan et al., arXiv 2001.08361, eq. 1.5.
    """
    if len(axes) < 2:
        return TermLaw("scaling-power", scaling_law(axes).formula, scale_terms(axes), axes)
    decays = Sum([Decay(axis, axes[axis]) for axis in sorted(axes)])
    term = Constant() + OuterPower(decays)
    return TermLaw("scaling-power", "(A/N^alpha + B/D^beta)^k + E", term, axes)
