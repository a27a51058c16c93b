"""Links fall with the loss, find the loss that matters, and their intervals cover."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mixlaw.errors import FitError
from mixlaw.laws import FittedLaws, LinkedLaws, Points, fit_laws, fit_links
from mixlaw.laws.link_forms import CURVES, EXPONENTIAL, SIGMOID, Link, Problems, fit_form
from mixlaw.laws.uncertainty import enough_for
from mixlaw.runs import RunTable

NAMES = ("a", "b", "c", "d")
TARGETS = ("loss/p", "loss/q", "loss/r")
GRID = [(n, d) for n in (5e4, 1e5, 2e5) for d in (5e5, 1e6, 2e6)]


class Truth:
    """Losses by M4 with a term for each count, and one score that falls with `loss/q`."""

    def __init__(self, seed: int, form: str = SIGMOID):
        rng = np.random.default_rng(seed)
        self.floor_of, self.height = rng.uniform(1.5, 2.5, 3), rng.uniform(0.5, 1.0, 3)
        self.slopes = rng.normal(0, 1.2, (3, 4))
        typical = self.losses(rng.dirichlet(np.ones(4), 200), 1e5, 1e6)[:, 1]
        rate = (2 if form == SIGMOID else 1) / float(typical.std())
        span = 0.6 if form == SIGMOID else 0.15
        self.link = Link(form, {"loss/q": 1.0}, 0.25, span, rate, float(typical.mean()))

    def losses(self, weights: np.ndarray, num_params: float, train_tokens: float) -> np.ndarray:
        counts = 0.4 * (num_params / 1e5) ** -0.3 + 0.4 * (train_tokens / 1e6) ** -0.3
        return self.floor_of + self.height * np.exp(weights @ self.slopes.T) + counts

    def score(self, weights: np.ndarray, num_params=1e5, train_tokens=1e6) -> np.ndarray:
        return self.link.score(self.losses(weights, num_params, train_tokens)[:, 1])

    def swarm(self, mixtures: int, scales=((1e5, 1e6),), noise=0.01, seed=0) -> RunTable:
        rng = np.random.default_rng(seed)
        rows = []
        weights = rng.dirichlet(np.ones(4), mixtures)
        for num_params, train_tokens in scales:
            losses = self.losses(weights, num_params, train_tokens)
            losses = losses * np.exp(0.3 * noise * rng.normal(size=losses.shape))
            scores = self.score(weights, num_params, train_tokens)
            scores = np.maximum(scores + noise * rng.normal(size=mixtures), 0.0)
            for i in range(mixtures):
                row = {f"weight/{n}": w for n, w in zip(NAMES, weights[i], strict=True)}
                row |= {"run": f"m{i}-{num_params:g}", "num_params": num_params}
                row |= {"train_tokens": train_tokens, "score/x": scores[i]}
                rows.append(row | dict(zip(TARGETS, losses[i], strict=True)))
        return RunTable.from_rows(rows)


def linked(runs: RunTable, **options) -> LinkedLaws:
    many = len(set(runs.num_params)) > 1
    laws = fit_laws(runs, candidates=["exponential-chinchilla" if many else "m4"])
    return fit_links(laws, runs, ["score/x"], **options)


def with_score(runs: RunTable, values: np.ndarray) -> RunTable:
    table = runs.values.copy()
    table[:, runs.targets.index("score/x")] = values
    return replace(runs, values=table)


def new_mixtures(count=100) -> np.ndarray:
    return np.random.default_rng(99).dirichlet(np.ones(4), count)


SCORE = np.array([0.0, 0.0, 0.0, 1.0])


@pytest.fixture(scope="module")
def swarm() -> RunTable:
    return Truth(0).swarm(24)


@pytest.fixture(scope="module")
def laws(swarm) -> FittedLaws:
    return fit_laws(swarm, candidates=["m4"])


@pytest.fixture(scope="module")
def one(laws, swarm) -> LinkedLaws:
    return fit_links(laws, swarm, ["score/x"])


@pytest.fixture(scope="module")
def across() -> LinkedLaws:
    """Twelve mixtures at nine scales."""
    return linked(Truth(1).swarm(12, GRID))


class TestForms:
    logs = st.floats(-20, 20)

    @pytest.mark.parametrize("form", CURVES)
    @settings(max_examples=200, deadline=None)
    @given(theta=st.tuples(logs, logs, logs, st.floats(-100, 100)), seed=st.integers(0, 99))
    def test_falls_for_every_theta(self, form, theta, seed):
        floor, span, rate = np.exp(theta[:3])
        link = Link(form, {}, floor, span, rate, theta[3])
        loss = np.sort(np.random.default_rng(seed).uniform(0, 20, 50))
        score = link.score(loss)
        assert np.all(np.isfinite(score))
        assert np.all(np.diff(score) <= 0)
        assert np.all(score >= floor)
        assert np.all(link.slope(loss) <= 0)

    @pytest.mark.parametrize("form", CURVES)
    def test_slope_is_the_derivative(self, form):
        link, loss = Link(form, {}, 0.2, 0.5, 3.0, 2.5), np.linspace(1.5, 4, 30)
        numeric = (link.score(loss + 1e-6) - link.score(loss - 1e-6)) / 2e-6
        assert_allclose(link.slope(loss), numeric, rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("floor", [None, 0.1])
    @pytest.mark.parametrize("form", CURVES)
    def test_jacobian_is_the_derivative(self, form, floor, rng):
        loss, score = rng.uniform(2, 4, (2, 20)), rng.random(20)
        problems = Problems(form, loss, score, rng.random((2, 20)) < 0.8, floor)
        theta, both = rng.normal(size=(2, 4)), np.arange(2)
        _, jacobian = problems.evaluate(theta, both)
        free = [k for k in range(4) if problems.free[k]]
        for k in free:
            step = 1e-6 * np.eye(4)[k]
            up, down = (problems.evaluate(theta + s * step, both)[0] for s in (1, -1))
            assert_allclose(jacobian[:, :, k], (up - down) / 2e-6, rtol=1e-5, atol=1e-8)
        assert len(free) == 4 - (floor is not None) - (form == EXPONENTIAL)

    @pytest.mark.parametrize("floor", [None, 0.25])
    @pytest.mark.parametrize("form", CURVES)
    def test_a_known_link_is_recovered(self, form, floor, rng):
        truth = Link(form, {}, 0.25, 0.6 if form == SIGMOID else 0.2, 4.0, 3.0)
        loss = rng.uniform(2, 4, 100)
        score, use = truth.score(loss), np.ones((1, 1, 100), bool)
        found = Link(form, {}, *fit_form(form, loss[None], score, use, floor=floor)[0, 0])
        assert_allclose(found.score(loss), score, atol=0.002 * np.ptp(score))
        assert found.rate == pytest.approx(truth.rate, rel=0.02)
        assert found.floor == pytest.approx(0.25, abs=1e-9 if floor else 0.01)

    @pytest.mark.parametrize("form", CURVES)
    def test_noise_is_averaged_out(self, form, rng):
        truth, loss = Link(form, {}, 0.25, 0.4, 3.0, 3.0), rng.uniform(2.5, 4, 200)
        score, use = truth.score(loss) + 0.03 * rng.normal(size=200), np.ones((1, 1, 200), bool)
        found = Link(form, {}, *fit_form(form, loss[None], score, use, floor=None)[0, 0])
        assert np.abs(found.score(loss) - truth.score(loss)).max() < 0.03

    def test_each_set_of_rows_is_a_fit_of_its_own(self, rng):
        loss, score = rng.uniform(2, 4, (2, 30)), rng.random(30)
        use = rng.random((2, 3, 30)) < 0.7
        together = fit_form(SIGMOID, loss, score, use, floor=None)
        for c in range(2):
            alone = fit_form(SIGMOID, loss[c : c + 1], score, use[c : c + 1], floor=None)
            assert_allclose(together[c], alone[0], rtol=1e-9)

    def test_five_noisy_points_stay_within_reason(self):
        for seed in range(20):
            rng = np.random.default_rng(seed)
            loss, score = rng.uniform(2.5, 3.5, 5), 0.5 + 0.1 * rng.normal(size=5)
            use = np.ones((1, 1, 5), bool)
            found = Link(SIGMOID, {}, *fit_form(SIGMOID, loss[None], score, use, floor=None)[0, 0])
            spread = np.ptp(score)
            assert np.all(np.abs(found.score(np.linspace(2, 4, 9)) - 0.5) < 0.5 + 3 * spread)


class TestChoice:
    @pytest.mark.parametrize("form", CURVES)
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_the_right_loss_and_form(self, form, seed):
        truth = Truth(seed, form)
        link = linked(truth.swarm(24, noise=0.003)).links["score/x"].link
        assert (link.form, list(link.losses)) == (form, ["loss/q"])

    def test_the_mean_of_a_metric(self, swarm):
        mean = np.mean([swarm.column(target) for target in TARGETS], axis=0)
        link = linked(with_score(swarm, 1 / (1 + np.exp(5 * (mean - mean.mean())))))
        assert link.links["score/x"].link.losses == pytest.approx(dict.fromkeys(TARGETS, 1 / 3))

    def test_a_chance_level_is_kept(self, swarm):
        chance = linked(swarm, chance={"score/x": 0.25}).links["score/x"].link
        assert chance.floor == 0.25
        none = linked(swarm, chance={"score/x": 0.0}).links["score/x"].link
        assert none.floor == 0.0

    def test_noise_is_no_link(self, swarm):
        rng = np.random.default_rng(3)
        null = linked(with_score(swarm, 0.5 + 0.05 * rng.normal(size=24)))
        assert any("no link to a loss forecasts" in text for text in null.warnings)

    def test_a_good_link_warns_of_nothing(self, one):
        assert one.links["score/x"].warnings == ()

    def test_a_fold_never_sees_its_mixtures(self, swarm, one):
        """Scores of one fold's mixtures may be anything: its own link stays the same."""
        _, test = one.cross_validation.splits["mixture"].folds[0]
        changed = swarm.column("score/x").copy()
        changed[test] = changed[test][::-1] / 2
        again = linked(with_score(swarm, changed))
        before, after = (each.fold_links[0]["score/x"] for each in (one, again))
        assert after.losses == before.losses
        loss = np.linspace(*one.links["score/x"].loss_range, 20)
        assert_allclose(after.score(loss), before.score(loss), atol=1e-5)


