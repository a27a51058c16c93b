"""Laws of staged training, and the schedule to train."""

from mixlaw.stages.decide import optimize_schedule
from mixlaw.stages.decision import Alternative, Gain, ScheduleDecision, ScheduleForecast
from mixlaw.stages.fitting import FittedStages, FormScore
from mixlaw.stages.forms import FORMS
from mixlaw.stages.selection import fit_stages

__all__ = [
    "FORMS",
    "Alternative",
    "FittedStages",
    "FormScore",
    "Gain",
    "ScheduleDecision",
    "ScheduleForecast",
    "fit_stages",
    "optimize_schedule",
]
