"""Laws: formulas of the loss, their fits, and the choice among them."""

from mixlaw.laws.base import Fitted, FittedLaw, Law, Recipe
from mixlaw.laws.catalogue import CANDIDATES, load_fitted, make
from mixlaw.laws.fitting import fit
from mixlaw.laws.points import Points
from mixlaw.laws.selection import FittedLaws, fit_laws
from mixlaw.laws.validation import CrossValidation, cross_validate

__all__ = [
    "CANDIDATES",
    "CrossValidation",
    "Fitted",
    "FittedLaw",
    "FittedLaws",
    "Law",
    "Points",
    "Recipe",
    "cross_validate",
    "fit",
    "fit_laws",
    "load_fitted",
    "make",
]
