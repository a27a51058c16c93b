"""The optimum of random convex problems beside cvxpy with Clarabel and scipy's SLSQP, in one
process: how far apart the objectives are, whether the certificate holds, and how long each takes.

Shapes: n mixtures, M domains, T targets.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded, where that is still ahead

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import cvxpy as cp
import numpy as np
from scipy.optimize import minimize

from benchmarks.laws.common import Settings
from benchmarks.table import markdown, publish
from mixlaw.mixture import Constraints, Domain, Group
from mixlaw.optimize.limits import Limits
from mixlaw.optimize.objective import Objective
from mixlaw.optimize.problem import AtScale, Problem
from mixlaw.optimize.solve import Solution

SIZES: Mapping[int, int] = {5: 5, 17: 13, 30: 20, 60: 60, 100: 100}
"""Domains -> targets."""

SEEDS, REPEATS = 10, 3
TIGHT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
ORACLE_ERROR = 1e-7
"""What is allowed of Clarabel's own error when a certificate is checked, relative to the value."""


@dataclass
class Exponentials:
    """c_i + k_i exp(t_i . r): M4 (Ye et al., arXiv 2403.16952, eq. 7)."""

    constant: np.ndarray
    size: np.ndarray
    rate: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, targets: int, domains: int) -> Exponentials:
        rate = rng.normal(0, 1.5, (targets, domains))
        rate[np.arange(targets), rng.integers(domains, size=targets)] -= 2
        return cls(rng.uniform(1, 2, targets), rng.uniform(0.3, 3, targets), rate)

    def value(self, weights: np.ndarray) -> np.ndarray:
        """(n, T)."""
        return self.constant + self.size * np.exp(weights @ self.rate.T)

    def slope(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, M)."""
        return (self.size * np.exp(weights @ self.rate.T))[:, :, None] * self.rate

    def expression(self, r: cp.Variable) -> cp.Expression:
        return self.constant + cp.multiply(self.size, cp.exp(self.rate @ r))


@dataclass
class EffectiveData:
    """c_i + (w_i0 + sum_j w_ij phi(r_j))^-a_i with phi a power of the share: the default law."""

    constant: np.ndarray
    background: np.ndarray
    weight: np.ndarray
    power: float
    fall: np.ndarray
    eps: float = 1e-3

    @classmethod
    def draw(cls, rng: np.random.Generator, targets: int, domains: int) -> EffectiveData:
        weight = rng.lognormal(-1, 1.5, (targets, domains))
        weight[np.arange(targets), rng.integers(domains, size=targets)] *= 8
        return cls(
            rng.uniform(1, 2, targets),
            rng.uniform(0.02, 0.1, targets),
            weight,
            rng.uniform(0.3, 0.9),
            rng.uniform(0.05, 0.4, targets),
        )

    @property
    def _ends(self) -> tuple[float, float]:
        low = self.eps**self.power
        return low, (1 + self.eps) ** self.power - low

    def _effective(self, weights: np.ndarray) -> np.ndarray:
        low, span = self._ends
        return self.background + ((weights + self.eps) ** self.power - low) / span @ self.weight.T

    def value(self, weights: np.ndarray) -> np.ndarray:
        """(n, T)."""
        return self.constant + self._effective(weights) ** -self.fall

    def slope(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, M)."""
        outer = -self.fall * self._effective(weights) ** (-self.fall - 1)
        inner = self.power * (weights + self.eps) ** (self.power - 1) / self._ends[1]
        return outer[:, :, None] * self.weight * inner[:, None]

    def expression(self, r: cp.Variable) -> cp.Expression:
        low, span = self._ends
        data = (cp.power(r + self.eps, self.power, approx=False) - low) / span
        effective = self.background + self.weight @ data
        return cp.hstack(
            [
                c + cp.power(effective[i], -float(fall), approx=False)
                for i, (c, fall) in enumerate(zip(self.constant, self.fall, strict=True))
            ]
        )


