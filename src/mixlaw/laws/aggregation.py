"""Implicit aggregation: a validation set of unknown make-up as a mixture of implicit domains.

    L(r) = c + sum_q k_q exp(t_q . r),   q = 1..K

The paper writes `sum_q s_q (c_q + k_q exp(t_q . r))` with shares `s` on the simplex. The total
loss identifies neither the s_q nor the single c_q: `sum_q s_q c_q` is the c and `s_q k_q` the k_q
above. K is chosen like any law, by validation: `implicit-2` to `implicit-4`; K = 1 is M4.

Source: Ye et al., "Data Mixing Laws", arXiv 2403.16952, section 3.3.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np

from mixlaw.laws.base import Law
from mixlaw.laws.mixing import Exponential
from mixlaw.laws.points import Points
from mixlaw.laws.terms import Constant, TermLaw

LEVEL_SD = 2.0
"""Prior sd of a log k: with several exponentials no single level can be left free."""


class ImplicitDomain(Exponential):
    """k_q exp(t_q . r), one of several in the loss.

    Exponentials that start alike would stay alike: the minimiser moves both the same way. So each
    starts at half the level of the one before. That breaks their symmetry without preferring any
    domain, so the answer depends on the order neither of domains nor of rows.

    Args:
        part: k_q at the prior's mean, as a multiple of the average k.
    """

    def __init__(self, part: float):
        self.part = part

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, sd = super().prior(points, level)
        mean[:, 0] += np.log(self.part)
        sd[:, 0] = LEVEL_SD
        return mean, sd


def implicit(num_implicit: int) -> Law:
    """`num_implicit` implicit domains."""
    halves = 0.5 ** np.arange(num_implicit)
    parts = halves / halves.mean()
    term = reduce(add, [ImplicitDomain(part) for part in parts.tolist()], Constant())
    return TermLaw(f"implicit-{num_implicit}", f"c + sum_q^{num_implicit} k_q exp(t_q . r)", term)
