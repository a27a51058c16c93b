"""The pictures of a decision show the decision's own numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from mixlaw import plots
from mixlaw.errors import RunTableError, StudyError
from mixlaw.optimize.pareto import ParetoFront
from mixlaw.plots.decisions import by_share, change_per_point, pulls, tile_text
from mixlaw.plots.marks import legend_keys
from mixlaw.runs import RunTable
from mixlaw.study.verification import Verification, Verified


def bars(axes) -> list[Any]:
    return list(axes.patches)


def widths(axes):
    return [bar.get_width() for bar in bars(axes)]


def test_bars_are_the_recommended_shares(made):
    figure = plots.mixture(made.decision, made.runs)
    names = by_share(made.decision)
    assert widths(figure.axes[0]) == pytest.approx(
        [100 * made.decision.recommended[name] for name in names]
    )
    texts = [key.text for key in legend_keys(figure)]
    assert texts == ["recommended", "uniform", "natural", "range of the trained mixtures"]


def test_the_flat_region_is_drawn_from_end_to_end(made):
    found = bars(plots.flat_region(made.decision).axes[0])
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in found]
    ranges = [made.decision.region.ranges[name] for name in by_share(made.decision)]
    np.testing.assert_allclose(ends, 100 * np.array(ranges))


def test_epochs_and_their_cap(made):
    found = made.decision.forecast.epochs
    figure = plots.epochs(made.decision, 4.0)
    assert widths(figure.axes[0]) == pytest.approx(sorted(found.values(), reverse=True))
    assert "cap" in [key.text for key in legend_keys(figure)]
    assert "cap" not in [key.text for key in legend_keys(plots.epochs(made.decision))]


def test_a_cap_far_above_all_is_told_and_not_drawn(made):
    most = max(
        max(one.forecast.epochs.values())
        for one in (made.decision, *made.decision.baselines.values())
    )
    figure = plots.epochs(made.decision, 400)
    assert figure.axes[0].get_xlim()[1] < 1.5 * most
    assert "cap" not in [key.text for key in legend_keys(figure)]
    assert figure.axes[0].get_xlabel().endswith("\ncaps, far to the right: 400")
    mixed = plots.epochs(made.decision, {"web": 400, "code": 2, "wiki": 4})
    assert mixed.axes[0].get_xlabel().endswith("\nother caps, far to the right: 400")
    assert len(mixed.axes[0].collections) == 2


def test_what_the_decision_lacks_is_an_error_that_names_what_there_is(made):
    decision, runs = made.decision, made.runs
    for draw in (plots.forecasts, plots.interactions):
        with pytest.raises(StudyError, match=r"forecasts no \['bpb/nope'\]; .*'loss/code'"):
            draw(decision, ["loss/web", "bpb/nope"])
    bare = replace(decision, forecast=replace(decision.forecast, epochs={}))
    with pytest.raises(StudyError, match="knows no epochs; give the study available_tokens"):
        plots.epochs(bare, 4.0)
    others = RunTable.from_rows([{"run": "a", "weight/x": 1.0, "loss/web": 2.0}])
    with pytest.raises(RunTableError, match=r"no weights of .*'web'.*they have \['x'\]"):
        plots.mixture(decision, others)
    verified = replace(runs, role=np.full(len(runs), "verify"))
    for draw in (
        lambda: plots.trained_mixtures(verified, decision),
        lambda: plots.forecast_over_tokens(made.fitted, decision, verified),
    ):
        with pytest.raises(RunTableError, match="none of the 135 runs is finished and measured"):
            draw()


def test_what_was_not_verified_has_no_star(made):
    seen = Verified(made.decision.forecast.objective, (2.0,), {}, ((1e6, 2.0),))
    verification = Verification({"recommended": seen}, {})
    figure = plots.forecasts(made.decision, ["loss/web"], verification=verification)
    stars = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert [list(line.get_xdata()) for line in stars if len(line.get_xdata())] == [[2.0]]


def test_pulls_add_up_to_the_objective(made):
    parts = pulls(made.decision)
    assert set(parts) == {"web", "law"}
    net = [made.decision.sensitivities[name].objective for name in by_share(made.decision)]
    np.testing.assert_allclose(sum(parts.values()), net, atol=1e-9)
    assert sum(widths(plots.sensitivities(made.decision).axes[0])) == pytest.approx(sum(net))


def test_tiles_show_what_changes(made):
    decision, targets = made.decision, ["loss/web", "loss/code"]
    found = change_per_point(decision, targets, {"loss/web": 0.01, "loss/code": 0.02})
    for i, name in enumerate(by_share(decision)):
        changes = decision.sensitivities[name].targets
        assert found[i, 0] == pytest.approx(changes["loss/web"] / 0.01)
        assert found[i, 1] == pytest.approx(changes["loss/code"] / 0.02)
    assert found[by_share(decision).index("code"), 1] < 0
    # A target without a unit has no number, and no tile.
    bare = change_per_point(decision, targets, {"loss/web": 0.01})
    assert np.isnan(bare[:, 1]).all()
    figure = plots.interactions(decision, targets, units={"loss/web": 0.01})
    assert [text.get_text() for text in figure.axes[0].texts].count("?") == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "the 90% interval's half width"),
        ({"units": {"loss/web": 0.01}}, "those given"),
        ({"units": {"loss/web": 0.01}, "unit": "its seed noise"}, "its seed noise"),
    ],
)
def test_tiles_say_what_their_numbers_count(made, options, told):
    label = plots.interactions(made.decision, **options).axes[0].get_xlabel()
    assert label == f"change of a target per percentage point, in units of\n{told}"


def test_numbers_on_tiles_are_short():
    shown = [tile_text(number) for number in (0.0, 0.001, 0.234, -0.04, 1.26, -12.3, np.nan)]
    assert shown == ["0", "0", "+.2", "−.04", "+1.3", "−12", "?"]


def test_forecasts_stand_at_their_values(made):
    axes = plots.forecasts(made.decision, ["loss/web"]).axes[0]
    points = [np.asarray(line.get_xdata()) for line in axes.lines]
    drawn = {float(x[0]) for x in points if len(x) == 1}
    forecast = made.decision.forecast
    assert {forecast.objective.value, forecast.targets["loss/web"].value} <= drawn


def test_a_front_has_a_panel_for_each_pair(made):
    mixtures = (made.decision.recommended,) * 2
    values = ((1.0, 3.0, 2.0), (2.0, 1.0, 3.0))
    front = ParetoFront(("all", "code", "law"), mixtures, values, {})
    figure = plots.pareto(front)
    assert [axes.get_ylabel() for axes in figure.axes] == ["code", "law"]