class Fitted:
    """One of the formulas as a fitted law that a `Problem` takes."""

    law, convex, decreasing = "random", True, True

    def __init__(self, formula: Exponentials | EffectiveData, targets: int, domains: int):
        self.formula = formula
        self.targets = tuple(f"loss/{i}" for i in range(targets))
        self.domains = tuple(f"d{j}" for j in range(domains))

    def predict(self, weights, num_params, train_tokens, *, available_tokens):
        return self.formula.value(weights)

    def gradient(self, weights, num_params, train_tokens, *, available_tokens):
        return self.formula.slope(weights)

    def half_width(
        self, coefficients, weights, num_params, train_tokens, *, level, available_tokens
    ):
        raise NotImplementedError("a random law has no intervals")

    def difference_scale(
        self, coefficients, weights, num_params, train_tokens, *, available_tokens
    ):
        raise NotImplementedError("a random law has no intervals")


@dataclass
class Case:
    """One random problem: epoch caps, lower bounds and three overlapping groups around a random
    mixture, so that all limits can be kept."""

    fitted: Fitted
    objective: Objective
    domains: list[Domain]
    constraints: Constraints

    @classmethod
    def draw(cls, seed: int, formula: type, over: str, num_domains: int) -> Case:
        rng = np.random.default_rng([seed, num_domains])
        num_targets = SIZES[num_domains]
        fitted = Fitted(formula.draw(rng, num_targets, num_domains), num_targets, num_domains)
        inside = rng.dirichlet(np.ones(num_domains))
        caps = np.maximum(1.2 * inside, rng.uniform(1, 6, num_domains) / num_domains)
        tokens = np.ceil(caps * 1e9 / 4).astype(int)
        groups = {}
        for g in range(3):
            chosen = np.flatnonzero(rng.random(num_domains) < 0.5)
            share = float(inside[chosen].sum())
            if 0 < len(chosen) < num_domains:
                groups[f"g{g}"] = Group(
                    tuple(fitted.domains[j] for j in chosen),
                    lower=share * rng.uniform(0.5, 1),
                    upper=share + (1 - share) * rng.uniform(0, 0.4),
                )
        held = {
            name: 0.5 * float(share)
            for name, share in zip(fitted.domains, inside, strict=True)
            if rng.random() < 0.3
        }
        weights = rng.uniform(0.5, 1.5, num_targets).tolist()
        return cls(
            fitted,
            Objective(dict(zip(fitted.targets, weights, strict=True)), over=over),
            [Domain(n, int(count)) for n, count in zip(fitted.domains, tokens, strict=True)],
            Constraints(lower=held, groups=groups, max_epochs=4.0),
        )

    def problem(self) -> Problem:
        limits = Limits.of(self.domains, self.constraints, 1e9)
        scale = AtScale(self.fitted, None, 1e9, None)
        return Problem.of(scale, self.objective, limits, {})

    def start(self) -> np.ndarray:
        return np.full((1, len(self.domains)), 1 / len(self.domains))


