"""Loss against mixture, parameters and tokens in one formula: exponential and power forms.

`r_i` is the share of the target's own domain. A count that does not vary has no term.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from mixlaw.laws.base import Law
from mixlaw.laws.domain_powers import OwnPower
from mixlaw.laws.mixing import Exponential, SumOfExponentials
from mixlaw.laws.points import MIXTURE, NUM_PARAMS, TRAIN_TOKENS, Axes, Points
from mixlaw.laws.scaling import SYMBOL, Decay, scale_terms
from mixlaw.laws.terms import Constant, One, Term, TermLaw, bounded_exp

SHARE_FLOOR = 1e-3
"""Added to a share before its power is taken, so that the slope at 0 is finite."""

WEIGHT_SD = 2.0
"""Prior sd of the log of a domain's weight C_j around the others'."""

GAMMA_MEAN, GAMMA_SD = 0.5, 1.0
"""Prior of an exponent gamma of a share; the sd is that of its logit (or log)."""


def _scale_text(axes: Axes) -> str:
    return "".join(f" + A{SYMBOL[axis]}/{SYMBOL[axis]}^p{SYMBOL[axis]}" for axis in sorted(axes))


def exponential_chinchilla(axes: Axes) -> Law:
    """M4 plus Chinchilla's terms: the mixture shifts the loss by the same amount at every scale."""
    term = scale_terms(axes) + Exponential()
    return TermLaw("exponential-chinchilla", f"c + k exp(t.r){_scale_text(axes)}", term, axes)


def m1_product(axes: Axes) -> Law:
    """Chinchilla's law times an M1 factor: the mixture changes the loss by the same ratio.

    Source: one of the two best forms on the 1B runs of Ye et al.'s 5Mix suite (docs/decisions.md).
    """
    term = scale_terms(axes) * (One() + SumOfExponentials(shared=False))
    formula = f"(E{_scale_text(axes)}) (1 + sum_j k_j exp(t_j r_j))"
    return TermLaw("m1-product", formula, term, axes)


class _Weighted(Term):
    """A function of a weighted sum S over domains; multiplying every weight is a change of level,
    and the prior on the log weights fixes that gauge."""

    needs = frozenset({MIXTURE})
    num_gauges = 1

    def _level_at(self, mean: np.ndarray, points: Points, level: np.ndarray) -> None:
        """Set the first number of `mean` so that the term is about `level` there."""
        mean[:, 0] = np.log(level) - np.mean(np.log(self.value(mean, points)), axis=1)


class InversePowers(_Weighted):
    """k / sum_j C_j (r_j + floor)^gamma_j. Theta is (log k, log C_1..M, logit gamma_1..M).

    0 < gamma < 1 (the paper leaves it free): then the sum is concave, and its inverse log-convex.
    """

    log_convex = True
    constants = MappingProxyType({"floor": SHARE_FLOOR})
    script = """(theta, own, { floor }) => {
      const num = (theta.length - 1) / 2, c = theta.slice(1, 1 + num).map(exp);
      const gamma = theta.slice(1 + num).map((logit) => 1 / (1 + exp(-logit)));
      return (at) => {
        const logs = at.log(floor);
        let total = 0;
        for (let j = 0; j < num; j++) total += c[j] * exp(gamma[j] * logs[j]);
        return exp(theta[0] - Math.log(total));
      };
    }"""

    def num_parameters(self, num_domains: int) -> int:
        return 1 + 2 * num_domains

    def num_carried(self, num_domains: int) -> int:
        """The exponents."""
        return num_domains

    def _parts(self, theta: np.ndarray, points: Points):
        """gamma (B, 1, M); log shares (n, M); values (B, n); the share of each domain in the sum
        (B, n, M)."""
        num_domains = points.weights.shape[1]
        gamma = 1 / (1 + bounded_exp(-theta[:, None, 1 + num_domains :]))
        logs = np.log(points.weights + SHARE_FLOOR)
        parts = bounded_exp(theta[:, None, 1 : 1 + num_domains]) * np.exp(gamma * logs)
        total = parts.sum(axis=2)
        return gamma, logs, bounded_exp(theta[:, :1] - np.log(total)), parts / total[:, :, None]

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self._parts(theta, points)[2]

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        gamma, logs, value, share = self._parts(theta, points)
        in_weight = -value[:, :, None] * share
        columns = [value[:, :, None], in_weight, in_weight * logs * gamma * (1 - gamma)]
        return value, np.concatenate(columns, axis=2)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        gamma, _, value, share = self._parts(theta, points)
        return -value[:, :, None] * share * gamma / (points.weights + SHARE_FLOOR)

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num_domains = points.weights.shape[1]
        mean = np.zeros((len(level), 1 + 2 * num_domains))
        mean[:, 1 + num_domains :] = np.log(GAMMA_MEAN / (1 - GAMMA_MEAN))
        self._level_at(mean, points, level)
        sd = np.concatenate([[np.inf], np.repeat([WEIGHT_SD, GAMMA_SD], num_domains)])
        return mean, np.tile(sd, (len(level), 1))


