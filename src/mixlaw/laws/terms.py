"""Formulas as objects: terms that add and multiply, and the law made of them.

A term is a positive function of a point with its own slice of theta; `a + b` and `a * b` are terms
again. A new law is one expression over terms, and its Jacobian, gradient, prior, parameter count
and convexity follow from the parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from operator import add, mul

import numpy as np

from mixlaw.laws.base import MIXTURE, Axes, Law, Points

EXPONENT_LIMIT = 60.0


def bounded_exp(x: np.ndarray) -> np.ndarray:
    """exp(x), with x held within +-60: a trial step of the minimiser must not overflow."""
    return np.exp(np.minimum(np.maximum(x, -EXPONENT_LIMIT), EXPONENT_LIMIT))


class Term(ABC):
    """A positive function of (mixture, num_params, train_tokens).

    Attributes:
        needs: inputs it reads.
        convex: convex in the mixture whatever theta.
        num_gauges: directions of theta that change no prediction.
    """

    needs: frozenset[str] = frozenset()
    convex: bool = True
    num_gauges: int = 0

    @abstractmethod
    def num_parameters(self, num_domains: int) -> int:
        """Length p of its slice of theta."""

    def num_carried(self, num_domains: int) -> int:
        """Identified parameters that its prior carries, so that they cost no run."""
        return 0

    @abstractmethod
    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Values (n,) and derivatives (n, p) in theta."""

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        """Values (n,)."""
        return self.evaluate(theta, points)[0]

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        """Derivatives (n, M) in the proportions; zero unless it reads the mixture."""
        return np.zeros_like(points.weights)

    @abstractmethod
    def prior(self, points: Points, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Mean (p,) and sd (p,) of theta, such that at the mean the term is about `level`."""

    def for_target(self, own: int | None) -> Term:
        """This term specialised to a target whose own domain has index `own`."""
        return self

    def __add__(self, other: Term) -> Sum:
        return Sum((*self.parts, other) if isinstance(self, Sum) else (self, other))

    def __mul__(self, other: Term) -> Product:
        return Product((*self.parts, other) if isinstance(self, Product) else (self, other))


class Constant(Term):
    """c > 0, as its log."""

    def num_parameters(self, num_domains: int) -> int:
        return 1

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        value = np.full(len(points), bounded_exp(theta[0]))
        return value, value[:, None]

    def prior(self, points: Points, level: float) -> tuple[np.ndarray, np.ndarray]:
        return np.array([np.log(level)]), np.array([1.0])


class One(Term):
    """The number 1: `One() + x` is a relative increase."""

    def num_parameters(self, num_domains: int) -> int:
        return 0

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(len(points)), np.empty((len(points), 0))

    def prior(self, points: Points, level: float) -> tuple[np.ndarray, np.ndarray]:
        return np.empty(0), np.empty(0)


class _Compound(Term):
    """Terms side by side, each with its slice of theta."""

    def __init__(self, parts: Sequence[Term]):
        self.parts = tuple(parts)
        self.needs = frozenset().union(*(part.needs for part in parts))
        self.num_gauges = sum(part.num_gauges for part in parts)

    def num_parameters(self, num_domains: int) -> int:
        return sum(part.num_parameters(num_domains) for part in self.parts)

    def num_carried(self, num_domains: int) -> int:
        return sum(part.num_carried(num_domains) for part in self.parts)

    def for_target(self, own: int | None) -> Term:
        return type(self)([part.for_target(own) for part in self.parts])

    def _slices(self, theta: np.ndarray, points: Points) -> list[np.ndarray]:
        slices, first = [], 0
        for part in self.parts:
            last = first + part.num_parameters(points.weights.shape[1])
            slices.append(theta[first:last])
            first = last
        return slices

    def _evaluations(self, theta: np.ndarray, points: Points):
        slices = self._slices(theta, points)
        pairs = zip(self.parts, slices, strict=True)
        return [part.evaluate(t, points) for part, t in pairs]


class Sum(_Compound):
    """Terms added. Its level is shared: a constant gets 40 %, the others the rest equally."""

    def __init__(self, parts: Sequence[Term]):
        super().__init__(parts)
        self.convex = all(part.convex for part in parts)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        values, jacobians = zip(*self._evaluations(theta, points), strict=True)
        return reduce(add, values), np.concatenate(jacobians, axis=1)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        pairs = zip(self.parts, self._slices(theta, points), strict=True)
        total = np.zeros_like(points.weights)
        for part, part_theta in pairs:
            total += part.gradient(part_theta, points)
        return total

    def prior(self, points: Points, level: float) -> tuple[np.ndarray, np.ndarray]:
        fixed = [isinstance(part, Constant | One) for part in self.parts]
        rest = (0.6 if any(fixed) else 1.0) / max(1, len(fixed) - sum(fixed))
        priors = [
            part.prior(points, level * (0.4 if is_fixed else rest))
            for part, is_fixed in zip(self.parts, fixed, strict=True)
        ]
        means, sds = zip(*priors, strict=True)
        return np.concatenate(means), np.concatenate(sds)


class Product(_Compound):
    """Terms multiplied. The first carries the level; the others are shapes.

    Convex when every factor is, and at most one reads the mixture (all are positive).
    """

    def __init__(self, parts: Sequence[Term]):
        super().__init__(parts)
        mixed = sum(MIXTURE in part.needs for part in parts)
        self.convex = mixed <= 1 and all(part.convex for part in parts)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        values, jacobians = zip(*self._evaluations(theta, points), strict=True)
        columns = [
            jacobian * _product(values[:k] + values[k + 1 :])[:, None]
            for k, jacobian in enumerate(jacobians)
        ]
        return _product(values), np.concatenate(columns, axis=1)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        slices = self._slices(theta, points)
        values = [part.value(t, points) for part, t in zip(self.parts, slices, strict=True)]
        total = np.zeros_like(points.weights)
        for k, (part, part_theta) in enumerate(zip(self.parts, slices, strict=True)):
            if MIXTURE in part.needs:
                others = _product(values[:k] + values[k + 1 :])
                total += part.gradient(part_theta, points) * others[:, None]
        return total

    def prior(self, points: Points, level: float) -> tuple[np.ndarray, np.ndarray]:
        first, *shapes = self.parts
        priors = [shape.prior(points, 1.0) for shape in shapes]
        for shape, (mean, _) in zip(shapes, priors, strict=True):
            level /= float(np.exp(np.mean(np.log(shape.value(mean, points)))))
        means, sds = zip(first.prior(points, level), *priors, strict=True)
        return np.concatenate(means), np.concatenate(sds)


def _product(values: Sequence[np.ndarray]) -> np.ndarray:
    return reduce(mul, values)


class TermLaw(Law):
    """A law given by one term; `formula` is that term for people."""

    def __init__(self, name: str, formula: str, term: Term, axes: Axes | None = None):
        self.name, self.formula, self.term, self.axes = name, formula, term, axes or {}
        self.needs, self.convex = term.needs, term.convex

    def __repr__(self) -> str:
        return f"<law {self.name}: {self.formula}>"

    def num_parameters(self, num_domains: int) -> int:
        return self.term.num_parameters(num_domains)

    def num_identified(self, num_domains: int) -> int:
        return self.num_parameters(num_domains) - self.term.num_gauges

    def num_required(self, num_domains: int) -> int:
        return self.num_identified(num_domains) - self.term.num_carried(num_domains)

    def predict(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self.term.value(theta, points)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        return self.term.evaluate(theta, points)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self.term.gradient(theta, points)

    def prior(self, points: Points, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.term.prior(points, float(np.mean(y)))

    def for_target(self, own: int | None) -> Law:
        return TermLaw(self.name, self.formula, self.term.for_target(own), self.axes)
