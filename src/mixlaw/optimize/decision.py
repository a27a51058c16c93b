"""From a fitted law to a decision: the mixture to train, with the evidence for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixlaw.errors import MixtureError, StudyError
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize.limits import SUPPORT, ActiveBound, Limits
from mixlaw.optimize.objective import Forecaster, Objective
from mixlaw.optimize.solve import GAP_TOLERANCE, Solution, minimize_mixture

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Interval:
    """A value and the half width of its interval; infinite when the runs cannot tell."""

    value: float
    half_width: float

    @property
    def low(self) -> float:
        return self.value - self.half_width

    @property
    def high(self) -> float:
        return self.value + self.half_width

    def to_dict(self) -> dict[str, float | None]:
        """JSON has no infinity: an unknown width is null."""
        width = self.half_width if np.isfinite(self.half_width) else None
        return {"value": self.value, "half_width": width}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Interval:
        width = data["half_width"]
        return cls(data["value"], np.inf if width is None else width)


@dataclass(frozen=True)
class Forecast:
    """What the law expects of one mixture at the target scale.

    Attributes:
        objective: of the weighted mean.
        targets: target -> value with interval.
        epochs: domain -> passes over its available tokens; empty when unknown.
        violations: constraints that the mixture breaks, one phrase each.
        extrapolates: domains whose share lies outside the trained range, one phrase each.
    """

    mixture: Mixture
    objective: Interval
    targets: Mapping[str, Interval]
    epochs: Mapping[str, float]
    violations: tuple[str, ...] = ()
    extrapolates: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "mixture": dict(self.mixture),
            "objective": self.objective.to_dict(),
            "targets": {name: value.to_dict() for name, value in self.targets.items()},
            "epochs": dict(self.epochs),
            "violations": list(self.violations),
            "extrapolates": list(self.extrapolates),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Forecast:
        return cls(
            mixture=Mixture(data["mixture"]),
            objective=Interval.from_dict(data["objective"]),
            targets={k: Interval.from_dict(v) for k, v in data["targets"].items()},
            epochs=dict(data["epochs"]),
            violations=tuple(data["violations"]),
            extrapolates=tuple(data["extrapolates"]),
        )


@dataclass(frozen=True)
class Comparison:
    """The recommended mixture against a baseline.

    Attributes:
        forecast: of the baseline; its `violations` flag one that the constraints forbid.
        gain: how much lower the recommended mixture's objective is predicted.
        probability_better: that the recommended mixture really is lower.
    """

    forecast: Forecast
    gain: float
    probability_better: float

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "forecast": self.forecast.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        return cls(**{**data, "forecast": Forecast.from_dict(data["forecast"])})


@dataclass(frozen=True)
class Decision:
    """The recommended mixture with its evidence.

    Attributes:
        forecast: of the recommended mixture.
        baselines: name -> comparison.
        gap: certificate: no allowed mixture is predicted lower by more; None for a law that is
            not convex.
        spread: worst minus best optimum over the starts of a law that is not convex.
        active_bounds: the bounds that the recommended mixture sits on.
        unguarded: the predicted optimum without the support guard, a diagnostic only; None
            when the guard was off.
        guard_cost: how much lower the law predicts the objective of `unguarded`.
        objective: target -> weight.
        level: of the intervals.
        num_params, train_tokens: the target scale; None where the law does not read it.
        seed: of the random starts.
    """

    forecast: Forecast
    baselines: Mapping[str, Comparison]
    gap: float | None
    spread: float
    active_bounds: tuple[ActiveBound, ...]
    unguarded: Mixture | None
    guard_cost: float | None
    law: str
    objective: Mapping[str, float]
    level: float
    num_params: float | None
    train_tokens: float | None
    seed: int
    warnings: tuple[str, ...] = field(default=())

    @property
    def recommended(self) -> Mixture:
        """The mixture to train."""
        return self.forecast.mixture

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal decision."""
        return {
            "format": FORMAT_VERSION,
            **vars(self),
            "forecast": self.forecast.to_dict(),
            "baselines": {name: item.to_dict() for name, item in self.baselines.items()},
            "active_bounds": [bound.to_dict() for bound in self.active_bounds],
            "unguarded": None if self.unguarded is None else dict(self.unguarded),
            "objective": dict(self.objective),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decision:
        """Raises: StudyError: written by another format version."""
        fields = dict(data)
        version = fields.pop("format", None)
        if version != FORMAT_VERSION:
            raise StudyError(
                f"this decision has format {version}, this mixlaw reads {FORMAT_VERSION}; "
                "run `mixlaw optimize` again"
            )
        baselines = {k: Comparison.from_dict(v) for k, v in fields["baselines"].items()}
        unguarded = fields["unguarded"]
        fields |= {
            "forecast": Forecast.from_dict(fields["forecast"]),
            "baselines": baselines,
            "active_bounds": tuple(ActiveBound(**bound) for bound in fields["active_bounds"]),
            "unguarded": None if unguarded is None else Mixture(unguarded),
            "warnings": tuple(fields["warnings"]),
        }
        return cls(**fields)


def optimize(
    fitted: Forecaster,
    objective: Objective,
    *,
    domains: Sequence[Domain],
    constraints: Constraints,
    num_params: float | None,
    train_tokens: float | None,
    support: np.ndarray | None,
    baselines: Mapping[str, Mixture] | None = None,
    level: float = 0.9,
    seed: int = 0,
) -> Decision:
    """Find the mixture that the law predicts to be best, within what was asked and trained.

    Args:
        fitted: the law; minimised by its gradient.
        domains: the law's domains, in any order.
        num_params, train_tokens: the target scale; `train_tokens` also sets epoch caps.
        support: trained weights (n, M) in the order of `fitted.domains`. Each domain stays within
            its smallest and largest trained share, because an optimum far outside is an artefact
            of the formula (docs/decisions.md). None turns the guard off.
        baselines: name -> mixture to compare with; one that breaks the constraints is flagged.
        level: of the intervals.
        seed: of the random starts for a law that is not convex.
    Raises:
        InfeasibleError: no mixture satisfies constraints and support; names the conflict.
        MixtureError: domains other than the law's, or a baseline on an unknown domain.
        StudyError: an objective on a target that was not fitted.
        FitError: the law gives no finite value somewhere within the bounds.
    """
    if not 0 < level < 1:
        raise StudyError(f"the level of the intervals is {level}; it must lie between 0 and 1")
    baselines = baselines or {}
    domains = _in_order(domains, fitted.domains)
    scale = _Scale(
        fitted,
        objective.coefficients(fitted.targets),
        num_params,
        train_tokens,
        _available_tokens(domains, train_tokens),
        level,
    )
    allowed = Limits.of(domains, constraints, train_tokens)
    limits = allowed if support is None else allowed.guarded(support)
    starts = _starts(scale, support, baselines, seed)
    solution = _solve(scale, limits, starts)
    unguarded = None
    if support is not None:
        # Starting from the guarded optimum too, a law with many minima cannot end above it.
        starts = np.vstack([solution.proportions, starts])
        unguarded = _solve(scale, allowed, starts)

    def forecast(mixture: Mixture) -> Forecast:
        return scale.forecast(mixture, domains, allowed, support)

    recommended = forecast(Mixture.from_array(fitted.domains, solution.proportions))
    comparisons = {
        name: scale.compare(forecast(mixture), recommended) for name, mixture in baselines.items()
    }
    active = limits.active(solution.proportions)
    return Decision(
        forecast=recommended,
        baselines=comparisons,
        gap=solution.gap,
        spread=solution.spread,
        active_bounds=active,
        unguarded=unguarded and Mixture.from_array(fitted.domains, unguarded.proportions),
        guard_cost=unguarded and max(0.0, solution.value - unguarded.value),
        law=fitted.law,
        objective=dict(objective.weights),
        level=level,
        num_params=num_params,
        train_tokens=train_tokens,
        seed=seed,
        warnings=_warnings(solution, active, comparisons, guarded=support is not None),
    )


@dataclass(frozen=True)
class _Scale:
    """A fitted law at the target scale, with the objective's coefficients (T,)."""

    fitted: Forecaster
    coefficients: np.ndarray
    num_params: float | None
    train_tokens: float | None
    available_tokens: np.ndarray | None
    level: float

    @property
    def convex(self) -> bool:
        """Whether the objective is convex: repetition keeps only a falling law so."""
        return self.fitted.convex and (self.available_tokens is None or self.fitted.decreasing)

    def predict(self, weights: np.ndarray) -> np.ndarray:
        """(n, T) of mixtures (n, M)."""
        return self.fitted.predict(
            weights, self.num_params, self.train_tokens, available_tokens=self.available_tokens
        )

    def objective(self, weights: np.ndarray) -> np.ndarray:
        """(n,) of mixtures (n, M)."""
        return self.predict(weights) @ self.coefficients

    def value_and_gradient(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        slopes = self.fitted.gradient(
            point[None], self.num_params, self.train_tokens, available_tokens=self.available_tokens
        )[0]
        return float(self.objective(point[None])[0]), self.coefficients @ slopes

    def half_width(self, coefficients: np.ndarray, weights: np.ndarray) -> float:
        """Of one mixture (1, M)."""
        widths = self.fitted.half_width(
            coefficients, weights, self.num_params, self.train_tokens, level=self.level
        )
        return float(widths[0])

    def forecast(
        self,
        mixture: Mixture,
        domains: Sequence[Domain],
        allowed: Limits,
        support: np.ndarray | None,
    ) -> Forecast:
        weights = mixture.array(self.fitted.domains)[None]
        values = self.predict(weights)[0]
        single = np.eye(len(values))
        return Forecast(
            mixture=mixture,
            objective=Interval(
                float(values @ self.coefficients), self.half_width(self.coefficients, weights)
            ),
            targets={
                name: Interval(float(values[i]), self.half_width(single[i], weights))
                for i, name in enumerate(self.fitted.targets)
            },
            epochs=mixture.epochs(self.train_tokens, domains) if self.train_tokens else {},
            violations=allowed.violations(mixture),
            extrapolates=()
            if support is None
            else outside_support(mixture, allowed.domains, support),
        )

    def compare(self, baseline: Forecast, recommended: Forecast) -> Comparison:
        gain = baseline.objective.value - recommended.objective.value
        chance = self.fitted.probability_better(
            gain, self.coefficients, self.num_params, self.train_tokens
        )
        return Comparison(baseline, gain, float(chance))


def _in_order(domains: Sequence[Domain], names: Sequence[str]) -> list[Domain]:
    """The domains in the law's order."""
    given = {domain.name: domain for domain in domains}
    missing, strangers = sorted(set(names) - set(given)), sorted(set(given) - set(names))
    if missing or strangers or len(given) != len(domains):
        raise MixtureError(
            f"the law was fitted on the domains {list(names)}, but {missing} are missing and "
            f"{strangers} are new (or one is named twice); pass exactly the law's domains"
        )
    return [given[name] for name in names]


def _available_tokens(domains: Sequence[Domain], train_tokens: float | None) -> np.ndarray | None:
    """(M,) unique tokens; None where no domain can be repeated."""
    tokens = np.array([float(d.available_tokens or np.inf) for d in domains])
    return tokens if train_tokens and np.any(tokens < train_tokens) else None


def _starts(
    scale: _Scale, support: np.ndarray | None, baselines: Mapping[str, Mixture], seed: int
) -> np.ndarray:
    """Starting points (S, M): uniform, baselines, the best trained, and random for many minima."""
    names = scale.fitted.domains
    starts = [np.full((1, len(names)), 1 / len(names))]
    starts += [mixture.array(names)[None] for mixture in baselines.values()]
    if support is not None:
        starts.append(support[np.argsort(scale.objective(support))[:4]])
    if not scale.convex:
        starts.append(np.random.default_rng(seed).dirichlet(np.ones(len(names)), 12))
    return np.concatenate(starts)


def _solve(scale: _Scale, limits: Limits, starts: np.ndarray) -> Solution:
    return minimize_mixture(
        scale.value_and_gradient,
        limits.lower,
        limits.upper,
        starts=starts,
        convex=scale.convex,
    )


def outside_support(mixture: Mixture, names: Sequence[str], support: np.ndarray) -> tuple[str, ...]:
    """One phrase for each domain whose share lies outside those of the trained mixtures (n, M)."""
    least, most = support.min(axis=0), support.max(axis=0)
    return tuple(
        f"{name} {share:.4g}, trained {low:.4g} to {high:.4g}"
        for name, share, low, high in zip(names, mixture.array(names), least, most, strict=True)
        if not low - 1e-6 <= share <= high + 1e-6
    )


def _warnings(
    solution: Solution,
    active: Sequence[ActiveBound],
    comparisons: Mapping[str, Comparison],
    *,
    guarded: bool,
) -> tuple[str, ...]:
    """What a reader should know before he trusts the decision."""
    out = []
    if solution.gap is None:
        out.append(
            "the law is not convex in the mixture: the optimum carries no certificate "
            f"(optima from different starts differ by up to {solution.spread:.3g})"
        )
    elif solution.gap > 10 * GAP_TOLERANCE * abs(solution.value):
        out.append(f"the solver stopped early: a mixture lower by {solution.gap:.3g} may exist")
    if not guarded:
        out.append("no support guard: the optimum may lie where no mixture was trained")
    edges = [f"{b.domain} ({b.side} {b.bound:.4g})" for b in active if b.reason == SUPPORT]
    if edges:
        out.append(
            f"at the edge of the trained range: {', '.join(edges)}; the optimum may lie beyond, "
            "train mixtures there to know"
        )
    for name, comparison in comparisons.items():
        if comparison.forecast.violations:
            broken = "; ".join(comparison.forecast.violations)
            out.append(f"the baseline {name!r} breaks the constraints: {broken}")
    return tuple(out)
