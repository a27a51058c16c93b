"""mixlaw: choose the data mixture of a language model before the model is trained.

>>> runs = mixlaw.RunTable.read("runs.csv")
>>> fitted = mixlaw.fit_laws(runs)
>>> from mixlaw.optimize import optimize
>>> optimize(fitted, mixlaw.Objective({"loss/web": 1.0}), domains=...)

or, with everything in one folder, `mixlaw.Study("my-study")`. A function that shares its name with
its room (`design`, `optimize`) is imported from there: Python gives `mixlaw.optimize` to the room.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mixlaw.corpus import Corpus, DomainSource, TokenizerSpec, build_corpus
    from mixlaw.errors import InfeasibleError, MixlawError
    from mixlaw.laws import CANDIDATES, FittedLaw, FittedLaws, Law, cross_validate, fit, fit_laws
    from mixlaw.mixture import Constraints, Domain, Group, Mixture, Near
    from mixlaw.optimize import Decision, Forecast, Interval, Objective
    from mixlaw.runs import RunSpec, RunTable
    from mixlaw.schedule import Schedule
    from mixlaw.study import Scale, Study

# Loaded on first use: importing mixlaw must cost next to nothing, and a user with a table of runs
# needs neither the corpus nor the trainer.
_ROOMS = {
    "mixlaw.corpus": ("Corpus", "DomainSource", "TokenizerSpec", "build_corpus"),
    "mixlaw.errors": ("InfeasibleError", "MixlawError"),
    "mixlaw.laws": (
        "CANDIDATES",
        "FittedLaw",
        "FittedLaws",
        "Law",
        "cross_validate",
        "fit",
        "fit_laws",
    ),
    "mixlaw.mixture": ("Constraints", "Domain", "Group", "Mixture", "Near"),
    "mixlaw.optimize": ("Decision", "Forecast", "Interval", "Objective"),
    "mixlaw.runs": ("RunSpec", "RunTable"),
    "mixlaw.schedule": ("Schedule",),
    "mixlaw.study": ("Scale", "Study"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "CANDIDATES",
    "Constraints",
    "Corpus",
    "Decision",
    "Domain",
    "DomainSource",
    "FittedLaw",
    "FittedLaws",
    "Forecast",
    "Group",
    "InfeasibleError",
    "Interval",
    "Law",
    "MixlawError",
    "Mixture",
    "Near",
    "Objective",
    "RunSpec",
    "RunTable",
    "Scale",
    "Schedule",
    "Study",
    "TokenizerSpec",
    "build_corpus",
    "cross_validate",
    "fit",
    "fit_laws",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mixlaw' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
