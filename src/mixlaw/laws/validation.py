"""Cross-validation that holds out what a forecast will lack: mixtures, and the largest scale.

Rows of one mixture resemble each other across sizes and horizons, so random rows would leak.

    mixture split   train: other mixtures, all scales.        test: held-out mixtures, all scales.
    scale split     train: other mixtures, below the largest  test: held-out mixtures at the largest
                    size and the longest horizon.             size and the longest horizon.

An axis (size or horizon) is held out only where two values of every axis remain to train on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Batch, Fitted, Recipe
from mixlaw.laws.catalogue import DEFAULT_MANY_SCALES, DEFAULT_ONE_SCALE, make
from mixlaw.laws.fitting import batch_of
from mixlaw.laws.points import AXES, NUM_PARAMS, TRAIN_TOKENS, Points, scale_levels
from mixlaw.laws.ranking import ranks
from mixlaw.laws.residual import WithResidual
from mixlaw.laws.solver import Start
from mixlaw.runs import RunTable

MIXTURE_SPLIT, SCALE_SPLIT = "mixture", "scale"
NUM_FOLDS = 8
FEWEST_MIXTURES, FEWEST_AT_TOP = 4, 3
WORTH_OF_CERTIFICATE = 0.9
"""A law that is not convex must have at most this share of the error of the best that is."""


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


@dataclass(frozen=True, eq=False)
class Scores:
    """One candidate's held-out predictions on one split.

    Attributes:
        predictions: (n, T) aligned with the table; NaN where not held out.
        mae, mae_of_mean: (T,) mean absolute error, and that of predicting the mean of the other
            mixtures' rows at the same scale.
        spearman: (T,) rank correlation over mixtures (their seeds averaged) within a scale,
            averaged over scales.
        normalised_error: (T,) mean squared error over that of predicting the mean.
    """

    predictions: np.ndarray
    mae: np.ndarray
    mae_of_mean: np.ndarray
    spearman: np.ndarray
    normalised_error: np.ndarray


@dataclass(frozen=True, eq=False)
class Fits:
    """What was fitted on the way.

    Attributes:
        full: target -> fitted to all rows.
        folds: split name -> per fold, target -> fitted to its training rows.
    """

    full: Mapping[str, Fitted]
    folds: Mapping[str, tuple[Mapping[str, Fitted], ...]]


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Held-out performance of every candidate.

    Attributes:
        runs: the table, rows as fitted; targets: T names.
        splits: name -> split.
        scores: candidate -> split name -> scores.
        refused: candidate -> split name -> why it could not be fitted.
        fits: candidate -> its fits; not stored.
    """

    runs: RunTable
    targets: tuple[str, ...]
    splits: Mapping[str, Split]
    scores: Mapping[str, Mapping[str, Scores]]
    refused: Mapping[str, Mapping[str, str]]
    fits: Mapping[str, Fits] = field(default_factory=dict)

    @property
    def deciding_split(self) -> str:
        """The scale split where there is one, else the mixture split."""
        return SCALE_SPLIT if SCALE_SPLIT in self.splits else MIXTURE_SPLIT

    def values(self) -> np.ndarray:
        """Observed values (n, T) of the targets."""
        return np.stack([self.runs.column(target) for target in self.targets], axis=1)

    def residuals(self, candidate: str, split: str) -> np.ndarray:
        """Predicted less observed (n, T); NaN where not held out."""
        return self.scores[candidate][split].predictions - self.values()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the table, the folds as row numbers and the predictions."""
        return {
            "rows": self.runs.rows(),
            "targets": list(self.targets),
            "splits": [split.to_dict() for split in self.splits.values()],
            "predictions": {
                name: {split: blanks(s.predictions) for split, s in by_split.items()}
                for name, by_split in self.scores.items()
            },
            "refused": {name: dict(reasons) for name, reasons in self.refused.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CrossValidation:
        runs, targets = RunTable.from_rows(data["rows"]), tuple(data["targets"])
        splits = {s["name"]: Split.from_dict(s, len(runs)) for s in data["splits"]}
        scores = {
            name: {
                split: score(np.array(table, float), runs, targets, splits[split])
                for split, table in by_split.items()
            }
            for name, by_split in data["predictions"].items()
        }
        return cls(runs, targets, splits, scores, data["refused"])

    def ranking(self) -> dict[str, float]:
        """Candidate -> mean normalised error on the deciding split, best first.

        Raises: FitError: none could be fitted; lists the reasons.
        """
        split = self.deciding_split
        errors = {
            name: float(np.mean(by_split[split].normalised_error))
            for name, by_split in self.scores.items()
            if split in by_split
        }
        if not errors:
            reasons = "; ".join(f"{name}: {why[split]}" for name, why in self.refused.items())
            raise FitError(f"no law could be cross-validated: {reasons}")
        return dict(sorted(errors.items(), key=lambda pair: pair[1]))


    def choice(self) -> str:
        """The best candidate; one that is not convex must be clearly better than the best that is,
        since its optimum carries no certificate."""
        ranking, axes = self.ranking(), varying_axes(self.runs)
        convex = [name for name in ranking if make(name, axes).convex]
        best = next(iter(ranking))
        if convex and ranking[convex[0]] * WORTH_OF_CERTIFICATE <= ranking[best]:
            return convex[0]
        return best


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


def make_splits(runs: RunTable, *, folds: int = NUM_FOLDS, seed: int = 0) -> dict[str, Split]:
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


def cross_validate(
    runs: RunTable,
    targets: Sequence[str] | None = None,
    *,
    candidates: Sequence[str] | None = None,
    seed: int = 0,
    folds: int = NUM_FOLDS,
) -> CrossValidation:
    """Hold out mixtures, and the largest scale, for every candidate.

    Args:
        runs: rows of failed runs are left out.
        targets: default: all of the table.
        candidates: names from the catalogue; default: the laws of scale when sizes or horizons
            vary, else the laws of the mixture alone.
        seed: of the folds and of the starting points.
        folds: groups of mixtures, each held out once.
    Raises: FitError: fewer than four mixtures, or an unknown candidate.
    """
    runs = runs.done()
    targets = tuple(targets or runs.targets)
    axes = varying_axes(runs)
    names = candidates or list(DEFAULT_MANY_SCALES if axes else DEFAULT_ONE_SCALE)
    splits = make_splits(runs, folds=folds, seed=seed)
    batch = batch_of(runs, targets)
    scores: dict[str, dict[str, Scores]] = {name: {} for name in names}
    refused: dict[str, dict[str, str]] = {name: {} for name in names}
    fits: dict[str, Fits] = {}
    for name in names:
        recipe = make(name, axes)
        # The law under a residual process has often been fitted already, as a candidate itself.
        under = fits.get(recipe.base.name) if isinstance(recipe, WithResidual) else None
        try:
            full = _fit(recipe, batch, under and under.full.values(), [None] * len(batch), seed)
        except FitError as error:
            refused[name] = dict.fromkeys(splits, str(error))
            continue
        folds_of: dict[str, tuple[Mapping[str, Fitted], ...]] = {}
        for split in splits.values():
            try:
                bases = under and under.folds.get(split.name)
                folds_of[split.name] = _fit_folds(recipe, batch, split, full, bases, seed)
                predictions = _predict_held_out(folds_of[split.name], batch.points, split)
                scores[name][split.name] = score(predictions, runs, targets, split)
            except FitError as error:
                refused[name][split.name] = str(error)
        fits[name] = Fits(dict(zip(targets, full, strict=True)), folds_of)
    return CrossValidation(runs, targets, splits, scores, refused, fits)


def _fit(
    recipe: Recipe,
    batch: Batch,
    bases: Iterable[Fitted] | None,
    starts: Sequence[Start | None],
    seed: int,
) -> list[Fitted]:
    """Fit a batch, upon the fits of the law under it where there are some."""
    if bases is None or not isinstance(recipe, WithResidual):
        return recipe.fit_batch(batch, seed=seed, starts=starts)
    kept = [start is not None and start.keep for start in starts]
    return recipe.upon(list(bases), batch, kept=kept, seed=seed)


def _fit_folds(
    recipe: Recipe,
    batch: Batch,
    split: Split,
    full: Sequence[Fitted],
    bases: Sequence[Mapping[str, Fitted]] | None,
    seed: int,
) -> tuple[Mapping[str, Fitted], ...]:
    """Fits to the training rows of each fold, per target.

    They begin at the fit to all rows, which decides only into which valley they go; the prior's
    strength is chosen anew from a fold's own rows. A prior that was learned from all targets is
    kept: its few numbers have seen the held-out rows, and change nothing (docs/decisions.md).
    """
    num_targets, num_folds = len(batch), len(split.folds)
    train = np.stack([train for train, _ in split.folds])
    problems = np.repeat(np.arange(num_targets), num_folds)
    folds = batch.times(np.tile(train, (num_targets, 1)), problems)
    folds = folds.rows(np.any(train, axis=0))
    starts = [full[t].start for t in problems.tolist()]
    under = None
    if bases is not None:
        under = [laws[target] for target in batch.targets for laws in bases]
    fitted = _fit(recipe, folds, under, starts, seed)
    return tuple(
        dict(zip(batch.targets, fitted[fold::num_folds], strict=True)) for fold in range(num_folds)
    )


def _predict_held_out(
    folds: Sequence[Mapping[str, Fitted]], points: Points, split: Split
) -> np.ndarray:
    """Predictions (n, T) of each fold's test rows; NaN where not held out."""
    predictions = np.full((len(points), len(folds[0])), np.nan)
    for laws, (_, test) in zip(folds, split.folds, strict=True):
        held_out = points.select(test)
        for t, fitted in enumerate(laws.values()):
            predictions[test, t] = fitted.predict(held_out)
    return predictions


