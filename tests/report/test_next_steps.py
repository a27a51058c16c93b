"""What the page says to do next follows from the decision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mixlaw.mixture import Mixture
from mixlaw.optimize import Comparison, Decision, Forecast, Interval, Objective
from mixlaw.optimize.decision import AtOtherScale, Region, Sensitivity
from mixlaw.optimize.limits import ActiveBound
from mixlaw.report.next_steps import Known, next_steps
from mixlaw.report.verdict import headline, level_words, other_scales
from mixlaw.runs import RunTable
from mixlaw.study import Study

MIX = Mixture({"web": 0.7, "code": 0.3})
RUNS = [
    {"weight/web": web, "weight/code": 1 - web, "loss/web": 2.5 - web, "loss/code": 1.5 + web}
    for web in (0.0, 1.0)
]


def forecast(web: float, code: float, violations=()) -> Forecast:
    targets = {"loss/web": Interval(web, 0.1), "loss/code": Interval(code, 0.1)}
    return Forecast(MIX, Interval(web, 0.1), targets, {"web": 3.96, "code": 1.0}, violations)


def decision(**changes: Any) -> Decision:
    base = forecast(2.1, 1.6)
    made = Decision(
        forecast=forecast(2.0, 1.5),
        baselines={"uniform": Comparison(base, 0.1, 0.97)},
        gap=1e-9,
        spread=0.0,
        active_bounds=(),
        unguarded=None,
        guard_cost=0.0,
        distance=None,
        regret=None,
        region=Region(0.01, {"web": (0.5, 0.9), "code": (0.1, 0.5)}),
        sensitivities={d: Sensitivity(-0.002, {"loss/web": -0.002}) for d in MIX},
        scales=(),
        robust=None,
        rounding_cost=None,
        law="m4",
        objective=Objective({"loss/web": 1}),
        level=0.9,
        num_params=1e9,
        train_tokens=2e10,
        seed=0,
    )
    return replace(made, **changes)


def steps(
    found: Decision, mood: str = "untested", *, from_table: bool = False, rows=RUNS, schedule=None
):
    study = SimpleNamespace(
        folder=Path("/somewhere/my study"),
        from_table=from_table,
        config=SimpleNamespace(export=SimpleNamespace(to=None), schedule=schedule),
        schedule_decision=lambda: None,
    )
    runs = RunTable.from_rows([row | {"run": f"r{k}"} for k, row in enumerate(rows)])
    return next_steps(Known(cast(Study, study), found, runs, mood, "my study"))


def test_a_sound_forecast_is_verified_and_then_handed_over():
    found = steps(decision())
    assert [step.command for step in found] == [
        "mixlaw verify 'my study'",
        "mixlaw export 'my study' --to TRAINER",
    ]
    assert "20B tokens" in found[0].text


def test_a_table_is_not_verified_by_a_command():
    first = steps(decision(), from_table=True)[0]
    assert first.command == ""
    assert first.text.startswith("Train it and uniform once each at")


def test_what_was_trained_there_is_not_trained_again():
    half = Mixture({"web": 0.5, "code": 0.5})
    uniform = Comparison(replace(forecast(2.1, 1.6), mixture=half), 0.1, 0.97)
    found = decision(baselines={"uniform": uniform})

    def first(web: float) -> str:
        there = {**RUNS[0], "weight/web": web, "weight/code": 1 - web, "role": "verify"}
        there |= {"num_params": 1e9, "train_tokens": 2e10}
        rows = [{"num_params": 1e6, "train_tokens": 1e8} | row for row in (*RUNS, there)]
        return steps(found, from_table=True, rows=rows)[0].text

    assert first(0.5).startswith("Train it once at")
    assert "uniform was trained there" in first(0.5)
    assert first(0.704).startswith("Compare: the runs have a mixture within a percentage point")
    assert first(0.6).startswith("Train it and uniform once each at")


def test_what_breaks_the_constraints_is_neither_trained_nor_a_reason_for_runs():
    own = Comparison(forecast(1.9, 1.6, ("web above .5",)), -0.1, 0.03)
    baselines = {**decision().baselines, "own": own}
    found = steps(decision(baselines=baselines), from_table=True)
    assert found[0].text.startswith("Train it and uniform once each")
    assert [step.text for step in found if "own" in step.text] == [found[1].text]
    assert not found[1].command


def test_a_study_that_asks_for_the_order_of_its_data_is_told_of_it():
    commands = [step.command for step in steps(decision(), schedule=object())]
    assert "mixlaw schedule 'my study'" in commands


def test_what_was_confirmed_is_handed_over_first():
    assert "export" in steps(decision(), "good")[0].command


def test_what_failed_is_not_handed_over():
    found = steps(decision(), "bad")
    assert found[0].text.startswith("Do not train on it yet")
    assert not any("export" in step.command for step in found)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"baselines": {"uniform": Comparison(forecast(2.0, 1.6), 0.0, 0.55)}},
            "not sure to be better than uniform",
        ),
        (
            {"active_bounds": (ActiveBound("web", "upper", "support", 0.7),), "guard_cost": 0.3},
            "web (upper, 70%) is at the edge",
        ),
        (
            {"active_bounds": (ActiveBound("web", "upper", "epoch cap", 0.7),)},
            "More text of web would pay: it is at its cap (read 3.96 times)",
        ),
        (
            {"baselines": {"uniform": Comparison(forecast(2.1, 1.0), 0.1, 0.97)}},
            "worse than under every baseline: code (+0.5000)",
        ),
        (
            {"baselines": {"own": Comparison(forecast(1.9, 1.6, ("web above .5",)), -0.1, 0.03)}},
            "not allowed by your constraints: own (0.100 lower)",
        ),
    ],
)
def test_what_speaks_against_it_is_a_step(changes, said):
    assert any(said in step.text for step in steps(decision(**changes)))
    assert not any(said in step.text for step in steps(decision()))


BROKEN = Comparison(forecast(2.1, 1.6, ("web above .5",)), 0.1, 0.97)


@pytest.mark.parametrize(
    ("baselines", "verb"),
    [
        ({"a": 0.55, "b": 0.81}, "Train on"),
        ({"a": 0.55, "b": 0.79}, "The runs cannot tell yet; the best guess is"),
        ({"a": 0.55, "own": BROKEN}, "The runs cannot tell yet; the best guess is"),
        ({"own": BROKEN}, "Train on"),
        ({}, "Train on"),
    ],
)
def test_a_guess_is_not_a_command(baselines, verb):
    found = {
        name: one if one is BROKEN else Comparison(forecast(2.1, 1.6), 0.1, one)
        for name, one in baselines.items()
    }
    head = headline(decision(baselines=found), None, None)
    assert head.verb == verb
    assert head.mixture == "70% web and 30% code"
    assert head.verdict == "A forecast: this mixture is not verified yet"


def test_a_gain_over_what_no_run_supports_is_called_a_guess():
    far = replace(forecast(2.1, 1.6), extrapolates=("web 0.9, trained 0 to 0.5",))
    told = headline(decision(baselines={"far": Comparison(far, 0.1, 0.97)}), None, None)
    plain = headline(decision(), None, None)
    for text in (told.sentences[0], told.tiles[1].detail):
        assert "a guess, it lies outside the trained range" in text
    assert "guess" not in plain.sentences[0] + plain.tiles[1].detail


def test_a_law_that_reads_no_scale_says_of_which_scale_its_level_is():
    rows = [
        {**row, "run": f"r{k}", "num_params": 1e6, "train_tokens": 2e10}
        for k, row in enumerate(RUNS)
    ]
    runs = RunTable.from_rows(rows)
    told = level_words(frozenset({"mixture"}), runs, decision())
    assert "does not depend on the number of parameters:" in told
    assert "trained runs (1,000,000 parameters), not of the target" in told
    assert told in headline(decision(), None, None, level=told).sentences
    assert not level_words(frozenset({"mixture", "num_params"}), runs, decision())
    assert not level_words(frozenset({"mixture"}), runs, decision(num_params=1e6))


def test_other_scales_are_shown_where_they_say_something():
    def at(web: float) -> AtOtherScale:
        return AtOtherScale(1e6, 1e8, Mixture({"web": web, "code": 1 - web}), 2.0, 2.0)

    same, moved = decision(scales=(at(0.7), at(0.7))), decision(scales=(at(0.7), at(0.6)))
    assert other_scales(frozenset({"mixture"}), same) == ()
    assert other_scales(frozenset({"mixture"}), moved) == moved.scales
    assert other_scales(frozenset({"mixture", "num_params"}), same) == same.scales
    assert other_scales(frozenset(), decision()) == ()
