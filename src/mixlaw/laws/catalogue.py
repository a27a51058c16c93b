"""The one list of laws. To add a law: write it in one file, and add one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mixlaw.errors import FitError
from mixlaw.laws import effective, joint, mixing, scaling
from mixlaw.laws.base import Fitted, FittedLaw, Recipe
from mixlaw.laws.nested import FittedNested, NestedPipeline
from mixlaw.laws.points import Axes

NO_AXES: Axes = {}
Factory = Callable[[Axes], Recipe]


def _one_scale(build: Callable[[], Recipe]) -> Factory:
    return lambda axes: build()


ONE_SCALE: Mapping[str, Factory] = {
    "effective": _one_scale(effective.effective),
    "m1": _one_scale(mixing.m1),
    "m2": _one_scale(mixing.m2),
    "m3": _one_scale(mixing.m3),
    "m4": _one_scale(mixing.m4),
    "log-linear": _one_scale(mixing.log_linear),
    "log-ridge": _one_scale(mixing.log_ridge),
}
"""Laws of the mixture alone, for tables of one scale."""

MANY_SCALES: Mapping[str, Factory] = {
    "effective-product": effective.effective_product,
    "effective-sum": effective.effective_sum,
    "effective-ratio": effective.effective_ratio,
    "exponential-chinchilla": joint.exponential_chinchilla,
    "m1-product": joint.m1_product,
    "nested": NestedPipeline,
    "scaling": scaling.scaling_law,
}
"""Laws that also take the counts that vary in the table: "num_params", "train_tokens" or both."""

CANDIDATES: Mapping[str, Factory] = {**ONE_SCALE, **MANY_SCALES}


def make(name: str, axes: Axes = NO_AXES) -> Recipe:
    """A recipe by name.

    Args:
        axes: the counts it reads and their references; see `base.Axes`.
    Raises: FitError: no such law, or a law of scale without axes.
    """
    if name not in CANDIDATES:
        raise FitError(f"no law is called {name!r}; there are {list(CANDIDATES)}")
    if name in MANY_SCALES and not axes:
        raise FitError(
            f"law {name!r} describes scale, but the runs have one size and one horizon; "
            f"train others, or choose among {list(ONE_SCALE)}"
        )
    return CANDIDATES[name](axes)


def load_fitted(data: Mapping[str, Any]) -> Fitted:
    """The inverse of `Fitted.to_dict`."""
    kind = FittedNested if data["law"] == NestedPipeline.name else FittedLaw
    return kind.from_dict(data)
