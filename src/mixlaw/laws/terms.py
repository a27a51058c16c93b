"""Formulas as objects: terms that add and multiply, and the law made of them.

A term is a positive function of a point with its own slice of theta; `a + b` and `a * b` are terms
again. A new law is one expression over terms, and its Jacobian, gradient, prior, parameter count
and convexity follow from the parts.

Every array leads with B, the problems (targets, folds, resamples) evaluated at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add, mul
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Law
from mixlaw.laws.batch import Batch
from mixlaw.laws.page_form import Form, not_portable
from mixlaw.laws.points import MIXTURE, Axes, Points

EXPONENT_LIMIT = 60.0


def bounded_exp(x: np.ndarray) -> np.ndarray:
    """exp(x), with x held within +-60: a trial step of the minimiser must not overflow."""
    return np.exp(np.minimum(np.maximum(x, -EXPONENT_LIMIT), EXPONENT_LIMIT))


class Term(ABC):
    """A positive function of (mixture, num_params, train_tokens).

    Attributes:
        needs: inputs it reads.
        convex: convex in the mixture whatever theta.
        log_convex: its logarithm is convex in the mixture whatever theta; so are then sums and
            products with others of the kind.
        decreasing: no domain's share ever raises it, whatever theta.
        needs_own: reads the share of the target's own domain, so the target must have one.
        num_gauges: directions of theta that change no prediction.
        script: `value` in JavaScript, for a page; see `page_form`. None: no page can work it out.
        parts: the terms that it is made of. Its theta begins with its own numbers, and theirs
            follow in order.
        constants: what the script needs besides; JSON-able.
    """

    needs: frozenset[str] = frozenset()
    convex: bool = True
    log_convex: bool = False
    decreasing: bool = True
    needs_own: bool = False
    num_gauges: int = 0
    script: ClassVar[str | None] = None
    parts: Sequence[Term] = ()
    constants: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def num_parameters(self, num_domains: int) -> int:
        """Length p of its slice of theta."""

    def num_carried(self, num_domains: int) -> int:
        """Identified parameters that its prior carries, so that they cost no run."""
        return 0

    @abstractmethod
    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Values (B, n) and derivatives (B, n, p) in theta (B, p)."""

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        """Values (B, n)."""
        return self.evaluate(theta, points)[0]

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        """Derivatives (B, n, M) in the proportions; zero unless it reads the mixture."""
        return np.zeros((len(theta), *points.weights.shape))

    @abstractmethod
    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (B, p) and sd (B, p) of theta, at whose mean the term is about `level` (B,)."""

    def for_targets(self, own: np.ndarray) -> Term:
        """This term specialised to B targets whose own domains have the indices `own` (B,), -1
        where they have none."""
        return self

    def form(self, theta: np.ndarray, num_domains: int) -> Form:
        """How a page works it out with its slice of theta (p,).

        Raises: NotPortable: it has no script, or a part has none.
        """
        if self.script is None or not self._script_is_of_value():
            raise not_portable(self, "script")
        counts = [part.num_parameters(num_domains) for part in self.parts]
        own, *slices = np.split(theta, len(theta) - sum(counts) + np.cumsum([0, *counts])[:-1])
        return Form(
            name=type(self).__name__,
            script=self.script,
            numbers=own,
            constants=self.constants,
            parts=tuple(p.form(t, num_domains) for p, t in zip(self.parts, slices, strict=True)),
            remake=lambda form, parts: np.concatenate([form.numbers, *parts]),
        )

    def _script_is_of_value(self) -> bool:
        """Whether no subclass of the class that has the script changed the formula."""
        for cls in type(self).__mro__:
            if "script" in vars(cls):
                return True
            if {"value", "evaluate"} & vars(cls).keys():
                return False
        return False

    def learned(self, num_domains: int) -> np.ndarray:
        """(p,) integers: groups of parameters whose common prior sd is learned; -1 for none."""
        return np.full(self.num_parameters(num_domains), -1)

    def alike(self, num_domains: int) -> np.ndarray:
        """(p,) between-target sds of the parameters whose mean over targets is learned; NaN for
        the others."""
        return np.full(self.num_parameters(num_domains), np.nan)

    def pooled(self, num_domains: int) -> np.ndarray:
        """Indices (1 + M,) of parameters that are alike over targets, or none; see `Law.pooled`."""
        return np.empty(0, int)

    def __add__(self, other: Term) -> Sum:
        return Sum((*self.parts, other) if isinstance(self, Sum) else (self, other))

    def __mul__(self, other: Term) -> Product:
        return Product((*self.parts, other) if isinstance(self, Product) else (self, other))


class Constant(Term):
    """c > 0, as its log."""

    log_convex = True
    script = """(theta) => {
      const c = exp(theta[0]);
      return () => c;
    }"""

    def num_parameters(self, num_domains: int) -> int:
        return 1

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        value = np.repeat(bounded_exp(theta), len(points), axis=1)
        return value, value[:, :, None]

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.log(level)[:, None], np.ones((len(level), 1))


class One(Term):
    """The number 1: `One() + x` is a relative increase."""

    log_convex = True
    script = "() => () => 1"

    def num_parameters(self, num_domains: int) -> int:
        return 0

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(theta), len(points))
        return np.ones(shape), np.empty((*shape, 0))

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.empty((len(level), 0)), np.empty((len(level), 0))


class Compound(Term):
    """Terms side by side, each with its slice of theta."""

    def __init__(self, parts: Sequence[Term]):
        self.parts = tuple(parts)
        self.needs = frozenset().union(*(part.needs for part in parts))
        self.decreasing = all(part.decreasing for part in parts)
        self.log_convex = all(part.log_convex for part in parts)
        self.num_gauges = sum(part.num_gauges for part in parts)
        self.needs_own = any(part.needs_own for part in parts)

    def num_parameters(self, num_domains: int) -> int:
        return sum(part.num_parameters(num_domains) for part in self.parts)

    def num_carried(self, num_domains: int) -> int:
        return sum(part.num_carried(num_domains) for part in self.parts)

    def for_targets(self, own: np.ndarray) -> Term:
        return type(self)([part.for_targets(own) for part in self.parts])

    def learned(self, num_domains: int) -> np.ndarray:
        out, groups = [], 0
        for part in self.parts:
            found = part.learned(num_domains)
            out.append(np.where(found >= 0, found + groups, -1))
            groups += found.max(initial=-1) + 1
        return np.concatenate(out)

    def alike(self, num_domains: int) -> np.ndarray:
        return np.concatenate([part.alike(num_domains) for part in self.parts])

    def pooled(self, num_domains: int) -> np.ndarray:
        first = 0
        for part in self.parts:
            if len(found := part.pooled(num_domains)):
                return found + first
            first += part.num_parameters(num_domains)
        return np.empty(0, int)

    def slices(self, theta: np.ndarray, points: Points) -> list[np.ndarray]:
        """theta (B, p) cut into those of the parts."""
        counts = [part.num_parameters(points.weights.shape[1]) for part in self.parts]
        ends = np.cumsum(counts)
        return [theta[:, end - count : end] for count, end in zip(counts, ends, strict=True)]

    def _evaluations(self, theta: np.ndarray, points: Points):
        pairs = zip(self.parts, self.slices(theta, points), strict=True)
        return zip(*(part.evaluate(t, points) for part, t in pairs), strict=True)


class Sum(Compound):
    """Terms added.

    Args:
        shares: what each part's prior gets of the level, by default 40 % for a constant and the
            rest equally for the others.
    """

    script = """(theta, own, constants, parts) => (at) => {
      let sum = 0;
      for (const part of parts) sum += part(at);
      return sum;
    }"""

    def __init__(self, parts: Sequence[Term], shares: Sequence[float] | None = None):
        super().__init__(parts)
        self.convex = all(part.convex for part in parts)
        fixed = [isinstance(part, Constant | One) for part in parts]
        rest = (0.6 if any(fixed) else 1.0) / max(1, len(fixed) - sum(fixed))
        self.shares = shares or [0.4 if is_fixed else rest for is_fixed in fixed]

    def for_targets(self, own: np.ndarray) -> Term:
        return Sum([part.for_targets(own) for part in self.parts], self.shares)

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        pairs = zip(self.parts, self.slices(theta, points), strict=True)
        return reduce(add, [part.value(t, points) for part, t in pairs])

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        values, jacobians = self._evaluations(theta, points)
        return reduce(add, values), np.concatenate(jacobians, axis=2)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        total = super().gradient(theta, points)
        for part, part_theta in zip(self.parts, self.slices(theta, points), strict=True):
            if MIXTURE in part.needs:
                total += part.gradient(part_theta, points)
        return total

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = zip(self.parts, self.shares, strict=True)
        means, sds = zip(*(part.prior(points, level * share) for part, share in pairs), strict=True)
        return np.concatenate(means, axis=1), np.concatenate(sds, axis=1)


class Product(Compound):
    """Terms multiplied. The first carries the level; the others are shapes.

    Convex when every factor is and at most one reads the mixture (all are positive), or when all
    are log-convex.
    """

    script = """(theta, own, constants, parts) => (at) => {
      let product = 1;
      for (const part of parts) product *= part(at);
      return product;
    }"""

    def __init__(self, parts: Sequence[Term]):
        super().__init__(parts)
        mixed = sum(MIXTURE in part.needs for part in parts)
        self.convex = self.log_convex or (mixed <= 1 and all(part.convex for part in parts))

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        pairs = zip(self.parts, self.slices(theta, points), strict=True)
        return reduce(mul, [part.value(t, points) for part, t in pairs])

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        values, jacobians = self._evaluations(theta, points)
        columns = [
            jacobian * reduce(mul, values[:k] + values[k + 1 :])[:, :, None]
            for k, jacobian in enumerate(jacobians)
        ]
        return reduce(mul, values), np.concatenate(columns, axis=2)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        slices = self.slices(theta, points)
        values = [part.value(t, points) for part, t in zip(self.parts, slices, strict=True)]
        total = np.zeros((len(theta), *points.weights.shape))
        for k, (part, part_theta) in enumerate(zip(self.parts, slices, strict=True)):
            if MIXTURE in part.needs:
                others = reduce(mul, values[:k] + values[k + 1 :])
                total += part.gradient(part_theta, points) * others[:, :, None]
        return total

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, *shapes = self.parts
        priors = [shape.prior(points, np.ones(len(level))) for shape in shapes]
        for shape, (mean, _) in zip(shapes, priors, strict=True):
            level = level / np.exp(np.mean(np.log(shape.value(mean, points)), axis=1))
        means, sds = zip(first.prior(points, level), *priors, strict=True)
        return np.concatenate(means, axis=1), np.concatenate(sds, axis=1)


class TermLaw(Law):
    """A law given by one term; `formula` is that term for people."""

    def __init__(self, name: str, formula: str, term: Term, axes: Axes | None = None):
        self.name, self.formula, self.term, self.axes = name, formula, term, axes or {}
        self.needs, self.convex = term.needs, term.convex
        self.decreasing = term.decreasing

    def __repr__(self) -> str:
        return f"<law {self.name}: {self.formula}>"

    def num_parameters(self, num_domains: int) -> int:
        return self.term.num_parameters(num_domains)

    def num_identified(self, num_domains: int) -> int:
        return self.num_parameters(num_domains) - self.term.num_gauges

    def num_required(self, num_domains: int) -> int:
        return self.num_identified(num_domains) - self.term.num_carried(num_domains)

    # Repeated data counts for what it is worth, in every law of the mixture.

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self.term.value(theta, points.discounted)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        return self.term.evaluate(theta, points.discounted)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self.term.gradient(theta, points.discounted) * points.discount_slopes

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.term.prior(points.discounted, level)

    def form(self, theta: np.ndarray, num_domains: int) -> Form:
        return self.term.form(theta, num_domains)

    def check(self, batch: Batch) -> None:
        """Raise FitError, too, when a target lacks the own domain that the term reads."""
        super().check(batch)
        bare = {t for t, own in zip(batch.targets, batch.own, strict=True) if own < 0}
        if self.term.needs_own and bare:
            raise FitError(
                f"law {self.name!r} reads the share of a target's own domain, and none of "
                f"{list(batch.domains)} is that of {sorted(bare)}; name the target metric/<domain> "
                "if it measures one of them, else leave it out or choose another law"
            )

    def for_targets(self, own: np.ndarray) -> Law:
        return TermLaw(self.name, self.formula, self.term.for_targets(own), self.axes)

    @property
    def learns_prior(self) -> bool:
        return bool(np.any(self.term.learned(2) >= 0) or np.isfinite(self.term.alike(2)).any())

    def learned(self, points: Points) -> np.ndarray:
        return self.term.learned(points.weights.shape[1])

    def alike(self, points: Points) -> np.ndarray:
        return self.term.alike(points.weights.shape[1])

    def pooled(self, points: Points) -> np.ndarray:
        return self.term.pooled(points.weights.shape[1])
