"""Limits that remember where they come from: the user, an epoch cap, or the trained support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from mixlaw.errors import InfeasibleError, MixtureError
from mixlaw.mixture import KL, L2, Constraints, Domain, Mixture
from mixlaw.optimize.conflict import smallest_conflict
from mixlaw.optimize.curved import Curved, Distance, UniqueTokens
from mixlaw.optimize.polytope import SLACK, Polytope
from mixlaw.optimize.solve import BROKEN, Values, minimize_mixture

USER, FIXED, EPOCH_CAP, SUPPORT, NATURAL = "user", "fixed", "epoch cap", "support", "simplex"
"""Who set a bound; NATURAL is the 0 or 1 that every proportion has."""

GROUP, CURVED, FLOOR = "group", "limit", "floor"

_TOUCHES = 1e-5
"""Shares this near to a limit are at it: 0.001 percentage points, which no reader tells from none.
The solver stops inside a limit, the farther the less that costs (2.4e-7 inside a KL of 0.2)."""

_TOUCHES_EXACT = 1e-7
"""The same where the limits of a domain lie as near together, such as caps of a rare one."""


@dataclass(frozen=True)
class ActiveBound:
    """A bound that the recommended mixture sits on.

    Attributes:
        domain: its name, or that of the group, limit or target that is bounded.
        side: "lower" or "upper".
        reason: "user", "fixed", "epoch cap", "support" (no trained mixture went further),
            "simplex", "group", "limit" (distance, unique tokens) or "floor" (of a target).
    """

    domain: str
    side: str
    reason: str
    bound: float

    def __str__(self) -> str:
        if self.reason == CURVED:
            return f"{self.domain}: reached"
        return f"{self.domain} at its {self.side} bound {self.bound:.4g} ({self.reason})"

    def to_dict(self) -> dict[str, Any]:
        return vars(self).copy()


@dataclass(frozen=True, eq=False)
class Limits:
    """What a mixture must keep, in the order of `domains`.

    Attributes:
        lower, upper: proportions (M,), and the reason for each.
        groups: names of the rows (G, M), whose products with the mixture lie in `least` to `most`.
        curved: limits that are not linear.
        caps: domain -> its epoch cap in words.
    """

    domains: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    lower_reason: tuple[str, ...]
    upper_reason: tuple[str, ...]
    groups: tuple[str, ...]
    rows: np.ndarray
    least: np.ndarray
    most: np.ndarray
    curved: tuple[Curved, ...] = ()
    caps: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        domains: Sequence[Domain],
        constraints: Constraints,
        train_tokens: float | None,
        mixtures: Mapping[str, Mixture] | None = None,
    ) -> Limits:
        """What the constraints allow.

        Args: mixtures: those that a distance may be measured from by name.
        Raises:
            InfeasibleError: no mixture keeps the linear limits; names the smallest set that
                conflicts.
            MixtureError: unknown domains or mixtures, or counts of tokens that a limit needs.
        """
        lower, asked, allowed = constraints.asked(domains, train_tokens)
        names = tuple(domain.name for domain in domains)
        fixed = constraints.fixed
        upper_reason = tuple(
            EPOCH_CAP if cap < ask else FIXED if name in fixed else USER if ask < 1 else NATURAL
            for name, cap, ask in zip(names, allowed, asked, strict=True)
        )
        groups = constraints.groups
        out = cls(
            names,
            lower,
            np.minimum(asked, allowed),
            tuple(
                FIXED if name in fixed else USER if low > 0 else NATURAL
                for name, low in zip(names, lower, strict=True)
            ),
            upper_reason,
            tuple(groups),
            np.array([[float(n in group.domains) for n in names] for group in groups.values()])
            if groups
            else np.empty((0, len(names))),
            np.array([group.lower for group in groups.values()]),
            np.array([group.upper for group in groups.values()]),
            tuple(_curved(domains, constraints, train_tokens, mixtures or {})),
            {
                domain.name: f"{constraints.epoch_cap(domain.name):g} epochs of "
                f"{domain.available_tokens:,} tokens in a run of {train_tokens:,.0f}"
                for domain, reason in zip(domains, upper_reason, strict=True)
                if reason == EPOCH_CAP
            },
        )
        out.check()
        return out

    @cached_property
    def polytope(self) -> Polytope:
        """The linear limits."""
        return Polytope(
            self.lower, np.maximum(self.lower, self.upper), self.rows, self.least, self.most
        )

    @property
    def convex(self) -> bool:
        return all(limit.convex for limit in self.curved)

    @cached_property
    def smooth(self) -> tuple[Curved, ...]:
        """The curved limits that have slopes and curvature; `cut` is for the others."""
        return tuple(limit for limit in self.curved if not _has_edges(limit))

    def cut(self, point: np.ndarray) -> tuple[np.ndarray, float] | None:
        """A linear limit that proportions (M,) break together with one that has edges: row (M,)
        and the least that `row @ r` may be; None when they keep all of these."""
        for limit in self.curved:
            if _has_edges(limit) and (value := limit.value(point)) > BROKEN:
                slope = limit.slope(point)
                return -slope, value - float(slope @ point)
        return None

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
        # Of two that agree the user's own bound is the one to name.
        low, high = least > self.lower + SLACK, most < self.upper - SLACK
        out = replace(
            self,
            lower=np.where(low, least, self.lower),
            upper=np.where(high, most, self.upper),
            lower_reason=_relabel(self.lower_reason, low),
            upper_reason=_relabel(self.upper_reason, high),
        )
        out.check()
        return out

    def check(self) -> None:
        """Raises: InfeasibleError: no mixture keeps the linear limits."""
        try:
            if not (self.lower <= self.upper + SLACK).all():
                raise InfeasibleError("a lower bound above an upper one")
            self.polytope.check()
        except InfeasibleError as error:
            self.explain()
            raise InfeasibleError(f"{error}: {'; '.join(self.described())}") from None

    def explain(self, *curved: tuple[str, np.ndarray, float]) -> None:
        """Raise InfeasibleError with the smallest set of limits that conflict, if any do.

        Args: curved: further limits, linear near the mixture that breaks them least: label,
            row (M,), and the most that `row @ r` may be.
        """
        items = [*self._linear(), *curved]
        if not items:
            return
        labels, rows, most = zip(*items, strict=True)
        found = smallest_conflict(np.stack(rows), np.array(most))
        if found:
            raise InfeasibleError(conflict_words([labels[i] for i in found]))

    def described(self) -> list[str]:
        """Every linear limit that somebody set, one phrase each."""
        return [label for label, _, _ in self._linear()]

    def _linear(self) -> list[tuple[str, np.ndarray, float]]:
        """Label, row and upper limit of each linear limit that is not the simplex's own."""
        out = []
        for j, (name, unit) in enumerate(zip(self.domains, np.eye(len(self.domains)), strict=True)):
            if self.lower_reason[j] != NATURAL:
                text = f"lower[{name}] = {self.lower[j]:.4g} ({self.lower_reason[j]})"
                out.append((text, -unit, -self.lower[j]))
            if self.upper_reason[j] != NATURAL:
                why = self.upper_reason[j]
                why += f": {self.caps[name]}" if why == EPOCH_CAP else ""
                text = f"upper[{name}] = {self.upper[j]:.4g} ({why})"
                out.append((text, unit, self.upper[j]))
        for name, row, least, most in zip(
            self.groups, self.rows, self.least, self.most, strict=True
        ):
            if least > 0:
                out.append((f"group {name!r} at least {least:.4g}", -row, -least))
            if most < 1:
                out.append((f"group {name!r} at most {most:.4g}", row, most))
        return out

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, M) mixtures that keep the limits: Dirichlet draws moved within the linear ones
        and, where they break a curved one, towards a mixture that keeps all.

        Raises: InfeasibleError: none does.
        """
        points = rng.dirichlet(np.ones(len(self.domains)), count)
        points = np.stack([self.polytope.project(point) for point in points])
        if not self.curved:
            return points
        inside = self._inside()
        return np.stack([self._towards(inside, point, rng) for point in points])

    def _inside(self) -> np.ndarray:
        """(M,) the mixture that keeps the curved limits best. Raises: InfeasibleError."""

        def worst(point: np.ndarray) -> Values:
            values = np.array([limit.value(point) for limit in self.curved])
            slopes = np.stack([limit.slope(point) for limit in self.curved])
            return Values(values, slopes, np.empty(0), np.empty((0, len(point))))

        start = self.polytope.centre[None]
        found = minimize_mixture(worst, self.polytope, starts=start, convex=self.convex)
        if found.value > SLACK:
            raise InfeasibleError(conflict_words([limit.label for limit in self.curved]))
        return found.proportions

    def _towards(
        self, inside: np.ndarray, point: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """The point (M,), or one between it and `inside` that keeps the curved limits."""

        def keeps(share: float) -> bool:
            there = inside + share * (point - inside)
            return all(limit.value(there) <= 0 for limit in self.curved)

        if keeps(1.0):
            return point
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if keeps(middle) else (low, middle)
        return inside + low * rng.random() ** 0.5 * (point - inside)

    def active(self, point: np.ndarray) -> tuple[ActiveBound, ...]:
        """The bounds that proportions (M,) sit on."""
        out = []
        touches = np.clip((self.upper - self.lower) / 100, _TOUCHES_EXACT, _TOUCHES)
        for j, name in enumerate(self.domains):
            if point[j] <= self.lower[j] + touches[j]:
                out.append(ActiveBound(name, "lower", self.lower_reason[j], float(self.lower[j])))
            elif point[j] >= self.upper[j] - touches[j]:
                out.append(ActiveBound(name, "upper", self.upper_reason[j], float(self.upper[j])))
        for name, share, least, most in zip(
            self.groups, self.rows @ point, self.least, self.most, strict=True
        ):
            if share <= least + _TOUCHES and least > 0:
                out.append(ActiveBound(name, "lower", GROUP, float(least)))
            elif share >= most - _TOUCHES and most < 1:
                out.append(ActiveBound(name, "upper", GROUP, float(most)))
        for limit in self.curved:
            slope = limit.slope(point)
            # What a change of shares, which sum to 1 before and after, does to the limit at most.
            steepest = float(np.linalg.norm(slope - slope.mean()))
            if limit.value(point) >= -max(_TOUCHES * steepest, _TOUCHES_EXACT):
                out.append(ActiveBound(limit.label, "upper", CURVED, 0.0))
        return tuple(out)

    def violations(self, mixture: Mixture) -> tuple[str, ...]:
        """One phrase for each limit that the mixture breaks."""
        out, point = [], mixture.array(self.domains)
        for j, (name, share) in enumerate(zip(self.domains, point, strict=True)):
            if share < self.lower[j] - SLACK:
                out.append(f"{name} {share:.4g} < {self.lower[j]:.4g} ({self.lower_reason[j]})")
            if share > self.upper[j] + SLACK:
                out.append(f"{name} {share:.4g} > {self.upper[j]:.4g} ({self.upper_reason[j]})")
        for name, share, least, most in zip(
            self.groups, self.rows @ point, self.least, self.most, strict=True
        ):
            if share < least - SLACK:
                out.append(f"group {name} {share:.4g} < {least:.4g}")
            if share > most + SLACK:
                out.append(f"group {name} {share:.4g} > {most:.4g}")
        out += [limit.seen(point) for limit in self.curved if limit.value(point) > 2 * SLACK]
        return tuple(out)


def _has_edges(limit: Curved) -> bool:
    return isinstance(limit, UniqueTokens) and limit.convex


def _curved(
    domains: Sequence[Domain],
    constraints: Constraints,
    train_tokens: float | None,
    mixtures: Mapping[str, Mixture],
) -> list[Curved]:
    """The limits that are not linear. Raises: MixtureError: unknown counts or mixture."""
    out: list[Curved] = []
    asked = (constraints.min_unique_tokens, constraints.max_unique_tokens)
    for tokens, upper in zip(asked, (False, True), strict=True):
        if tokens is None:
            continue
        unknown = [domain.name for domain in domains if domain.available_tokens is None]
        if not train_tokens or unknown:
            raise MixtureError(
                "a limit on unique tokens needs the training tokens and available_tokens of every "
                f"domain (unknown: {unknown}); set them or drop the limit"
            )
        available = np.array([float(d.available_tokens or 0) for d in domains]) / train_tokens
        out.append(UniqueTokens(available, tokens / train_tokens, train_tokens, upper))
    near = distance_of(domains, constraints, mixtures)
    if near is not None and near.at_most:
        out.append(near)
    return out


def distance_of(
    domains: Sequence[Domain], constraints: Constraints, mixtures: Mapping[str, Mixture]
) -> Distance | None:
    """The distance that the constraints speak of, with its limit (0: none).

    Raises: MixtureError: from a mixture that is not known by that name, or one without some domain
        that may be used: the divergence from it is infinite.
    """
    near = constraints.near
    if near is None:
        return None
    name, other = "the given mixture", near.mixture
    if isinstance(other, str):
        if other not in mixtures:
            raise MixtureError(
                f"the constraints measure the distance from {other!r}, which is not among the "
                f"baselines {sorted(mixtures)}"
            )
        name, other = other, mixtures[other]
    names = [domain.name for domain in domains]
    shares = other.array(names)
    most = {**constraints.upper, **constraints.fixed}
    lacking = [
        n for n, share in zip(names, shares, strict=True) if share == 0 and most.get(n, 1) > 0
    ]
    if near.measure == KL and lacking:
        raise MixtureError(
            f"{name} has no share of {lacking}, so the kl distance from it is infinite wherever "
            f"they are used; give them a share there, fix them at 0, or measure it by {L2!r}"
        )
    return Distance(shares, name, near.measure, near.at_most or 0.0)


def _relabel(reasons: tuple[str, ...], changed: np.ndarray) -> tuple[str, ...]:
    return tuple(SUPPORT if c else reason for c, reason in zip(changed, reasons, strict=True))


def conflict_words(labels: Sequence[str]) -> str:
    """The smallest set of limits that conflict, and what to do."""
    remedy = "relax one of them" if len(labels) > 1 else "relax it"
    if any(f"({SUPPORT})" in text for text in labels):
        remedy += (
            ", train mixtures that reach there, or turn off the support guard (guard=False, or "
            "optimize: {guard: false} in a study)"
        )
    if len(labels) == 1:
        return f"no mixture keeps {labels[0]}; {remedy}"
    return f"no mixture keeps all limits; these conflict: {'; '.join(labels)}; {remedy}"
