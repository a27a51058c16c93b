"""Laws and links in a page give Python's values, worked out in a real browser."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mixlaw.errors import FitError
from mixlaw.laws import Fitted, Law, Link, Points, aggregate, fit, fit_transfer, make
from mixlaw.laws.base import Diagnostics, FittedLaw
from mixlaw.laws.catalogue import CANDIDATES, MANY_SCALES
from mixlaw.laws.coding import coded, rounded
from mixlaw.laws.combination import STACK, FittedSum
from mixlaw.laws.gaussian import Kernel, Process
from mixlaw.laws.mixing import Exponential
from mixlaw.laws.portable import NotPortable, Portable, javascript, portable, portable_links
from mixlaw.laws.residual import FittedResidual
from mixlaw.laws.terms import Constant, Term, TermLaw, bounded_exp

AXES = {"num_params": 1e5, "train_tokens": 1e6}
DOMAINS = ("code", "docs", "web")
SCALES = [(1e5, 1e6), (4e5, 3e6), (2e5, 2.5e5)]
AVAILABLE = np.array([2e5, np.inf, 1e4])
"""Unique tokens; the third domain is repeated at nearly any share."""

NEEDS_OWN = {"bimix", "capacity", "d-cpt"}
LAWS = [name for name in CANDIDATES if isinstance(make(name, AXES), Law)]
ANSWER = """([data, asked]) => {
  const laws = mixlaw.laws(data), out = new Float64Array(laws.size);
  return asked.map(([shares, scale]) => {
    laws.evaluate(mixlaw.at(shares, scale), out);
    return Array.from(out);
  });
}"""


@pytest.fixture
def opened(page, tmp_path):
    """A function: the page with what the given laws and links need."""

    def open_page(*parts: Portable):
        file = tmp_path / "page.html"
        script = javascript(parts)
        assert script.isascii()
        text = f"<!doctype html><meta charset=utf-8><script>{script}</script>"
        file.write_text(text, encoding="utf-8")
        page.goto(file.as_uri())
        return page

    return open_page


def mixtures(rng) -> np.ndarray:
    """(12, 3): inside, at the corners, and on an edge."""
    return np.concatenate([rng.dirichlet(np.ones(3), 8), np.eye(3), [[0.5, 0.0, 0.5]]])


def assert_same(opened, laws: Portable, weights: np.ndarray, scales=SCALES, available=None):
    """The page gives the values of `laws.laws`."""
    asked, expected = [], []
    for size, tokens in scales:
        points = Points.at(weights, size, tokens, available_tokens=available)
        expected.append(np.stack([law.predict(points) for law in laws.laws], axis=1))
        unique = None if available is None else [x if np.isfinite(x) else None for x in available]
        scale = {"num_params": size, "train_tokens": tokens, "available_tokens": unique}
        asked += [[shares, scale] for shares in weights.tolist()]
    assert np.isfinite(expected).all()
    data = json.loads(json.dumps(laws.data, allow_nan=False))
    found = opened(laws).evaluate(ANSWER, [data, asked])
    assert_allclose(found, np.concatenate(expected), rtol=1e-9, atol=0)


def random_laws(recipe: Law, rng, *, owns=(0, 2, None), targets="abc") -> list[FittedLaw]:
    """Laws with parameters around their priors, as of targets with these own domains."""
    return [fitted_law(recipe, rng, own, f"loss/{t}") for own, t in zip(owns, targets, strict=True)]


def fitted_law(recipe: Law, rng, own: int | None = None, target: str = "loss/a") -> FittedLaw:
    points = Points.at(rng.dirichlet(np.ones(3), 20), 2e5, 2e6)
    law = recipe.for_targets(np.array([-1 if own is None else own]))
    mean, sd = law.prior(points, np.array([3.0]))
    theta = mean[0] + np.minimum(sd[0], 1.0) * rng.normal(size=mean.shape[1])
    return FittedLaw(recipe, theta, target, DOMAINS, own, Diagnostics(0.0, 1.0, 0.1))


def law_named(name: str, axes=AXES) -> Law:
    recipe = make(name, axes)
    assert isinstance(recipe, Law)
    return recipe


def spread_process(rng, *, num=40, reach: float | None = 3.0) -> Process:
    """A process over some runs, a few of them the same mixture at several sizes."""
    weights = rng.dirichlet(np.ones(3), num // 2).repeat(2, axis=0)
    sizes = np.tile([1e5, 2e5], num // 2) if reach else np.full(num, np.nan)
    centres = Points(weights, sizes, np.full(num, np.nan))
    return Process(Kernel(0.4, 0.7, 0.5, reach), centres, 0.1 * rng.normal(size=num))


@pytest.mark.parametrize("name", LAWS)
def test_every_law_of_one_formula(name, opened, rng):
    owns = (0, 2, 1) if name in NEEDS_OWN else (0, 2, None)
    laws = portable(random_laws(law_named(name), rng, owns=owns))
    assert len(laws.data["groups"]) == 1, "laws of one formula share it"
    assert_same(opened, laws, mixtures(rng))
    assert_same(opened, laws, mixtures(rng), available=AVAILABLE)


def test_laws_that_do_not_read_every_axis(opened, rng):
    laws = []
    for axis in AXES:
        recipes = [law_named(n, {axis: AXES[axis]}) for n in LAWS if n in MANY_SCALES]
        laws += [fitted_law(recipe, rng, 1) for recipe in recipes]
    laws += [fitted_law(law_named(n, {}), rng, 1) for n in LAWS if n not in MANY_SCALES]
    assert_same(opened, portable(laws), mixtures(rng))


def test_unknown_counts_do_not_matter_to_laws_of_the_mixture(opened, rng):
    laws = portable(random_laws(law_named("effective"), rng))
    assert_same(opened, laws, mixtures(rng), scales=[(None, None)])


class TestLawsMadeOfOthers:
    def test_residual_process(self, opened, rng):
        of_sizes, of_mixtures = spread_process(rng), spread_process(rng, reach=None)
        base = fitted_law(law_named("effective-sum"), rng, 0)
        some = replace(of_sizes, centres=of_sizes.centres.select(slice(10)))
        some = replace(some, coefficients=of_sizes.coefficients[:10])
        processes = (of_sizes, of_mixtures, some, None)
        laws = portable([FittedResidual(base, process) for process in processes])
        weights = np.concatenate([mixtures(rng), of_sizes.centres.weights[:4]])
        assert_same(opened, laws, weights)
        assert_same(opened, laws, weights, available=AVAILABLE)

    def test_runs_are_kept_once(self, rng):
        process = spread_process(rng)
        bases = random_laws(law_named("effective"), rng)
        one, three = (
            portable([FittedResidual(base, process) for base in some]).data
            for some in (bases[:1], bases)
        )
        assert len(three["arrays"]) == len(one["arrays"]) == 1
        assert len(three["forms"]) == len(one["forms"])

    def test_sum(self, opened, rng):
        laws = random_laws(law_named("effective-sum"), rng)
        others = random_laws(law_named("m1-product"), rng)
        parts = dict(zip("abc", laws, strict=True))
        whole = aggregate(parts, {"a": 0.2, "c": 0.7}, target="loss/all")
        stack = FittedSum(STACK, "loss/a", (laws[0], others[0]), np.array([0.4, 0.6]))
        of_process = FittedSum(
            STACK, "loss/a", (FittedResidual(laws[0], spread_process(rng)), others[1]), stack.shares
        )
        assert_same(opened, portable([whole, stack, of_process]), mixtures(rng))

    def test_transfer(self, opened, lab, rng):
        small = fitted_law(law_named("effective-sum"), rng, 0, "loss/code")
        points = Points.at(rng.dirichlet(np.ones(3), 6), 8e5, 1e7)
        observed = 0.9 * small.predict(points) * np.exp(0.01 * rng.normal(size=6))
        runs = lab.table(points, {"loss/code": observed})
        moved = fit_transfer({"loss/code": small}, runs)["loss/code"]
        assert_same(opened, portable([moved]), mixtures(rng), scales=[(8e5, 1e7)])

    @pytest.mark.parametrize("axes", [["num_params", "train_tokens"], ["num_params"]])
    def test_nested(self, axes, opened, lab, rng):
        fitted = nested(lab, rng, {axis: AXES[axis] for axis in axes})
        laws = portable([fitted, FittedResidual(fitted, spread_process(rng))], scales=SCALES)
        assert_same(opened, laws, mixtures(rng))
        data = laws.data
        assert len(data["forms"]) < 10, "the mixing law is one, whatever the number of scales"

    def test_nested_at_another_scale_is_told(self, opened, lab, rng):
        laws = portable([nested(lab, rng, AXES)], scales=SCALES)
        asked = [[[1, 0, 0], {"num_params": 3e5, "train_tokens": 1e6}]]
        from playwright.sync_api import Error

        with pytest.raises(Error, match="not fitted at this scale"):
            opened(laws).evaluate(ANSWER, [laws.data, asked])

    def test_nested_without_scales(self, lab, rng):
        fitted = nested(lab, rng, AXES)
        with pytest.raises(NotPortable, match=r"'loss/code'.*`scales`"):
            portable([fitted])
        with pytest.raises(NotPortable, match=r"`scales`"):
            portable([fitted], scales=[(1e5, None)])

    @pytest.mark.parametrize("mixtures_trained", [30, 9])  # the second: trees of a single leaf
    def test_trees(self, mixtures_trained, opened, lab, rng):
        pytest.importorskip("lightgbm")
        points = lab.grid(rng, mixtures=mixtures_trained, sizes=3, horizons=3)
        if mixtures_trained == 9:
            points = points.select(np.arange(len(points)) % 2 == 0)
        clean = fitted_law(law_named("effective-sum"), rng, 0).predict(points)
        runs = lab.table(points, {"loss/code": clean})
        fitted = fit(make("lightgbm", AXES), runs, target="loss/code")
        assert ("num_leaves=1\n" in fitted.to_dict()["model"]) == (mixtures_trained == 9)
        laws = portable([fitted])
        assert_same(opened, laws, np.concatenate([mixtures(rng), points.weights[:5]]))


def nested(lab, rng, axes) -> Fitted:
    points = lab.grid(rng, mixtures=8, horizons=3 if "train_tokens" in axes else 1)
    values = fitted_law(law_named("effective-chinchilla"), rng, 0).predict(points)
    return fit(make("nested", axes), lab.table(points, {"loss/code": values}), target="loss/code")


def test_short_numbers_lose_next_to_nothing(opened, rng):
    given = [
        law
        for name in ("effective", "m4", "log-linear")
        for law in random_laws(law_named(name), rng)
    ]
    laws = portable(given, short=True)
    assert_same(opened, laws, mixtures(rng))
    points = Points.at(mixtures(rng), *SCALES[0])
    for kept, exact in zip(laws.laws, given, strict=True):
        assert_allclose(kept.predict(points), exact.predict(points), rtol=1e-9)
    bytes_of = [len(json.dumps(part.data["groups"])) for part in (laws, portable(given))]
    assert bytes_of[0] < 0.85 * bytes_of[1]


class TestRefits:
    """One letter a number."""

    def around(self, rng) -> Points:
        weights = np.tile(rng.dirichlet(np.ones(3), 12), (len(SCALES), 1))
        return Points(weights, *np.repeat(SCALES, 12, axis=0).T)

    def draws(self, rng, num_draws=50) -> list[FittedLaw]:
        """Refits of three targets, draw by draw."""
        middles = random_laws(law_named("effective-chinchilla"), rng)
        return [
            replace(law, theta=law.theta + 0.1 * rng.normal(size=len(law.theta)))
            for _ in range(num_draws)
            for law in middles
        ]

    def test_page_gives_the_rounded_laws(self, opened, rng):
        laws = portable(self.draws(rng), around=self.around(rng))
        assert {law.target for law in laws.laws} == {"loss/a", "loss/b", "loss/c"}
        assert_same(opened, laws, mixtures(rng))

    def test_rounding_is_small_beside_the_spread(self, rng):
        """Also where parameters make up for each other, as those of fits to data do."""
        law = law_named("effective-chinchilla").for_targets(np.array([0]))
        middle = fitted_law(law_named("effective-chinchilla"), rng, 0)
        runs = self.around(rng)
        slopes = law.evaluate(middle.theta[None], runs)[1][0]
        precision = slopes.T @ slopes / 0.002**2 + np.eye(len(middle.theta))
        thetas = rng.multivariate_normal(middle.theta, np.linalg.inv(precision), 200)
        draws = [replace(middle, theta=theta) for theta in thetas]
        singly = rounded(np.column_stack([np.zeros(200), thetas]))[1][:, 1:]
        kept = portable(draws, around=runs).laws
        new = Points.at(mixtures(rng), *SCALES[1])
        exact, one_by_one, together = (
            np.stack([law.predict(new) for law in laws])
            for laws in (draws, [replace(middle, theta=theta) for theta in singly], kept)
        )
        spread = np.std(exact, axis=0)
        assert np.all(np.std(together - exact, axis=0) < 0.15 * spread)
        error, worse = (np.mean(np.std(x - exact, axis=0) / spread) for x in (together, one_by_one))
        assert error < 0.08
        assert error < worse / 3

    def test_around_points_that_lack_a_count(self, rng):
        with pytest.raises(FitError, match="every count that the laws read"):
            portable(self.draws(rng), around=Points.at(np.eye(3), 1e5))

    def test_kept_in_a_letter_a_number(self, rng):
        draws = self.draws(rng, 400)
        sizes = [
            len(
                json.dumps(
                    portable(draws[:n], around=self.around(rng)).data, ensure_ascii=False
                ).encode()
            )
            for n in (600, 1200)
        ]
        assert sizes[1] - sizes[0] < 1.15 * sum(len(law.theta) for law in draws[600:])

    def test_of_processes_on_different_runs(self, opened, rng):
        process, base = spread_process(rng), fitted_law(law_named("effective-sum"), rng, 0)
        draws = []
        for _ in range(20):
            drawn = np.unique(rng.integers(0, 40, 40))
            part = replace(
                process,
                centres=process.centres.select(drawn),
                coefficients=process.coefficients[drawn] + 0.01 * rng.normal(size=len(drawn)),
            )
            draws.append(FittedResidual(base, part if len(draws) % 5 else None))
        laws = portable(draws, around=self.around(rng))
        assert_same(opened, laws, mixtures(rng))
        points = Points.at(mixtures(rng), *SCALES[0])
        for kept, exact in zip(laws.laws, draws, strict=True):
            assert_allclose(kept.predict(points), exact.predict(points), rtol=0.02)

    def test_of_the_nested_pipeline(self, opened, lab, rng):
        laws = portable(
            [nested(lab, rng, AXES) for _ in range(3)], scales=SCALES, around=self.around(rng)
        )
        assert_same(opened, laws, mixtures(rng))

    def test_numbers_stay_within_a_step(self, rng):
        numbers = np.column_stack([rng.standard_t(1.5, 300), np.full(300, 4.0), np.arange(300.0)])
        _, kept = rounded(numbers)
        span = np.ptp(numbers, axis=0)
        assert np.all(np.abs(kept - numbers) <= 0.51 * span / 120 + 1e-6 * np.abs(numbers))
        assert_array_equal(kept[:, 1], 4.0)


class TestInThePage:
    def test_arrays(self, opened, rng):
        numbers = rng.normal(size=7)
        whole = np.array([0, 3, 127, 255])
        given = [
            coded(numbers),
            coded(numbers, "f32"),
            coded(whole, "u8"),
            coded(-whole // 2, "i8"),
        ]
        given.append(coded(200 * whole, "u16"))
        found = opened().evaluate("given => given.map(x => Array.from(mixlaw.array(x)))", given)
        single = numbers.astype("f4").astype(float)
        for one, expected in zip(
            found, [numbers, single, whole, -whole // 2, 200 * whole], strict=True
        ):
            assert_array_equal(one, expected)

    def test_exp_is_bounded_exp(self, opened, rng):
        x = np.concatenate([rng.uniform(-61, 61, 500), [-1e9, -60, -0.0, 0, 60, 1e300]])
        found = np.array(opened().evaluate("x => x.map(mixlaw.exp)", x.tolist()), float)
        assert_allclose(found, bounded_exp(x), rtol=1e-14)
        special = opened().evaluate("[NaN, Infinity, -Infinity].map(mixlaw.exp)")
        assert np.isnan(special[0])
        assert_allclose(special[1:], bounded_exp(np.array([np.inf, -np.inf])), rtol=1e-14)

    def test_shares_are_discounted(self, opened, rng):
        weights = mixtures(rng)
        points = Points.at(weights, 1e5, 1e6, available_tokens=AVAILABLE)
        found = opened().evaluate(
            """([shares, train_tokens, available_tokens]) => shares.map((one) =>
                 Array.from(mixlaw.at(one, {train_tokens, available_tokens}).r))""",
            [weights.tolist(), 1e6, [x if np.isfinite(x) else None for x in AVAILABLE]],
        )
        assert_allclose(found, points.discounted.weights, rtol=1e-13)

    def test_links(self, opened, rng):
        targets = ["loss/a", "loss/b"]
        links = [
            Link("sigmoid", {"loss/a": 1.0}, 0.25, 0.7, 3.0, 2.5),
            Link("sigmoid", {"loss/a": 0.5, "loss/b": 0.5}, 0.0, 0.4, 300.0, 2.1),
            Link("exponential", {"loss/b": 1.0}, 0.1, 0.4, 2.0, 2.2),
            Link("exponential", {"loss/b": 1.0}, 0.1, 0.4, 200.0, 2.2),
        ]
        page = portable_links(links, targets)
        losses = rng.uniform(1.5, 3.5, (30, 2))
        found = opened(page).evaluate(
            """([data, asked]) => {
                 const links = mixlaw.links(data), out = new Float64Array(links.size);
                 return asked.map((losses) => {
                   links.evaluate(Float64Array.from(losses), out);
                   return Array.from(out);
                 });
               }""",
            [page.data, losses.tolist()],
        )
        expected = [link.score(losses @ link.shares(targets)) for link in links]
        assert_allclose(found, np.stack(expected, axis=1), rtol=1e-9)


class WithoutScript(Exponential):
    """Another formula with the script of its parent would be a lie."""

    def value(self, theta, points):
        return 2 * super().value(theta, points)


class WithScript(WithoutScript):
    script = """(theta) => {
      const level = theta[0], t = theta.subarray(1);
      return (at) => 2 * exp(level + dot(t, at.r));
    }"""


class Bare(Term):
    """A third party's term that knows nothing of pages."""

    def num_parameters(self, num_domains):
        return 0

    def evaluate(self, theta, points):
        shape = (len(theta), len(points))
        return np.ones(shape), np.empty((*shape, 0))

    def prior(self, points, level):
        return np.empty((len(level), 0)), np.empty((len(level), 0))