def score(
    predictions: np.ndarray, runs: RunTable, targets: tuple[str, ...], split: Split
) -> Scores:
    """Compare held-out predictions (n, T) with the table.

    Raises: FitError: a target has no held-out value to compare with.
    """
    values = np.stack([runs.column(target) for target in targets], axis=1)
    scales = scale_ids(runs)
    means = _means_of_others(values, scales, split)
    held = np.isfinite(predictions) & np.isfinite(values) & np.isfinite(means)
    errors = np.where(held, predictions - values, 0.0)
    mean_errors = np.where(held, means - values, 0.0)
    count = held.sum(axis=0)
    if not np.all(np.any(mean_errors, axis=0)):
        bare = [target for t, target in enumerate(targets) if not np.any(mean_errors[:, t])]
        raise FitError(
            f"the {split.name} split of {bare} has no held-out value that another mixture of the "
            "same scale could be compared with; train at least two mixtures at the largest scale"
        )
    return Scores(
        predictions=predictions,
        mae=np.abs(errors).sum(axis=0) / count,
        mae_of_mean=np.abs(mean_errors).sum(axis=0) / count,
        spearman=_spearman_within(predictions, values, held, scales, runs.mixture_ids()),
        normalised_error=(errors**2).sum(axis=0) / (mean_errors**2).sum(axis=0),
    )