class LinearPower(_Weighted):
    """k (sum_j C_j r_j)^gamma, gamma > 0. Theta is (log k, log gamma, log C_1..M).

    Concave for gamma < 1, convex above; it rises with every share.
    """

    convex = False
    decreasing = False
    script = """(theta) => {
      const gamma = exp(theta[1]), c = theta.slice(2).map(exp);
      return (at) => exp(theta[0] + gamma * Math.log(dot(c, at.r)));
    }"""

    def num_parameters(self, num_domains: int) -> int:
        return 2 + num_domains

    def num_carried(self, num_domains: int) -> int:
        """The exponent."""
        return 1

    def _parts(self, theta: np.ndarray, points: Points):
        """gamma (B, 1); weights (B, 1, M); the sum (B, n); values (B, n)."""
        gamma, weights = bounded_exp(theta[:, 1:2]), bounded_exp(theta[:, None, 2:])
        total = (weights * points.weights).sum(axis=2)
        return gamma, weights, total, bounded_exp(theta[:, :1] + gamma * np.log(total))

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self._parts(theta, points)[3]

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        gamma, weights, total, value = self._parts(theta, points)
        in_gamma = (value * gamma * np.log(total))[:, :, None]
        in_weights = (value * gamma / total)[:, :, None] * weights * points.weights
        return value, np.concatenate([value[:, :, None], in_gamma, in_weights], axis=2)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        gamma, weights, total, value = self._parts(theta, points)
        return (value * gamma / total)[:, :, None] * weights

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num_domains = points.weights.shape[1]
        mean = np.zeros((len(level), 2 + num_domains))
        mean[:, 1] = np.log(GAMMA_MEAN)
        self._level_at(mean, points, level)
        sd = np.concatenate([[np.inf, GAMMA_SD], np.full(num_domains, WEIGHT_SD)])
        return mean, np.tile(sd, (len(level), 1))


def additive(axes: Axes) -> Law:
    """The mixture shifts the loss by the same amount at every scale.

    Source: "Scaling Laws for Optimal Data Mixtures", arXiv 2507.09404, the additive law.
    """
    term = scale_terms(axes) + InversePowers()
    return TermLaw("additive", f"E + 1/(sum_j C_j r_j^g_j){_scale_text(axes)}", term, axes)


def joint(axes: Axes) -> Law:
    """The additive law whose A and B depend on the mixture, each with weights and exponent of its
    own.

    Source: "Scaling Laws for Optimal Data Mixtures", arXiv 2507.09404, the joint law.
    """
    term, formula = Constant() + InversePowers(), "E + 1/(sum_j C_j r_j^g_j)"
    for axis in sorted(axes):
        term = term + LinearPower() * Decay(axis, axes[axis], amplitude=False)
        name = SYMBOL[axis]
        formula += f" + (sum_j C{name}_j r_j)^g{name}/{name}^p{name}"
    return TermLaw("joint", formula, term, axes)


def d_cpt(axes: Axes) -> Law:
    """A law of the own domain's share alone, made for continual pretraining.

    There a mixture has two parts, general and new data, and each of the two losses is a law of the
    share of its own part: the new domain's loss of r, the general loss of 1 - r, the two with
    parameters of their own. With more domains the others count only by what they leave.

    Both powers take r + floor (the paper fits the floor eps). The term in r^eta grows with r and
    falls with D; without a token axis it stays, at D = 1.

    Source: Que et al., "D-CPT Law", arXiv 2406.01375.
    """
    rising: Term = OwnPower(rising=True)
    formula = "B r_i^eta"
    if TRAIN_TOKENS in axes:
        rising = rising * Decay(TRAIN_TOKENS, axes[TRAIN_TOKENS], amplitude=False)
        formula += "/D^beta"
    term = Constant() + rising + OwnPower()
    if NUM_PARAMS in axes:
        term, formula = term + Decay(NUM_PARAMS, axes[NUM_PARAMS]), f"A/N^alpha + {formula}"
    return TermLaw("d-cpt", f"E + {formula} + C/(r_i + eps)^gamma", term, axes)