class TestLawsOfThirdParties:
    def law(self, term, rng) -> FittedLaw:
        return fitted_law(TermLaw("theirs", "?", Constant() + term), rng)

    @pytest.mark.parametrize("term", [WithoutScript, Bare])
    def test_without_a_script_are_refused(self, term, rng):
        with pytest.raises(NotPortable, match=rf"{term.__name__}.*give the class.*`script`"):
            portable([self.law(term(), rng)])

    def test_with_a_script_they_are_as_ours(self, opened, rng):
        assert_same(opened, portable([self.law(WithScript(), rng)]), mixtures(rng))

    def test_fitted_laws_without_a_form(self, rng):
        class Theirs(FittedSum):
            form = Fitted.form

        theirs = Theirs("theirs", "loss/a", (self.law(Exponential(), rng),), np.ones(1))
        with pytest.raises(NotPortable, match=r"Theirs has no form for a page.*`form`"):
            portable([theirs])

    def test_laws_that_are_not_made_of_terms(self, rng):
        class Theirs(TermLaw):
            form = Law.form

        law = Theirs("theirs", "?", Exponential())
        with pytest.raises(NotPortable, match=r"Theirs has no form for a page.*`form`"):
            portable([fitted_law(law, rng)])

    def test_one_name_for_two_scripts(self, rng):
        other = type("Exponential", (Exponential,), {"script": "() => () => 7"})
        ours, theirs = (portable([self.law(term(), rng)]) for term in (Exponential, other))
        with pytest.raises(NotPortable, match="two classes named 'Exponential'"):
            javascript([ours, theirs])

    def test_script_that_would_end_the_page(self, rng):
        rude = type("Rude", (Exponential,), {"script": "() => () => '</script>'"})
        with pytest.raises(NotPortable, match="'Rude' has '</'"):
            portable([self.law(rude(), rng)])