class TestLinkedLaws:
    def test_losses_then_scores(self, one):
        new = new_mixtures(5)
        assert one.targets == (*TARGETS, "score/x")
        assert one.domains == NAMES
        assert_array_equal(one.predict(new)[:, :3], one.laws.predict(new))
        assert not one.convex
        assert not one.decreasing

    def test_forecasts_are_near_the_truth(self, one):
        new, truth = new_mixtures(), Truth(0)
        assert np.abs(one.predict(new)[:, 3] - truth.score(new)).mean() < 0.02

    def test_gradient_is_the_derivative(self, across):
        new, scale = new_mixtures(4), (2e5, 2e6)
        slopes = across.gradient(new, *scale)
        for domain in range(4):
            step = 1e-6 * np.eye(4)[domain]
            up, down = across.predict(new + step, *scale), across.predict(new - step, *scale)
            assert_allclose(slopes[:, :, domain], (up - down) / 2e-6, rtol=1e-4, atol=1e-6)

    def test_repeated_tokens_count_for_less(self, across):
        tokens = {"available_tokens": np.full(4, 1e5)}
        new = new_mixtures(4)
        free = across.predict(new, 2e5, 2e6)
        repeated = across.predict(new, 2e5, 2e6, **tokens)
        assert np.all(repeated != free)
        assert across.gradient(new, 2e5, 2e6, **tokens).shape == (4, 4, 4)

    def test_losses_keep_their_intervals(self, across):
        new, c = new_mixtures(5), np.array([0.5, 0.2, 0.3])
        for scale in ((2e5, 2e6), (8e5, 8e6)):
            mine = across.half_width(np.append(c, 0), new, *scale)
            assert_allclose(mine, across.laws.half_width(c, new, *scale), rtol=1e-9)
            chance = across.probability_better(0.01, np.append(c, 0), new[:2], *scale)
            own = across.laws.probability_better(0.01, c, new[:2], *scale)
            assert chance == pytest.approx(own)

    def test_a_level_is_a_probability(self, across):
        with pytest.raises(FitError, match="level of the intervals is 2; it must lie"):
            across.half_width(SCORE, new_mixtures(1), 2e5, 2e6, level=2)

    def test_score_residuals_are_of_the_whole_chain(self, swarm, one):
        points, observed = Points.of(swarm), swarm.column("score/x")
        column = np.full(24, np.nan)
        folds = one.cross_validation.splits["mixture"].folds
        for laws, links, (_, test) in zip(one.laws.folds, one.fold_links, folds, strict=True):
            losses = np.stack([laws[t].predict(points) for t in TARGETS], axis=1)
            link = links["score/x"]
            column[test] = link.score(losses @ link.shares(TARGETS))[test]
        residuals = np.sort(one.within.residuals[:, 3])
        assert_allclose(residuals, np.sort(column - observed), rtol=1e-9)

    @pytest.mark.parametrize("scales", [((1e5, 1e6),), GRID[-4:]], ids=["one", "four"])
    def test_coverage(self, scales):
        """Fresh mixtures, trained once each, at the largest scale."""
        inside, new = [], new_mixtures(200)
        for seed in range(6):
            truth = Truth(seed)
            laws = linked(truth.swarm(24, scales, noise=0.02, seed=seed))
            noise = 0.02 * np.random.default_rng(seed).normal(size=200)
            error = laws.predict(new, *scales[-1])[:, 3] - truth.score(new, *scales[-1]) - noise
            inside.append(np.abs(error) <= laws.half_width(SCORE, new, *scales[-1]))
        assert 0.85 <= np.mean(inside) <= 0.97

    def test_wider_farther_out(self, across):
        new = new_mixtures(1)
        widths = [across.half_width(SCORE, new, n, 2e6)[0] for n in (2e5, 4e5, 3.2e6)]
        assert 0 < widths[0] < widths[1] < widths[2]

    def test_higher_is_better_by_a_negative_coefficient(self, one):
        pair = new_mixtures(2)
        gaps = [one.probability_better(gap, -SCORE, pair) for gap in (-1, 0, 0.05, 1)]
        assert gaps == sorted(gaps)
        assert gaps[0] < 0.1 < 0.9 < gaps[-1]

    def test_json_round_trip(self, across):
        again = LinkedLaws.from_dict(json.loads(json.dumps(across.to_dict(), allow_nan=False)))
        new = new_mixtures(5)
        for scale in ((2e5, 2e6), (8e5, 8e6)):
            assert_array_equal(again.predict(new, *scale), across.predict(new, *scale))
            assert_array_equal(again.gradient(new, *scale), across.gradient(new, *scale))
            widths = (laws.half_width(SCORE, new, *scale) for laws in (again, across))
            assert_array_equal(*widths)
        for part in ("links", "fold_links", "within", "beyond"):
            assert again.to_dict()[part] == across.to_dict()[part]
        loss = np.array([2.0, 3.0])
        ends = (laws.links["score/x"].interval(loss) for laws in (again, across))
        assert_array_equal(*ends)

    def test_links_of_laws_that_were_read_back(self, swarm, one):
        stored = type(one.laws).from_dict(json.loads(json.dumps(one.laws.to_dict())))
        again = fit_links(stored, swarm, ["score/x"])
        assert again.links["score/x"].link == one.links["score/x"].link

    def test_other_format(self, one):
        with pytest.raises(FitError, match="have format 99"):
            LinkedLaws.from_dict(one.to_dict() | {"format": 99})


