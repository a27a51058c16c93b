"""Domains, mixtures and constraints: immutable data, addressed by domain name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mixlaw.errors import InfeasibleError, MixtureError
from mixlaw.names import fault

SUM_TOLERANCE = 1e-6
_ROUNDING = 1e-14


@dataclass(frozen=True)
class Domain:
    """A named source of training tokens.

    Attributes:
        name: unique within a study.
        available_tokens: unique tokens that a run may draw from; None when unknown.
        found_tokens: tokens the source holds in nature, before any cap; sets the natural
            mixture. Defaults to `available_tokens`.
    """

    name: str
    available_tokens: int | None = None
    found_tokens: int | None = None

    def __post_init__(self):
        if not self.name or self.name != self.name.strip():
            raise MixtureError(f"domain name {self.name!r} is empty or padded with spaces")
        if problem := fault([self.name]):
            raise MixtureError(problem)
        for label in ("available_tokens", "found_tokens"):
            count = getattr(self, label)
            if count is not None and count <= 0:
                raise MixtureError(f"domain {self.name!r} has {label} = {count}; it must be > 0")


def check_names(names: Sequence[str]) -> None:
    """Raise MixtureError when a domain is named twice or none is named."""
    if not names:
        raise MixtureError("no domain is named; a mixture needs at least one")
    seen = set()
    for name in names:
        if name in seen:
            raise MixtureError(f"domain {name!r} is named twice; each name must be unique")
        seen.add(name)


class Mixture(Mapping[str, float]):
    """Domain -> proportion of training tokens; non-negative, sums to one.

    A sum within 1e-6 of one is rescaled to one (floating-point dust); anything further is an
    error, never a silent renormalisation. `Mixture(dict(mixture))` is bit-identical.

    Raises: MixtureError: a NaN, negative or missing proportion, or a wrong sum.
    """

    __slots__ = ("_shares",)

    def __init__(self, shares: Mapping[str, float]):
        check_names(list(shares))
        for name, share in shares.items():
            if not math.isfinite(share) or share < 0:
                raise MixtureError(
                    f"the proportion of {name!r} is {share}; it must be finite and >= 0"
                )
        total = math.fsum(shares.values())
        if abs(total - 1) > SUM_TOLERANCE:
            raise MixtureError(
                f"the proportions sum to {total:.6f}, they must sum to 1 "
                f"(within {SUM_TOLERANCE:g}): {dict(shares)}"
            )
        # Rescaling what already sums to 1 would change last bits each time a mixture is read
        # back, and with them the run_id.
        scale = total if abs(total - 1) > _ROUNDING else 1.0
        self._shares = {name: float(share) / scale for name, share in shares.items()}

    def __getitem__(self, domain: str) -> float:
        return self._shares[domain]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shares)

    def __len__(self) -> int:
        return len(self._shares)

    def __hash__(self) -> int:
        return hash(frozenset(self._shares.items()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={share:.4g}" for name, share in self._shares.items())
        return f"Mixture({inner})"

    @classmethod
    def uniform(cls, domains: Sequence[str]) -> Mixture:
        """Equal proportions."""
        return cls.from_weights(dict.fromkeys(domains, 1.0))

    @classmethod
    def natural(cls, domains: Sequence[Domain]) -> Mixture:
        """Proportions as the tokens are found in nature."""
        counts = {d.name: d.found_tokens or d.available_tokens for d in domains}
        unknown = [name for name, count in counts.items() if count is None]
        if unknown:
            raise MixtureError(
                f"the natural mixture needs token counts, unknown for {unknown}; "
                "set available_tokens for each domain"
            )
        return cls.from_weights({name: float(count or 0) for name, count in counts.items()})

    @classmethod
    def from_weights(cls, weights: Mapping[str, float]) -> Mixture:
        """Rescale positive weights of any sum into proportions."""
        total = math.fsum(weights.values())
        if not (math.isfinite(total) and total > 0):
            raise MixtureError(f"weights sum to {total}; they need a finite sum > 0")
        return cls({name: weight / total for name, weight in weights.items()})

    @classmethod
    def from_array(cls, domains: Sequence[str], proportions: np.ndarray) -> Mixture:
        """Proportions (M,) in the order of `domains`."""
        check_names(domains)
        if len(domains) != len(proportions):
            raise MixtureError(f"{len(proportions)} proportions for {len(domains)} domains")
        return cls(dict(zip(domains, map(float, proportions), strict=True)))

    def array(self, domains: Sequence[str]) -> np.ndarray:
        """Proportions (M,) in the order of `domains`; a domain not named here has none."""
        strangers = [name for name in self if name not in domains]
        if strangers:
            raise MixtureError(f"the mixture names {strangers}, not among {list(domains)}")
        return np.array([self._shares.get(name, 0.0) for name in domains])

    def replace(self, **shares: float) -> Mixture:
        """Set some proportions; the other domains keep their ratios and share the rest."""
        strangers = [name for name in shares if name not in self]
        if strangers:
            raise MixtureError(f"cannot replace {strangers}, not among {list(self)}")
        kept = {name: share for name, share in self.items() if name not in shares}
        rest, total = 1 - math.fsum(shares.values()), math.fsum(kept.values())
        if rest > SUM_TOLERANCE and total <= 0:
            raise MixtureError(f"{shares} leave {rest:.4g} to domains that all have proportion 0")
        scale = rest / total if total > 0 else 0.0
        return Mixture({name: shares.get(name, share * scale) for name, share in self.items()})

    def rounded(self, granularity: int) -> Mixture:
        """The nearest proportions that are multiples of 1 / granularity, by largest remainder.

        Raises: MixtureError: a granularity below 1.
        """
        if granularity < 1:
            raise MixtureError(f"the granularity is {granularity}; it must be a whole number >= 1")
        exact = np.array(list(self.values())) * granularity
        counts = np.floor(exact + 1e-9)
        short = round(granularity - counts.sum())
        order = np.argsort(-(exact - counts), kind="stable")
        counts[order[:short]] += 1
        return Mixture.from_array(list(self), counts / granularity)

    def epochs(self, train_tokens: float, domains: Sequence[Domain]) -> dict[str, float]:
        """How often each domain's available tokens are seen: r_j D / U_j."""
        return {
            d.name: self._shares.get(d.name, 0.0) * train_tokens / d.available_tokens
            for d in domains
            if d.available_tokens is not None
        }


