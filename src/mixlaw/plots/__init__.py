"""Pictures of runs, fits and decisions, each a function that returns a matplotlib figure.

    from mixlaw import Study, plots
    plots.mixture(Study("my-study").optimize())

A figure belongs to no window: in a notebook it shows itself, elsewhere `figure.savefig(path)`.
Importing this needs no matplotlib; drawing does (the extra `report`), else MissingExtraError.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixlaw.plots.continual import losses_by_share, moving_answers
    from mixlaw.plots.decisions import (
        epochs,
        flat_region,
        forecasts,
        interactions,
        mixture,
        pareto,
        sensitivities,
    )
    from mixlaw.plots.fits import (
        forecast_over_size,
        forecast_over_tokens,
        law_comparison,
        predicted_vs_observed,
        residuals_by_scale,
    )
    from mixlaw.plots.observations import trained_mixtures, verified_curves, verified_gains
    from mixlaw.plots.schedules import schedule_bars

__all__ = [
    "epochs",
    "flat_region",
    "forecast_over_size",
    "forecast_over_tokens",
    "forecasts",
    "interactions",
    "law_comparison",
    "losses_by_share",
    "mixture",
    "moving_answers",
    "pareto",
    "predicted_vs_observed",
    "residuals_by_scale",
    "schedule_bars",
    "sensitivities",
    "trained_mixtures",
    "verified_curves",
    "verified_gains",
]

_HOMES = ("decisions", "fits", "observations", "continual", "schedules")


def __getattr__(name: str) -> Any:
    # On first use: the command line needs the words of this room, and draws nothing.
    if name in __all__:
        for home in _HOMES:
            module = importlib.import_module(f"mixlaw.plots.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'mixlaw.plots' has no attribute {name!r}")