class TestFittedLink:
    def test_range_and_extrapolation(self, swarm, across, one):
        link, q = one.links["score/x"], swarm.column("loss/q")
        assert link.loss_range == (q.min(), q.max())
        assert link.extrapolates([q.min() - 0.1, q.mean(), q.max() + 0.1]).tolist() == [1, 0, 1]
        assert across.extrapolations(new_mixtures(3), 1e5, 1e6) == ()
        (text,) = across.extrapolations(new_mixtures(3), 1e9, 1e10)
        assert text.startswith("score/x: its link saw losses of")

    def test_interval_of_a_known_loss_covers(self, one):
        new, truth = new_mixtures(200), Truth(0)
        loss = truth.losses(new, 1e5, 1e6)[:, 1]
        low, high = one.links["score/x"].interval(loss)
        score = truth.score(new) + 0.01 * np.random.default_rng(5).normal(size=200)
        assert 0.8 <= np.mean((low <= score) & (score <= high)) <= 1.0
        narrow = one.links["score/x"].interval(loss, level=0.5)
        assert np.all(narrow[1] - narrow[0] < high - low)

    def test_scores_of_the_largest_runs_only(self):
        runs = Truth(1).swarm(12, GRID)
        top = (runs.num_params == 2e5) & (runs.train_tokens == 2e6)
        few = linked(with_score(runs, np.where(top, runs.column("score/x"), np.nan)))
        assert any("another scale is untested" in text for text in few.warnings)
        assert enough_for(0.9, len(few.within.residuals))
        new = new_mixtures()
        error = np.abs(few.predict(new, 2e5, 2e6)[:, 3] - Truth(1).score(new, 2e5, 2e6))
        assert error.mean() < 0.03


