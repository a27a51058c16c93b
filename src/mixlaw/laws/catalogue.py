"""The one list of laws. To add a law: write it in one file, and add one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mixlaw.errors import FitError
from mixlaw.laws import aggregation, capacity, domain_powers, effective, joint, mixing, scaling
from mixlaw.laws.base import Fitted, FittedLaw, Recipe
from mixlaw.laws.baselines import FittedTrees, LightGBM
from mixlaw.laws.combination import AGGREGATE, STACK, FittedSum
from mixlaw.laws.nested import FittedNested, NestedPipeline
from mixlaw.laws.points import Axes
from mixlaw.laws.residual import SUFFIX, FittedResidual, WithResidual
from mixlaw.laws.transfer import TRANSFER, FittedTransfer

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
    "implicit-2": _one_scale(lambda: aggregation.implicit(2)),
    "implicit-3": _one_scale(lambda: aggregation.implicit(3)),
    "implicit-4": _one_scale(lambda: aggregation.implicit(4)),
    "bimix": domain_powers.bimix,
    "autoscale": domain_powers.autoscale,
}
"""Laws that can be fitted to a table of one scale. The last two also take tokens, if they vary."""

MANY_SCALES: Mapping[str, Factory] = {
    "effective-chinchilla": effective.effective_chinchilla,
    "effective-product": effective.effective_product,
    "effective-sum": effective.effective_sum,
    "effective-ratio": effective.effective_ratio,
    "exponential-chinchilla": joint.exponential_chinchilla,
    "m1-product": joint.m1_product,
    "additive": joint.additive,
    "joint": joint.joint,
    "capacity": capacity.capacity,
    "d-cpt": joint.d_cpt,
    "nested": NestedPipeline,
    "scaling": scaling.scaling_law,
    "scaling-power": scaling.scaling_power,
}
"""Laws that need the counts that vary in the table: "num_params", "train_tokens" or both."""

BASELINES: Mapping[str, Factory] = {LightGBM.name: LightGBM}
"""Regressions that need an optional package, over whatever varies in the table."""

DEFAULT_ONE_SCALE = ("effective", "effective+gp", "m4", "log-linear", "log-ridge")
DEFAULT_MANY_SCALES = (
    "effective-chinchilla",
    "effective-chinchilla+gp",
    "effective-sum",
    "effective-ratio",
    "exponential-chinchilla",
    "nested",
    "scaling",
)
"""What is tried where the user names nothing."""

CANDIDATES: Mapping[str, Factory] = {**ONE_SCALE, **MANY_SCALES, **BASELINES}

LOADERS: Mapping[str, Callable[[Mapping[str, Any]], Fitted]] = {
    NestedPipeline.name: FittedNested.from_dict,
    LightGBM.name: FittedTrees.from_dict,
    STACK: FittedSum.from_dict,
    AGGREGATE: FittedSum.from_dict,
    TRANSFER: FittedTransfer.from_dict,
    SUFFIX: FittedResidual.from_dict,
}
"""How to read back what is not a law of one formula."""


def make(name: str, axes: Axes = NO_AXES) -> Recipe:
    """A recipe by name; `<name>+gp` is that recipe with a process over its residuals.

    Args:
        axes: the counts it reads and their references; see `base.Axes`.
    Raises: FitError: no such law, or a law of scale without axes.
    """
    if name.endswith(SUFFIX):
        return WithResidual(make(name.removesuffix(SUFFIX), axes))
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
    name = SUFFIX if data["law"].endswith(SUFFIX) else data["law"]
    return LOADERS.get(name, FittedLaw.from_dict)(data)