@dataclass(frozen=True)
class Group:
    """Limits on what several domains have together.

    Attributes:
        domains: their names.
        lower, upper: smallest and largest sum of their proportions.
    """

    domains: tuple[str, ...]
    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "domains", tuple(self.domains))  # the dataclass is frozen
        check_names(self.domains)
        if not 0 <= self.lower <= self.upper <= 1:  # also false for NaN
            raise MixtureError(
                f"the group {list(self.domains)} has limits {self.lower} to {self.upper}; they "
                "must satisfy 0 <= lower <= upper <= 1"
            )


KL, L2 = "kl", "l2"


@dataclass(frozen=True)
class Near:
    """How far a mixture r may be, or wants to be, from another one p.

    Attributes:
        mixture: p; a name stands for the baseline of that name.
        measure: "kl" for sum_j r_j log(r_j / p_j) in nats, "l2" for the Euclidean distance.
        at_most: the largest distance allowed; None: any.
        penalty: what the objective pays for a nat ("kl") or for the distance squared ("l2").
    """

    mixture: Mixture | str
    measure: str = KL
    at_most: float | None = None
    penalty: float | None = None

    def __post_init__(self):
        if self.measure not in (KL, L2):
            raise MixtureError(f"the distance {self.measure!r} is unknown; use {KL!r} or {L2!r}")
        if self.at_most is None and self.penalty is None:
            raise MixtureError(
                "a mixture to stay near needs at_most (a limit) or penalty (a price), or it "
                "would do nothing"
            )
        for label in ("at_most", "penalty"):
            given = getattr(self, label)
            if given is not None and not (math.isfinite(given) and given > 0):
                raise MixtureError(f"{label} of the distance is {given}; it must be > 0")


