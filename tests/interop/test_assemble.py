"""Logged runs become rows: at which checkpoint, with which mixture, and what is said of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixlaw.errors import RunTableError
from mixlaw.interop import Columns
from mixlaw.interop.assemble import assemble
from mixlaw.interop.logged import LoggedRun, Series
from mixlaw.runs import FAILED

COLUMNS = {
    "mixture": {"web": "m.web", "code": "m.code"},
    "targets": {"loss/web": "web", "loss/code": "code"},
}
SHARES = {"m.web": 0.25, "m.code": 0.75}


def columns(**changes) -> Columns:
    return Columns(**{**COLUMNS, **changes})


def series(steps, values) -> Series:
    return Series(np.array(steps, float), np.array(values, float))


def run(name="a", web=None, code=None, fields=SHARES, **more) -> LoggedRun:
    """Losses at steps 10, 20 and 30."""
    web = series([10, 20, 30], [3.0, 2.5, 2.0]) if web is None else web
    code = series([10, 20, 30], [2.0, 1.5, 1.0]) if code is None else code
    given = {"web": web, "code": code, **more.pop("series", {})}
    return LoggedRun(name, more.pop("display", name), fields, given, origin=f"run {name}", **more)


def test_the_last_checkpoint_with_tokens_from_a_counter():
    tokens = {"seen": series([5, 15, 30], [500, 1500, 3000])}
    table, notes = assemble([run(series=tokens)], columns(train_tokens="seen"))
    np.testing.assert_array_equal(table.values, [[2.0, 1.0]])
    np.testing.assert_array_equal(table.train_tokens, [3000])
    np.testing.assert_array_equal(table.weights, [[0.25, 0.75]])
    assert notes == ()


def test_all_checkpoints_with_tokens_from_steps():
    given = columns(tokens_per_step=100, checkpoints="all", num_params=1e6, seed=7)
    table, _ = assemble([run(), run("b")], given)
    np.testing.assert_array_equal(table.train_tokens, [1000, 2000, 3000] * 2)
    np.testing.assert_array_equal(table.column("loss/code"), [2.0, 1.5, 1.0] * 2)
    assert set(table.num_params) == {1e6}
    assert set(table.seed) == {7}
    assert list(table.run) == ["a"] * 3 + ["b"] * 3


def test_all_checkpoints_need_tokens():
    with pytest.raises(
        RunTableError, match=r"run a: the tokens seen are not known.*--train-tokens"
    ):
        assemble([run()], columns(checkpoints="all"))


def test_tokens_between_two_points_of_the_counter():
    given = columns(train_tokens="seen", checkpoints="all")
    tokens = {"seen": series([15, 30], [1500, 6000])}
    table, _ = assemble([run(series=tokens)], given)
    np.testing.assert_array_equal(table.train_tokens, [1000, 3000, 6000])
    early = {"seen": series([5, 15], [500, 1500])}
    with pytest.raises(RunTableError, match="tokens seen are not known"):
        assemble([run(series=early)], given)


def test_a_final_count_of_tokens_holds_at_the_end_only():
    fields = {**SHARES, "config.train_tokens": 3000}
    given = columns(train_tokens="config.train_tokens")
    table, _ = assemble([run(fields=fields)], given)
    np.testing.assert_array_equal(table.train_tokens, [3000])
    early, _ = assemble([run(fields=fields, code=series([10], [2.0]))], given)
    np.testing.assert_array_equal(early.train_tokens, [np.nan])


def test_a_partial_history_is_taken_where_all_was_measured():
    partial = run("b", code=series([10, 20], [2.0, 1.5]))
    table, notes = assemble([run(), partial], columns(tokens_per_step=1))
    np.testing.assert_array_equal(table.values, [[2.0, 1.0], [2.5, 1.5]])
    np.testing.assert_array_equal(table.train_tokens, [30, 20])
    assert notes == (
        "1 run taken before their end, at the last step at which all their targets were measured: "
        "b (step 20 of 30)",
    )


def test_a_target_that_a_run_never_measured_is_a_gap():
    table, notes = assemble([run(), run("b", code=series([], []))], columns())
    np.testing.assert_array_equal(table.values, [[2.0, 1.0], [2.0, np.nan]])
    assert notes == ("loss/code was not measured in 1 of 2 rows: b",)


def test_a_run_that_diverged_has_failed():
    bad = run("b", code=series([10, 20, 30], [2.0, 1.5, math.nan]))
    table, notes = assemble([run(), bad], columns())
    assert list(table.status) == ["done", FAILED]
    assert np.isnan(table.values[1]).all()
    assert notes == ("1 run failed: a target ends in no number: b (code in nan)",)


def test_runs_without_targets_are_left_out_and_said():
    other = LoggedRun("c", "c", SHARES, {"web": series([], [])}, origin="run c")
    table, notes = assemble([run(), other], columns())
    assert list(table.run) == ["a"]
    assert "left out" in notes[0]
    assert "c" in notes[0]
    with pytest.raises(RunTableError, match=r"no run has a value of loss/web, loss/code.*--target"):
        assemble([LoggedRun("c", "c", {**SHARES, "web": None, "code": None})], columns())


def test_targets_that_were_never_measured_together():
    apart = run("b", web=series([10], [3.0]), code=series([30], [1.0]))
    table, notes = assemble([run(), apart], columns())
    assert list(table.run) == ["a"]
    assert notes[0] == (
        "1 run left out, for their targets were never measured at one step: "
        "b (web last at step 10, code last at step 30)"
    )
    near = run("b", web=series([1000], [3.0]), code=series([1001], [1.0]))
    table, _ = assemble([run(), near], columns())
    np.testing.assert_array_equal(table.values[1], [3.0, 1.0])


def test_runs_without_a_mixture():
    without = run("b", fields={})
    with pytest.raises(RunTableError, match=r"1 of 2 runs say no mixture: b \(run b\).*--design"):
        assemble([run(), without], columns())
    planned = {"p": {"weight/web": 1.0, "weight/code": 0.0}}
    table, notes = assemble([run(), without], columns(), planned=planned)
    assert list(table.run) == ["a"]
    assert "1 run without a mixture, and not planned, left out: b" in notes


@pytest.mark.parametrize(
    ("name", "display"),
    [("p1", "x"), ("x", "p1"), ("x", "swarm/p1/attempt0"), ("/out/p1/log", "x")],
)
def test_planned_runs_are_found_by_name(name, display):
    planned = {"p1": {"weight/web": 0.5, "weight/code": 0.5, "num_params": 7, "seed": 3}}
    planned["p1"] |= {"train_tokens": 99}
    found, notes = assemble(
        [run(name, fields={}, display=display)], columns(mixture={}), planned=planned
    )
    assert found.domains == ("code", "web") or found.domains == ("web", "code")
    np.testing.assert_array_equal(found.weights, [[0.5, 0.5]])
    assert list(found.run) == list(found.label) == ["p1"]
    assert (found.num_params[0], found.train_tokens[0], found.seed[0]) == (7, 99, 3)
    assert notes == ()


def test_a_planned_run_that_logs_another_mixture():
    planned = {"a": {"weight/web": 0.5, "weight/code": 0.5}}
    table, notes = assemble([run()], columns(), planned=planned)
    np.testing.assert_array_equal(table.weights, [[0.25, 0.75]])
    assert "1 row with another mixture than was planned" in notes[0]


def test_shares_are_rescaled_within_rounding_only():
    table, notes = assemble([run(fields={"m.web": 0.253, "m.code": 0.75})], columns())
    assert table.weights.sum() == pytest.approx(1, abs=1e-15)
    assert "1 of 1 row were rescaled to sum to 1; they summed to 1.003" in notes[0]
    for fields, message in [
        ({"m.web": 0.26, "m.code": 0.75}, r"run a: the shares sum to 1\.01;.*--unit relative"),
        ({"m.web": 25, "m.code": 75}, "All rows sum to 100: say --unit percent"),
        ({"m.web": -0.1, "m.code": 1.1}, "run a: the share of 'web' is -0.1"),
        ({"m.web": "much", "m.code": 1.1}, "run a: m.web is 'much'; it must be a number"),
    ]:
        with pytest.raises(RunTableError, match=message):
            assemble([run(fields=fields)], columns())
    table, _ = assemble([run(fields={"m.web": 3, "m.code": 1})], columns(unit="relative"))
    np.testing.assert_array_equal(table.weights, [[0.75, 0.25]])
    table, _ = assemble([run(fields={"m.web": 25, "m.code": 75})], columns(unit="percent"))
    np.testing.assert_array_equal(table.weights, [[0.25, 0.75]])


def test_a_share_that_is_missing_beside_others_is_none():
    given = [run(), run("b", fields={"m.web": 1.0})]
    table, _ = assemble(given, columns())
    np.testing.assert_array_equal(table.weights, [[0.25, 0.75], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (run(), None),
        (run(code=series([10, 20, 30], [2.0, 1.5, 1.1])), "run a and run a.*loss/code 1 and 1.1"),
        (run(fields={"m.web": 0.5, "m.code": 0.5}), "with different mixtures.*--run"),
    ],
)
def test_the_same_run_twice(second, message):
    if message is None:
        table, notes = assemble([run(), second], columns())
        assert len(table) == 1
        assert notes == ("merged 1 row that repeated another of the run",)
    else:
        with pytest.raises(RunTableError, match=message):
            assemble([run(), second], columns())


def test_perplexities():
    given = run(web=series([10], [20.0]), code=series([10], [2.0]))
    logs = columns(targets={"loss/web": "log(web)", "bpb/code": "log2(code)"})
    table, notes = assemble([given], logs)
    np.testing.assert_allclose(table.values, [[math.log(20.0), 1.0]])
    assert notes[0] == "loss/web is the logarithm of web, a perplexity"


def test_a_perplexity_is_no_loss():
    given = LoggedRun("a", "a", {**SHARES, "web_ppl": 20.0})
    with pytest.raises(RunTableError, match=r"which is a perplexity.*read it from log\(web_ppl\)"):
        assemble([given], columns(targets={"loss/web": "web_ppl"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": {"loss/web": "wab"}}, "no column 'wab' for the target loss/web"),
        ({"mixture": {"web": "m.wab"}}, "no column 'm.wab' for the mixture; did you mean 'm.web'"),
        ({"num_params": "size"}, "no column 'size' for num_params"),
        ({"targets": {"web": "web"}}, "'web' is no target"),
        ({"targets": {}}, "no target is named"),
        ({"num_params": -1.0}, "run a: -1.0 is -1, and num_params must be finite and > 0"),
        ({"seed": 0.5}, "a seed must be a whole number"),
    ],
)
def test_columns_that_do_not_fit_the_source(changes, message):
    with pytest.raises(RunTableError, match=message):
        assemble([run()], columns(**changes))


def over(axis, steps, counts, values) -> Series:
    return Series(np.array(steps, float), np.array(values, float), axis, np.array(counts, float))


def test_series_over_different_axes_are_compared_on_the_tools_own():
    epochs = over("epoch", [1, 2, 3], [10, 20, 30], [3.0, 2.5, 2.0])
    seen = {"seen": series([10, 20, 30], [1e3, 2e3, 3e3])}
    ends = {"_step": 30.0, "epoch": 3.0}
    given = run(web=epochs, code=series([3, 30], [9.0, 1.0]), series=seen, ends=ends)
    table, notes = assemble([given], columns(train_tokens="seen"))
    np.testing.assert_array_equal(table.values, [[2.0, 1.0]])
    np.testing.assert_array_equal(table.train_tokens, [3000])
    assert notes == ()
    code = Series(np.array([1.0, 3.0]), np.array([2.0, 1.0]), "epoch")
    apart = run("b", web=series([1, 2, 3], [3.0, 2.5, 2.0]), code=code)
    table, notes = assemble([given, apart], columns(train_tokens="seen"))
    assert list(table.run) == ["a"]
    assert notes[0] == (
        "1 run left out, for their targets lie over different axes: "
        "b (web over _step, code over epoch)"
    )


@pytest.mark.parametrize("axis", ["epoch", "trainer/global_step"])
def test_a_counter_of_tokens_that_lies_over_another_axis_than_the_targets(axis):
    web, code = (over(axis, [1, 2], [10, 21], values) for values in ([3.0, 2.0], [2.0, 1.0]))
    given = run(web=web, code=code, series={"seen": series([1, 21], [100, 2100])})
    table, _ = assemble([given], columns(train_tokens="seen"))
    np.testing.assert_array_equal(table.train_tokens, [2100])
    table, _ = assemble([given], columns(tokens_per_step=100))
    np.testing.assert_array_equal(table.train_tokens, [2100 if axis == "epoch" else 200])


def test_steps_that_are_none_are_not_counted_as_steps():
    given = [run(web=Series(np.array([1.0, 512.0]), np.array([3.0, 2.0]), "samples"))]
    only = columns(targets={"loss/web": "web"}, tokens_per_step=100)
    table, notes = assemble(given, only)
    np.testing.assert_array_equal(table.train_tokens, [np.nan])
    assert notes == ("--tokens-per-step says nothing of targets over samples",)


def test_a_run_ends_where_anything_of_it_does():
    """Here the targets stop at step 30, and training went on to 60."""
    fields = {**SHARES, "config.train_tokens": 6000}
    given = columns(train_tokens="config.train_tokens")
    table, notes = assemble([run(fields=fields, ends={"_step": 60.0})], given)
    np.testing.assert_array_equal(table.train_tokens, [np.nan])
    assert notes[0].endswith("at which all their targets were measured: a (step 30 of 60)")
    assert "1 row without train_tokens" in notes[1]
    assert notes[1].endswith("these are from before it: a; count them with --tokens-per-step")
    table, _ = assemble([run(fields=fields, ends={"_step": 30.2})], given)
    np.testing.assert_array_equal(table.train_tokens, [6000])


def test_planned_tokens_are_those_of_the_end():
    planned = {"a": {"weight/web": 0.25, "weight/code": 0.75, "train_tokens": 6000}}
    given = columns(mixture={})
    table, _ = assemble([run(fields={}, ends={"_step": 30.0})], given, planned=planned)
    np.testing.assert_array_equal(table.train_tokens, [6000])
    early = run(fields={}, ends={"_step": 60.0})
    table, _ = assemble([early], given, planned=planned)
    np.testing.assert_array_equal(table.train_tokens, [np.nan])
    with pytest.raises(RunTableError, match="tokens seen are not known, which all checkpoints"):
        assemble([early], columns(mixture={}, checkpoints="all"), planned=planned)


def test_a_run_that_stopped_has_not_seen_what_its_setting_says():
    fields = {**SHARES, "tokens": 6000}
    short = {name: series([10], [3.0]) for name in ("web", "code")}
    given = [run(fields=fields), run("b", fields=fields, **short)]
    table, notes = assemble(given, columns(train_tokens="tokens"))
    np.testing.assert_array_equal(table.train_tokens, [6000, np.nan])
    assert len(notes) == 1
    assert "these runs stopped before others with as many to see: b" in notes[0]
    # Fewer steps are none too few of another size, or for other tokens; and a user knows better.
    for cell in ({"size": 7}, {"tokens": 2000}):
        other = [run(fields=fields | {"size": 1}), run("b", fields=fields | cell, **short)]
        table, notes = assemble(other, columns(train_tokens="tokens", num_params="size"))
        assert np.isfinite(table.train_tokens).all()
        assert notes == ()
    table, _ = assemble(given, columns(train_tokens=5000.0))
    np.testing.assert_array_equal(table.train_tokens, [5000, 5000])


def test_a_run_of_which_no_end_was_logged():
    fields = {**SHARES, "tokens": 6000}
    cut = run("b", fields=fields, ended=False)
    table, notes = assemble([cut], columns(train_tokens="tokens"))
    np.testing.assert_array_equal(table.train_tokens, [np.nan])
    assert "no end of these runs was logged: b" in notes[0]
    # As far as one that ended.
    table, notes = assemble([run(fields=fields), cut], columns(train_tokens="tokens"))
    np.testing.assert_array_equal(table.train_tokens, [6000, 6000])
    assert notes == ()


def test_what_some_runs_have_as_final_values_only():
    fields = {**SHARES, "summary.web": 2.5, "summary.code": 1.5, "summary.seen": 4000}
    only = LoggedRun("b", "b", fields, origin="run b")
    seen = {"seen": series([10, 30], [1000, 3000])}
    table, notes = assemble([run(series=seen), only], columns(train_tokens="seen"))
    np.testing.assert_array_equal(table.values, [[2.0, 1.0], [2.5, 1.5]])
    np.testing.assert_array_equal(table.train_tokens, [3000, 4000])
    assert notes == ()


def test_targets_without_a_step_in_a_run_that_has_steps():
    loose = {name: series([0], [3.0]) for name in ("web", "code")}
    given = [run(), run("b", ends={"_step": 30.0}, **loose)]
    table, notes = assemble(given, columns(tokens_per_step=1))
    assert list(table.run) == ["a"]
    assert "have step 0 only" in notes[0]
    # Where nothing has a step, they are what was measured at the end.
    table, _ = assemble([run("b", **loose)], columns(tokens_per_step=1))
    np.testing.assert_array_equal(table.values, [[3.0, 3.0]])
    np.testing.assert_array_equal(table.train_tokens, [np.nan])
