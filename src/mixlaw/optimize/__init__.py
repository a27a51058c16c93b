"""From fitted laws to a decision."""

from mixlaw.optimize.baselines import unimax
from mixlaw.optimize.decide import optimize
from mixlaw.optimize.decision import Comparison, Decision, Forecast, Interval
from mixlaw.optimize.objective import Floor, Objective
from mixlaw.optimize.robust import Robust

__all__ = [
    "Comparison",
    "Decision",
    "Floor",
    "Forecast",
    "Interval",
    "Objective",
    "Robust",
    "optimize",
    "unimax",
]