class TestBadInput:
    @pytest.mark.parametrize(
        ("scores", "chance", "message"),
        [
            (["score/xx"], {}, r"'score/xx' is no score .*did you mean 'score/x'\?"),
            (["loss/p"], {}, "'loss/p' is no score"),
            ([], {}, "no score; name at least one"),
            (["score/x"], {"score/y": 0.2}, "'score/y' is no score"),
            (["score/x"], {"score/x": -0.1}, r"chance level of 'score/x' is -0\.1"),
            (["score/x"], {"score/x": float("nan")}, "chance level of 'score/x' is nan"),
        ],
    )
    def test_names_and_chance(self, laws, swarm, scores, chance, message):
        with pytest.raises(FitError, match=message):
            fit_links(laws, swarm, scores, chance=chance)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (np.full(24, np.nan), "never measured on a finished run together"),
            (np.full(24, 0.3), "is constant in all 24 rows"),
            (np.where(np.arange(24) < 4, np.arange(24), np.nan), "on 4 mixtures, 2 when a fold"),
        ],
    )
    def test_scores_that_cannot_be_linked(self, laws, swarm, values, message):
        with pytest.raises(FitError, match=message):
            fit_links(laws, with_score(swarm, values), ["score/x"])

    def test_scores_that_the_largest_scale_lacks(self):
        runs = Truth(1).swarm(12, GRID[-2:])
        values = np.where(runs.train_tokens < 2e6, runs.column("score/x"), np.nan)
        laws = fit_laws(runs, candidates=["m4"])
        with pytest.raises(FitError, match="0 different values at the largest scale"):
            fit_links(laws, with_score(runs, values), ["score/x"])

    def test_another_table(self, laws, swarm):
        with pytest.raises(FitError, match=r"fitted to 24 finished rows .* these 20 are others"):
            fit_links(laws, swarm.select(np.arange(20)), ["score/x"])

    def test_verification_runs_do_not_count(self, laws, swarm):
        extra = replace(swarm.select(np.arange(3)), role=np.full(3, "verify"))
        rows = swarm.rows() + with_score(extra, np.full(3, 9.0)).rows()
        again = fit_links(laws, RunTable.from_rows(rows), ["score/x"])
        alone = fit_links(laws, swarm, ["score/x"])
        assert again.links["score/x"].link == alone.links["score/x"].link


class TestFitLaws:
    def test_scores_are_not_fitted_as_losses(self, swarm):
        runs = with_score(swarm, np.where(np.arange(24) == 3, 0.0, swarm.column("score/x")))
        assert fit_laws(runs, candidates=["m4"]).targets == TARGETS

    @pytest.mark.parametrize("where", ["targets", "also"])
    def test_a_score_that_is_asked_for_is_refused(self, swarm, where):
        given = {"targets": ["loss/p"]} | {where: ["score/x"]}
        with pytest.raises(FitError, match=r"score/x.*fit_links.*error/<task> = 1 - score"):
            fit_laws(swarm, candidates=["m4"], **given)

    def test_scores_only(self, swarm):
        rows = [{k: v for k, v in r.items() if not k.startswith("loss/")} for r in swarm.rows()]
        with pytest.raises(FitError, match="has scores only"):
            fit_laws(RunTable.from_rows(rows), candidates=["m4"])
