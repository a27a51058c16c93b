"""The effective-data law: loss is a power of the data that a target effectively gets.

    L(r) = c + k S(r)^-a,   S(r) = w_0 + sum_j w_j phi(r_j; g_j),   w > 0, a > 0, .05 < g < 1
    phi(r; g) = ((r + eps)^g - eps^g) / ((1 + eps)^g - eps^g)

`phi` rises from 0 at r = 0 to 1 at r = 1 and saturates: the first per cent of a domain helps most.
The exponent g is one number for the target's own domain (when it has one) and one for the others.
M4 is the limit g = 1, a to infinity. Each phi is concave, S is positive and concave, and a
decreasing power of it is convex: so is the law in the mixture, whatever its parameters.

With scale (sums and products with decays in N and D) it stays convex in the mixture, falls with N
and D, and at one scale it is the law above again.

Source: measured on public swarms; docs/decisions.md has the figures and the losers.
"""

from __future__ import annotations

import numpy as np

from mixlaw.laws.base import MIXTURE, NUM_PARAMS, TRAIN_TOKENS, Axes, Law, Points
from mixlaw.laws.scaling import SYMBOL, Decay, scale_terms
from mixlaw.laws.terms import Constant, One, Term, TermLaw, bounded_exp

EPS = 1e-3
LOWEST_G = 0.05
"""Below it phi is a logarithm for all purposes, and its quotient loses digits."""

LOG_A_MEAN, LOG_A_SD = np.log(0.1), 0.5**0.5
G_LOGIT_MEAN, G_LOGIT_SD = 0.0, 0.75
W_SD, OWN_W_SD = 1.0, 6.0
"""Prior of a log weight around the target's level: domains help alike until the runs say
otherwise, but a target's own domain is not held back."""


class EffectiveData(Term):
    """exp(level) S(r)^-a. Theta: level, log a, logit g (others), [logit g (own)], log w_0..log w_M.

    Multiplying every w is a change of level; the prior on log w fixes that gauge.
    """

    needs = frozenset({MIXTURE})
    num_gauges = 1

    def __init__(self, own: int | None = None):
        self.own = own
        self.num_exponents = 1 if own is None else 2

    def for_target(self, own: int | None) -> Term:
        return EffectiveData(own)

    def num_parameters(self, num_domains: int) -> int:
        return 3 + self.num_exponents + num_domains

    def num_carried(self, num_domains: int) -> int:
        """All but the level and one weight: four runs give an answer, if a cautious one."""
        return self.num_parameters(num_domains) - self.num_gauges - 2

    def _shape(self, theta: np.ndarray, weights: np.ndarray):
        """phi and its derivative in logit g, each (n, M), the weights w (1 + M,), and what the
        derivative in r needs: g (M,), (r + eps)^g (n, M) and the span of phi (M,)."""
        num_domains = weights.shape[1]
        logits = np.full(num_domains, theta[2])
        if self.own is not None:
            logits[self.own] = theta[3]
        sigmoid = 1 / (1 + bounded_exp(-logits))
        g = LOWEST_G + (1 - LOWEST_G) * sigmoid
        log_r = np.log(weights + EPS)
        power = np.exp(g * log_r)
        low, high = np.exp(g * np.log(EPS)), np.exp(g * np.log1p(EPS))
        span = high - low
        phi = (power - low) / span
        low_slope, high_slope = low * np.log(EPS), high * np.log1p(EPS)
        in_g = (power * log_r - low_slope - phi * (high_slope - low_slope)) / span
        in_logit = in_g * ((1 - LOWEST_G) * sigmoid * (1 - sigmoid))
        return phi, in_logit, bounded_exp(theta[2 + self.num_exponents :]), (g, power, span)

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        phi, _, w, _ = self._shape(theta, points.weights)
        return bounded_exp(theta[0] - bounded_exp(theta[1]) * np.log(w[0] + phi @ w[1:]))

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        mixtures, which = points.distinct_mixtures
        phi, in_logit, w, _ = self._shape(theta, mixtures)
        a, data = bounded_exp(theta[1]), w[0] + phi @ w[1:]
        log_data = np.log(data)
        value = bounded_exp(theta[0] - a * log_data)
        slope = (-a * value / data)[:, None]  # of the value in S
        by_domain = in_logit * w[1:]
        jacobian = np.empty((len(mixtures), len(theta)))
        jacobian[:, 0] = value
        jacobian[:, 1] = -a * log_data * value
        jacobian[:, 2] = slope[:, 0] * by_domain.sum(axis=1)
        if self.own is not None:
            own_part = slope[:, 0] * by_domain[:, self.own]
            jacobian[:, 2] -= own_part
            jacobian[:, 3] = own_part
        first = 2 + self.num_exponents
        jacobian[:, first] = slope[:, 0] * w[0]
        jacobian[:, first + 1 :] = slope * w[1:] * phi
        return value[which], jacobian[which]

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        phi, _, w, (g, power, span) = self._shape(theta, points.weights)
        in_r = g * power / ((points.weights + EPS) * span)
        a, data = bounded_exp(theta[1]), w[0] + phi @ w[1:]
        value = bounded_exp(theta[0] - a * np.log(data))
        return (-a * value / data)[:, None] * w[1:] * in_r

    def prior(self, points: Points, level: float) -> tuple[np.ndarray, np.ndarray]:
        num_weights = 1 + points.weights.shape[1]
        weight_sd = np.full(num_weights, W_SD)
        if self.own is not None:
            weight_sd[1 + self.own] = OWN_W_SD
        exponents = np.full(self.num_exponents, G_LOGIT_MEAN)
        mean = np.concatenate([[0.0, LOG_A_MEAN], exponents, np.zeros(num_weights)])
        mean[0] = np.log(level) - float(np.mean(np.log(self.value(mean, points))))
        exponent_sd = np.full(self.num_exponents, G_LOGIT_SD)
        return mean, np.concatenate([[np.inf, LOG_A_SD], exponent_sd, weight_sd])


