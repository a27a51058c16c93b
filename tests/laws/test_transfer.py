"""A small law moved to a larger scale by a few runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mixlaw.errors import FitError
from mixlaw.laws import Fitted, Points, fit, fit_laws, load_fitted, make
from mixlaw.laws.fitting import batch_of, fit_transfer
from mixlaw.laws.transfer import FittedTransfer, Transfer, zero_shot_doubt
from mixlaw.runs import RunTable


@dataclass(frozen=True, eq=False)
class Linear(Fitted):
    """weights @ slopes: a law whose transfer can be computed by hand."""

    target: str
    slopes: np.ndarray
    domains: tuple[str, ...] = ("code", "docs", "web")
    warnings: tuple[str, ...] = ()

    @property
    def recipe(self):
        return make("m1")

    def predict(self, points):
        return points.weights @ self.slopes

    def gradient(self, points):
        return np.tile(self.slopes, (len(points), 1))

    @property
    def start(self):
        return None

    def to_dict(self):
        return {}


CORNERS = Points.at(np.eye(3), 1e5, 1e6)
S = np.array([1.0, 2.0, 3.0])


def transferred(priors, runs, targets=None) -> dict[str, FittedTransfer]:
    found = fit_transfer(priors, runs, targets)
    assert all(isinstance(law, FittedTransfer) for law in found.values())
    return found  # pyright: ignore[reportReturnType]


@pytest.fixture
def pair(lab, rng):
    """Two targets at a small and at a large scale: other levels, other spreads, a little noise."""

    def table(points, scale):
        code = 2 + scale * np.exp(-3 * points.weights[:, 0]) + 0.02 * points.weights[:, 1]
        docs = 1 + scale * np.exp(-2 * points.weights[:, 1] - points.weights[:, 2])
        values = {"loss/code": code, "loss/docs": docs}
        noise = np.exp(0.002 * rng.normal(size=len(points)))
        return lab.table(points, {name: v * noise for name, v in values.items()})

    small = lab.grid(rng, mixtures=30, sizes=1, horizons=1)
    large = lab.grid(rng, mixtures=12, sizes=1, horizons=1)
    large = replace(large, num_params=large.num_params * 10)
    return table(small, 1.0), table(large, 0.5)


@pytest.fixture
def priors(pair):
    return {target: fit(make("effective"), pair[0], target=target) for target in pair[0].targets}


def test_slope_by_hand(lab):
    """v = 2/3, Q = 3; C = 6 and 3; mean slope 13/10; slopes (6 + 5.2) / 7 and (3 + 5.2) / 7."""
    runs = lab.table(CORNERS, {"loss/a": 2 * S + 1, "loss/b": S})
    laws = transferred({"loss/a": Linear("loss/a", S), "loss/b": Linear("loss/b", S)}, runs)
    assert_allclose([law.slope for law in laws.values()], [11.2 / 7, 8.2 / 7])
    assert_allclose([law.level for law in laws.values()], [5, 2])
    assert_allclose([law.centre for law in laws.values()], [2, 2])


def test_process_by_hand(lab):
    """The corners are nearly sqrt 2 apart, so the process is nearly each residual over 1.2."""
    runs = lab.table(CORNERS, {"loss/a": 2 * S + 1})
    law = transferred({"loss/a": Linear("loss/a", S)}, runs)["loss/a"]
    rest = 2 * S + 1 - (5 + law.slope * (S - 2))
    far = np.exp(-2 * (np.sqrt(1.001) - np.sqrt(0.001)) ** 2 / (2 * 0.25))
    kernel = np.full((3, 3), far) + (1 - far) * np.eye(3)
    process = kernel @ np.linalg.solve(kernel + 0.2 * np.eye(3), rest)
    assert_allclose(law.predict(CORNERS), 2 * S + 1 - rest + process)


def test_left_out_is_a_refit_without_the_mixture(pair, priors):
    _, large = pair
    everything = Transfer(priors, large.weights).fit_batch(batch_of(large, large.targets))
    for fitted in everything:
        assert isinstance(fitted, FittedTransfer)
        for i, mixture in enumerate(fitted.process.centres.weights):
            same = np.all(large.weights == mixture, axis=1)
            rest = batch_of(large.select(~same), large.targets)
            refits = dict(
                zip(
                    large.targets,
                    Transfer(priors, large.weights).fit_batch(rest),
                    strict=True,
                )
            )
            missed = refits[fitted.target].predict(Points.of(large.select(same)))
            missed = missed - large.column(fitted.target)[same]
            assert_allclose(fitted.left_out[i], missed[0], atol=1e-12)
        assert fitted.left_out_error == np.sqrt(np.mean(fitted.left_out**2))


def test_better_than_the_shift_and_than_scratch(pair, priors):
    _, large = pair
    few, test = large.select(np.arange(4)), large.select(np.arange(4, 12))
    moved, errors = fit_transfer(priors, few), {"moved": [], "shifted": [], "scratch": []}
    for target, prior in priors.items():
        level = np.mean(few.column(target) - prior.predict(Points.of(few)))
        found = {
            "moved": moved[target].predict(Points.of(test)),
            "shifted": prior.predict(Points.of(test)) + level,
            "scratch": fit(make("effective"), few, target=target).predict(Points.of(test)),
        }
        for name, predicted in found.items():
            errors[name].append(np.abs(predicted - test.column(target)).mean())
    means = {name: np.mean(found) for name, found in errors.items()}
    assert means["moved"] < 0.8 * min(means["shifted"], means["scratch"])


def test_fit_with_a_prior_is_transfer_of_one_target(pair, priors, lab, rng):
    _, large = pair
    law = fit(make("effective"), large, target="loss/code", prior=priors["loss/code"])
    only = fit_transfer(priors, large, ["loss/code"])["loss/code"]
    new = lab.grid(rng, mixtures=5)
    assert_array_equal(law.predict(new), only.predict(new))


def test_seeds_of_a_mixture_count_as_one_mixture(pair, priors, lab, rng):
    """Twice the same row weighs twice, as two seeds with that mean do."""
    _, large = pair
    twice = RunTable.from_rows([*large.rows(), large.rows()[0] | {"run": "again"}])
    batch = batch_of(twice, ["loss/code"])
    doubled = batch_of(large, ["loss/code"])
    doubled = replace(doubled, use=np.where(np.arange(12) == 0, 2.0, 1.0)[None])
    batch = replace(batch, use=np.ones((1, 13)))
    one, two = (Transfer(priors).fit_batch(b)[0] for b in (batch, doubled))
    assert isinstance(one, FittedTransfer)
    assert len(one.left_out) == 12
    new = lab.grid(rng, mixtures=5)
    assert_allclose(one.predict(new), two.predict(new), rtol=1e-12)


def test_rows_that_are_not_used_have_no_influence(pair, priors, lab, rng):
    batch, new = batch_of(pair[1], ["loss/code"]), lab.grid(rng, mixtures=5)
    use = np.where(np.arange(12) < 8, batch.use, 0.0)
    other = replace(batch, use=use, y=np.where(use > 0, batch.y, 17.0))
    fitted = Transfer(priors).fit_batch(other)[0]
    removed = Transfer(priors).fit_batch(batch.rows(np.arange(12) < 8))[0]
    assert_array_equal(fitted.predict(new), removed.predict(new))


@pytest.mark.parametrize("small_law", ["effective", "effective+gp", "m1"])
def test_bit_identical_after_json(pair, lab, rng, small_law):
    small, large = pair
    prior = fit(make(small_law), small, target="loss/code")
    law = fit(make(small_law), large, target="loss/code", prior=prior)
    new = lab.grid(rng, mixtures=7)
    again = load_fitted(json.loads(json.dumps(law.to_dict(), allow_nan=False)))
    assert isinstance(again, FittedTransfer)
    assert_array_equal(again.predict(new), law.predict(new))
    assert_array_equal(again.gradient(new), law.gradient(new))
    assert again.to_dict() == law.to_dict()
    assert again.recipe.name == "transfer"
    assert not again.recipe.convex


def test_gradient(pair, priors):
    law = fit_transfer(priors, pair[1])["loss/code"]
    weights, step = np.array([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0], [0, 0, 1.0]]), 1e-7
    ahead = [law.predict(Points.at(weights + step * d)) for d in np.eye(3)]
    slopes = (np.stack(ahead, axis=1) - law.predict(Points.at(weights))[:, None]) / step
    assert_allclose(law.gradient(Points.at(weights)), slopes, rtol=1e-3, atol=1e-4)


def test_laws_of_a_whole_table_as_priors(pair, lab, rng):
    """What `fit_laws` gave knows its mixtures, so slopes are pooled over their spread."""
    small, large = pair
    fitted = fit_laws(small, candidates=["m1"])
    moved = transferred(fitted, large)
    by_hand = Transfer(fitted.laws, small.weights).fit_batch(batch_of(large, large.targets))
    new = lab.grid(rng, mixtures=5)
    for law, same in zip(moved.values(), by_hand, strict=True):
        assert_array_equal(law.predict(new), same.predict(new))


def test_a_joint_law_as_prior_is_asked_at_the_large_scale(lab, rng):
    points = lab.grid(rng, mixtures=20)
    clean = 1 + (0.1 + points.weights[:, 0]) ** -0.3 * (points.num_params / 1e5) ** -0.2
    runs = lab.table(points, {"loss/code": clean * np.exp(0.001 * rng.normal(size=len(points)))})
    largest = runs.num_params == runs.num_params.max()
    prior = fit(make("effective-product", lab.axes), runs.select(~largest), target="loss/code")
    large = runs.select(largest & (runs.train_tokens == runs.train_tokens.max()))
    law = transferred({"loss/code": prior}, large.select(np.arange(5)))["loss/code"]
    # The joint law has the level of the large scale, and its spread.
    assert law.level == pytest.approx(law.centre, rel=0.01)
    assert law.slope == pytest.approx(1, abs=0.1)
    assert law.recipe.needs == prior.recipe.needs
    predicted = law.predict(Points.of(large))
    assert np.abs(predicted / large.column("loss/code") - 1).mean() < 0.005


def test_a_broken_ranking_is_told(pair, priors):
    _, large = pair
    laws = fit_transfer(priors, large)
    assert not any("ranks" in text for law in laws.values() for text in law.warnings)
    turned = replace(large, values=large.values[::-1])
    warnings = fit_transfer(priors, turned)["loss/code"].warnings
    assert any("ranks the 12 mixtures" in text for text in warnings)


def test_the_mean_breaks_first(lab):
    """Each target keeps its order, but the trade-off between them turns."""
    points = Points.at(np.array([[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1]]), 1e6, 1e6)
    falling, rising = np.array([0.0, 1.0, 0.0]), np.array([1.2, 0.0, 0.0])
    small = {"loss/a": Linear("loss/a", falling), "loss/b": Linear("loss/b", rising)}
    w = points.weights
    runs = lab.table(points, {"loss/a": 2 + 2 * w @ falling, "loss/b": 3 + 0.5 * w @ rising})
    doubt = zero_shot_doubt(small, runs)
    assert doubt.of_target == {"loss/a": 1.0, "loss/b": 1.0}
    assert doubt.of_mean == -1.0
    assert doubt.num_mixtures == 3


def test_doubt_averages_seeds_and_leaves_out_what_failed(pair, priors):
    _, large = pair
    rows = large.rows()
    for row in rows[:2]:
        row["loss/code"] = None
    rows[2] |= {"status": "failed"}
    rows += [rows[-1] | {"run": "again"}]
    assert zero_shot_doubt(priors, RunTable.from_rows(rows)).num_mixtures == 9
    with pytest.raises(FitError, match=r"at least 3 mixtures .* the runs have 2"):
        zero_shot_doubt(priors, large.select(np.arange(2)))


def test_too_few_mixtures(pair, priors):
    with pytest.raises(FitError, match=r"at least 3 distinct mixtures .* has 2; train 1 more"):
        fit_transfer(priors, pair[1].select(np.array([0, 1])))


def test_several_scales(pair, priors):
    _, large = pair
    larger = np.where(np.arange(12) < 6, 1e6, 3e6)
    with pytest.raises(FitError, match="2 values of num_params; select the rows of one scale"):
        fit_transfer(priors, replace(large, num_params=larger))


@pytest.mark.parametrize("verb", [fit_transfer, zero_shot_doubt])
def test_other_domains(pair, priors, verb):
    _, large = pair
    with pytest.raises(FitError, match=r"\['code', 'docs', 'web'\].*\['code', 'docs', 'math'\]"):
        verb(priors, replace(large, domains=("code", "docs", "math")))


@pytest.mark.parametrize("verb", [fit_transfer, zero_shot_doubt])
def test_a_target_without_a_law(pair, priors, verb):
    with pytest.raises(FitError, match=r"given for \['loss/docs'\]"):
        verb({"loss/code": priors["loss/code"]}, pair[1], ["loss/code", "loss/docs"])


def test_a_law_that_is_flat_moves_only_its_level(lab):
    runs = lab.table(CORNERS, {"loss/a": 2 * S + 1})
    law = transferred({"loss/a": Linear("loss/a", np.ones(3))}, runs)["loss/a"]
    assert law.slope == 1.0
    assert np.all(np.isfinite(law.predict(CORNERS)))


@pytest.mark.parametrize(("num_large", "most"), [(4, 0.10), (8, 0.08), (16, 0.07)])
def test_few_shot_on_slimpajama(published, num_large, most):
    """122M to 937M, final rows, test mixtures held out at both scales: mean squared error over the
    targets' variance. From scratch it is .51, .15 and .08."""
    runs = published("dmsl-slimpajama")
    runs = runs.select(np.isin(runs.num_params, (1.22e8, 9.37e8)))
    last = {run: runs.train_tokens[runs.run == run].max() for run in set(runs.run)}
    runs = runs.select(runs.train_tokens == np.array([last[run] for run in runs.run]))
    is_large = runs.num_params > 5e8
    small, large = runs.select(~is_large), runs.select(is_large)
    errors = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(large))
        test, drawn = large.select(order[:13]), large.select(order[13 : 13 + num_large])
        known = {tuple(w) for w in np.round(test.weights, 9)}
        new = np.array([tuple(w) not in known for w in np.round(small.weights, 9)])
        batch = batch_of(small.select(new), runs.targets)
        laws = dict(zip(runs.targets, make("effective+gp").fit_batch(batch), strict=True))
        moved = fit_transfer(laws, drawn).values()
        predicted = np.stack([law.predict(Points.of(test)) for law in moved], axis=1)
        errors.append(np.mean((predicted - test.values) ** 2, axis=0) / large.values.var(axis=0))
    assert np.mean(errors) <= most
