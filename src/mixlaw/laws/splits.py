"""Which rows are held out: mixtures, and the largest scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.points import AXES, NUM_PARAMS, TRAIN_TOKENS, scale_levels
from mixlaw.runs import RunTable

MIXTURE_SPLIT, SCALE_SPLIT = "mixture", "scale"
NUM_FOLDS, NUM_MIXTURES_FOR_FEWER, FEWER_FOLDS = 8, 200, 5
"""With many mixtures a fit without a fifth of them is as good as one without an eighth."""

FEWEST_MIXTURES, FEWEST_AT_TOP = 4, 3


@dataclass(frozen=True, eq=False)
class Split:
    """Which rows are trained on and tested, fold by fold; masks over the rows of the table.

    Attributes:
        folds: (train (n,), test (n,)) pairs.
        reach: axis -> log ratio from the largest value trained on to the one tested (0 where that
            axis is not extrapolated).
    """

    name: str
    folds: tuple[tuple[np.ndarray, np.ndarray], ...]
    reach: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        folds = [[np.flatnonzero(side).tolist() for side in fold] for fold in self.folds]
        return {"name": self.name, "folds": folds, "reach": dict(self.reach)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], num_rows: int) -> Split:
        def mask(rows: list[int]) -> np.ndarray:
            return np.isin(np.arange(num_rows), rows)

        folds = tuple((mask(train), mask(test)) for train, test in data["folds"])
        return cls(data["name"], folds, data["reach"])


def varying_axes(runs: RunTable) -> dict[str, float]:
    """The counts that are known for every row and take at least two values, each with its
    geometric mean as reference.

    Raises: FitError: a count is known for some rows only.
    """
    counts = {axis: getattr(runs, axis) for axis in AXES}
    for axis, count in counts.items():
        unknown = int(np.isnan(count).sum())
        if 0 < unknown < len(count):
            raise FitError(
                f"{axis} is missing in {unknown} of {len(count)} rows; fill it in or drop these "
                "rows, so that a law of scale can be told from noise"
            )
    levels = {axis: scale_levels(count) for axis, count in counts.items()}
    return {
        axis: float(np.exp(np.mean(np.log(count))))
        for axis, count in counts.items()
        if levels[axis].min() >= 0 and levels[axis].max() >= 1
    }


def scale_ids(runs: RunTable) -> np.ndarray:
    """(n,) integers, equal for rows of one (size, horizon)."""
    levels = np.stack([scale_levels(getattr(runs, axis)) for axis in AXES], axis=1)
    return np.unique(levels, axis=0, return_inverse=True)[1].reshape(-1)


def make_splits(runs: RunTable, *, folds: int | None = None, seed: int = 0) -> dict[str, Split]:
    """The splits that the table allows.

    Raises: FitError: fewer than four mixtures.
    """
    ids = runs.mixture_ids()
    num_mixtures = int(ids.max()) + 1
    if num_mixtures < FEWEST_MIXTURES:
        raise FitError(
            f"cross-validation over mixtures needs at least {FEWEST_MIXTURES} distinct mixtures, "
            f"the table has {num_mixtures}; train more"
        )
    if folds is not None and folds < 2:
        raise FitError(f"folds is {folds}; it must be at least 2, so that something is left out")
    if folds is None:
        folds = NUM_FOLDS if num_mixtures < NUM_MIXTURES_FOR_FEWER else FEWER_FOLDS
    largest, below, reach = _held_out_scale(runs)
    # Folds are dealt separately to the mixtures that reach the largest scale, so that each fold
    # tests some of them.
    reaches = np.isin(np.arange(num_mixtures), ids[largest])
    order = np.random.default_rng(seed).permutation(num_mixtures)
    order = order[np.argsort(~reaches[order], kind="stable")]
    fold_of = np.empty(num_mixtures, int)
    fold_of[order] = np.arange(num_mixtures) % min(folds, num_mixtures)
    held = [fold_of[ids] == fold for fold in range(fold_of.max() + 1)]
    everywhere = tuple((~test, test) for test in held)
    splits = {MIXTURE_SPLIT: Split(MIXTURE_SPLIT, everywhere, dict.fromkeys(AXES, 0.0))}
    at_top = len(np.unique(ids[largest]))
    if reach and at_top >= FEWEST_AT_TOP:
        pairs = tuple((~test & below, test & largest) for test in held if (test & largest).any())
        splits[SCALE_SPLIT] = Split(SCALE_SPLIT, pairs, {**dict.fromkeys(AXES, 0.0), **reach})
    return splits


def _held_out_scale(runs: RunTable) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Masks (n,) of the rows at the largest scale and of those below it, and the reach per axis."""
    largest, below = np.ones(len(runs), bool), np.ones(len(runs), bool)
    reach = {}
    axes = varying_axes(runs)
    levels = {axis: scale_levels(getattr(runs, axis)) for axis in axes}
    for axis in (NUM_PARAMS, TRAIN_TOKENS):  # the longest horizon is that of the largest size
        if axis not in axes:
            continue
        top = levels[axis][largest].max()
        largest &= levels[axis] == top
        rest = below & (levels[axis] < top)
        # What is left must still show how the loss depends on every axis.
        if all(len(set(level[rest])) >= 2 for level in levels.values()):
            below = rest
            counts = getattr(runs, axis)
            reach[axis] = float(np.log(counts[largest].max() / counts[below].max()))
    return largest, below, reach
