"""What fitted laws answer: ends, tolerance, scale, the best share."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.continual import Best, Critical, Move, fit_continual
from mixlaw.continual.search import least, reach
from mixlaw.errors import FitError
from mixlaw.runs import RunTable

OLD = "loss/web"


@pytest.fixture(scope="module")
def fitted(made):
    return fit_continual(
        made.table(seeds=2, noise=0.004, tokens=(1e6, 2e6)), new=["code"], base=made.base
    )


@given(st.floats(0, 0.5), st.floats(0, 0.5), st.sampled_from([0.5e6, 1e6, 2e6, 8e6]))
@settings(max_examples=25, deadline=None)
def test_more_tolerance_never_lowers_the_critical_share(fitted, one, two, tokens):
    less, more = (fitted.critical(tolerance=t, train_tokens=tokens) for t in sorted((one, two)))
    for end in ("low", "share", "high"):
        assert getattr(less, end) <= getattr(more, end) + 1e-9
    for found in (less, more):
        assert 0 <= found.low <= found.share <= found.high <= 1


@given(st.floats(0.5, 0.98), st.floats(0.5, 0.98))
@settings(max_examples=15, deadline=None)
def test_a_higher_level_never_narrows_an_interval(fitted, one, two):
    narrow, wide = (fitted.critical(level=level, train_tokens=2e6) for level in sorted((one, two)))
    assert wide.low <= narrow.low + 1e-9
    assert wide.high >= narrow.high - 1e-9
    narrow, wide = (
        fitted.best({OLD: 1, "loss/code": 1}, level=level, train_tokens=2e6)
        for level in sorted((one, two))
    )
    assert wide.low - 1e-9 <= narrow.low <= narrow.share <= narrow.high <= wide.high + 1e-9


@given(st.floats(0, 0.1))
@settings(max_examples=15, deadline=None)
def test_at_the_critical_share_the_forecast_is_the_base_plus_tolerance(fitted, tolerance):
    found = fitted.critical(tolerance=tolerance, train_tokens=2e6)
    if found.end is None:
        expected = found.base[OLD] + tolerance
        assert found.losses[OLD].value == pytest.approx(expected, abs=1e-7)
        assert fitted.predict(found.share, train_tokens=2e6)[0, 0] == pytest.approx(
            expected, abs=1e-7
        )
        assert found.losses[OLD].low < expected < found.losses[OLD].high
    assert found.replay.value == 1 - found.share
    assert found.replay.low == 1 - found.high


def test_units_do_not_matter(made):
    """Losses, bases and tolerance in other units; tokens, too."""
    scale = 100.0
    runs = made.table(tokens=(1e6, 4e6))
    scaled = [
        row | {t: row[t] * scale for t in made.base} | {"train_tokens": row["train_tokens"] * 1e3}
        for row in made.rows(tokens=(1e6, 4e6))
    ]
    base = {t: loss * scale for t, loss in made.base.items()}
    one = fit_continual(runs, new=["code"], base=made.base)
    two = fit_continual(RunTable.from_rows(scaled), new=["code"], base=base)
    here = one.critical(tolerance=0.02, train_tokens=2e6)
    there = two.critical(tolerance=0.02 * scale, train_tokens=2e9)
    for end in ("low", "share", "high"):
        assert getattr(there, end) == pytest.approx(getattr(here, end), abs=1e-3)


def test_losses_scale_with_the_base_that_is_continued(fitted):
    here = fitted.critical(train_tokens=2e6)
    other = fitted.continuing({OLD: 2.0, "loss/code": 2.5}).critical(train_tokens=2e6)
    assert (other.share, other.end) == (here.share, None)
    assert other.losses[OLD].value == pytest.approx(2.0, abs=1e-7)


def test_no_end_where_no_share_is_too_much(fitted):
    never = fitted.critical(tolerance=2.0, train_tokens=2e6)
    assert (never.share, never.high, never.end, never.binding) == (1.0, 1.0, "never", None)
    assert never.extrapolates == ("share",)


def test_even_pure_replay_may_be_above_the_base(made):
    rows = [row | {OLD: row[OLD] + 0.2} for row in made.rows()]
    found = fit_continual(RunTable.from_rows(rows), new=["code"], base=made.base).critical()
    assert (found.share, found.low, found.high, found.end) == (0.0, 0.0, 0.0, "replay")
    assert found.binding == OLD
    assert found.replay.value == 1.0


def humped(made, **given):
    """Rows whose old loss is above its base, 3, between .1 and .8 only."""
    rows = made.rows(np.round(np.linspace(0, 1, 11), 3), **given)
    return [row | {OLD: 3 - 0.3 * (row["weight/code"] - 0.1) * (row["weight/code"] - 0.8)}
            for row in rows]  # fmt: skip


def bent(laws, above):
    """The laws with a curve of their own in the place of the fitted ones: (T, q) logarithms."""

    class Bent(type(laws)):
        def _curves(self, points):
            logs = np.log1p(above(points.weights[:, 1])) * np.array([[1.0], [0.0]])
            return logs, np.full_like(logs, 1e-4)

    return Bent(**vars(laws))


def test_the_critical_share_is_the_first_crossing(made):
    laws = fit_continual(made.table(), new=["code"], base=made.base)
    dips = bent(laws, lambda x: -(x - 0.3) * (x - 0.6) * (x - 0.7)).critical()
    # Below its base to .3, above to .6, below to .7: only the first can be relied on.
    falls = bent(laws, lambda x: (x - 0.3) * (0.8 - x)).critical()
    assert falls.share == pytest.approx(0.3, abs=1e-6)
    assert falls.low <= falls.share <= falls.high < 0.35
    assert (falls.binding, falls.end) == (OLD, None)
    above = bent(laws, lambda x: 0.1 - x).critical()
    assert (above.share, above.low, above.high, above.end) == (0.0, 0.0, 0.0, "replay")
    assert dips.share == 0.0


def test_a_hump_in_the_runs_is_not_stepped_over(made):
    laws = fit_continual(RunTable.from_rows(humped(made)), new=["code"], base=made.base)
    found = laws.critical()
    assert found.end != "never"
    assert found.low <= found.share < 0.5


def test_the_target_that_rises_first_binds(made):
    rows = [row | {"loss/books": row[OLD] + 0.02, "weight/books": 0.0} for row in made.rows()]
    base = made.base | {"loss/books": 3.0}
    laws = fit_continual(RunTable.from_rows(rows), new=["code"], base=base)
    found = laws.critical()
    assert found.binding == "loss/books"
    assert found.share < 0.3
    assert laws.critical(tolerance={OLD: 0.0, "loss/books": 0.5}).binding == OLD
    assert laws.critical(protect=[OLD]).share == pytest.approx(0.4, abs=0.01)


def test_the_best_share_of_a_known_truth(made):
    laws = fit_continual(made.table(), new=["code"], base=made.base)
    grid = np.linspace(0, 1, 2001)
    for weights in ({OLD: 1, "loss/code": 1}, {OLD: 5, "loss/code": 1}):
        truth = weights[OLD] * made.old_loss(grid) + weights["loss/code"] * made.new_loss(grid)
        expected = grid[np.argmin(truth)]
        found = laws.best(weights)
        assert found.share == pytest.approx(expected, abs=0.05)
        assert found.low <= found.share <= found.high
        total = sum(weights.values())
        assert found.objective == pytest.approx(truth.min() / total, rel=1e-3)
        assert sum(found.weights.values()) == pytest.approx(1)
    only_new = laws.best({"loss/code": 1})
    assert (only_new.share, only_new.end, only_new.extrapolates) == (0.95, "trained", ())
    assert only_new.high == 1.0
    farther = laws.best({"loss/code": 1}, beyond=True)
    assert (farther.share, farther.end, farther.extrapolates) == (1.0, "new", ("share",))
    assert laws.best({OLD: 2.0}).end == "replay"


def test_answers_survive_json(fitted):
    for move in fitted.moves({OLD: 1, "loss/code": 2}, tolerance=0.01):
        for answer, kind in ((move, Move), (move.critical, Critical), (move.best, Best)):
            assert kind.from_dict(json.loads(json.dumps(answer.to_dict()))) == answer
    assert [move.best for move in fitted.moves()] == [None, None]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda f: f.critical(), "the runs vary train_tokens"),
        (lambda f: f.critical(train_tokens=-1.0), "train_tokens is -1.0"),
        (lambda f: f.critical(train_tokens=1e6, tolerance=-0.1), "tolerances"),
        (lambda f: f.critical(train_tokens=1e6, tolerance={"loss/code": 1.0}), "tolerance lacks"),
        (
            lambda f: f.critical(train_tokens=1e6, tolerance={OLD: 0.0, "loss/typo": 3.0}),
            r"tolerance names \['loss/typo'\], which would do nothing",
        ),
        (lambda f: f.critical(train_tokens=1e6, num_params=1e9), "do not say their num_params"),
        (lambda f: f.critical(train_tokens=1e6, protect=[OLD, OLD]), "each once"),
        (lambda f: f.critical(train_tokens=1e6, level=1.0), "level is 1.0"),
        (lambda f: f.critical(train_tokens=1e6, protect=["x"]), "must name some"),
        (lambda f: f.critical(train_tokens=1e6, protect=[]), "must name some"),
        (lambda f: f.predict([0.5, 1.2], train_tokens=1e6), "outside 0 to 1"),
        (lambda f: f.best({}, train_tokens=1e6), "one > 0"),
        (lambda f: f.best({OLD: -1.0}, train_tokens=1e6), ">= 0"),
        (lambda f: f.best({"x": 1.0}, train_tokens=1e6), "no target"),
        (lambda f: f.continuing({OLD: 3.0}), "base lacks"),
    ],
)
def test_questions_that_make_no_sense_are_refused_in_one_line(fitted, ask, message):
    with pytest.raises(FitError, match=message) as raised:
        ask(fitted)
    assert "\n" not in str(raised.value)


@given(st.floats(1e-9, 1))
def test_searches_find_what_is_there(x):
    assert reach(lambda shares: shares <= x, 1.0) == pytest.approx(x, abs=1e-9)
    assert least(lambda shares: (shares - x) ** 2, 0.0, 1.0) == pytest.approx(x, abs=1e-6)
    within = least(lambda shares: (shares - x) ** 2, 0.1, 0.6)
    assert within == pytest.approx(min(max(x, 0.1), 0.6), abs=1e-6)


def test_a_reach_ends_at_the_first_break():
    assert reach(lambda x: (x < 0.3) | (x > 0.6), 1.0) == pytest.approx(0.3)
    assert reach(lambda x: x < -1, 1.0) == 0.0
    assert reach(lambda x: x < 2, 0.0) == 0.0
    assert reach(lambda x: x < 2, 0.7) == 0.7


def test_a_reach_does_not_ask_at_its_start_where_rounding_decides():
    assert reach(lambda x: (x > 0) & (x < 0.3), 1.0) == pytest.approx(0.3)


def test_one_horizon_says_nothing_of_another(made):
    laws = fit_continual(made.table(), new=["code"], base=made.base)
    assert laws.critical(train_tokens=2.01e6).share == pytest.approx(0.4, abs=0.01)
    with pytest.raises(FitError, match=r"all have 2e\+06 train_tokens, so nothing is known"):
        laws.critical(train_tokens=2e9)
    with pytest.raises(FitError, match="do not say their num_params"):
        laws.predict(0.5, num_params=1e9)


def test_horizons_that_hardly_differ_are_one_setting(made):
    rows = [row | {"train_tokens": 2e6 * (1 + 1e-3 * k)} for k, row in enumerate(made.rows())]
    laws = fit_continual(RunTable.from_rows(rows), new=["code"], base=made.base)
    (move,) = laws.moves()
    assert move.setting.train_tokens == pytest.approx(2e6 * 1.003)
    assert laws.trained.rows(move.setting).all()
    assert move.critical.share == pytest.approx(0.4, abs=0.01)


def test_the_interval_of_the_best_share_is_not_lost_to_rounding(made):
    """Its gap to itself is of the order of rounding, above or below 0."""
    laws = fit_continual(made.table(seeds=2, noise=0.02), new=["code"], base=made.base)
    for weight in np.linspace(0.2, 3, 12):
        found = laws.best({OLD: 1.0, "loss/code": float(weight)})
        if 0 < found.share < 0.95:
            assert found.low < found.share < found.high


def test_a_target_measured_at_fewer_shares_is_known_less_well(made):
    full = made.rows(seeds=2, noise=0.003)
    few = [row | {OLD: row[OLD] if row["weight/code"] in (0, 0.25, 0.6, 0.95) else None}
           for row in full]  # fmt: skip
    whole, part = (
        fit_continual(RunTable.from_rows(rows), new=["code"], base=made.base)
        for rows in (full, few)
    )
    assert whole.trained.shares_of_targets.tolist() == [7, 7]
    assert part.trained.shares_of_targets.tolist() == [4, 7]
    quantiles = part._quantiles(0.9)
    assert quantiles[0] > 1.3 * quantiles[1]
    assert quantiles[1] == whole._quantiles(0.9)[1]