def effective() -> Law:
    """The law at one scale."""
    return TermLaw("effective", "c + k S(r)^-a", Constant() + EffectiveData())


def effective_product(axes: Axes) -> Law:
    """Parameters and tokens multiply the effective data: a domain is worth more to a larger run."""
    term: Term = EffectiveData()
    for axis in sorted(axes):
        term = term * Decay(axis, axes[axis], amplitude=False)
    powers = "".join(f" {SYMBOL[axis]}^-p{SYMBOL[axis]}" for axis in sorted(axes))
    return TermLaw("effective-product", f"c + k S(r)^-a{powers}", Constant() + term, axes)


def effective_sum(axes: Axes) -> Law:
    """Tokens multiply the effective data; parameters have a term of their own."""
    data: Term = EffectiveData()
    formula = "k S(r)^-a"
    if TRAIN_TOKENS in axes:
        data, formula = (
            data * Decay(TRAIN_TOKENS, axes[TRAIN_TOKENS], amplitude=False),
            f"{formula} D^-q",
        )
    total: Term = Constant() + data
    if NUM_PARAMS in axes:
        total, formula = total + Decay(NUM_PARAMS, axes[NUM_PARAMS]), f"{formula} + A N^-p"
    return TermLaw("effective-sum", f"c + {formula}", total, axes)


def effective_ratio(axes: Axes) -> Law:
    """Chinchilla's law times a mixture factor that is the same at every scale."""
    scale = "".join(f" + A{SYMBOL[axis]} {SYMBOL[axis]}^-p{SYMBOL[axis]}" for axis in sorted(axes))
    term = scale_terms(axes) * (One() + EffectiveData())
    return TermLaw("effective-ratio", f"(E{scale}) (1 + k S(r)^-a)", term, axes)
