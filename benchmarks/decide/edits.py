"""What reuse after an edit of the domains costs in quality, and what it saves in runs.

First on made-up truths, where the regret of every decision is known, then on published tables with
edits played on their rows: an "added" domain is one that the old rows had nothing of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.laws import tables
from benchmarks.laws.common import Scoreboard, Settings, report, spearman
from benchmarks.laws.tables import Swarm
from mixlaw.design import design
from mixlaw.errors import FitError
from mixlaw.laws import FittedLaws, fit_laws
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize import Objective
from mixlaw.optimize.decide import Question
from mixlaw.optimize.objective import Forecaster
from mixlaw.plan.edit_plan import RUNS_PER_RATIO, plan_edit
from mixlaw.plan.edits import (
    Add,
    Composition,
    Edit,
    Merge,
    Remove,
    Revise,
    Split,
    shared_mixtures,
)
from mixlaw.plan.reuse import UnitLaw, freeze, refit
from mixlaw.runs import RunTable

RUNS_PER_DOMAIN = 4
"""Of the old swarm."""

NOISE = 0.005
"""Standard deviation of the log of a loss, as between checkpoints of published runs."""

NUM_TARGETS = 8
KEPT, INTERIM = "last mixture, nothing trained", "old law, nothing trained"
FROZEN, REUSE = "frozen ratios (Olmix)", "reuse (mixlaw)"
RECOMPUTE = "new swarm"
EFFECTIVE, M4 = "effective-data truth", "M4 truth"

ABOUT = f"""Regret of the decision after an edit, in thousandths of a nat of the mean of
{NUM_TARGETS} targets; 10 to 17 domains, {RUNS_PER_DOMAIN} old runs for each, noise {NOISE:g} of the
log of each loss. New runs: {RUNS_PER_RATIO} for each ratio that no old run tells about (or as many
as said), a new swarm has {RUNS_PER_DOMAIN} for each domain. The revised domain is half the old
content (in the log of its weight). Frozen ratios: a law of the existing domains as one and the
affected ones, fitted to the same new runs alone."""

ABOUT_TABLES = """Edits played on published rows, scored on held-out rows of the new domains, for
the mean of the targets. The new runs are rows with some of the affected domain, at whatever ratios
(so nothing can be frozen). Add: old rows have none of the domain. Revise: the old content is one
domain of the table, the new content another. Split and merge: two columns summed, rows within two
per cent of the ratio. dclm_swarm and olmix_reuse: every ninth target."""


# --- made-up truths ---------------------------------------------------------------------------

EPS = 1e-3


class Truth:
    """Random laws of `NUM_TARGETS` losses, most with a domain of their own: `c + k S(r)^-a` with
    `S = w_0 + sum_j w_j phi(r_j; g)`, or `c + k exp(t.r)`."""

    law = "truth"
    convex = True
    decreasing = False

    def __init__(self, kind: str, domains: Sequence[str], rng: np.random.Generator):
        self.kind, self.domains = kind, tuple(domains)
        self.targets = tuple(f"loss/t{i}" for i in range(NUM_TARGETS))
        shape = (NUM_TARGETS, len(domains))
        own = rng.permutation(len(domains))[: NUM_TARGETS - 2]
        self.c, self.k = rng.uniform(1.5, 2.5, NUM_TARGETS), rng.uniform(0.7, 1.7, NUM_TARGETS)
        self.a, self.g = rng.uniform(0.1, 0.5, NUM_TARGETS), rng.uniform(0.3, 0.8, NUM_TARGETS)
        self.w0 = rng.uniform(0.02, 0.3, NUM_TARGETS)
        sign, spread, by = (1, 1.2, math.log(5)) if kind == EFFECTIVE else (-1, 0.8, 2.5)
        self.worth = sign * rng.normal(0, spread, shape)  # log w, or t
        self.worth[np.arange(len(own)), own] += sign * by
        if kind == M4:
            self.worth -= self.worth.mean(axis=1, keepdims=True)

    def revise(self, old: str, new: str) -> None:
        """Make the new content half the old."""
        i, j = self.domains.index(old), self.domains.index(new)
        self.worth[:, j] = (self.worth[:, i] + self.worth[:, j]) / 2

    def _data(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """S (n, T) and its slopes (n, T, M)."""
        g, w = self.g[:, None], np.exp(self.worth)
        w = w / w.mean(axis=1, keepdims=True)
        r = np.asarray(weights, float)[:, None, :] + EPS
        span = (1 + EPS) ** g - EPS**g
        return self.w0 + (w * (r**g - EPS**g) / span).sum(axis=2), w * g * r ** (g - 1) / span

    def predict(self, weights, num_params=None, train_tokens=None, *, available_tokens=None):
        if self.kind == EFFECTIVE:
            return self.c + self.k * self._data(weights)[0] ** -self.a
        return self.c + self.k * np.exp(weights @ self.worth.T)

    def gradient(self, weights, num_params=None, train_tokens=None, *, available_tokens=None):
        if self.kind == EFFECTIVE:
            data, slopes = self._data(weights)
            return (-self.a * self.k * data ** (-self.a - 1))[:, :, None] * slopes
        return (self.k * np.exp(weights @ self.worth.T))[:, :, None] * self.worth

    def half_width(
        self, coefficients, weights, num_params, train_tokens, *, level, available_tokens=None
    ):
        return np.zeros(len(weights))

    def difference_scale(
        self, coefficients, weights, num_params, train_tokens, *, available_tokens=None
    ):
        return 0.0


@dataclass(frozen=True)
class Case:
    """An edit whose domains before and after are made of the same atoms."""

    edits: Sequence[Edit]
    before: Composition
    after: Composition


def _case(kind: str, names: Sequence[str]) -> Case:
    first, second, rest = names[0], names[1], names[2:]
    alone = {name: {name: 1.0} for name in names}
    others = {name: {name: 1.0} for name in rest}
    ratios = {f"{first}/a": 0.3, f"{first}/b": 0.7}
    if kind in ("add", "add two"):
        added = ["new"] if kind == "add" else ["new", "newer"]
        grown = alone | {name: {name: 1.0} for name in added}
        edits: list[Edit] = [Add(Domain(name)) for name in added]
        return Case(edits, *_of((*names, *added), alone, grown))
    if kind == "remove":
        return Case([Remove(first)], *_of(names, alone, {second: {second: 1.0}} | others))
    if kind == "split":
        atoms = (*ratios, second, *rest)
        parts = {name: {name: 1.0} for name in atoms}
        whole = {first: ratios, second: {second: 1.0}} | others
        return Case([Split(first, ratios)], *_of(atoms, whole, parts))
    if kind == "merge":
        ratios = {first: 0.3, second: 0.7}
        merged = {"whole": ratios} | others
        return Case([Merge([first, second], "whole", ratios)], *_of(names, alone, merged))
    now = {first: {"now": 1.0}, second: {second: 1.0}} | others
    return Case([Revise(first)], *_of((*names, "now"), alone, now))


def _of(atoms: Sequence[str], before, after) -> tuple[Composition, Composition]:
    return Composition(tuple(atoms), before), Composition(tuple(atoms), after)


KINDS = ("add", "add two", "revise", "split", "remove", "merge")


def _swarm(law: Forecaster, mixtures: Sequence[Mixture], rng: np.random.Generator) -> RunTable:
    """Noisy runs of these mixtures."""
    weights = np.stack([mixture.array(law.domains) for mixture in mixtures])
    values = law.predict(weights, None, None, available_tokens=None)
    values = values * np.exp(NOISE * rng.standard_normal(values.shape))
    return RunTable.from_rows(
        {"run": f"{rng.integers(1 << 60)}"}
        | {f"weight/{name}": share for name, share in zip(law.domains, w, strict=True)}
        | dict(zip(law.targets, v, strict=True))
        for w, v in zip(weights.tolist(), values.tolist(), strict=True)
    )


def _spread(domains: Sequence[str], seed: int) -> list[Mixture]:
    bounds = (np.zeros(len(domains)), np.ones(len(domains)))
    return design(domains, RUNS_PER_DOMAIN * len(domains), bounds=bounds, seed=seed)


def _best(law: Forecaster, support: np.ndarray | None = None) -> Mixture:
    objective = Objective(dict.fromkeys(law.targets, 1.0))
    domains = [Domain(name) for name in law.domains]
    question = Question(law, objective, domains, Constraints(), None, None, support, {})
    problem = question.guarded(question.problem())
    found = problem.solve(question.starts(problem, 0))
    return Mixture.from_array(law.domains, found.proportions)


def _decide(fitted: FittedLaws) -> Mixture:
    return _best(fitted, fitted.cross_validation.runs.weights)


@dataclass(frozen=True)
class Boards:
    """Regrets, and the accounts that plans give of themselves."""

    regret: Scoreboard
    account: Scoreboard


def _synthetic(truth_kind: str, kind: str, seed: int, boards: Boards) -> None:
    rng = np.random.default_rng([seed, KINDS.index(kind), truth_kind == M4])
    names = [f"d{i}" for i in range(int(rng.integers(10, 18)))]
    case = _case(kind, names)
    truth = Truth(truth_kind, case.before.domains, rng)
    if kind == "revise":
        truth.revise(names[0], "now")
    before, after = UnitLaw(truth, case.before), UnitLaw(truth, case.after)
    old = fit_laws(_swarm(before, _spread(before.domains, seed), rng))
    domains = [Domain(name) for name in before.domains]
    shared = shared_mixtures(domains, case.edits)

    def objective(mixture: Mixture) -> float:
        at = mixture.array(after.domains)[None]
        return float(after.predict(at).mean())

    optimum = objective(_best(after))

    def add(way: str, mixture: Mixture) -> None:
        boards.regret.add(way, kind, 1000 * (objective(mixture) - optimum))

    last = _decide(old)
    for each in (RUNS_PER_RATIO, 2 * RUNS_PER_RATIO):
        plan = plan_edit(
            old,
            last,
            case.edits,
            domains=domains,
            objective=Objective(dict.fromkeys(old.targets, 1.0)),
            runs_per_ratio=each,
            seed=seed,
        )
        new = _swarm(after, plan.new_mixtures, rng) if plan.new_mixtures else None
        also = "" if each == RUNS_PER_RATIO else f", {each} runs a ratio"
        if each == RUNS_PER_RATIO:
            add(KEPT, plan.kept)
            add(INTERIM, plan.interim)
            boards.account.add("new runs, reuse", kind, len(plan.new_mixtures))
            boards.account.add("new runs, new swarm", kind, plan.recompute_mixtures)
            boards.account.add("old rows carried exactly", kind, plan.exact_rows)
            boards.account.add("old rows moved by the law", kind, plan.moved_rows)
            frozen = freeze(plan.kept, plan.affected, domains=after.domains)
            best = frozen.expand_mixture(_best(UnitLaw(after, frozen)))
            loss = 1000 * (objective(best) - optimum)
            boards.account.add("loss by kept ratios, expected", kind, 1000 * plan.expected_loss)
            boards.account.add("loss by kept ratios, true", kind, loss)
        if new is None:
            if each == RUNS_PER_RATIO:
                add(REUSE, _decide(refit(old, shared, seed=seed)))
            continue
        add(REUSE + also, _decide(refit(old, shared, new, seed=seed)))
        frozen = freeze(plan.interim, plan.affected, domains=after.domains)
        try:
            add(FROZEN + also, frozen.expand_mixture(_decide(_law_of(frozen, new))))
        except FitError as error:
            boards.regret.refuse(FROZEN + also, kind, str(error).partition(";")[0])
    add(RECOMPUTE, _decide(fit_laws(_swarm(after, _spread(after.domains, seed), rng))))


def _law_of(units: Composition, runs: RunTable) -> FittedLaws:
    """Fitted to the runs as mixtures of units."""
    tokens = np.full((len(runs), len(units.names)), np.inf)
    weights = units.reduce(runs.weights)[0]
    return fit_laws(replace(runs, domains=units.names, weights=weights, available_tokens=tokens))


# --- published tables -------------------------------------------------------------------------

NONE, SOME, AT_RATIO, RARE = 1e-6, 0.02, 0.02, 0.002
Convert = Callable[[RunTable], RunTable]


@dataclass(frozen=True, eq=False)
class Played:
    """An edit played on the rows of a table.

    Attributes:
        before, after: rows as runs over the old and the new domains.
        old, new, swarm: (n,) bool, the rows that may be old runs, new ones, and those of a new
            swarm (and held-out ones).
    """

    edits: Sequence[Edit]
    before: Convert
    after: Convert
    old: np.ndarray
    new: np.ndarray
    swarm: np.ndarray


def _drop(name: str, rename: dict[str, str] | None = None) -> Convert:
    def convert(runs: RunTable) -> RunTable:
        keep = [j for j, domain in enumerate(runs.domains) if domain != name]
        names = tuple((rename or {}).get(runs.domains[j], runs.domains[j]) for j in keep)
        weights = runs.weights[:, keep]
        weights = weights / weights.sum(axis=1, keepdims=True)
        tokens = runs.available_tokens[:, keep]
        return replace(runs, domains=names, weights=weights, available_tokens=tokens)

    return convert


def _sum(units: Composition) -> Convert:
    def convert(runs: RunTable) -> RunTable:
        weights = units.reduce(runs.weights)[0]
        tokens = units.unit_tokens(runs.available_tokens)
        return replace(runs, domains=units.names, weights=weights, available_tokens=tokens)

    return convert


def _as_it_is(runs: RunTable) -> RunTable:
    return runs


def _play(kind: str, runs: RunTable, rng: np.random.Generator) -> Played:
    """An edit of domains drawn at random among those that are not rare."""
    w, names = runs.weights, runs.domains
    used = np.flatnonzero(w.mean(axis=0) > RARE)
    i, j = rng.permutation(used)[:2].tolist()
    first, second = names[i], names[j]
    everything = np.ones(len(runs), bool)
    if kind == "add":
        edits = [Add(Domain(first))]
        return Played(edits, _drop(first), _last(first), w[:, i] < NONE, w[:, i] > SOME, everything)
    if kind == "remove":
        lacks = w[:, i] < NONE
        return Played([Remove(first)], _as_it_is, _drop(first), everything, ~everything, lacks)
    if kind == "revise":
        was, now = w[:, j] < NONE, w[:, i] < NONE
        new = now & (w[:, j] > SOME)
        return Played([Revise(first)], _drop(second), _drop(first, {second: first}), was, new, now)
    total = w[:, [i, j]].mean(axis=0)
    ratios = {first: float(total[0] / total.sum()), second: float(total[1] / total.sum())}
    alone = {n: {n: 1.0} for n in names if n not in ratios}
    units = Composition(names, {"whole": ratios} | alone)
    at_ratio = units.reduce(w)[1] < AT_RATIO
    if kind == "merge":
        edits = [Merge([first, second], "whole", ratios)]
        return Played(edits, _as_it_is, _sum(units), everything, ~everything, at_ratio)
    return Played([Split("whole", ratios)], _sum(units), _as_it_is, at_ratio, ~at_ratio, everything)


def _last(name: str) -> Convert:
    """The columns in another order."""

    def convert(runs: RunTable) -> RunTable:
        order = [j for j, domain in enumerate(runs.domains) if domain != name]
        order.append(runs.domains.index(name))
        names = tuple(runs.domains[j] for j in order)
        tokens = runs.available_tokens[:, order]
        return replace(runs, domains=names, weights=runs.weights[:, order], available_tokens=tokens)

    return convert


OLD_RUNS = {"regmix_pile": 64, "dclm_swarm": 64, "olmix_reuse": 32}
PLAYED = ("add", "revise", "split", "remove", "merge")
OLD_ONLY = "old runs carried, none new"
FEWEST_TEST = 6


def _tables() -> dict[str, Swarm]:
    return {
        "regmix_pile": tables.regmix_pile(),
        "dclm_swarm": _every_ninth(tables.dclm_swarm()),
        "olmix_reuse": _every_ninth(tables.olmix_reuse()),
    }


def _every_ninth(swarm: Swarm) -> Swarm:
    runs = swarm.runs
    return replace(swarm, runs=replace(runs, targets=runs.targets[::9], values=runs.values[:, ::9]))


def _draw(kind: str, name: str, swarm: Swarm, seed: int):
    """An edit with enough rows: (played, old, new, swarm, test), rows of the table each."""
    rng = np.random.default_rng([seed, PLAYED.index(kind)])
    count = OLD_RUNS[name]
    for _ in range(200):
        played = _play(kind, swarm.runs, rng)
        rows = rng.permutation(swarm.pool)
        test = swarm.test
        if len(test) == 0:
            test, rows = rows[: len(rows) // 4], rows[len(rows) // 4 :]
        old, new, fresh = (rows[mask[rows]] for mask in (played.old, played.new, played.swarm))
        test = test[played.swarm[test]]
        domains = len(swarm.runs.domains)
        again = count if kind == "revise" else math.ceil(count * domains / (domains - 1))
        again = math.ceil(count * (domains - 1) / domains) if not played.new.any() else again
        enough = len(old) >= count and len(fresh) >= again and len(test) >= FEWEST_TEST
        if enough and (len(new) >= RUNS_PER_RATIO or not played.new.any()):
            return played, old[:count], new[:RUNS_PER_RATIO], rng.permutation(fresh)[:again], test
    return None


def _published(kind: str, name: str, swarm: Swarm, seed: int, boards: dict[str, Scoreboard]):
    drawn = _draw(kind, name, swarm, seed)
    if drawn is None:
        boards["spearman"].refuse(REUSE, kind, "no domain leaves enough rows")
        return
    played, old, new, fresh, test = drawn
    fitted = fit_laws(played.before(swarm.runs.select(old)))
    domains = [Domain(domain) for domain in fitted.domains]
    shared = shared_mixtures(domains, played.edits)
    held_out = played.after(swarm.runs.select(test))
    order = [held_out.domains.index(domain) for domain in shared.new.domains]
    observed = np.stack([held_out.column(t) for t in fitted.targets], axis=1).mean(axis=1)

    def add(way: str, laws: Forecaster, weights: np.ndarray, runs: int) -> None:
        predicted = laws.predict(weights, None, None, available_tokens=None).mean(axis=1)
        ranking = spearman(predicted[:, None], observed[:, None])[0]
        boards["spearman"].add(way, kind, ranking)
        boards["error"].add(way, kind, np.abs(predicted - observed).mean())
        loss = observed[np.argmin(predicted)] - observed.min()
        boards["regret"].add(way, kind, 1000 * loss)
        boards["runs"].add(way, kind, runs)

    weights = held_out.weights[:, order]
    if len(new):
        add(OLD_ONLY, refit(fitted, shared, seed=seed), weights, 0)
    else:
        units = shared.new.reduce(weights)[0]
        add("old law as it is", UnitLaw(fitted, shared.old), units, 0)
    new_runs = played.after(swarm.runs.select(new)) if len(new) else None
    add(REUSE, refit(fitted, shared, new_runs, seed=seed), weights, len(new))
    again = fit_laws(played.after(swarm.runs.select(fresh)), fitted.targets)
    add(RECOMPUTE, again, held_out.weights, len(fresh))


# --- all --------------------------------------------------------------------------------------


def edits(settings: Settings) -> None:
    """Regrets on made-up truths, then rankings and regrets on published rows."""
    parts = [ABOUT]
    for truth_kind in (EFFECTIVE, M4):
        boards = Boards(Scoreboard(), Scoreboard())
        for kind in settings.few(KINDS, 2):
            for seed in range(settings.seeds):
                _synthetic(truth_kind, kind, seed, boards)
        parts += [f"## {truth_kind}", boards.regret.table("regret / 1000", digits=1)]
        parts += [boards.regret.notes(), boards.account.table("the plan's account", digits=1)]
    parts.append(ABOUT_TABLES)
    found = _tables()
    for name in settings.few(list(found)):
        scores = {score: Scoreboard() for score in ("spearman", "error", "regret", "runs")}
        for kind in settings.few(PLAYED, 2):
            for seed in range(settings.seeds):
                _published(kind, name, found[name], seed, scores)
        parts.append(f"## {name}")
        parts.append(scores["spearman"].table("rank correlation with held-out rows", digits=3))
        parts.append(scores["error"].table("mean absolute error", digits=4))
        parts.append(scores["regret"].table("regret / 1000 of the row picked", digits=1))
        parts += [scores["runs"].table("new runs", digits=0), scores["spearman"].notes()]
    body = "\n\n".join(part for part in parts if part)
    report(settings, "edits", "Edits of domains: reuse against a new swarm", body, group="decide")
