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

from types import MappingProxyType

import numpy as np

from mixlaw.laws.base import Law
from mixlaw.laws.points import MIXTURE, NUM_PARAMS, TRAIN_TOKENS, Axes, Points
from mixlaw.laws.scaling import SYMBOL, Decay, OuterPower, scale_terms
from mixlaw.laws.terms import Constant, One, Sum, Term, TermLaw, bounded_exp

EPS = 1e-3
LOWEST_G = 0.05
"""Below it phi is a logarithm for all purposes, and its quotient loses digits."""

FIRST_W = 4
"""Where the weights begin in theta."""

LOG_A_MEAN, LOG_A_SD = np.log(0.1), 0.4
G_LOGIT_MEAN, G_LOGIT_SD = 0.0, 0.75
TILT_SD = 0.05
EXPONENTS = {NUM_PARAMS: (np.log(0.35), 0.4), TRAIN_TOKENS: (np.log(0.6), 0.5)}
OUTER = (-0.7, 0.25)
"""Priors (mean, sd) of the logs of the exponents within and of the outer exponent."""

BETWEEN_TARGETS = 0.15

W_SD, OWN_W_SD = 1.0, 6.0
"""Prior of a log weight around the target's level: domains help alike until the runs say
otherwise, but a target's own domain is not held back."""


class EffectiveData(Term):
    """exp(level) S(r)^-a. Theta: level, log a, logit g (others), logit g (own), log w_0..log w_M.

    Multiplying every w is a change of level; the prior on log w fixes that gauge. A target without
    own domain leaves the second g at its prior.
    """

    needs = frozenset({MIXTURE})
    log_convex = True
    num_gauges = 1
    constants = MappingProxyType({"eps": EPS, "lowest": LOWEST_G})
    script = """(theta, own, { eps, lowest }) => {
      const level = theta[0], a = exp(theta[1]), w = theta.slice(4).map(exp), num = w.length - 1;
      const exponent = (logit) => lowest + (1 - lowest) / (1 + exp(-logit));
      const low = (g) => exp(g * Math.log(eps));
      const per_span = (g) => 1 / (exp(g * Math.log1p(eps)) - low(g));
      const g = exponent(theta[2]), g_own = exponent(theta[3]);
      const low_g = low(g), low_own = low(g_own);
      const scaled = w.subarray(1).map((x, j) => x * per_span(j === own ? g_own : g));
      const of_own = own < 0 ? 0 : scaled[own];
      if (own >= 0) scaled[own] = 0;
      return (at) => {
        const logs = at.log(eps);
        let data = w[0];
        for (let j = 0; j < num; j++) data += scaled[j] * (exp(g * logs[j]) - low_g);
        if (own >= 0) data += of_own * (exp(g_own * logs[own]) - low_own);
        return exp(level - a * Math.log(data));
      };
    }"""

    def __init__(self, own: np.ndarray | None = None, *, level_sd: float = np.inf):
        self.own = np.empty(0, int) if own is None else own
        self.has_own = np.flatnonzero(self.own >= 0)
        self.level_sd = level_sd

    def for_targets(self, own: np.ndarray) -> Term:
        return EffectiveData(own, level_sd=self.level_sd)

    def pooled(self, num_domains: int) -> np.ndarray:
        return np.arange(FIRST_W, FIRST_W + 1 + num_domains)

    def num_parameters(self, num_domains: int) -> int:
        return FIRST_W + 1 + num_domains

    def num_carried(self, num_domains: int) -> int:
        """All but the level and one weight: four runs give an answer, if a cautious one."""
        return self.num_parameters(num_domains) - self.num_gauges - 2

    def _per_domain(self, exponents: np.ndarray, num_domains: int) -> np.ndarray:
        """(B, 2) numbers for the others and the own domain -> (B, M)."""
        out = np.repeat(exponents[:, :1], num_domains, axis=1)
        out[self.has_own, self.own[self.has_own]] = exponents[self.has_own, 1]
        return out

    def _shape(self, theta: np.ndarray, weights: np.ndarray):
        """Of m mixtures: phi (B, m, M), log(r + eps) (m, M), (r + eps)^g (B, m, M), and per domain
        (B, 1, M) each: g, its slope in the logit, eps^g and the span of phi; w_0..w_M (B, 1 + M).
        """
        num_domains = weights.shape[1]
        sigmoid = 1 / (1 + bounded_exp(-theta[:, 2:FIRST_W]))
        exponents = LOWEST_G + (1 - LOWEST_G) * sigmoid
        slopes = (1 - LOWEST_G) * sigmoid * (1 - sigmoid)
        g = self._per_domain(exponents, num_domains)[:, None, :]
        slope = self._per_domain(slopes, num_domains)[:, None, :]
        log_r = np.log(weights + EPS)
        power = np.exp(g * log_r)
        low = np.exp(g * np.log(EPS))
        span = np.exp(g * np.log1p(EPS)) - low
        w = bounded_exp(theta[:, FIRST_W:])
        return (power - low) / span, log_r, power, (g, slope, low, span), w

    @staticmethod
    def _data(phi: np.ndarray, w: np.ndarray) -> np.ndarray:
        """S (B, m)."""
        return w[:, :1] + (phi @ w[:, 1:, None])[:, :, 0]

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        mixtures, which = points.distinct_mixtures
        phi, _, _, _, w = self._shape(theta, mixtures)
        log_data = np.log(self._data(phi, w))
        value = bounded_exp(theta[:, :1] - bounded_exp(theta[:, 1:2]) * log_data)
        return value if which is None else value[:, which]

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        mixtures, which = points.distinct_mixtures
        phi, log_r, power, (_, g_slope, low, span), w = self._shape(theta, mixtures)
        a, data = bounded_exp(theta[:, 1:2]), self._data(phi, w)
        log_data = np.log(data)
        value = bounded_exp(theta[:, :1] - a * log_data)
        slope = -a * value / data  # of the value in S
        jacobian = np.empty((*value.shape, theta.shape[1]))
        jacobian[:, :, 0] = value
        jacobian[:, :, 1] = -a * log_data * value
        jacobian[:, :, FIRST_W] = slope * w[:, :1]
        jacobian[:, :, FIRST_W + 1 :] = phi
        jacobian[:, :, FIRST_W + 1 :] *= slope[:, :, None] * w[:, None, 1:]
        # d phi / d g = ((r + eps)^g log(r + eps) - low' - phi (high' - low')) / span; the part
        # in `power` is summed over domains as a product of matrices.
        factor = w[:, None, 1:] * g_slope / span
        low_slope = low * np.log(EPS)
        span_slope = (low + span) * np.log1p(EPS) - low_slope
        power *= log_r
        in_g = power @ factor.transpose(0, 2, 1) - phi @ (factor * span_slope).transpose(0, 2, 1)
        in_g = in_g[:, :, 0] - (factor * low_slope).sum(axis=2)
        at, own = self.has_own, self.own[self.has_own]
        in_own = power[at, :, own] - phi[at, :, own] * span_slope[at, :, own]
        in_own = (in_own - low_slope[at, :, own]) * factor[at, :, own]
        in_g[at] -= in_own
        jacobian[:, :, 3] = 0.0
        jacobian[at, :, 3] = slope[at] * in_own
        jacobian[:, :, 2] = slope * in_g
        return (value, jacobian) if which is None else (value[:, which], jacobian[:, which])

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        phi, _, power, (g, _, _, span), w = self._shape(theta, points.weights)
        in_r = g * power / ((points.weights + EPS) * span)
        a, data = bounded_exp(theta[:, 1:2]), self._data(phi, w)
        value = bounded_exp(theta[:, :1] - a * np.log(data))
        return (-a * value / data)[:, :, None] * w[:, None, 1:] * in_r

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num_problems, num_weights = len(level), 1 + points.weights.shape[1]
        weight_sd = np.full((num_problems, num_weights), W_SD)
        weight_sd[self.has_own, 1 + self.own[self.has_own]] = OWN_W_SD
        exponents = np.full(2, G_LOGIT_MEAN)
        shape = np.concatenate([[0.0, LOG_A_MEAN], exponents, np.zeros(num_weights)])
        mean = np.tile(shape, (num_problems, 1))
        mean[:, 0] = np.log(level) - np.mean(np.log(self.value(mean, points)), axis=1)
        sd = np.concatenate([[self.level_sd, LOG_A_SD], np.full(2, G_LOGIT_SD)])
        return mean, np.concatenate([np.tile(sd, (num_problems, 1)), weight_sd], axis=1)


