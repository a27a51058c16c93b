"""Laws: formulas of the loss, their fits, and the choice among them."""

from mixlaw.laws.base import Fitted, FittedLaw, Law, Recipe
from mixlaw.laws.catalogue import CANDIDATES, load_fitted, make
from mixlaw.laws.combination import aggregate
from mixlaw.laws.diagnostics import diagnose
from mixlaw.laws.fitting import fit, fit_transfer
from mixlaw.laws.link_forms import Link
from mixlaw.laws.links import FittedLink, LinkedLaws, fit_links
from mixlaw.laws.points import Points
from mixlaw.laws.selection import FittedLaws, fit_laws
from mixlaw.laws.transfer import zero_shot_doubt
from mixlaw.laws.validation import CrossValidation, cross_validate

__all__ = [
    "CANDIDATES",
    "CrossValidation",
    "Fitted",
    "FittedLaw",
    "FittedLaws",
    "FittedLink",
    "Law",
    "Link",
    "LinkedLaws",
    "Points",
    "Recipe",
    "aggregate",
    "cross_validate",
    "diagnose",
    "fit",
    "fit_laws",
    "fit_links",
    "fit_transfer",
    "load_fitted",
    "make",
    "zero_shot_doubt",
]