@dataclass(frozen=True)
class Constraints:
    """What a mixture must respect.

    Attributes:
        lower: domain -> smallest proportion (default 0).
        upper: domain -> largest proportion (default 1).
        fixed: domain -> its proportion.
        groups: name -> limits on several domains together.
        max_epochs: at most so many passes over each domain's available tokens, or domain -> its
            own cap; None: no cap.
        min_unique_tokens, max_unique_tokens: how many different tokens a run must see, and may;
            a domain gives min(r_j D, U_j) of them.
        near: a mixture to stay near.
        granularity: proportions are multiples of 1 / granularity; None: any number.
    """

    lower: Mapping[str, float] = field(default_factory=dict)
    upper: Mapping[str, float] = field(default_factory=dict)
    max_epochs: float | Mapping[str, float] | None = None
    fixed: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    min_unique_tokens: float | None = None
    max_unique_tokens: float | None = None
    near: Near | None = None
    granularity: int | None = None

    def __post_init__(self):
        for label in ("lower", "upper", "fixed"):
            for name, bound in getattr(self, label).items():
                if not (math.isfinite(bound) and 0 <= bound <= 1):
                    raise MixtureError(
                        f"the {label} bound of {name!r} is {bound}; it must lie in [0, 1]"
                    )
        for name in self.fixed:
            if name in self.lower or name in self.upper:
                raise MixtureError(
                    f"domain {name!r} is fixed and has a bound, too; give one or the other"
                )
        caps = self.max_epochs if isinstance(self.max_epochs, Mapping) else {"": self.max_epochs}
        for name, cap in caps.items():
            if cap is not None and not cap > 0:
                of = f" of {name!r}" if name else ""
                raise MixtureError(f"max_epochs{of} is {cap}; it must be > 0")
        for label in ("min_unique_tokens", "max_unique_tokens"):
            given = getattr(self, label)
            if given is not None and not (math.isfinite(given) and given > 0):
                raise MixtureError(f"{label} is {given}; it must be finite and > 0")
        if self.granularity is not None and self.granularity < 1:
            raise MixtureError(f"granularity is {self.granularity}; it must be at least 1")

    def epoch_cap(self, domain: str) -> float | None:
        """The largest number of passes over a domain; None: no cap."""
        if isinstance(self.max_epochs, Mapping):
            return self.max_epochs.get(domain)
        return self.max_epochs

    def asked(
        self, domains: Sequence[Domain], train_tokens: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lower bounds, upper bounds and the shares that the epoch caps allow (inf: any), each
        (M,), whether or not a mixture fits.

        Raises: MixtureError: an unknown domain, or an epoch cap without token counts.
        """
        names = [domain.name for domain in domains]
        check_names(names)
        caps = self.max_epochs if isinstance(self.max_epochs, Mapping) else ()
        grouped = {name for group in self.groups.values() for name in group.domains}
        strangers = sorted({*self.lower, *self.upper, *self.fixed, *caps, *grouped} - set(names))
        if strangers:
            raise MixtureError(f"bounds on unknown domains {strangers}; known are {names}")
        lower = np.array([self.fixed.get(name, self.lower.get(name, 0.0)) for name in names])
        upper = np.array([self.fixed.get(name, self.upper.get(name, 1.0)) for name in names])
        allowed = np.full(len(names), np.inf)
        for j, domain in enumerate(domains):
            cap = self.epoch_cap(domain.name)
            if cap is None:
                continue
            if domain.available_tokens is None or not train_tokens:
                raise MixtureError(
                    f"max_epochs = {cap:g} needs available_tokens of "
                    f"{domain.name!r} and the training tokens; set them or drop the cap"
                )
            allowed[j] = cap * domain.available_tokens / train_tokens
        return lower, upper, allowed

    def surviving(self, domains: Sequence[Domain]) -> Constraints:
        """Those that mean something for other domains: bounds on domains that are there, groups of
        which all are, and epoch caps where token counts are known."""
        names = {domain.name for domain in domains}
        here = {
            label: {name: bound for name, bound in getattr(self, label).items() if name in names}
            for label in ("lower", "upper", "fixed")
        }
        caps = {d.name: self.epoch_cap(d.name) for d in domains if d.available_tokens}
        return replace(
            self,
            **here,
            groups={k: group for k, group in self.groups.items() if names >= set(group.domains)},
            max_epochs={name: cap for name, cap in caps.items() if cap is not None} or None,
        )

    def bounds(
        self, domains: Sequence[Domain], train_tokens: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper proportions (M,), (M,) with epoch caps folded in.

        Raises:
            InfeasibleError: no mixture fits; names the bounds that conflict.
            MixtureError: a bound on an unknown domain, or an epoch cap without token counts.
        """
        lower, upper, allowed = self.asked(domains, train_tokens)
        why = {name: f"upper[{name}] = {bound:g}" for name, bound in self.upper.items()}
        why |= {name: f"fixed[{name}] = {bound:g}" for name, bound in self.fixed.items()}
        for domain, cap, high in zip(domains, allowed, upper, strict=True):
            if cap < high:
                why[domain.name] = (
                    f"max_epochs = {self.epoch_cap(domain.name):g} caps {domain.name} at {cap:.4g} "
                    f"({domain.available_tokens:,} tokens for a run of {train_tokens:,.0f})"
                )
        upper = np.minimum(upper, allowed)
        for j, domain in enumerate(domains):
            if lower[j] > upper[j] + 1e-12:
                raise InfeasibleError(
                    f"lower[{domain.name}] = {lower[j]:g} conflicts with {why.get(domain.name)}; "
                    "lower the first or raise the second"
                )
        if lower.sum() > 1 + 1e-12:
            given = {**self.lower, **self.fixed}
            active = ", ".join(f"{n}: {b:g}" for n, b in given.items() if b > 0)
            raise InfeasibleError(
                f"the lower bounds sum to {lower.sum():.4f}, more than 1 ({active}); lower them"
            )
        if upper.sum() < 1 - 1e-12:
            raise InfeasibleError(
                f"the upper bounds sum to {upper.sum():.4f}, less than 1; raise one of: "
                + "; ".join(why.values())
            )
        return lower, upper
