"""Runs until the decision is good: planned runs against random ones.

Both arms fit the same law and decide by the same rule; they differ in the runs they have done.
Replayed tables: a seed sees a random part of the rows, may run any of them, and decides for the
row that the law predicts best; regret is against the best row as measured. Simulated laws: any
mixture may be run, with noise; the decision is the law's optimum within the trained range of each
domain (the default support guard), and regret is the truth's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from benchmarks.laws import tables
from benchmarks.laws.common import Settings, report
from benchmarks.laws.tables import Swarm
from benchmarks.table import markdown
from mixlaw.errors import FitError
from mixlaw.laws import FittedLaws, fit_laws
from mixlaw.optimize.polytope import Polytope
from mixlaw.optimize.solve import Values, minimize_mixture
from mixlaw.plan.proposals import propose
from mixlaw.plan.question import Question
from mixlaw.runs import RunTable

LAW = ["effective"]
GUARDED = (
    "The decision of both arms is the law's optimum within the range that was trained, so part of "
    "what planned runs gain in simulations is that they widen it; decided without that limit, 10 "
    "domains need 16 planned runs against 20 random ones for 1 %, and 17 domains show no gain "
    "(docs/decisions.md)."
)

BATCH = 4
PLANNED_UP_TO = 24
RANDOM_COUNTS = (*range(4, 25, 4), 32, 40, 56, 80, 112, 160)
LEVELS = (0.05, 0.02, 0.01)
"""Regret over the difference between the median mixture and the best."""

NUM_TARGETS, NOISE = 4, 0.005
"""Of simulated laws; the noise is a standard deviation in nats."""


@dataclass(frozen=True, eq=False)
class World:
    """What can be run and what it shows.

    Attributes:
        question: what the planner is asked.
        random: (n, M) mixtures in the order in which the random arm runs them.
        run: mixtures (n, M) and a generator -> what they show (n, T).
        regret: of the decision by fitted laws after runs of mixtures (n, M), over the spread.
        spread: between the median mixture and the best, in the objective's unit.
    """

    question: Question
    random: np.ndarray
    run: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    regret: Callable[[FittedLaws, np.ndarray], float]
    spread: float


@dataclass(frozen=True)
class Path:
    """One arm, one seed: number of runs -> regret of the decision, and what the planner expected
    it to be (where it had a law)."""

    regret: dict[int, float]
    expected: dict[int, float]


def few_tasks() -> Swarm:
    """dclm_swarm with every eighth task, so that a fit takes a tenth of a second."""
    swarm = tables.dclm_swarm()
    runs = swarm.runs
    return replace(swarm, runs=replace(runs, targets=runs.targets[::8], values=runs.values[:, ::8]))


TABLES: dict[str, tuple[Callable[[], Swarm], int]] = {
    "regmix_pile": (tables.regmix_pile, 256),
    "slimpajama_tasks": (tables.slimpajama_tasks, 256),
    "dclm_swarm": (few_tasks, 96),
    "dmsl 122M": (tables.slimpajama_122m, 45),
}
"""Name -> the table, and how many of its rows a seed sees."""


def complete(runs: RunTable) -> RunTable:
    """The rows with all targets."""
    return runs.select(np.flatnonzero(np.isfinite(runs.values).all(axis=1)))


def replayed(swarm: Swarm, size: int, seed: int) -> World:
    """A part of a published table."""
    runs = swarm.runs.select(swarm.pool)
    runs = complete(runs)
    runs = runs.select(np.random.default_rng(seed).permutation(len(runs))[:size])
    share = 1 / len(runs.targets)
    question = Question(
        domains=runs.domains,
        objective=dict.fromkeys(runs.targets, share),
        bounds=(np.zeros(len(runs.domains)), np.ones(len(runs.domains))),
        among=runs.weights,
        laws=LAW,
    )
    true = runs.values.mean(axis=1)
    spread = float(np.median(true) - true.min())

    def run(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return runs.values[np.abs(runs.weights - weights[:, None]).max(axis=2).argmin(axis=1)]

    def regret(fitted: FittedLaws, trained: np.ndarray) -> float:
        predicted = fitted.predict(runs.weights).mean(axis=1)
        return float(true[np.argmin(predicted)] - true.min()) / spread

    return World(question, runs.weights, run, regret, spread)


def truth(kind: str, num_domains: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Losses (n, T) of mixtures (n, M) by a random M4 or effective-data law."""
    rng = np.random.default_rng([seed, num_domains, kind == "M4"])
    floor, size = rng.uniform(1.2, 2.2, NUM_TARGETS), rng.uniform(0.6, 1.5, NUM_TARGETS)
    if kind == "M4":
        slopes = -1.5 * rng.lognormal(0, 0.7, (NUM_TARGETS, num_domains))
        slopes -= slopes.mean(axis=1, keepdims=True)
        return lambda r: floor + size * np.exp(r @ slopes.T)
    worth = rng.lognormal(-2, 1.2, (num_domains, NUM_TARGETS))
    power, curve = rng.uniform(0.1, 0.4, NUM_TARGETS), rng.uniform(0.3, 0.8, NUM_TARGETS)

    def effective(r: np.ndarray) -> np.ndarray:
        data = [((r + 1e-3) ** g - 1e-3**g) @ worth[:, t] for t, g in enumerate(curve)]
        return floor + size * (0.05 + np.stack(data, axis=1)) ** -power

    return effective


