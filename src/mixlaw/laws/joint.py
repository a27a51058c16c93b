"""Loss against mixture, parameters and tokens in one formula, with exponential mixture terms."""

from __future__ import annotations

from mixlaw.laws.base import Law
from mixlaw.laws.mixing import Exponential, SumOfExponentials
from mixlaw.laws.points import Axes
from mixlaw.laws.scaling import SYMBOL, scale_terms
from mixlaw.laws.terms import One, TermLaw


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
