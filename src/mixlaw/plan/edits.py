"""Edits of the domains after a mixture was decided, and the mixtures that outlive them.

An edit leaves some mixtures what they were: adding a domain keeps every mixture without it,
splitting one keeps every mixture that has the parts at their natural ratio. Those *shared* mixtures
are priced by the old runs and the old law as they stand, and everything here follows from them:

    edit      is shared                            is not
    Add       every old mixture                    any share of the new domain
    Remove    old mixtures without the domain      old mixtures with some of it
    Split     every old mixture                    other ratios of the parts
    Merge     the parts at the merged ratio        old mixtures at other ratios
    Revise    mixtures without the domain          any share of it, old or new

Source: "mixture reuse" of Olmix, github.com/allenai/olmix; carrying runs through shared mixtures,
which needs no frozen ratios, is ours (docs/decisions.md).

Shapes: n mixtures, M domains, K units (the domains of another set, or parts of both).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mixlaw.errors import MixtureError
from mixlaw.mixture import SUM_TOLERANCE, Domain, Mixture, check_names


@dataclass(frozen=True)
class Add:
    """A domain that was not there."""

    domain: Domain

    def __str__(self) -> str:
        return f"add {self.domain.name}"


@dataclass(frozen=True)
class Remove:
    """A domain that is no longer to be had."""

    name: str

    def __str__(self) -> str:
        return f"remove {self.name}"


@dataclass(frozen=True)
class Split:
    """A domain whose parts become domains.

    Attributes:
        into: part -> the ratio in which it stood in the old domain, summing to one; or the parts
            as domains with token counts, which give the ratios.
    """

    name: str
    into: Mapping[str, float] | Sequence[Domain]

    def __post_init__(self):
        if len(self.into) < 2:
            raise MixtureError(
                f"{self.name!r} is split into {len(self.into)} part; name two or more, or use "
                "Revise for a domain that only changed"
            )
        check_names(self.parts)
        _check_ratios(f"split of {self.name!r}", self.ratios)

    @property
    def parts(self) -> tuple[str, ...]:
        if isinstance(self.into, Mapping):
            return tuple(self.into)
        return tuple(part.name for part in self.into)

    @property
    def ratios(self) -> Mapping[str, float]:
        if isinstance(self.into, Mapping):
            return dict(self.into)
        return dict(Mixture.natural(self.into))

    def __str__(self) -> str:
        return f"split {self.name} into {', '.join(self.parts)}"


@dataclass(frozen=True)
class Merge:
    """Domains that become one.

    Attributes:
        into: the name of the whole.
        ratios: part -> its ratio in the whole, summing to one; None: by their tokens.
    """

    names: Sequence[str]
    into: str
    ratios: Mapping[str, float] | None = None

    def __post_init__(self):
        if len(self.names) < 2:
            raise MixtureError(f"{list(self.names)} is merged; name two domains or more")
        check_names(self.names)
        if self.ratios is not None:
            if set(self.ratios) != set(self.names):
                raise MixtureError(
                    f"the merge of {list(self.names)} has ratios of {list(self.ratios)}; give "
                    "one for each merged domain, or none to merge by tokens"
                )
            _check_ratios(f"merge into {self.into!r}", self.ratios)

    def __str__(self) -> str:
        return f"merge {', '.join(self.names)} into {self.into}"


@dataclass(frozen=True)
class Revise:
    """A domain whose content changed: under the old name it is another domain.

    Attributes:
        now: the domain as it is now; None: with the old token counts.
    """

    name: str
    now: Domain | None = None

    def __post_init__(self):
        if self.now is not None and self.now.name != self.name:
            raise MixtureError(
                f"the revised {self.name!r} is called {self.now.name!r}; a revised domain keeps "
                "its name (remove one and add the other instead)"
            )

    def __str__(self) -> str:
        return f"revise {self.name}"


Edit = Add | Remove | Split | Merge | Revise


@dataclass(frozen=True)
class Composition:
    """K units made of M domains, each at fixed ratios; no domain is in two units.

    Attributes:
        domains: M names.
        units: unit -> domain -> its ratio in the unit, summing to one.
    Raises: MixtureError: ratios of unknown domains, wrong sums, or a domain in two units.
    """

    domains: tuple[str, ...]
    units: Mapping[str, Mapping[str, float]]
    matrix: np.ndarray = field(init=False, repr=False, compare=False)  # (M, K)

    def __post_init__(self):
        check_names(self.domains)
        check_names(list(self.units))
        matrix = np.zeros((len(self.domains), len(self.units)))
        for k, (unit, ratios) in enumerate(self.units.items()):
            for name, ratio in Mixture(ratios).items():
                _known(name, self.domains, f"unit {unit!r}")
                matrix[self.domains.index(name), k] = ratio
        if shared := np.flatnonzero((matrix > 0).sum(axis=1) > 1).tolist():
            raise MixtureError(f"{[self.domains[j] for j in shared]} are part of several units")
        object.__setattr__(self, "matrix", matrix)  # the dataclass is frozen

    @property
    def names(self) -> tuple[str, ...]:
        """K names."""
        return tuple(self.units)

    def expand(self, weights: np.ndarray) -> np.ndarray:
        """Mixtures of units (n, K) as mixtures of domains (n, M)."""
        return np.asarray(weights, float) @ self.matrix.T

    def reduce(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest mixtures of units (n, K) to mixtures of domains (n, M), and the share of
        tokens (n,) that stands elsewhere in them (0: the same mixture).

        A mixture that has none of the units stands elsewhere altogether; its row is uniform.
        """
        weights = np.asarray(weights, float)
        units = weights @ (self.matrix > 0)
        total = units.sum(axis=1, keepdims=True)
        units = np.where(total > 0, units / np.where(total > 0, total, 1.0), 1 / units.shape[1])
        return units, 0.5 * np.abs(weights - self.expand(units)).sum(axis=1)

    def expand_mixture(self, mixture: Mixture) -> Mixture:
        """One mixture of units as a mixture of domains."""
        return Mixture.from_array(self.domains, self.expand(mixture.array(self.names)))

    def reduce_mixture(self, mixture: Mixture) -> Mixture:
        """The nearest mixture of units."""
        return Mixture.from_array(self.names, self.reduce(mixture.array(self.domains)[None])[0][0])

    def unit_tokens(self, available_tokens: np.ndarray) -> np.ndarray:
        """Tokens (..., K) of each unit before one of its domains, with (..., M), runs out."""
        ratio = np.where(self.matrix > 0, self.matrix, np.nan)
        return np.nanmin(np.asarray(available_tokens, float)[..., None] / ratio, axis=-2)

    def domain_tokens(self, unit_tokens: np.ndarray) -> np.ndarray:
        """Tokens (..., M) of each domain in units with (..., K); inf for one that is in none."""
        ratio, unit = self.matrix.max(axis=1), self.matrix.argmax(axis=1)
        ratio = np.where(ratio > 0, ratio, np.inf)
        return np.asarray(unit_tokens, float)[..., unit] * ratio


