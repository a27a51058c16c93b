"""Capacity competition: domains compete for the parameters of the model.

    L_i = c_i x_i*^-b_i + A_i (D r_i)^-a_i + E_i
    x* minimises  sum_j r_j c_j x_j^-b_j   over   sum_j x_j = N + (M - 1) H,  x_j >= H

`x_j` is the capacity that serves domain j; of it H is the head that all domains share. In the paper
the vectors b and c are those of all losses at once. Targets are fitted apart here, so each target i
has its own b and c: its own picture of how its competitors divide the model.

Where the constraint x_j >= H does not bind, `r_j c_j b_j x_j^-(b_j + 1) = lambda`. The multiplier
solves one equation, whose left side is convex and falling in log lambda, so Newton's method from
below cannot overshoot; the derivatives follow from that equation (implicit differentiation).

Source: Dai and Zheng, "Explaining Data Mixing Scaling Laws", arXiv 2606.08167.
"""

from __future__ import annotations

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Law
from mixlaw.laws.domain_powers import OWN_FLOOR, OwnPower
from mixlaw.laws.points import MIXTURE, NUM_PARAMS, TRAIN_TOKENS, Axes, Points
from mixlaw.laws.scaling import EXPONENT_MEAN, EXPONENT_SD
from mixlaw.laws.terms import Constant, Term, TermLaw, bounded_exp

HARDNESS_SD = 1.0
"""Prior sd of a competitor's log c_j around the level of the target."""

HEAD_MEAN, HEAD_SD = np.log(0.02), 0.2
"""Prior of log H, in units of the reference of N. Runs tell H badly from the exponents b; left
looser it wanders to the size of the smallest model, and forecasts are worse."""

NEWTON_STEPS = 50


