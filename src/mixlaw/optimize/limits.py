"""Bounds that remember where they come from: the user, an epoch cap, or the trained support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixlaw.errors import InfeasibleError, MixtureError
from mixlaw.mixture import Constraints, Domain, Mixture

USER, EPOCH_CAP, SUPPORT, NATURAL = "user", "epoch cap", "support", "simplex"
"""Who set a bound; NATURAL is the 0 or 1 that every proportion has."""

_TOUCHES = 1e-7
_BREAKS = 1e-9


@dataclass(frozen=True)
class ActiveBound:
    """A bound that the recommended mixture sits on.

    Attributes:
        side: "lower" or "upper".
        reason: "user", "epoch cap", "support" (no trained mixture went further) or "simplex".
    """

    domain: str
    side: str
    reason: str
    bound: float

    def __str__(self) -> str:
        return f"{self.domain} at its {self.side} bound {self.bound:.4g} ({self.reason})"

    def to_dict(self) -> dict[str, Any]:
        return vars(self).copy()


@dataclass(frozen=True, eq=False)
class Limits:
    """Lower and upper proportions (M,) and the reason for each, in the order of `domains`."""

    domains: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    lower_reason: tuple[str, ...]
    upper_reason: tuple[str, ...]

    @classmethod
    def of(
        cls, domains: Sequence[Domain], constraints: Constraints, train_tokens: float | None
    ) -> Limits:
        """What the constraints allow. Raises: as `Constraints.bounds`."""
        lower, upper = constraints.bounds(domains, train_tokens)
        names = tuple(domain.name for domain in domains)
        asked = [constraints.upper.get(name, 1.0) for name in names]
        upper_reason = tuple(
            EPOCH_CAP if high < ask else USER if high < 1 else NATURAL
            for high, ask in zip(upper, asked, strict=True)
        )
        lower_reason = tuple(USER if low > 0 else NATURAL for low in lower)
        return cls(names, lower, np.maximum(lower, upper), lower_reason, upper_reason)

    def guarded(self, support: np.ndarray) -> Limits:
        """These limits within the smallest and largest trained share of each domain.

        Args:
            support: trained weights (n, M), n >= 1.
        Raises: InfeasibleError: names what conflicts with the trained range.
        """
        support = np.asarray(support, float)
        if support.ndim != 2 or support.shape[1] != len(self.domains) or not len(support):
            raise MixtureError(
                f"the support has shape {support.shape}; expected one row of "
                f"{len(self.domains)} proportions for each trained mixture"
            )
        least, most = support.min(axis=0), support.max(axis=0)
        self._check_overlap(least, most)
        tighter_low, tighter_high = least > self.lower, most < self.upper
        out = replace(
            self,
            lower=np.where(tighter_low, least, self.lower),
            upper=np.where(tighter_high, most, self.upper),
            lower_reason=_relabel(self.lower_reason, tighter_low),
            upper_reason=_relabel(self.upper_reason, tighter_high),
        )
        out._check_sums()
        return out

    def _check_overlap(self, least: np.ndarray, most: np.ndarray) -> None:
        conflicts = []
        for j, name in enumerate(self.domains):
            if self.lower[j] > most[j] + _BREAKS:
                conflicts.append(
                    f"lower[{name}] = {self.lower[j]:.4g} ({self.lower_reason[j]}) is above its "
                    f"largest trained share {most[j]:.4g}"
                )
            if self.upper[j] < least[j] - _BREAKS:
                conflicts.append(
                    f"upper[{name}] = {self.upper[j]:.4g} ({self.upper_reason[j]}) is below its "
                    f"smallest trained share {least[j]:.4g}"
                )
        if conflicts:
            raise InfeasibleError(_conflict("; ".join(conflicts)))

    def _check_sums(self) -> None:
        for side, bounds, reasons, wrong in (
            ("lower", self.lower, self.lower_reason, self.lower.sum() > 1 + _BREAKS),
            ("upper", self.upper, self.upper_reason, self.upper.sum() < 1 - _BREAKS),
        ):
            if wrong:
                parts = ", ".join(
                    f"{name} {bound:.4g} ({reason})"
                    for name, bound, reason in zip(self.domains, bounds, reasons, strict=True)
                    if reason != NATURAL
                )
                raise InfeasibleError(
                    _conflict(f"the {side} bounds sum to {bounds.sum():.4f}, not to 1: {parts}")
                )

    def active(self, point: np.ndarray) -> tuple[ActiveBound, ...]:
        """The bounds that proportions (M,) sit on."""
        out = []
        for j, name in enumerate(self.domains):
            if point[j] <= self.lower[j] + _TOUCHES:
                out.append(ActiveBound(name, "lower", self.lower_reason[j], float(self.lower[j])))
            elif point[j] >= self.upper[j] - _TOUCHES:
                out.append(ActiveBound(name, "upper", self.upper_reason[j], float(self.upper[j])))
        return tuple(out)

    def violations(self, mixture: Mixture) -> tuple[str, ...]:
        """One phrase for each bound that the mixture breaks."""
        out = []
        for j, (name, share) in enumerate(
            zip(self.domains, mixture.array(self.domains), strict=True)
        ):
            if share < self.lower[j] - _BREAKS:
                out.append(f"{name} {share:.4g} < {self.lower[j]:.4g} ({self.lower_reason[j]})")
            if share > self.upper[j] + _BREAKS:
                out.append(f"{name} {share:.4g} > {self.upper[j]:.4g} ({self.upper_reason[j]})")
        return tuple(out)


def _relabel(reasons: tuple[str, ...], changed: np.ndarray) -> tuple[str, ...]:
    return tuple(SUPPORT if c else reason for c, reason in zip(changed, reasons, strict=True))


def _conflict(what: str) -> str:
    return (
        f"the constraints leave the region that was trained: {what}; train mixtures that reach "
        "there, relax the constraints, or optimise without the support guard (support=None)"
    )
