"""What the page says to do next follows from the decision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mixlaw.mixture import Mixture
from mixlaw.optimize import Comparison, Decision, Forecast, Interval, Objective
from mixlaw.optimize.decision import Region, Sensitivity
from mixlaw.optimize.limits import ActiveBound
from mixlaw.report.next_steps import next_steps
from mixlaw.report.sections import Facts
from mixlaw.runs import RunTable

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


def steps(found: Decision, mood: str = "untested", *, from_table: bool = False):
    study = SimpleNamespace(
        folder=Path("/somewhere/my study"),
        from_table=from_table,
        config=SimpleNamespace(export=SimpleNamespace(to=None)),
    )
    swarm = RunTable.from_rows([row | {"run": f"r{k}"} for k, row in enumerate(RUNS)])
    facts = SimpleNamespace(study=study, decision=found, swarm=swarm)
    return next_steps(cast(Facts, facts), mood)


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
            {"baselines": {"own": Comparison(forecast(2.1, 1.6, ("web above .5",)), 0.1, 0.97)}},
            "they break your own constraints: own (web above .5)",
        ),
    ],
)
def test_what_speaks_against_it_is_a_step(changes, said):
    assert any(said in step.text for step in steps(decision(**changes)))
    assert not any(said in step.text for step in steps(decision()))
