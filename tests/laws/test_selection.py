"""Splits never leak, the right kind of law is chosen, and intervals say what they know."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr

from mixlaw.errors import FitError
from mixlaw.laws import FittedLaws, cross_validate, fit_laws
from mixlaw.laws.catalogue import ONE_SCALE
from mixlaw.laws.splits import MIXTURE_SPLIT, SCALE_SPLIT, make_splits
from mixlaw.laws.uncertainty import HeldOut
from mixlaw.runs import RunTable

FAST = ["effective-product", "exponential-chinchilla"]


@pytest.fixture
def swarm(lab, rng):
    """Sixteen mixtures, three sizes, three horizons, two targets; one law with 1 % noise."""
    points = lab.grid(rng, mixtures=16)
    law = lab.law_named("effective-product")
    values = {}
    for target in ("loss/code", "loss/other"):
        clean = law.predict(lab.plausible_theta(law, points, rng), points)
        values[target] = clean * np.exp(0.01 * rng.normal(size=len(clean)))
    return lab.table(points, values)


@pytest.fixture
def fitted(swarm):
    return fit_laws(swarm, candidates=FAST)


def one_scale(runs):
    return runs.select((runs.num_params == 1e5) & (runs.train_tokens == 1e6))


class TestSplits:
    def test_mixture_split_never_shares_a_mixture(self, swarm):
        ids, split = swarm.mixture_ids(), make_splits(swarm)[MIXTURE_SPLIT]
        for train, test in split.folds:
            assert not set(ids[train]) & set(ids[test])
            assert np.all(train | test)
        tested = sum(test.astype(int) for _, test in split.folds)
        assert_array_equal(tested, 1)

    def test_scale_split_holds_out_mixtures_and_the_largest_scale(self, swarm):
        ids, split = swarm.mixture_ids(), make_splits(swarm)[SCALE_SPLIT]
        for train, test in split.folds:
            assert not set(ids[train]) & set(ids[test])
            assert swarm.num_params[train].max() < swarm.num_params[test].min()
            assert swarm.train_tokens[train].max() < swarm.train_tokens[test].min()
        assert split.reach == pytest.approx({"num_params": np.log(2), "train_tokens": np.log(2)})

    def test_mixtures_that_reach_the_largest_scale_are_spread_over_folds(self, swarm):
        few = np.isin(swarm.mixture_ids(), np.arange(4))  # only four are trained at the top size
        runs = swarm.select((swarm.num_params < swarm.num_params.max()) | few)
        assert len(make_splits(runs)[SCALE_SPLIT].folds) == 4  # one each

    def test_two_sizes_are_both_kept(self, swarm):
        runs = swarm.select(swarm.num_params < swarm.num_params.max())
        split = make_splits(runs)[SCALE_SPLIT]
        assert split.reach["num_params"] == 0
        assert split.reach["train_tokens"] > 0
        assert all(len(set(runs.num_params[train])) == 2 for train, _ in split.folds)

    def test_one_scale_has_no_scale_split(self, swarm):
        assert set(make_splits(one_scale(swarm))) == {MIXTURE_SPLIT}

    def test_too_few_mixtures(self, swarm):
        runs = swarm.select(np.isin(swarm.mixture_ids(), [0, 1, 2]))
        with pytest.raises(FitError, match="at least 4 distinct mixtures, the table has 3"):
            make_splits(runs)


class TestCrossValidation:
    def test_held_out_predictions_are_aligned_with_the_table(self, swarm):
        cv = cross_validate(swarm, ["loss/code"], candidates=["effective-product"])
        predictions = cv.scores["effective-product"][MIXTURE_SPLIT].predictions
        assert predictions.shape == (len(swarm), 1)
        residuals = cv.residuals("effective-product", MIXTURE_SPLIT)[:, 0]
        assert_allclose(residuals, predictions[:, 0] - swarm.column("loss/code"))
        at_top = cv.scores["effective-product"][SCALE_SPLIT].predictions[:, 0]
        assert np.isfinite(at_top).sum() == 16

    def test_scores_by_hand(self, swarm):
        cv = cross_validate(one_scale(swarm), ["loss/code"], candidates=["m4"])
        got, y = cv.scores["m4"][MIXTURE_SPLIT], cv.runs.column("loss/code")
        error = got.predictions[:, 0] - y
        assert got.spearman[0] == pytest.approx(spearmanr(got.predictions[:, 0], y)[0])
        means = np.empty(len(y))
        for train, test in cv.splits[MIXTURE_SPLIT].folds:
            means[test] = y[train].mean()
        assert got.mae[0] == pytest.approx(np.abs(error).mean())
        assert got.mae_of_mean[0] == pytest.approx(np.abs(means - y).mean())
        assert got.normalised_error[0] == pytest.approx((error @ error) / np.sum((means - y) ** 2))

    def test_a_law_that_cannot_be_fitted_is_listed_with_its_reason(self, swarm):
        cv = cross_validate(swarm, ["loss/code"], candidates=["nested", "effective-product"])
        assert MIXTURE_SPLIT in cv.scores["nested"]
        assert "needs 3 different values" in cv.refused["nested"][SCALE_SPLIT]
        assert list(cv.ranking()) == ["effective-product"]

    def test_missing_values_and_a_lone_mixture_at_the_top(self, swarm):
        values = swarm.values.copy()
        values[::7, 0] = np.nan
        runs = replace(swarm, values=values)
        lone = (runs.num_params < 2e5) | (runs.mixture_ids() == 3)
        cv = cross_validate(runs.select(lone), candidates=FAST[:1])
        assert SCALE_SPLIT not in cv.splits  # one mixture cannot stand for a scale
        assert np.all(np.isfinite(cv.scores[FAST[0]][MIXTURE_SPLIT].mae))

    def test_none_fits(self, swarm):
        cv = cross_validate(swarm, ["loss/code"], candidates=["nested"])
        with pytest.raises(FitError, match=r"no law could be cross-validated: nested: .*needs 3"):
            cv.ranking()

    def test_true_form_wins(self, swarm):
        assert next(iter(cross_validate(swarm, candidates=FAST).ranking())) == "effective-product"


class TestFitLaws:
    def test_shapes_and_names(self, fitted, rng):
        weights = rng.dirichlet(np.ones(3), 5)
        assert fitted.targets == ("loss/code", "loss/other")
        assert fitted.law == "effective-product"
        assert fitted.convex
        assert fitted.predict(weights, 1e6, 1e7).shape == (5, 2)
        assert fitted.gradient(weights, 1e6, 1e7).shape == (5, 2, 3)

    def test_json_round_trip(self, fitted, rng):
        again = FittedLaws.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
        weights, c = rng.dirichlet(np.ones(3), 5), np.array([0.5, 0.5])
        assert_array_equal(again.predict(weights, 1e6, 1e7), fitted.predict(weights, 1e6, 1e7))
        for scale in ((2e5, 2e6), (1e6, 1e7)):
            assert_array_equal(
                again.half_width(c, weights, *scale), fitted.half_width(c, weights, *scale)
            )
        assert again.cross_validation.ranking() == pytest.approx(fitted.cross_validation.ranking())
        for part in ("laws", "folds", "rivals", "within", "beyond", "warnings"):
            assert again.to_dict()[part] == fitted.to_dict()[part]

    def test_other_format(self, fitted):
        with pytest.raises(FitError, match="have format 99"):
            FittedLaws.from_dict(fitted.to_dict() | {"format": 99})

    def test_scale_must_be_given(self, fitted):
        with pytest.raises(FitError, match=r"reads \['num_params'\].*num_params=200000"):
            fitted.predict(np.ones((1, 3)) / 3, None, 1e6)

    def test_verification_runs_are_never_fitted(self, swarm, fitted, rng):
        extra = replace(
            swarm.select(np.arange(9)), role=np.full(9, "verify"), values=np.full((9, 2), 50.0)
        )
        rows = type(swarm).from_rows(swarm.rows() + extra.rows())
        weights = rng.dirichlet(np.ones(3), 5)
        again = fit_laws(rows, candidates=FAST).predict(weights, 1e6, 1e7)
        assert_allclose(again, fitted.predict(weights, 1e6, 1e7), rtol=1e-12)

    def test_only_verification_runs(self, swarm):
        with pytest.raises(FitError, match="all 144 rows are for verification"):
            fit_laws(replace(swarm, role=np.full(144, "verify")))

    def test_failed_runs_are_said_so(self, swarm):
        status = np.where(np.arange(144) < 3, "failed", "done")
        warnings = fit_laws(replace(swarm, status=status), candidates=FAST[:1]).warnings
        assert any("left out 3 rows of failed runs" in text for text in warnings)

    def test_one_scale_uses_laws_of_the_mixture_and_says_so(self, swarm):
        laws = fit_laws(one_scale(swarm))
        assert laws.law in ONE_SCALE
        assert laws.predict(np.ones((1, 3)) / 3).shape == (1, 2)
        assert any("all runs have the same num_params" in text for text in laws.warnings)


AXIS = {"num_params": 1.0, "train_tokens": 1.0}


def held_out(residuals: np.ndarray, **changes) -> HeldOut:
    """Residuals (m, 1) of one target, one fold per mixture, at one scale."""
    residuals = np.asarray(residuals, float).reshape(-1, 1)
    nowhere = dict.fromkeys(AXIS, 0.0)
    arguments = {"reach": nowhere, "smallest": AXIS, "largest": AXIS} | changes
    return HeldOut(("loss/x",), residuals, np.arange(len(residuals)), **arguments)


ONE = np.ones(1)


class TestUncertainty:
    C = np.array([0.5, 0.5])
    UNIFORM = np.ones((1, 3)) / 3

    def width(self, fitted, *scale, **options):
        return float(fitted.half_width(self.C, self.UNIFORM, *scale, **options)[0])

    def test_wider_farther_out_and_at_higher_levels(self, fitted):
        inside, near, far = (self.width(fitted, n, 2e6) for n in (2e5, 4e5, 3.2e6))
        assert 0 < inside < near < far
        low, high = (self.width(fitted, 2e5, 2e6, level=level) for level in (0.5, 0.99))
        assert low < inside < high

    def test_width_grows_without_a_jump(self, fitted):
        sizes = 2e5 * 2 ** np.linspace(0, 3, 40)
        widths = np.array([self.width(fitted, n, 2e6) for n in sizes])
        assert np.all(np.diff(widths) >= -1e-12)
        assert np.max(np.diff(widths)) < 0.2 * (widths[-1] - widths[0])

    def test_too_few_mixtures_fall_back_and_say_so(self, swarm):
        laws = fit_laws(swarm.select(swarm.mixture_ids() < 6), candidates=FAST[:1])
        assert any("6 held-out mixtures" in text for text in laws.warnings)
        assert self.width(laws, 2e5, 2e6) > 0

    def test_probability_grows_with_the_gap_and_is_never_certain(self, fitted):
        pair, scale = np.array([[0.6, 0.2, 0.2], [0.2, 0.5, 0.3]]), (2e5, 2e6)
        gaps = [fitted.probability_better(g, self.C, pair, *scale) for g in (-9, -0.01, 0, 0.01, 9)]
        assert gaps == sorted(gaps)
        assert gaps[0] > 0
        assert gaps[2] == pytest.approx(0.5)
        assert gaps[-1] < 1

    def test_a_small_gap_says_more_of_mixtures_that_are_alike(self, fitted):
        near = np.array([[0.4, 0.3, 0.3], [0.41, 0.3, 0.29]])
        far = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
        chances = [fitted.probability_better(0.01, self.C, m, 2e5, 2e6) for m in (near, far)]
        assert chances[0] > chances[1] > 0.5

    def test_a_shared_level_error_widens_the_interval(self):
        residuals = np.random.default_rng(0).normal(size=20)
        shifted = held_out(residuals + 5).half_width(ONE, 0.9)
        assert shifted > held_out(residuals).half_width(ONE, 0.9) + 3

    @pytest.mark.parametrize("num_mixtures", [8, 24, 60])
    def test_coverage_on_fresh_residuals(self, num_mixtures):
        rng = np.random.default_rng(1)
        inside = []
        for _ in range(400):
            width = held_out(rng.normal(size=num_mixtures)).half_width(ONE, 0.9)
            inside.append(np.abs(rng.normal(size=50)) <= width)
        assert 0.87 <= np.mean(inside) <= 0.95

    def test_disagreeing_folds_widen_the_interval_there(self):
        errors = held_out(np.linspace(-1, 1, 30))
        folds = np.stack([np.zeros(30), np.linspace(-3, 3, 30)], axis=1)  # (folds, mixtures)
        agreed, disagreed = errors.half_width(ONE, 0.9, folds)
        assert disagreed > agreed + 1

    def test_cv_plus_by_hand(self):
        errors = held_out([0.1, -0.2, 0.3, 0.0])
        folds = np.array([[1.0], [1.2], [0.9], [1.1]])
        # sorted 1.1, 1.1, 1.2, 1.4 above and .6, .9, 1.0, 1.1 below; 60 % of 5 is the third
        assert errors.half_width(ONE, 0.6, folds)[0] == pytest.approx((1.2 - 0.9) / 2)

    @pytest.mark.parametrize("level", [-1, 0, 1, 2, 90, np.nan])
    def test_a_level_is_a_probability(self, fitted, level):
        told = rf"level of the intervals is {level}; it must lie between 0 and 1"
        with pytest.raises(FitError, match=told):
            held_out(np.ones(20)).half_width(ONE, level)
        with pytest.raises(FitError, match=told):
            self.width(fitted, 2e5, 2e6, level=level)


def test_an_interval_widens_on_both_sides_of_the_trained_scales():
    smallest = {"num_params": 1e6, "train_tokens": 1e8}
    largest = {"num_params": 4e6, "train_tokens": 1e8}
    reach = {"num_params": 1.0, "train_tokens": 0.0}
    errors = held_out(np.ones(20), reach=reach, smallest=smallest, largest=largest)
    assert errors.widening(2e6, 1e8) == 1
    assert errors.widening(4e9, 1e8) > 2
    assert errors.widening(1e3, 1e8) == pytest.approx(errors.widening(4e9, 1e8))
    assert errors.widening(2e6, 1e10) > 1


def test_targets_that_were_never_measured_together():
    table = made_up_table()
    values = table.values.copy()
    even = table.mixture_ids() % 2 == 0
    values[even, 0] = np.nan
    values[~even, 1] = np.nan
    fitted = fit_laws(replace(table, values=values), candidates=["effective"])
    uniform = np.ones((1, 3)) / 3
    assert fitted.half_width(np.array([1.0, 0.0]), uniform) > 0
    with pytest.raises(FitError, match="measured together"):
        fitted.half_width(np.array([0.5, 0.5]), uniform)


def test_a_constant_target_is_left_out_unless_it_is_asked_for():
    table = made_up_table()
    values = np.column_stack([table.values[:, 0], np.full(len(table), 3.0)])
    flat = replace(table, values=values)
    fitted = fit_laws(flat, candidates=["m4"])
    assert fitted.targets == ("loss/x",)
    assert any("loss/y: left out" in text and "3 in all 16" in text for text in fitted.warnings)
    with pytest.raises(FitError, match="constant"):
        fit_laws(flat, ["loss/y"], candidates=["m4"])


def test_a_size_known_for_some_rows_only_is_refused():
    table = made_up_table()
    num_params = np.full(len(table), 1e6)
    num_params[3] = np.nan
    with pytest.raises(FitError, match=r"num_params is missing in 1 of"):
        fit_laws(replace(table, num_params=num_params))


def made_up_table() -> RunTable:
    """Sixteen mixtures of three domains, two targets, one scale."""
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 16)
    names = ("a", "b", "c")
    return RunTable.from_rows(
        {f"weight/{n}": w for n, w in zip(names, row, strict=True)}
        | {"loss/x": 2 + np.exp(-3 * row[0]), "loss/y": 1 + np.exp(-2 * row[1])}
        for row in weights
    )


def test_importing_laws_is_light():
    """The CLI's start-up must not pay for training, plots or Parquet."""
    heavy = "{'torch', 'matplotlib', 'pyarrow', 'scipy.stats'}"
    code = f"import sys, mixlaw.laws; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
