"""What fitted laws answer: ends, tolerance, scale, the best share."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.continual import Best, Critical, Move, fit_continual
from mixlaw.continual.search import largest, least, reach
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


def test_ends_are_named(fitted):
    above = fitted.continuing({OLD: 2.0, "loss/code": 2.5}).critical(train_tokens=2e6)
    assert above.end is None  # another base, the same ratio
    never = fitted.critical(tolerance=2.0, train_tokens=2e6)
    assert (never.share, never.high, never.end, never.binding) == (1.0, 1.0, "never", None)
    assert never.extrapolates == ("share",)


def test_even_pure_replay_may_be_above_the_base(made):
    rows = [row | {OLD: row[OLD] + 0.2} for row in made.rows()]
    found = fit_continual(RunTable.from_rows(rows), new=["code"], base=made.base).critical()
    assert (found.share, found.low, found.high, found.end) == (0.0, 0.0, 0.0, "replay")
    assert found.binding == OLD
    assert found.replay.value == 1.0


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
    assert (only_new.share, only_new.end, only_new.extrapolates) == (1.0, "new", ("share",))
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


@given(st.floats(0, 1))
def test_searches_find_what_is_there(x):
    assert largest(lambda shares: shares <= x) == pytest.approx(x, abs=1e-9)
    assert least(lambda shares: (shares - x) ** 2) == pytest.approx(x, abs=1e-6)
    assert reach(lambda steps: steps <= x, 1.0) == pytest.approx(x, abs=1e-9)


def test_a_reach_ends_at_the_first_break():
    assert reach(lambda x: (x < 0.3) | (x > 0.6), 1.0) == pytest.approx(0.3)
    assert largest(lambda x: (x < 0.3) | (x > 0.6)) == 1.0
    assert largest(lambda x: x < -1) == 0.0
    assert reach(lambda x: x < 2, 0.0) == 0.0
