"""Edits of domains: what is shared, which runs are carried, what reuse costs, on known laws."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.design import design
from mixlaw.errors import DesignError, InfeasibleError, MixtureError, RunTableError
from mixlaw.laws import fit_laws
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize import Objective, optimize
from mixlaw.plan.edit_plan import EditPlan, plan_edit
from mixlaw.plan.edits import (
    Add,
    Composition,
    Merge,
    Remove,
    Revise,
    Split,
    apply_edits,
    shared_mixtures,
)
from mixlaw.plan.reuse import UnitLaw, carry_runs, freeze, refit
from mixlaw.runs import RunTable
from mixlaw.schedule import Schedule

NAMES = ("web", "code", "books", "wiki", "math")
DOMAINS = [Domain(name, available_tokens=1000 * (j + 1)) for j, name in enumerate(NAMES)]
NEW = Domain("news", 500)
TARGETS = tuple(f"loss/t{i}" for i in range(4))
EVERY_KIND = [
    [Add(NEW)],
    [Remove("books")],
    [Split("web", {"news": 0.25, "forums": 0.75})],
    [Merge(["code", "math"], "technical")],
    [Revise("wiki")],
    [Remove("books"), Add(NEW), Merge(["code", "math"], "technical")],
]


class Truth:
    """Losses 1 + k S^-a with S = .1 + sum_j w_j sqrt(r_j + .001), convex and falling."""

    def __init__(self, domains, seed=0):
        rng = np.random.default_rng(seed)
        self.domains = tuple(domains)
        self.w = np.exp(rng.normal(0, 1, (len(TARGETS), len(self.domains))))
        self.a = rng.uniform(0.2, 0.6, len(TARGETS))

    def losses(self, weights):
        data = 0.1 + np.sqrt(np.asarray(weights) + 1e-3) @ self.w.T
        return 1 + data**-self.a

    def objective(self, mixture):
        return float(self.losses(mixture.array(self.domains)[None]).mean())

    def runs(self, weights, columns=None):
        """A table of these mixtures (n, M); `columns` names the domains to keep."""
        columns = columns or self.domains
        values = self.losses(weights)
        return RunTable.from_rows(
            {"run": f"{weights[i].tolist()}", "num_params": 10, "train_tokens": 200}
            | {f"weight/{d}": weights[i][self.domains.index(d)] for d in columns}
            | dict(zip(TARGETS, values[i], strict=True))
            for i in range(len(weights))
        )


def swarm(count, domains=NAMES, seed=0):
    """Well spread mixtures (n, M)."""
    bounds = (np.zeros(len(domains)), np.ones(len(domains)))
    chosen = design(domains, count, bounds=bounds, seed=seed)
    return np.stack([mixture.array(domains) for mixture in chosen])


def decide(fitted, support, constraints=None):
    return optimize(
        fitted,
        Objective(dict.fromkeys(TARGETS, 1.0)),
        domains=[Domain(name) for name in fitted.domains],
        constraints=constraints or Constraints(),
        num_params=None,
        train_tokens=None,
        support=support,
    ).recommended


@pytest.fixture(scope="module")
def old():
    """Truth over the old domains and one more, the laws of old runs, and the old decision."""
    truth = Truth((*NAMES, "news"))
    weights = np.column_stack([swarm(30), np.zeros(30)])
    fitted = fit_laws(truth.runs(weights, NAMES), TARGETS, candidates=["effective"])
    return truth, fitted, decide(fitted, fitted.cross_validation.runs.weights)


def plan(old, edits, **changes):
    _, fitted, mixture = old
    arguments = {"domains": DOMAINS, "objective": Objective(dict.fromkeys(TARGETS, 1.0))}
    return plan_edit(fitted, mixture, edits, **{**arguments, **changes})


# --- edits as values ---------------------------------------------------------------------------


def test_new_domains_in_order_with_their_tokens():
    edits = [
        Split("web", {"news": 0.25, "forums": 0.75}),
        Merge(["code", "math"], "technical"),
        Remove("wiki"),
        Revise("books", Domain("books", 77)),
        Add(Domain("law", 5)),
    ]
    assert apply_edits(DOMAINS, edits) == [
        Domain("news", 250),
        Domain("forums", 750),
        Domain("technical", 7000),
        Domain("books", 77),
        Domain("law", 5),
    ]


def test_a_whole_at_other_ratios_runs_out_with_its_first_part():
    merged = apply_edits(DOMAINS, [Merge(["web", "code"], "all", {"web": 0.5, "code": 0.5})])[0]
    assert merged == Domain("all", 2000)  # web has 1,000 tokens, half of it


def test_parts_given_as_domains_have_natural_ratios():
    split = Split("web", [Domain("news", 100), Domain("forums", 300)])
    assert split.ratios == {"news": 0.25, "forums": 0.75}
    assert apply_edits(DOMAINS, [split])[:2] == [Domain("news", 100), Domain("forums", 300)]


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (lambda: [Remove("wbe")], "did you mean 'web'"),
        (lambda: [Revise("wikis")], "did you mean 'wiki'"),
        (lambda: [Add(Domain("code"))], "name of another domain.*Revise"),
        (lambda: [Split("web", {"code": 0.5, "b": 0.5})], "name of another domain"),
        (lambda: [Remove("web"), Add(Domain("web"))], "name of another domain"),
        (lambda: [Add(Domain("a")), Merge(["web", "code"], "a")], "two edits make 'a'"),
        (lambda: [Split("web", {"a": 1.0})], "split into 1 part"),
        (lambda: [Split("web", {"a": 0.5, "b": 0.6})], "sum to 1.1"),
        (lambda: [Split("web", {"a": 1.5, "b": -0.5})], "finite and > 0"),
        (lambda: [Merge(["web"], "a")], "two domains or more"),
        (lambda: [Merge(["web", "web"], "a")], "named twice"),
        (lambda: [Merge(["web", "code"], "a", {"web": 1.0})], "give one for each"),
        (lambda: [Merge(["web", "code"], "a", {"web": 0.5, "code": 0.4})], "sum to 0.9"),
        (lambda: [Remove("web"), Revise("web")], "edited twice"),
        (lambda: [Revise("web", Domain("net"))], "keeps its name"),
        (lambda: [Remove(name) for name in NAMES], "remove every domain"),
        (lambda: [Revise(name) for name in NAMES], "nothing can be reused"),
        (list, "no edit is given"),
    ],
)
def test_edits_that_make_no_sense(edits, message):
    with pytest.raises(MixtureError, match=message):
        shared_mixtures(DOMAINS, edits())


def test_a_merge_by_tokens_needs_tokens():
    with pytest.raises(MixtureError, match="token counts"):
        apply_edits([Domain("a"), Domain("b", 5)], [Merge(["a", "b"], "c")])


# --- compositions ------------------------------------------------------------------------------


def shares(count):
    return st.lists(st.floats(0.01, 1), min_size=count, max_size=count).map(
        lambda weights: np.array(weights) / sum(weights)
    )


@given(shares(5), shares(3))
def test_frozen_ratios_survive_the_way_down_and_up(mixture, units):
    frozen = freeze(Mixture.from_array(NAMES, mixture), ("code", "math"), domains=NAMES)
    full = frozen.expand(units[None])
    assert frozen.names == ("existing", "code", "math")
    assert full.sum() == pytest.approx(1)
    back, misplaced = frozen.reduce(full)
    np.testing.assert_allclose(back[0], units, atol=1e-12)
    assert misplaced[0] < 1e-12
    unaffected = [0, 2, 3]
    np.testing.assert_allclose(
        full[0, unaffected] / full[0, unaffected].sum(),
        mixture[unaffected] / mixture[unaffected].sum(),
        rtol=1e-9,
    )


@given(shares(5), st.sampled_from(EVERY_KIND))
def test_the_nearest_shared_mixture(mixture, edits):
    shared = shared_mixtures(DOMAINS, edits)
    units, misplaced = shared.old.reduce(mixture[None])
    nearest = shared.old.expand(units)
    assert units.sum() == pytest.approx(1)
    assert shared.new.expand(units).sum() == pytest.approx(1)
    assert misplaced[0] == pytest.approx(0.5 * np.abs(nearest - mixture).sum())
    again, nothing = shared.old.reduce(nearest)
    np.testing.assert_allclose(again, units, atol=1e-12)
    assert nothing[0] < 1e-12


def test_a_mixture_of_nothing_shared_stands_elsewhere_altogether():
    composition = Composition(("a", "b", "c"), {"ab": {"a": 0.5, "b": 0.5}})
    assert composition.reduce(np.array([[0.0, 0.0, 1.0]]))[1].tolist() == [1.0]


def test_existing_yields_its_name_to_a_domain():
    frozen = freeze(Mixture.uniform(["existing", "a"]), ["b"], domains=("existing", "a", "b"))
    assert frozen.names == ("existing'", "b")


def test_nothing_to_freeze():
    with pytest.raises(MixtureError, match="no ratios to freeze"):
        freeze(Mixture({"a": 1.0}), ["a"], domains=("a", "b"))


def test_domains_in_two_units_are_refused():
    with pytest.raises(MixtureError, match="part of several units"):
        Composition(("a", "b"), {"x": {"a": 1.0}, "y": {"a": 0.5, "b": 0.5}})


def test_a_law_of_units_is_the_law_at_their_ratios(old):
    _, fitted, mixture = old
    frozen = freeze(mixture, ("code",), domains=NAMES)
    law = UnitLaw(fitted, frozen)
    at = np.array([[0.7, 0.3]])
    step = 1e-6
    np.testing.assert_allclose(law.predict(at), fitted.predict(frozen.expand(at)))
    numeric = [
        (law.predict(at + step * e) - law.predict(at - step * e))[0] / (2 * step) for e in np.eye(2)
    ]
    np.testing.assert_allclose(law.gradient(at)[0].T, numeric, rtol=1e-5, atol=1e-8)


# --- runs --------------------------------------------------------------------------------------


def table(weights, **columns):
    truth = Truth(NAMES)
    return replace(truth.runs(np.array(weights)), **columns)


def test_added_domains_have_no_share_in_old_runs():
    runs = table(swarm(6))
    carried = carry_runs(runs, shared_mixtures(DOMAINS, [Add(NEW)]))
    assert carried.exact.all()
    assert not carried.left_out
    np.testing.assert_array_equal(carried.runs.weights[:, :5], runs.weights)
    assert not carried.runs.weights[:, 5].any()
    np.testing.assert_array_equal(carried.runs.values, runs.values)


def test_rows_of_schedules_are_not_carried():
    """Their stages would stay in the old domains."""
    runs = table(swarm(3))
    schedule = Schedule.of([(0.5, Mixture({"web": 1.0})), (0.5, Mixture({"code": 1.0}))])
    staged = replace(runs, schedule=np.array([schedule, None, None], dtype=object))
    shared = shared_mixtures(DOMAINS, [Merge(["code", "math"], "technical")])
    with pytest.raises(RunTableError, match=r"1 of 3 rows are of schedules.* runs\.static\(\)"):
        carry_runs(staged, shared)
    assert len(carry_runs(staged.static(), shared, tolerance=0.9).runs) == 2


@pytest.mark.parametrize("edit", [Remove("books"), Revise("books")])
def test_only_runs_without_a_lost_domain_are_carried(edit):
    runs = table([[0.5, 0.5, 0, 0, 0], [0.5, 0.3, 0.2, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0]])
    carried = carry_runs(runs, shared_mixtures(DOMAINS, [edit]))
    assert carried.kept.tolist() == [0, 2]
    assert sum(carried.left_out.values()) == 2
    assert "books" in next(iter(carried.left_out))
    assert carried.runs.mixture(0)["web"] == 0.5


def test_a_split_run_has_its_parts_at_their_ratios():
    runs = table([[0.4, 0.6, 0, 0, 0]])
    shared = shared_mixtures(DOMAINS, [Split("web", {"news": 0.25, "forums": 0.75})])
    carried = carry_runs(runs, shared)
    assert carried.exact.all()
    assert carried.runs.mixture(0)["news"] == pytest.approx(0.1)
    assert carried.runs.mixture(0)["forums"] == pytest.approx(0.3)


def test_merged_runs_stood_at_the_merged_ratio():
    # by tokens, code is 2/7 and math 5/7
    runs = table([[0.3, 0.2, 0, 0, 0.5], [0.3, 0.202, 0, 0, 0.498], [0.3, 0.5, 0, 0, 0.2]])
    shared = shared_mixtures(DOMAINS, [Merge(["code", "math"], "technical")])
    assert carry_runs(runs, shared).kept.tolist() == [0]
    near = carry_runs(runs, shared, tolerance=0.003)
    assert near.kept.tolist() == [0, 1]
    assert near.exact.tolist() == [True, False]
    assert near.misplaced[1] == pytest.approx(0.002)
    assert near.runs.mixture(1)["technical"] == pytest.approx(0.7)


def test_unique_tokens_follow_their_domains():
    runs = table([[0.2, 0.2, 0.3, 0.1, 0.2]])
    tokens = np.array([[1000.0, 2000.0, 3000.0, 4000.0, 5000.0]])
    edits = [Split("web", {"a": 0.4, "b": 0.6}), Merge(["code", "books"], "c"), Add(NEW)]
    shared = shared_mixtures(DOMAINS, edits)
    carried = carry_runs(replace(runs, available_tokens=tokens), shared)
    assert carried.runs.domains == ("a", "b", "c", "wiki", "math", "news")
    expected = [[400, 600, 5000, 4000, 5000, np.inf]]
    np.testing.assert_allclose(carried.runs.available_tokens, expected)


def test_the_law_moves_runs_to_the_values_of_the_shared_mixtures(old):
    truth, fitted, _ = old
    runs = fitted.cross_validation.runs
    shared = shared_mixtures(DOMAINS, [Remove("books")])
    plain = carry_runs(runs, shared, tolerance=0.5)
    moved = carry_runs(runs, shared, tolerance=0.5, law=fitted)
    full = np.insert(moved.runs.weights, 2, 0.0, axis=1)
    real = truth.losses(np.column_stack([full, np.zeros(len(full))]))
    far = ~moved.exact
    assert far.sum() > 10
    error, without = (np.abs(c.runs.values - real)[far].mean() for c in (moved, plain))
    assert error < 0.1 * without
    np.testing.assert_array_equal(moved.runs.values[~far], plain.runs.values[~far])


def test_runs_of_other_domains_are_refused():
    shared = shared_mixtures(DOMAINS, [Add(NEW)])
    with pytest.raises(RunTableError, match="both need the same"):
        carry_runs(replace(table(swarm(3)), domains=("a", "b", "c", "d", "e")), shared)
    with pytest.raises(RunTableError, match="tolerance is 1"):
        carry_runs(table(swarm(3)), shared, tolerance=1.0)


# --- plans -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "new", "recompute"),
    [
        ([Add(NEW)], 4, 36),
        ([Add(NEW), Add(Domain("law"))], 8, 42),
        ([Remove("books")], 0, 24),
        ([Split("web", {"a": 0.2, "b": 0.3, "c": 0.5})], 8, 42),
        ([Merge(["code", "math"], "technical")], 0, 24),
        ([Revise("wiki")], 4, 30),
    ],
)
def test_runs_saved(old, edits, new, recompute):
    """The old swarm had 30 mixtures for 5 domains, at 6 * 10 * 200 operations each."""
    found = plan(old, edits)
    assert found.reuse
    assert len(found.new_mixtures) == new
    assert found.recompute_mixtures == recompute
    assert found.runs_saved == recompute - new
    assert found.flops_saved == (recompute - new) * 12_000
    assert found.exact_rows + found.moved_rows + sum(found.left_out.values()) == 30
    assert EditPlan.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    names = [domain.name for domain in apply_edits(DOMAINS, edits)]
    for mixture in (found.kept, found.interim, *found.new_mixtures):
        assert list(mixture) == names
    for mixture in found.new_mixtures:  # each tells about an affected domain
        assert sum(mixture[name] for name in found.affected) >= 0.05 - 1e-9


def test_reuse_after_an_addition_reaches_the_optimum(old):
    truth, fitted, _ = old
    found = plan(old, [Add(NEW)])
    new_runs = truth.runs(np.stack([m.array(truth.domains) for m in found.new_mixtures]))
    shared = shared_mixtures(DOMAINS, [Add(NEW)])
    again = refit(fitted, shared, new_runs, candidates=["effective"])
    weights = swarm(36, truth.domains)
    fresh = fit_laws(truth.runs(weights), TARGETS, candidates=["effective"])
    reused = truth.objective(decide(again, again.cross_validation.runs.weights))
    recomputed = truth.objective(decide(fresh, weights))
    assert found.expected_loss > 0
    assert reused <= recomputed + found.expected_loss
    assert reused < truth.objective(found.interim) - found.expected_loss


def test_the_old_law_alone_reaches_the_optimum_after_a_removal(old):
    truth, _, _ = old
    found = plan(old, [Remove("books")])
    kept = [name for name in NAMES if name != "books"]
    weights = np.insert(swarm(24, kept), 2, 0.0, axis=1)
    runs = truth.runs(np.column_stack([weights, np.zeros(24)]), kept)
    fresh = fit_laws(runs, TARGETS, candidates=["effective"])
    recomputed = truth.objective(decide(fresh, runs.weights))
    assert truth.objective(found.interim) <= recomputed + 1e-3
    # what the plan says of costs is true of the real losses
    last = truth.objective(old[2])
    cost = truth.objective(found.interim) - last
    assert found.edit_cost == pytest.approx(cost, abs=2e-3)
    keeping = truth.objective(found.kept) - truth.objective(found.interim)
    assert found.keeping_cost == pytest.approx(keeping, abs=2e-3)
    assert found.keeping_cost >= -1e-9


def test_what_no_old_run_tells_is_trained_anew(old):
    """Where most is new, reuse saves nothing."""
    found = plan(old, [Add(Domain(f"new{i}")) for i in range(20)])
    assert len(found.new_mixtures) == 80
    assert found.recompute_mixtures == 150
    assert found.reuse
    sparse = fit_laws(table(swarm(8)), TARGETS, candidates=["effective"])
    edits = [Add(Domain(f"new{i}")) for i in range(5)]
    found = plan((None, sparse, old[2]), edits)
    assert not found.reuse
    assert found.runs_saved < 0
    assert "a new swarm takes 16" in found.reason


def test_new_mixtures_keep_the_bounds(old):
    tokens = Constraints(max_epochs=4, upper={"code": 0.3})
    found = plan(old, [Add(NEW)], constraints=tokens, train_tokens=10_000)
    after = apply_edits(DOMAINS, [Add(NEW)])
    lower, upper = tokens.bounds(after, 10_000)
    for mixture in (found.interim, *found.new_mixtures):
        share = mixture.array([domain.name for domain in after])
        assert np.all(share >= lower - 1e-9)
        assert np.all(share <= upper + 1e-9)


def test_ratios_that_break_bounds(old):
    upper = Constraints(upper={"a": 0.1, "b": 0.1}, lower={"a": 0.09})
    with pytest.raises(InfeasibleError, match="at the ratios in 'web'"):
        plan(old, [Split("web", {"a": 0.1, "b": 0.9})], constraints=upper)


def test_relative_objectives_are_relative_to_the_last_mixture(old):
    truth, _, mixture = old
    weights = dict.fromkeys(TARGETS, 1.0)
    relative = plan(old, [Remove("books")], objective=Objective(weights, relative_to="natural"))
    full = np.append(mixture.array(NAMES), 0.0)
    last = truth.losses(full[None])[0]
    now = truth.losses(relative.interim.array(truth.domains)[None])[0]
    assert relative.edit_cost == pytest.approx(np.mean(now / last - 1), abs=2e-3)
    assert relative.edit_cost > 0.005
    assert relative.keeping_cost >= -1e-9


def test_constraints_that_units_cannot_have_are_named(old):
    found = plan(old, [Remove("books")], constraints=Constraints(min_unique_tokens=10.0))
    assert "min_unique_tokens" in found.warnings[0]


def test_bad_plans(old):
    with pytest.raises(MixtureError, match="exactly the law's domains"):
        plan(old, [Remove("books")], domains=DOMAINS[:4])
    with pytest.raises(MixtureError, match="format 0"):
        EditPlan.from_dict({"format": 0})
    with pytest.raises(DesignError, match="distinct mixtures"):
        plan(old, [Add(NEW)], constraints=Constraints(upper={"news": 0.0}))
    shared = shared_mixtures(DOMAINS, [Add(NEW)])
    with pytest.raises(RunTableError, match="after the edits there are"):
        refit(old[1], shared, table(swarm(3)))


@settings(max_examples=20)
@given(shares(5))
def test_a_removal_prices_what_the_old_law_prices(old, mixture):
    _, fitted, _ = old
    shared = shared_mixtures(DOMAINS, [Remove("books")])
    law = UnitLaw(fitted, shared.old)
    units = shared.old.reduce(mixture[None])[0]
    np.testing.assert_allclose(law.predict(units), fitted.predict(np.insert(units, 2, 0.0, 1)))
