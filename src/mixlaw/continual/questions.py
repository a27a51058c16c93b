"""What may be asked of fitted laws; everything else is refused in a line that says why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mixlaw.continual.answers import Setting
from mixlaw.continual.evidence import Trained
from mixlaw.continual.forms import SETTINGS, ContinualPoints
from mixlaw.continual.table import OLD, SAME_COMPOSITION
from mixlaw.errors import FitError
from mixlaw.laws.points import SAME_SCALE, Axes
from mixlaw.mixture import Mixture


def setting_of(asked: Mapping[str, float | None], trained: Trained, axes: Axes) -> Setting:
    """What was asked for; what the runs do not vary is theirs.

    Args: axes: the settings that the laws read.
    Raises: FitError: a setting that varies is not given, or one that does not is another.
    """
    found = dict(asked)
    for axis in SETTINGS:
        low, high = trained.range(axis)
        number = asked[axis]
        if number is None:
            if axis in axes:
                raise FitError(
                    f"the runs vary {axis} ({low:g} to {high:g}); say at which to answer, for "
                    f"example {axis}={high:g}"
                )
            found[axis] = None if math.isnan(low) else float(np.median(getattr(trained, axis)))
        elif not (math.isfinite(number) and number > 0):
            raise FitError(f"{axis} is {number}; it must be finite and > 0")
        elif axis not in axes and not low * (1 - SAME_SCALE) <= number <= high * (1 + SAME_SCALE):
            theirs = "do not say their" if math.isnan(low) else f"all have {low:g}"
            raise FitError(
                f"the runs {theirs} {axis}, so nothing is known at {number:g}; train some at "
                f"another {axis}, or do not ask for one"
            )
    return Setting(**found)


def protected_of(
    protect: Sequence[str] | None, targets: Sequence[str], sides: Sequence[str | None]
) -> list[int]:
    """Indices of the targets that may not rise: those of the old side, unless others are named."""
    if protect is None:
        found = [t for t, side in enumerate(sides) if side == OLD]
        if not found:
            raise FitError(
                f"none of {list(targets)} is named after an old domain, so it is unknown what to "
                "protect; name it: protect=[target]"
            )
        return found
    unknown = [t for t in protect if t not in targets]
    if unknown or not len(protect) or len(set(protect)) < len(protect):
        raise FitError(
            f"protect={list(protect)}: it must name some of the targets {list(targets)}, each once"
        )
    return [targets.index(target) for target in protect]


def tolerances(
    tolerance: float | Mapping[str, float], protected: Sequence[str]
) -> dict[str, float]:
    """Target -> allowed rise."""
    given = tolerance if isinstance(tolerance, Mapping) else dict.fromkeys(protected, tolerance)
    if missing := [target for target in protected if target not in given]:
        raise FitError(f"tolerance lacks {missing}; give one number, or one for each of them")
    if idle := [target for target in given if target not in protected]:
        raise FitError(
            f"tolerance names {idle}, which would do nothing: protected are {list(protected)}"
        )
    allowed = {target: float(given[target]) for target in protected}
    if bad := {t: number for t, number in allowed.items() if not 0 <= number < math.inf}:
        raise FitError(f"tolerances {bad} must be finite and >= 0, in the unit of the loss")
    return allowed


def coefficients_of(weights: Mapping[str, float], targets: Sequence[str]) -> np.ndarray:
    """(T,) weights that sum to one."""
    if unknown := [t for t in weights if t not in targets]:
        raise FitError(f"no target {unknown}; there are {list(targets)}")
    numbers = np.array([float(weights.get(target, 0.0)) for target in targets])
    if not np.isfinite(numbers).all() or (numbers < 0).any() or not numbers.sum() > 0:
        raise FitError(
            f"the weights are {dict(weights)}; they must be finite and >= 0, and one > 0"
        )
    return numbers / numbers.sum()


def check_composition(
    side: str, mixture: Mixture, theirs: Mixture, domains: Sequence[str], *, varied: bool
) -> None:
    """Raise FitError when nothing is known of a side composed so.

    Args: theirs: the mean of the runs; varied: whether they differ in it.
    """
    if strange := [d for d in mixture if d not in domains]:
        raise FitError(f"{strange} are not of the {side} side, which is {list(domains)}")
    apart = max(abs(mixture.get(d, 0.0) - theirs[d]) for d in domains)
    if not varied and apart > SAME_COMPOSITION:
        raise FitError(
            f"all runs composed the {side} side alike ({theirs}), so nothing is known of "
            f"{mixture}; train some with another composition"
        )


def points_of(
    shares: np.ndarray, setting: Setting, parts: Sequence[Sequence[float]]
) -> ContinualPoints:
    """Where forms are evaluated: shares (q,) at one setting.

    Args: parts: of the old and of the new side, what each of its groups has of it.
    """
    if bad := [s for s in shares.tolist() if not 0 <= s <= 1]:
        raise FitError(f"the shares {bad[:5]} of new data lie outside 0 to 1")
    old, new = (np.asarray(of_side) for of_side in parts)
    weights = np.hstack([(1 - shares)[:, None] * old, shares[:, None] * new])
    num_params, train_tokens, rewarm = (
        np.full(len(shares), math.nan if count is None else count)
        for count in (setting.num_params, setting.train_tokens, setting.rewarm)
    )
    return ContinualPoints(weights, num_params, train_tokens, rewarm=rewarm)


def base_of(bases: Sequence[tuple[float, Sequence[float]]], setting: Setting) -> np.ndarray:
    """(T,) losses of the base of a size. Args: bases: (num_params, losses), NaN: of any size."""
    if len(bases) == 1:
        return np.array(bases[0][1])
    size = setting.num_params or math.nan  # known where several sizes are
    for trained, losses in bases:
        if abs(size / trained - 1) <= SAME_SCALE:
            return np.array(losses)
    raise FitError(
        f"the base of num_params={size:g} is unknown, the runs have those of "
        f"{[size for size, _ in bases]}; give its losses: continuing(base)"
    )