@dataclass(frozen=True)
class Shared:
    """The mixtures that are mixtures before and after the edits, as units of both.

    Attributes:
        old, new: the same K units made of the old and of the new domains.
        affected: new domains, or ratios between them, that no shared mixture tells about.
        reasons: old domain -> why a run that has some of it may be no shared mixture.
    """

    old: Composition
    new: Composition
    affected: tuple[str, ...]
    reasons: Mapping[str, str]


def apply_edits(domains: Sequence[Domain], edits: Sequence[Edit]) -> list[Domain]:
    """The domains after the edits, each edit of the domains as given.

    Parts stand in the place of the whole and the other way round; added domains come last. A part's
    available tokens are its ratio of the whole's, a whole's those before a part runs out.

    Raises: MixtureError: an unknown name, one that is edited twice or taken, or nothing left.
    """
    _check_edits([domain.name for domain in domains], edits)
    now = {domain.name: domain for domain in domains}
    edited = {name: edit for edit in edits for name in _touched(edit)}
    out: list[Domain] = []
    for domain in domains:
        edit = edited.get(domain.name)
        if edit is None:
            out.append(domain)
        elif isinstance(edit, Revise):
            out.append(edit.now or domain)
        elif isinstance(edit, Split):
            out += _parts(domain, edit)
        elif isinstance(edit, Merge) and domain.name == edit.names[0]:
            out.append(_whole([now[name] for name in edit.names], edit))
    out += [edit.domain for edit in edits if isinstance(edit, Add)]
    if not out:
        raise MixtureError("the edits remove every domain; a mixture needs at least one")
    return out


