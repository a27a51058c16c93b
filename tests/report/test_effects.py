"""What the page says holds the mixture: only bounds that a pull goes against."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="the report needs matplotlib")

from mixlaw.optimize.decision import Sensitivity
from mixlaw.optimize.limits import ActiveBound
from mixlaw.report.effects_sections import held_words

NEAR = ActiveBound("kl distance from natural at most 0.2", "upper", "limit", 0.0)
PROSE = ActiveBound("prose", "upper", "group", 0.4)
FLOOR = ActiveBound("bpb/data", "upper", "floor", 3.39)
CHANGES = {"docs": -0.0073, "tests": -0.0017, "code": 0.002}


def told(*bounds: ActiveBound) -> str:
    decision: Any = SimpleNamespace(
        active_bounds=bounds,
        sensitivities={name: Sensitivity(change, {}) for name, change in CHANGES.items()},
    )
    return held_words(decision)


def test_a_lower_bound_does_not_hold_a_share_that_would_rise():
    tests = ActiveBound("tests", "lower", "support", 0.01)
    assert told(tests, NEAR) == (
        "Several shares at once are held by kl distance from natural at most 0.2."
    )
    assert told(tests) == "No single bound holds the mixture."


def test_the_dearest_bound_is_named_with_its_price():
    code = ActiveBound("code", "lower", "user", 0.1)
    docs = ActiveBound("docs", "upper", "epoch cap", 0.3)
    assert told(code, docs) == (
        "The bound that matters most is the upper one of docs at 30%: one more point changes the "
        "objective by −0.0073."
    )
    assert told(code, PROSE, FLOOR).endswith(
        "by +0.0020. Several shares at once are also held by the upper bound 40% of group prose "
        "and the floor of bpb/data."
    )


def test_a_fixed_share_is_held_whichever_way_it_would_go():
    fixed = ActiveBound("tests", "lower", "fixed", 0.01)
    assert "is the fixed share of tests at 1.0%: one more point" in told(fixed)


def test_without_bounds_the_pulls_cancel():
    assert told() == "No bound holds a share, so at the optimum the pulls cancel out."
