"""Continued pretraining: how much new data a trained model bears without losing the old."""

from mixlaw.continual.answers import Best, Critical, Move, Range, Setting
from mixlaw.continual.fitting import fit_continual
from mixlaw.continual.forms import FORMS
from mixlaw.continual.laws import ContinualLaws

__all__ = [
    "FORMS",
    "Best",
    "ContinualLaws",
    "Critical",
    "Move",
    "Range",
    "Setting",
    "fit_continual",
]