class Convex:
    """A case in cvxpy; the weights of the objective are parameters."""

    def __init__(self, case: Case, problem: Problem):
        self.r = cp.Variable(len(case.domains))
        value, limits = case.fitted.formula.expression(self.r), problem.limits
        rows = np.diag(problem.matrix.sum(axis=0)) if len(problem.matrix) == 1 else problem.matrix
        self.scales = np.diag(rows).copy()
        self.weights = cp.Parameter(len(self.scales), nonneg=True, value=self.scales)
        over = cp.sum if len(problem.matrix) == 1 else cp.max
        self.problem = cp.Problem(
            cp.Minimize(over(cp.multiply(self.weights, value))),
            [
                cp.sum(self.r) == 1,
                self.r >= limits.lower,
                self.r <= limits.upper,
                limits.rows @ self.r >= limits.least,
                limits.rows @ self.r <= limits.most,
            ],
        )

    def solve(self, **tolerances: float) -> float:
        """The optimum; NaN where Clarabel fails."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "may be inaccurate": what it reached
            try:
                return float(self.problem.solve(solver=cp.CLARABEL, **tolerances))
            except cp.SolverError:
                return np.nan

    def best(self) -> float:
        """To tight tolerances, where Clarabel reaches them."""
        tight = self.solve(**TIGHT)
        return self.solve() if np.isnan(tight) else tight

    def compiled(self) -> None:
        """Compile once, so that the next solve with other weights only fills them in."""
        self.solve()
        self.weights.value = self.scales.copy()


def slsqp(problem: Problem, start: np.ndarray) -> float:
    """The objective that SLSQP reaches with the same slopes; inf where it breaks a limit."""
    limits, m, k = problem.limits, len(start), len(problem.matrix)
    # Unknowns r and, for the worst of several terms, t >= each of them.
    above = np.zeros(m + (k > 1))
    above[-1] = 1.0
    rows = np.vstack([limits.rows, -limits.rows])
    rows = np.hstack([rows, np.zeros((len(rows), len(above) - m))])
    least = np.concatenate([limits.least, -limits.most])
    total = np.concatenate([np.ones(m), np.zeros(len(above) - m)])
    kept = [
        {"type": "eq", "fun": lambda x: total @ x - 1, "jac": lambda x: total},
        {"type": "ineq", "fun": lambda x: rows @ x - least, "jac": lambda x: rows},
    ]
    bounds = list(zip(limits.lower, limits.upper, strict=True))
    if k > 1:
        kept.append(
            {
                "type": "ineq",
                "fun": lambda x: x[m] - problem.at(x[:m]).parts,
                "jac": lambda x: np.hstack([-problem.at(x[:m]).part_slopes, np.ones((k, 1))]),
            }
        )
        bounds.append((None, None))
        first = np.append(start, problem.at(start).parts.max())
        found = minimize(
            lambda x: (x[m], above),
            first,
            jac=True,
            method="SLSQP",
            bounds=bounds,
            constraints=kept,
            options={"ftol": 1e-10, "maxiter": 500},
        )
    else:
        found = minimize(
            lambda x: (problem.at(x).parts[0], problem.at(x).part_slopes[0]),
            start,
            jac=True,
            method="SLSQP",
            bounds=bounds,
            constraints=kept,
            options={"ftol": 1e-10, "maxiter": 500},
        )
    point = found.x[:m]
    broken = max(
        abs(point.sum() - 1),
        (limits.lower - point).max(),
        (point - limits.upper).max(),
        (least - rows[:, :m] @ point).max(initial=0.0),
    )
    return float(problem.objective(point[None])[0]) if broken < 1e-6 else np.inf


@dataclass
class Found:
    """Of the cases of one size.

    Attributes:
        above: our objective less Clarabel's, relative to it.
        gaps: our certificates, relative.
        failed: cases without an optimum of Clarabel, which count for the times only.
        unheld: certificates smaller than the distance to Clarabel's optimum.
        seconds: what was timed -> seconds of each case.
        slsqp_above: SLSQP's objective less the lower of the two, relative.
    """

    above: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    failed: int = 0
    unheld: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    slsqp_above: list[float] = field(default_factory=list)

    def ratio(self, other: str, ours: str) -> str:
        """Median and quartiles over the cases of how much longer the other takes."""
        ratios = np.array(self.seconds[other]) / np.array(self.seconds[ours])
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        return f"{middle:.1f} ({low:.1f} to {high:.1f})"

    def milliseconds(self, name: str) -> str:
        return f"{1e3 * np.median(self.seconds[name]):.2f}"


BUILT, SOLVED = "mixlaw, built and solved", "mixlaw, solved"
CVXPY, AGAIN, SLSQP = "cvxpy, built and solved", "cvxpy, parameters set and solved", "SLSQP"


def measure(case: Case, found: Found) -> None:
    """Solve one case by every method, in turns, and keep the shortest time of each."""
    problem, start = case.problem(), case.start()
    warm = Convex(case, problem)
    warm.compiled()
    reached: dict[str, Solution | float | None] = {}
    methods: dict[str, Callable[[], Solution | float]] = {
        BUILT: lambda: case.problem().solve(start),
        SOLVED: lambda: problem.solve(start),
        CVXPY: lambda: Convex(case, problem).solve(),
        AGAIN: warm.solve,
        SLSQP: lambda: slsqp(problem, problem.limits.polytope.project(start[0])),
    }
    shortest = dict.fromkeys(methods, np.inf)
    for _ in range(REPEATS):
        for name, method in methods.items():
            began = time.perf_counter()
            reached[name] = method()
            shortest[name] = min(shortest[name], time.perf_counter() - began)
    for name, seconds in shortest.items():
        found.seconds.setdefault(name, []).append(seconds)
    ours, best = reached[SOLVED], Convex(case, problem).best()
    assert isinstance(ours, Solution)
    assert ours.gap is not None
    if np.isnan(best):
        found.failed += 1
        return
    size = abs(best)
    found.above.append((ours.value - best) / size)
    found.gaps.append(ours.gap / size)
    found.unheld += ours.value - ours.gap > best + ORACLE_ERROR * size
    theirs = reached[SLSQP]
    assert isinstance(theirs, float)
    found.slsqp_above.append((theirs - min(best, ours.value)) / size)


def optimum(settings: Settings) -> None:
    """Measure all sizes and publish the tables."""
    seeds = range(1 if settings.quick else SEEDS)
    all_found: dict[int, Found] = {}
    for num_domains in settings.few(list(SIZES), quick=2):
        found = all_found[num_domains] = Found()
        for seed in seeds:
            for formula in (Exponentials, EffectiveData):
                for over in ("mean", "worst"):
                    measure(Case.draw(seed, formula, over, num_domains), found)
    body = f"{ABOUT}\n\n{_times(all_found)}\n\n{_accuracy(all_found)}"
    if settings.quick:
        print(body)
        return
    publish("decide-optimum", TITLE, "python -m benchmarks decide optimum", body)


TITLE = "The optimum beside cvxpy with Clarabel, and SLSQP"
ABOUT = f"""\
{4 * SEEDS} random problems for each number of domains: exponential (M4) and effective-data laws,
the weighted mean and the worst of the targets, epoch caps, lower bounds and three overlapping
groups. One thread; the methods take turns, and the shortest of {REPEATS} times counts. mixlaw's
side is what `optimize` calls, curvature by differences of slopes included. "Parameters set and
solved" is cvxpy's best case: a problem compiled before the clock starts. SLSQP has the same
slopes. cvxpy {version("cvxpy")}, timed at Clarabel's default tolerances. Ratios are medians
(quartiles) of the other's time over mixlaw's."""


def _times(all_found: Mapping[int, Found]) -> str:
    rows = [
        [
            f"{m} x {SIZES[m]}",
            f.milliseconds(BUILT),
            f.milliseconds(SOLVED),
            *(f.milliseconds(name) for name in (CVXPY, AGAIN, SLSQP)),
            f.ratio(CVXPY, BUILT),
            f.ratio(AGAIN, SOLVED),
            f.ratio(SLSQP, SOLVED),
        ]
        for m, f in all_found.items()
    ]
    columns = ["domains x targets", *(f"{n}, ms" for n in (BUILT, SOLVED, CVXPY, AGAIN, SLSQP))]
    ratios = ["cvxpy / mixlaw, built and solved", "cvxpy set / mixlaw solved", "SLSQP / mixlaw"]
    return markdown([*columns, *ratios], rows)


def _accuracy(all_found: Mapping[int, Found]) -> str:
    """Objectives and certificates, relative to the objective."""
    rows = [
        [
            f"{m} x {SIZES[m]}",
            f"{min(f.above):.0e} to {max(f.above):.0e}",
            f"{max(f.gaps):.0e}",
            f"{len(f.above) - f.unheld} of {len(f.above)}",
            f.failed,
            f"{np.median(f.slsqp_above):.0e}",
            f"{sum(a > 1e-6 for a in f.slsqp_above)} of {len(f.above)}",
        ]
        for m, f in all_found.items()
    ]
    columns = [
        "domains x targets",
        "objective less Clarabel's (tolerances 1e-10)",
        "largest certified gap",
        f"certificate holds (to {ORACLE_ERROR:g})",
        "Clarabel failed",
        "SLSQP above the best, median",
        "SLSQP above by 1e-6 or a limit broken",
    ]
    return markdown(columns, rows)
