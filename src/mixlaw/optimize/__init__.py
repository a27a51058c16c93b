"""From fitted laws to a decision."""

from mixlaw.optimize.decision import Comparison, Decision, Forecast, Interval, optimize
from mixlaw.optimize.objective import Objective

__all__ = ["Comparison", "Decision", "Forecast", "Interval", "Objective", "optimize"]