def allocate(demand: np.ndarray, b: np.ndarray, head: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Capacities x* (..., M) for demand = log(r_j c_j b_j) and exponents b (..., M).

    Args:
        head, size: H and N (..., 1); H <= N, else nothing is feasible.
    """
    rate = 1 / (1 + b)
    total = size + (demand.shape[-1] - 1) * head
    # At this multiplier one domain takes all of N, so the total is reached or exceeded.
    multiplier = np.max(demand - (1 + b) * np.log(size), axis=-1, keepdims=True)
    for _ in range(NEWTON_STEPS):
        free = np.exp(np.minimum((demand - multiplier) * rate, np.log(size)))
        excess = np.maximum(free, head).sum(axis=-1, keepdims=True) - total
        slope = np.where(free > head, free * rate, 0.0).sum(axis=-1, keepdims=True)
        step = np.where(slope > 0, excess / np.where(slope > 0, slope, 1.0), 0.0)
        multiplier = multiplier + np.maximum(step, 0.0)
        if np.all(step <= 1e-15 * np.maximum(1.0, np.abs(multiplier))):
            break
    return np.maximum(np.exp(np.minimum((demand - multiplier) * rate, np.log(size))), head)


class CompetedCapacity(Term):
    """c_i x_i*^-b_i. Theta is (log H, log b_1..M, log c_1..M).

    H is held to at most N, where the competition ends: every domain has all of a model that small.

    Args:
        reference: of N, whose units are those of x and H; None: N is 1.
        own: index of the own domain of each target; see `for_targets`.
    """

    script = """(theta, own, { floor, reference, steps }) => {
      const num = (theta.length - 1) / 2, log_c = theta.subarray(1 + num);
      const least = exp(theta[0]), b = theta.slice(1, 1 + num).map(exp), c = log_c.map(exp);
      const rate = b.map((x) => 1 / (1 + x)), demand = new Float64Array(num);
      return (at) => {
        const size = reference === null ? 1 : at.num_params / reference;
        const head = Math.min(least, size), total = size + (num - 1) * head, most = Math.log(size);
        let multiplier = -Infinity;
        for (let j = 0; j < num; j++) {
          demand[j] = Math.log((at.r[j] + floor) * c[j] * b[j]);
          multiplier = Math.max(multiplier, demand[j] - (1 + b[j]) * most);
        }
        const free = (j) => exp(Math.min((demand[j] - multiplier) * rate[j], most));
        for (let n = 0; n < steps; n++) {
          let excess = -total, slope = 0;
          for (let j = 0; j < num; j++) {
            const x = free(j);
            excess += Math.max(x, head);
            if (x > head) slope += x * rate[j];
          }
          const step = slope > 0 ? excess / slope : 0;
          multiplier += Math.max(step, 0);
          if (step <= 1e-15 * Math.max(1, Math.abs(multiplier))) break;
        }
        return exp(log_c[own] - b[own] * Math.log(Math.max(free(own), head)));
      };
    }"""
    convex = False
    decreasing = False
    needs_own = True

    def __init__(self, reference: float | None, own: np.ndarray | None = None):
        self.reference, self.own = reference, own
        self.constants = {"floor": OWN_FLOOR, "reference": reference, "steps": NEWTON_STEPS}
        self.needs = frozenset({MIXTURE} if reference is None else {MIXTURE, NUM_PARAMS})

    def for_targets(self, own: np.ndarray) -> Term:
        return CompetedCapacity(self.reference, own)

    def num_parameters(self, num_domains: int) -> int:
        return 1 + 2 * num_domains

    def num_carried(self, num_domains: int) -> int:
        """All but the own c, which is the level."""
        return 2 * num_domains

    def _allocate(self, theta: np.ndarray, points: Points):
        """H, N (B, n, 1); b (B, 1, M); x* (B, n, M)."""
        num_domains = points.weights.shape[1]
        size = np.ones(len(points))
        if self.reference is not None:
            size = points.num_params / self.reference
        size = np.broadcast_to(size[None, :, None], (len(theta), len(points), 1))
        head = np.minimum(bounded_exp(theta[:, None, :1]), size)
        b = bounded_exp(theta[:, None, 1 : 1 + num_domains])
        c = bounded_exp(theta[:, None, 1 + num_domains :])
        demand = np.log((points.weights + OWN_FLOOR) * c * b)
        return head, size, b, allocate(demand, b, head, size)

    def _own(self) -> np.ndarray:
        if self.own is None:
            raise FitError("the share of a target's own domain is asked for, but it has none")
        return self.own

    def _of_own(self, array: np.ndarray) -> np.ndarray:
        """The own domain's entries (B, rows) of an array (B, rows, M)."""
        return array[np.arange(len(array)), :, self._own()]

    def _value(self, theta: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
        num_domains = x.shape[2]
        log_c = self._of_own(theta[:, None, 1 + num_domains :])
        return bounded_exp(log_c - self._of_own(b) * np.log(self._of_own(x)))

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        _, _, b, x = self._allocate(theta, points)
        return self._value(theta, b, x)

    def _slopes(self, head: np.ndarray, b: np.ndarray, x: np.ndarray):
        """How log x_i* moves: (B, n, M) with the log demand of each domain, `direct` (B, n, M) of
        it through the own domain's alone, and (B, n) with H.

        Of the domains above the head, sum x_j = N + (their number - 1) H holds the total.
        """
        free = x > head
        rate = 1 / (1 + b)
        yielding = np.where(free, x * rate, 0.0)
        total = np.maximum(yielding.sum(axis=2), 1e-300)
        own_free = self._of_own(free)
        own_rate = np.where(own_free, self._of_own(np.broadcast_to(rate, x.shape)), 0.0)
        shared = -own_rate[:, :, None] * yielding / total[:, :, None]
        in_head = np.where(
            own_free,
            own_rate * (free.sum(axis=2) - 1) / total,
            1 / head[:, :, 0],
        )
        return shared, own_rate, in_head

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        head, size, b, x = self._allocate(theta, points)
        value = self._value(theta, b, x)
        shared, own_rate, in_head = self._slopes(head, b, x)
        each, own, num_domains = np.arange(len(theta)), self._own(), x.shape[2]
        own_b, own_log_x = self._of_own(b), np.log(self._of_own(x))
        # A change of log b_j moves the log demand by 1, and the answer to it by -b_j log x_j more.
        answer = 1 - b * np.log(x)
        in_b, in_c = shared * answer, shared.copy()
        in_b[each, :, own] += own_rate * self._of_own(answer)
        in_c[each, :, own] += own_rate
        in_head = np.where(head < size, head, 0.0)[:, :, 0] * in_head
        jacobian = np.concatenate([in_head[:, :, None], in_b, in_c], axis=2)
        jacobian *= -own_b[:, :, None]
        jacobian[each, :, 1 + own] -= own_b * own_log_x
        jacobian[each, :, 1 + num_domains + own] += 1
        return value, value[:, :, None] * jacobian

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        head, _, b, x = self._allocate(theta, points)
        shared, own_rate, _ = self._slopes(head, b, x)
        shared[np.arange(len(theta)), :, self._own()] += own_rate
        factor = -self._value(theta, b, x) * self._of_own(b)
        return factor[:, :, None] * shared / (points.weights + OWN_FLOOR)

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num_domains = points.weights.shape[1]
        shape = [[HEAD_MEAN], np.full(num_domains, EXPONENT_MEAN), np.zeros(num_domains)]
        mean = np.tile(np.concatenate(shape), (len(level), 1))
        factor = np.mean(np.log(self.value(mean, points)), axis=1)
        mean[:, 1 + num_domains :] = (np.log(level) - factor)[:, None]
        sd = np.repeat([EXPONENT_SD, HARDNESS_SD], num_domains)
        sd = np.tile(np.concatenate([[HEAD_SD], sd]), (len(level), 1))
        sd[np.arange(len(level)), 1 + num_domains + self._own()] = np.inf
        return mean, sd


def capacity(axes: Axes) -> Law:
    """Capacity competition and the noise of the own domain's data; D or N is 1 where it does not
    vary. A target must have an own domain."""
    noise = OwnPower(reference=axes.get(TRAIN_TOKENS))
    term = Constant() + CompetedCapacity(axes.get(NUM_PARAMS)) + noise
    formula = "E_i + c_i x_i*^-b_i + A_i (D r_i)^-a_i"
    return TermLaw("capacity", formula, term, axes)
