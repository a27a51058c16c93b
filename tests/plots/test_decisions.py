"""The pictures of a decision show the decision's own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from mixlaw import plots
from mixlaw.optimize.pareto import ParetoFront
from mixlaw.plots.decisions import by_share, change_per_point, pulls, tile_text
from mixlaw.plots.marks import legend_keys


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