def _means_of_others(values: np.ndarray, scales: np.ndarray, split: Split) -> np.ndarray:
    """(n, T) what "predict the mean" says of the held-out rows, NaN elsewhere: it is given each
    scale's own level, the mean of the other mixtures there."""
    means = np.full_like(values, np.nan)
    for _, test in split.folds:
        for scale in np.unique(scales[test]):
            at = scales == scale
            means[at & test] = column_means(values[at & ~test])
    return means


def unscorable(
    runs: RunTable, targets: Sequence[str], splits: Mapping[str, Split]
) -> dict[str, str]:
    """The targets that cannot be cross-validated, whatever the law -> why.

    Args:
        runs: finished rows, those of the splits.
    """
    ids, scales = runs.mixture_ids(), scale_ids(runs)
    levels = {axis: scale_levels(getattr(runs, axis)) for axis in varying_axes(runs)}
    out = {}
    for target in targets:
        values = runs.column(target)
        known = np.isfinite(values)
        if not known.any():
            out[target] = "never measured"
        elif np.ptp(values[known]) == 0:
            first = values[known][0]
            out[target] = f"constant ({first:g} in all {known.sum()} rows)"
        elif not known.all():
            for split in splits.values():
                if why := _thin(values, known, ids, scales, levels, split):
                    out[target] = f"measured in {known.sum()} of {len(runs)} rows, and {why}"
                    break
    return out


def _thin(
    values: np.ndarray,
    known: np.ndarray,
    ids: np.ndarray,
    scales: np.ndarray,
    levels: Mapping[str, np.ndarray],
    split: Split,
) -> str:
    """Why the values of one target are too few for a split; "" where they are not."""
    where = f"when a fold of the {split.name} split is held out"
    for train, _ in split.folds:
        left = known & train
        mixtures = len(np.unique(ids[left]))
        if mixtures < FEWEST_MIXTURES:
            return f"{mixtures} mixtures with a value are left {where} ({FEWEST_MIXTURES} needed)"
        if np.ptp(values[left]) == 0:
            return f"it does not vary {where}"
        for axis, level in levels.items():
            if np.ptp(level[left]) == 0:
                return f"only one {axis} with a value is left {where}"
    means = _means_of_others(values[:, None], scales, split)[:, 0]
    if not np.any(np.abs(values - means)[known & np.isfinite(means)] > 0):
        return f"no held-out value of the {split.name} split can be compared with another mixture's"
    return ""


def column_means(values: np.ndarray) -> np.ndarray:
    """(T,) means of the known values (k, T); NaN where there is none."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _spearman_within(
    predictions: np.ndarray,
    values: np.ndarray,
    held: np.ndarray,
    scales: np.ndarray,
    mixtures: np.ndarray,
) -> np.ndarray:
    """(T,) rank correlation within each scale of three mixtures or more, averaged over scales.

    Seeds of one mixture are averaged first: their order is noise that no law can rank. A scale
    where the predictions (or the values) are all equal ranks nothing and counts as 0.
    """
    out = np.zeros(values.shape[1])
    for t in range(values.shape[1]):
        found = []
        for scale in np.unique(scales[held[:, t]]):
            at = held[:, t] & (scales == scale)
            _, mixture = np.unique(mixtures[at], return_inverse=True)
            seeds = np.bincount(mixture)
            if len(seeds) < 3:
                continue
            ranked = [
                ranks(np.bincount(mixture, side[at, t]) / seeds) for side in (predictions, values)
            ]
            a, b = (rank - rank.mean() for rank in ranked)
            norm = np.sqrt((a @ a) * (b @ b))
            found.append(a @ b / norm if norm > 0 else 0.0)
        out[t] = np.mean(found) if found else 0.0
    return out


def blanks(table: np.ndarray) -> list[list[float | None]]:
    """A table with None for NaN, which JSON lacks."""
    return [[None if np.isnan(v) else float(v) for v in row] for row in table]
