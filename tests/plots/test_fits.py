"""The pictures of a fit show held-out errors and the law's own curves and intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from mixlaw import plots
from mixlaw.errors import FitError
from mixlaw.laws.points import NUM_PARAMS, TRAIN_TOKENS
from mixlaw.plots.curves import curves_of
from mixlaw.plots.evidence import drifts, target_noise
from mixlaw.plots.marks import legend_keys


def test_a_panel_for_each_target_or_one(made):
    every = plots.predicted_vs_observed(made.fitted)
    assert [axes.get_title(loc="left") for axes in every.axes] == ["web", "code", "law"]
    one = plots.predicted_vs_observed(made.fitted, "loss/code")
    assert [axes.get_title(loc="left") for axes in one.axes] == ["code"]
    texts = [key.text for key in legend_keys(one)]
    assert texts == ["100k parameters", "300k parameters", "1M parameters", "unseen scale"]
    with pytest.raises(FitError, match="loss/nothing"):
        plots.predicted_vs_observed(made.fitted, "loss/nothing")


def test_residuals_are_those_of_each_scale(made):
    validation, law = made.fitted.cross_validation, made.fitted.law
    residuals = validation.residuals(law, "mixture")[:, 0]
    found = [one for one in drifts(validation, law, "loss/web") if one.split == "mixture"]
    assert len(found) == 9
    for one in found:
        runs = validation.runs
        here = (runs.num_params == one.num_params) & (runs.train_tokens == one.train_tokens)
        assert one.mean == pytest.approx(residuals[here].mean())
        assert one.deviation == pytest.approx(residuals[here].std())
    plots.residuals_by_scale(made.fitted, "loss/web")


def test_a_biased_law_is_seen_to_drift(made):
    """Predictions raised at the largest size alone show as its mean residual."""
    validation, law = made.fitted.cross_validation, made.fitted.law
    scores = validation.scores[law]["mixture"]
    raised = scores.predictions + 0.3 * (validation.runs.num_params == 1e6)[:, None]
    worse = replace(validation, scores={law: {"mixture": replace(scores, predictions=raised)}})
    means = {one.num_params: one.mean for one in drifts(worse, law, "loss/web")}
    assert means[1e6] == pytest.approx(0.3, abs=0.05)
    assert abs(means[1e5]) < 0.05


def test_the_target_lies_on_its_curve_and_the_band_is_its_interval(made):
    for axis, target in ((TRAIN_TOKENS, 3e8), (NUM_PARAMS, 3e6)):
        curves = curves_of(made.fitted, made.decision, made.runs, axis, domains=made.domains)
        assert curves is not None
        x, interval = curves.target
        assert x == target
        line = curves.lines[-1]
        assert line.y[-1] == pytest.approx(interval.value, rel=1e-9)
        end, low, high = curves.band[-1]
        assert end == pytest.approx(target)
        assert (low, high) == pytest.approx((interval.low, interval.high), rel=1e-9)
        # Nearer to what was trained the forecast is surer.
        assert np.diff(curves.band[[0, -1]][:, 1:], axis=1)[:, 0].argmax() == 1


def test_lines_are_of_the_other_axis_and_end_with_the_target(made):
    tokens = curves_of(made.fitted, made.decision, made.runs, TRAIN_TOKENS)
    sizes = curves_of(made.fitted, made.decision, made.runs, NUM_PARAMS)
    assert tokens
    assert sizes
    assert [line.text for line in tokens.lines] == [
        "100k parameters", "300k parameters", "1M parameters", "3M parameters (target)",
    ]  # fmt: skip
    assert [line.text for line in sizes.lines] == [
        "10M tokens", "30M tokens", "100M tokens", "300M tokens (target)",
    ]  # fmt: skip
    for draw in (plots.forecast_over_tokens, plots.forecast_over_size):
        figure = draw(made.fitted, made.decision, made.runs, domains=made.domains)
        assert "interval on the way there" in [key.text for key in legend_keys(figure)]


def test_noise_of_a_target_is_that_between_its_seeds(made):
    runs = made.runs
    largest = (runs.num_params == 1e6) & (runs.train_tokens == 1e8) & (runs.label == "m0")
    values = runs.column("loss/law")[largest]
    assert len(values) == 2
    assert target_noise(runs, ["loss/law"])["loss/law"] == pytest.approx(values.std(ddof=1))
    alone = runs.select(runs.seed == 0)
    assert target_noise(alone, ["loss/law"]) == {}


def test_laws_are_compared_best_first(made):
    axes = plots.law_comparison(made.fitted).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["exponential-chinchilla (chosen)"]
