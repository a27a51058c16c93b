"""What a plan is asked: which mixtures may be run at which scales, to decide what."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mixlaw.design.space import Space
from mixlaw.errors import StudyError

FLOPS_PER_PARAMETER_TOKEN = 6
"""Forward and backward pass. Kaplan et al., arXiv 2001.08361, section 2.1."""


@dataclass(frozen=True)
class RunScale:
    """The size and the horizon of a run; None where unknown.

    Attributes:
        num_params: non-embedding parameters.
    Raises: StudyError: a count that is not finite and positive.
    """

    num_params: float | None = None
    train_tokens: float | None = None

    def __post_init__(self):
        for name, count in vars(self).items():
            if count is not None and not (math.isfinite(count) and count > 0):
                raise StudyError(f"a scale has {name} = {count}; it must be finite and > 0")

    @property
    def flops(self) -> float | None:
        """6 N D; None when either is unknown."""
        if self.num_params is None or self.train_tokens is None:
            return None
        return FLOPS_PER_PARAMETER_TOKEN * self.num_params * self.train_tokens

    def __str__(self) -> str:
        if self.num_params is None and self.train_tokens is None:
            return "the one scale"
        counts = {"parameters": self.num_params, "tokens": self.train_tokens}
        return " and ".join(f"{count:.3g} {what}" for what, count in counts.items() if count)


@dataclass(frozen=True, eq=False)
class Question:
    """The decision that runs are for, and the runs that are possible.

    Attributes:
        domains: M names.
        objective: target -> coefficient, not 0; the decision minimises the sum at the target
            scale. A score has a negative one.
        bounds: lower and upper proportions (M,), (M,) of a run and of the decision
            (`Constraints.bounds`).
        scales: what a new run may have; one, unknown, for tables without counts.
        target: the scale of the decision; default: the largest of `scales`.
        among: (n, M) the only mixtures that can be run and decided for, such as those whose data
            is prepared; None: all within the bounds. Those outside the bounds are left out.
        laws: candidates for `fit_laws`; None: its default.
    Raises:
        StudyError: no target, a coefficient that is 0 or not finite, no scale, the same scale
            twice, or counts known for some scales only.
        DesignError, InfeasibleError, MixtureError: bounds that no mixture, or none of `among`,
            satisfies.
    """

    domains: Sequence[str]
    objective: Mapping[str, float]
    bounds: tuple[np.ndarray, np.ndarray]
    scales: Sequence[RunScale] = (RunScale(),)
    target: RunScale | None = None
    among: np.ndarray | None = None
    laws: Sequence[str] | None = None
    space: Space = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "space", Space(self.domains, *self.bounds, 0.0))  # frozen
        if not self.objective:
            raise StudyError("the objective names no target; give at least one, such as loss/web")
        for target, coefficient in self.objective.items():
            if not (math.isfinite(coefficient) and coefficient != 0):
                raise StudyError(
                    f"the objective's coefficient of {target!r} is {coefficient}; it must be "
                    "finite and not 0 (leave a target out to ignore it)"
                )
        if not self.scales:
            raise StudyError("no scale to run at; give at least one RunScale")
        if len(set(self.scales)) < len(self.scales):
            raise StudyError(f"a scale is named twice: {', '.join(map(str, self.scales))}")
        unknown = [scale for scale in self.scales if scale.flops is None]
        if unknown and len(self.scales) > 1:
            raise StudyError(
                f"the cost of {unknown[0]} is unknown, so {len(self.scales)} scales cannot be "
                "compared; give num_params and train_tokens of each, or one scale only"
            )
        if self.among is not None and not len(self.allowed):
            raise StudyError(
                f"none of the {len(self.among)} mixtures of `among` lies within the bounds; "
                "relax the bounds or prepare others"
            )

    @cached_property
    def allowed(self) -> np.ndarray:
        """(n, M) the mixtures of `among` within the bounds; shares rounded to some decimals may
        miss the sum of 1 by 1 %."""
        given = np.atleast_2d(np.asarray(self.among, float))
        if given.shape[1] != len(self.domains) or not np.isfinite(given).all():
            raise StudyError(
                f"`among` has shape {given.shape}; expected one row of {len(self.domains)} finite "
                "proportions for each mixture"
            )
        totals = given.sum(axis=1)
        if (wrong := np.abs(totals - 1) > 0.01).any():
            raise StudyError(
                f"row {np.argmax(wrong) + 1} of `among` sums to {totals[wrong][0]:.4f}; "
                "proportions must sum to 1"
            )
        given = given / totals[:, None]
        return given[self.space.contains(given, tolerance=1e-6)]

    def coefficients(self, targets: Sequence[str]) -> np.ndarray:
        """(T,) in the order of `targets`; 0 for those that do not count.

        Raises: StudyError: a target of the objective is not among them.
        """
        for name in self.objective:
            if name not in targets:
                near = difflib.get_close_matches(name, targets, n=1, cutoff=0)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise StudyError(
                    f"the objective names {name!r}, which the runs lack{hint} "
                    f"known targets: {list(targets)}"
                )
        return np.array([self.objective.get(target, 0.0) for target in targets])

    @property
    def target_scale(self) -> RunScale:
        """`target`, or the dearest of `scales`."""
        return self.target or max(self.scales, key=cost)


def cost(scale: RunScale) -> float:
    """What a run costs: FLOPs, or 1 where they are unknown (then there is one scale only)."""
    return scale.flops or 1.0