def shared_mixtures(domains: Sequence[Domain], edits: Sequence[Edit]) -> Shared:
    """What the edits leave as it was. Raises: as `apply_edits`, or when they leave nothing."""
    names = tuple(domain.name for domain in apply_edits(domains, edits))
    now = {domain.name: domain for domain in domains}
    edited = {name: edit for edit in edits for name in _touched(edit)}
    old: dict[str, Mapping[str, float]] = {}
    new: dict[str, Mapping[str, float]] = {}
    reasons: dict[str, str] = {}
    for name in now:
        edit = edited.get(name)
        if edit is None:
            old[name] = new[name] = {name: 1.0}
        elif isinstance(edit, Split):
            old[name], new[name] = {name: 1.0}, edit.ratios
        elif isinstance(edit, Merge):
            old[edit.into] = _merge_ratios([now[part] for part in edit.names], edit)
            new[edit.into] = {edit.into: 1.0}
            reasons[name] = f"does not have {', '.join(edit.names)} at their merged ratio"
        else:
            word = "removed" if isinstance(edit, Remove) else "old"
            reasons[name] = f"has some of the {word} {name}"
    if not old:
        raise MixtureError("the edits leave no mixture as it was, so nothing can be reused")
    affected = [name for edit in edits for name in _unpriced(edit)]
    return Shared(Composition(tuple(now), old), Composition(names, new), tuple(affected), reasons)


def _touched(edit: Edit) -> tuple[str, ...]:
    """Old domains that an edit is about."""
    if isinstance(edit, Add):
        return ()
    return tuple(edit.names) if isinstance(edit, Merge) else (edit.name,)


def _made(edit: Edit) -> tuple[str, ...]:
    """New domains that an edit makes."""
    if isinstance(edit, Add):
        return (edit.domain.name,)
    if isinstance(edit, Split):
        return edit.parts
    return (edit.into,) if isinstance(edit, Merge) else ()


def _unpriced(edit: Edit) -> tuple[str, ...]:
    """New domains whose proportions the shared mixtures do not span."""
    if isinstance(edit, Revise):
        return (edit.name,)
    return () if isinstance(edit, Merge) else _made(edit)


def _check_edits(names: Sequence[str], edits: Sequence[Edit]) -> None:
    check_names(names)
    if not edits:
        raise MixtureError("no edit is given; there is nothing to change")
    by: dict[str, Edit] = {}
    for edit in edits:
        for name in _touched(edit):
            _known(name, names, f"the edit to {edit}")
            if name in by:
                raise MixtureError(
                    f"{name!r} is edited twice, to {by[name]} and to {edit}; one edit a domain "
                    "at a time"
                )
            by[name] = edit
    made: dict[str, Edit] = {}
    for edit in edits:
        for name in _made(edit):
            if name in made:
                raise MixtureError(f"two edits make {name!r}: {made[name]} and {edit}; rename one")
            if name in names and by.get(name) is not edit:
                raise MixtureError(
                    f"to {edit}, but {name!r} is the name of another domain; choose a new name "
                    "(or Revise, where its content changed)"
                )
            made[name] = edit


def _known(name: str, names: Sequence[str], where: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0)
        raise MixtureError(
            f"{where} names {name!r}, which is no domain; did you mean {near[0]!r}? "
            f"known: {list(names)}"
        )


def _check_ratios(what: str, ratios: Mapping[str, float]) -> None:
    total = math.fsum(ratios.values())
    if not all(math.isfinite(r) and r > 0 for r in ratios.values()):
        raise MixtureError(f"the {what} has ratios {dict(ratios)}; each must be finite and > 0")
    if abs(total - 1) > SUM_TOLERANCE:
        raise MixtureError(f"the ratios of the {what} sum to {total:.6f}; they must sum to 1")


def _merge_ratios(parts: Sequence[Domain], edit: Merge) -> Mapping[str, float]:
    """Part -> ratio, in the order of `parts`."""
    natural = edit.ratios or Mixture.natural(parts)
    return {part.name: natural[part.name] for part in parts}


def _parts(domain: Domain, edit: Split) -> list[Domain]:
    if not isinstance(edit.into, Mapping):
        return list(edit.into)

    def some(count: int | None, ratio: float) -> int | None:
        return None if count is None else max(1, round(count * ratio))

    return [
        Domain(part, some(domain.available_tokens, ratio), some(domain.found_tokens, ratio))
        for part, ratio in edit.into.items()
    ]


def _whole(parts: Sequence[Domain], edit: Merge) -> Domain:
    ratios = _merge_ratios(parts, edit)

    def first_out(label: str) -> int | None:
        counts = {part.name: getattr(part, label) for part in parts}
        if any(count is None for count in counts.values()):
            return None
        return max(1, math.floor(min(counts[name] / ratio for name, ratio in ratios.items())))

    return Domain(edit.into, first_out("available_tokens"), first_out("found_tokens"))