def optimum(
    objective: Callable[[np.ndarray], np.ndarray], lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """(M,) within bounds, of values (n,) of mixtures (n, M), by slopes from differences."""
    num_domains = len(lower)

    def at(point: np.ndarray) -> Values:
        values = objective(np.vstack([point, point + 1e-6 * np.eye(num_domains)]))
        slope = (values[1:] - values[0]) / 1e-6
        return Values(values[:1], slope[None], np.empty(0), np.empty((0, num_domains)))

    starts = np.random.default_rng(0).dirichlet(np.ones(num_domains), 3)
    space = Polytope(lower, upper)
    return minimize_mixture(at, space, starts=starts, convex=False).proportions


def simulated(kind: str, num_domains: int, seed: int) -> World:
    """Noisy runs of a law that is known; the random arm draws Dirichlet(1)."""
    losses = truth(kind, num_domains, seed)
    rng = np.random.default_rng([seed, 1])
    random = rng.dirichlet(np.ones(num_domains), max(RANDOM_COUNTS))
    question = Question(
        domains=[f"d{j}" for j in range(num_domains)],
        objective={f"loss/t{t}": 1 / NUM_TARGETS for t in range(NUM_TARGETS)},
        bounds=(np.zeros(num_domains), np.ones(num_domains)),
        laws=LAW,
    )

    def objective(weights: np.ndarray) -> np.ndarray:
        return losses(weights).mean(axis=1)

    best = objective(optimum(objective, *question.bounds)[None])[0]
    drawn = objective(rng.dirichlet(np.ones(num_domains), 1000))
    spread = float(np.median(drawn) - best)

    def run(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return losses(weights) + NOISE * rng.normal(size=(len(weights), NUM_TARGETS))

    def regret(fitted: FittedLaws, trained: np.ndarray) -> float:
        decision = optimum(
            lambda r: fitted.predict(r).mean(axis=1), trained.min(axis=0), trained.max(axis=0)
        )
        return float(objective(decision[None])[0] - best) / spread

    return World(question, random, run, regret, spread)


def walk(world: World, *, planned: bool, seed: int, counts: Sequence[int]) -> Path:
    """Run one arm up to the last of the counts."""
    names, rng = tuple(world.question.domains), np.random.default_rng([seed, 2])
    weights, runs = np.empty((0, len(names))), None
    path = Path({}, {})
    columns = [*(f"weight/{name}" for name in names), *world.question.objective]
    values = np.empty((0, len(world.question.objective)))
    for count in counts:
        new = world.random[len(weights) : count]
        if planned:
            plan = propose(runs, world.question, count - len(weights), threshold=0.0, seed=seed)
            new = np.array([proposal.mixture.array(names) for proposal in plan.proposals])
            if plan.expected_regret is not None:
                path.expected[len(weights)] = plan.expected_regret / world.spread
        weights = np.concatenate([weights, new])
        values = np.concatenate([values, world.run(new, rng)])
        rows = np.hstack([weights, values]).tolist()
        runs = RunTable.from_rows(dict(zip(columns, row, strict=True)) for row in rows)
        try:
            fitted = fit_laws(runs, list(world.question.objective), candidates=LAW)
        except FitError:
            continue  # too few runs: no decision yet
        path.regret[count] = world.regret(fitted, weights)
    return path


def needed(curve: dict[int, float], level: float) -> float:
    """Runs after which the regret stays at or below a level; infinite if it does not."""
    above = [count for count, regret in curve.items() if regret > level]
    later = [count for count in curve if count > max(above, default=0)]
    return min(later, default=math.inf)


def mean_curve(paths: Sequence[Path]) -> dict[int, float]:
    """Count -> mean regret over seeds, where every seed has a decision."""
    counts = sorted(set.intersection(*(set(path.regret) for path in paths)))
    return {count: float(np.mean([path.regret[count] for path in paths])) for count in counts}


def worlds(settings: Settings) -> Iterator[tuple[str, Callable[[int], World]]]:
    """Name -> the world of a seed."""
    for name, (load, size) in settings.few(list(TABLES.items())):
        swarm = load()
        yield name, lambda seed, swarm=swarm, size=size: replayed(swarm, size, seed)
    for kind in ("effective", "M4"):
        for m in settings.few((5, 10, 17)):
            yield (
                f"simulated {kind}, {m} domains",
                lambda seed, kind=kind, m=m: simulated(kind, m, seed),
            )


@dataclass(frozen=True)
class Verdict:
    """Runs that both arms need for a level; infinite where they do not arrive.

    Attributes:
        most_planned, most_random: how many were tried.
    """

    planned: float
    random: float
    most_planned: int
    most_random: int

    @property
    def ratio(self) -> float:
        """Random runs for each planned one, with an arm that does not arrive counted as if it did
        with its last run; NaN when neither arrives."""
        if math.isinf(self.planned) and math.isinf(self.random):
            return math.nan
        return min(self.random, self.most_random) / min(self.planned, self.most_planned)

    def __str__(self) -> str:
        arms = ((self.planned, self.most_planned), (self.random, self.most_random))
        return " / ".join(f">{most}" if math.isinf(n) else f"{n:.0f}" for n, most in arms)


def planner(settings: Settings) -> None:
    """All tables and simulated laws, and the constants of `mixlaw.plan.budget`."""
    body = "\n\n".join([races(settings), learning(settings), drift(settings)])
    report(settings, "planner", "Runs until the decision is good", body, group="decide")


def races(settings: Settings) -> str:
    """Both arms everywhere."""
    last = 3 * BATCH if settings.quick else PLANNED_UP_TO
    planned_counts = list(range(BATCH, last + 1, BATCH))
    counts_shown = planned_counts if settings.quick else list(RANDOM_COUNTS)
    needs, curves, ratios = [], [], []
    for name, world_of in worlds(settings):
        planned, random = [], []
        for seed in range(settings.seeds):
            world = world_of(seed)
            few = [count for count in counts_shown if count <= 0.8 * len(world.random)]
            planned.append(walk(world, planned=True, seed=seed, counts=planned_counts))
            random.append(walk(world, planned=False, seed=seed, counts=few))
        arms = {"planned": mean_curve(planned), "random": mean_curve(random)}
        most = max(arms["random"])
        found = [
            Verdict(needed(arms["planned"], level), needed(arms["random"], level), last, most)
            for level in LEVELS
        ]
        needs.append([name, *found])
        ratios.append([verdict.ratio for verdict in found])
        for arm, curve in arms.items():
            shown = [f"{curve[c]:.3f}" if c in curve else "" for c in counts_shown]
            curves.append([name, arm, *shown])
        curves.append([name, "expected", *_expected(planned, counts_shown)])
        print(name, *found, sep=" | ", flush=True)
    with np.errstate(invalid="ignore"):
        middle = [f"{ratio:.1f}" for ratio in np.nanmedian(ratios, axis=0)]
    return "\n\n".join(
        [
            f"Law {LAW[0]!r}, {settings.seeds} seeds, batches of {BATCH}. Regret over the "
            "difference between the median mixture and the best; `>n`: not within n runs.",
            "**Planned / random runs until the mean regret stays at or below**\n\n"
            + markdown(["", *(f"{level:.0%}" for level in LEVELS)], needs),
            "Median over the lines of random runs for each planned one, an arm that does not "
            f"arrive counted as arriving with its last run: {', '.join(middle)}. {GUARDED}",
            "**Mean regret by number of runs**; `expected`: what the planner said it would be\n\n"
            + markdown(["", "arm", *map(str, counts_shown)], curves),
        ]
    )


def _expected(paths: Sequence[Path], counts: Sequence[int]) -> list[str]:
    """Mean expected regret at each count."""
    out = []
    for count in counts:
        known = [path.expected[count] for path in paths if count in path.expected]
        out.append(f"{np.mean(known):.3f}" if known else "")
    return out


MIXTURES_A_DOMAIN = (0.7, 1, 2, 4, 8)


def learning(settings: Settings) -> str:
    """How the error on mixtures not trained, and the regret, fall with the number of runs."""
    lines, found = [], []
    for name, (load, _) in settings.few(list(TABLES.items())):
        swarm = load()
        runs = complete(swarm.runs.select(swarm.pool))
        true = runs.values.mean(axis=1)
        spread = true.std()
        for share in MIXTURES_A_DOMAIN:
            m = max(6, round(share * len(runs.domains)))
            if m > 0.7 * len(runs):
                continue
            errors, regrets = [], []
            for seed in range(settings.seeds):
                order = np.random.default_rng(seed).permutation(len(runs))
                fitted = fit_laws(runs.select(order[:m]), candidates=LAW)
                predicted = fitted.predict(runs.weights).mean(axis=1)
                errors.append(np.var((predicted - true)[order[m:]]) / spread**2)
                regrets.append((true[np.argmin(predicted)] - true.min()) / spread)
            found.append((m / len(runs.domains), np.mean(errors), np.mean(regrets)))
            lines.append([name, m, *(f"{x:.3f}" for x in found[-1])])
    a_domain, error, regret = np.array(found).T
    slope, level = np.polyfit(np.log(a_domain), np.log(error), 1)
    off = np.std(np.log(error) - level - slope * np.log(a_domain))
    return (
        "**Error by number of random runs**: variance of the error of the mean target on rows not "
        "trained over that of the rows; regret over the standard deviation of the rows\n\n"
        + markdown(["", "runs", "runs a domain", "error", "regret"], lines)
        + f"\n\nError = {np.exp(level):.2f} (runs a domain)^{slope:.2f}, within a factor of "
        f"{np.exp(off):.1f} (one standard deviation); regret / error: "
        f"{regret.sum() / error.sum():.2f} over all, {np.median(regret / error):.2f} in the median."
    )


def drift(settings: Settings) -> str:
    """How much of the variance over mixtures another scale leaves unexplained, an e-fold."""
    pairs = np.array(list(pairs_of_scales()))
    rates = (1 - pairs[:, 1] ** 2) / pairs[:, 0]
    long = pairs[:, 0] >= LONG_STEP
    low, middle, high = np.quantile(rates, (0.25, 0.5, 0.75))
    return (
        "**Order of mixtures across scales**: 1 - r^2 of the mean target between two sizes of the "
        f"same mixtures, over log(N'/N): median {middle:.3f}, quartiles {low:.3f} and {high:.3f}, "
        f"of {len(pairs)} pairs with {FEWEST_SHARED} shared mixtures or more (dmsl_slimpajama, "
        f"5Mix, RedPajama, tiny_env_swarm); over the {long.sum()} steps of {LONG_STEP} e-folds or "
        f"more, where seed noise counts for less, {np.median(rates[long]):.3f}."
    )


LONG_STEP = 1.5
FEWEST_SHARED = 8


def pairs_of_scales() -> Iterator[tuple[float, float]]:
    """(e-folds of size, correlation over mixtures) of every two sizes, at the longest horizon that
    both have (for the first two suites: at the end of training)."""
    tiny = [tables.tiny_env(size) for size in tables.TINY_SIZES]
    slimpajama = tables.final(tables.slimpajama_scales())
    ends = [slimpajama.select(slimpajama.num_params == n) for n in np.unique(slimpajama.num_params)]
    for group in (tiny, ends):
        for below, above in combinations(group, 2):
            yield from correlation(below, above)
    for suite in ("5mix", "redpajama"):
        runs = tables.pile_suite(suite)
        for small, large in combinations(np.unique(runs.num_params), 2):
            for tokens in np.unique(runs.train_tokens)[::-1]:
                at = runs.train_tokens == tokens
                rows = [np.flatnonzero(at & (runs.num_params == n)) for n in (small, large)]
                if min(map(len, rows)) < FEWEST_SHARED:
                    continue
                found = list(correlation(*(runs.select(keep) for keep in rows)))
                if found:
                    yield found[0]
                    break


def correlation(below: RunTable, above: RunTable) -> Iterator[tuple[float, float]]:
    """(e-folds of size, correlation of the mean target), if they share enough mixtures."""
    low, high = by_mixture(below), by_mixture(above)
    shared = sorted(set(low) & set(high))
    if len(shared) >= FEWEST_SHARED:
        pair = np.array([(low[key], high[key]) for key in shared])
        e_folds = math.log(above.num_params[0] / below.num_params[0])
        yield e_folds, float(np.corrcoef(pair.T)[0, 1])


def by_mixture(runs: RunTable) -> dict[tuple[float, ...], float]:
    """Mixture -> mean target."""
    keys = [tuple(row) for row in np.round(runs.weights, 5).tolist()]
    means = runs.values.mean(axis=1)
    return {k: float(mean) for k, mean in zip(keys, means, strict=True) if np.isfinite(mean)}