class Tilt(Term):
    """exp(sum_j u_j r_j): a domain that helps more, or harms, than a rising S can say.

    Theta is u (M,), small: the sd of its prior is learned for each target. A shift of every u is a
    change of level.
    """

    needs = frozenset({MIXTURE})
    log_convex = True
    decreasing = False
    num_gauges = 1
    script = "(theta) => (at) => exp(dot(theta, at.r))"

    def num_parameters(self, num_domains: int) -> int:
        return num_domains

    def num_carried(self, num_domains: int) -> int:
        return num_domains - 1

    def learned(self, num_domains: int) -> np.ndarray:
        return np.zeros(num_domains, int)

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return bounded_exp(theta @ points.weights.T)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        value = self.value(theta, points)
        return value, value[:, :, None] * points.weights

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self.value(theta, points)[:, :, None] * theta[:, None, :]

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = np.zeros((len(level), points.weights.shape[1]))
        return mean, mean + TILT_SD


def effective() -> Law:
    """The law at one scale, with the tilt: it contains M4 (a = 0) and log-linear laws."""
    term = Constant() + EffectiveData() * Tilt()
    return TermLaw("effective", "c + k S(r)^-a exp(u.r)", term)


def effective_chinchilla(axes: Axes) -> Law:
    """The effective data times Chinchilla's law with an outer exponent near one half.

    Parameters and tokens make up for each other more than in a sum of powers: on every table that
    we know the exponent is .44 to .60 (docs/decisions.md). Exponents of N and D and the outer one
    are nearly those of the model family, so their means over the targets are learned.
    """
    decays = [
        Decay(axis, axes[axis], exponent=EXPONENTS[axis], alike=BETWEEN_TARGETS)
        for axis in sorted(axes)
    ]
    inner = Sum(decays) if len(decays) > 1 else decays[0]
    outer = OuterPower(inner, power=OUTER, alike=BETWEEN_TARGETS) if len(decays) > 1 else inner
    scale = Sum([One(), outer], shares=(1.0, 5 / 3))
    term = Sum([Constant(), EffectiveData(level_sd=1.0) * scale], shares=(0.2, 0.8))
    text = " + ".join(f"A{SYMBOL[axis]} {SYMBOL[axis]}^-p{SYMBOL[axis]}" for axis in sorted(axes))
    text = f"({text})^m" if len(decays) > 1 else text
    return TermLaw("effective-chinchilla", f"c + k S(r)^-a (1 + {text})", term, axes)


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
