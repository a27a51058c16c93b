"""Cross-validation that holds out what a forecast will lack: mixtures, and the largest scale.

Rows of one mixture resemble each other across sizes and horizons, so random rows would leak.

    mixture split   train: other mixtures, all scales.        test: held-out mixtures, all scales.
    scale split     train: other mixtures, below the largest  test: held-out mixtures at the largest
                    size and the longest horizon.             size and the longest horizon.

An axis (size or horizon) is held out only where two values of every axis remain to train on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Fitted, Recipe
from mixlaw.laws.batch import Batch
from mixlaw.laws.catalogue import DEFAULT_MANY_SCALES, DEFAULT_ONE_SCALE, make
from mixlaw.laws.combination import STACK
from mixlaw.laws.fitting import batch_of
from mixlaw.laws.points import Points
from mixlaw.laws.residual import WithResidual
from mixlaw.laws.scoring import Scores, blanks, score
from mixlaw.laws.solver import Start
from mixlaw.laws.splits import (
    MIXTURE_SPLIT,
    SCALE_SPLIT,
    Split,
    make_splits,
    varying_axes,
)
from mixlaw.laws.stacking import fitted_stack, stack_shares, stacked_predictions
from mixlaw.runs import RunTable, higher_is_better

STACKED_ERROR = 3.0
"""A candidate enters the stack when its error is within this factor of the best one's."""

WORTH_OF_CERTIFICATE = 0.9
"""A law that is not convex must have at most this share of the error of the best that is."""


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
            reasons = "; ".join(
                f"{name}: {why[split]}" for name, why in self.refused.items() if split in why
            )
            raise FitError(f"no law could be cross-validated: {reasons}")
        return dict(sorted(errors.items(), key=lambda pair: pair[1]))

    def choice(self) -> str:
        """The best candidate; one that is not convex must be clearly better than the best that is,
        since its optimum carries no certificate."""
        ranking = self.ranking()
        if not self.fits:
            raise FitError("a stored cross-validation has no fits to choose from; run it again")
        convex = [
            name
            for name in ranking
            if all(fitted.recipe.convex for fitted in self.fits[name].full.values())
        ]
        best = next(iter(ranking))
        if convex and ranking[convex[0]] * WORTH_OF_CERTIFICATE <= ranking[best]:
            return convex[0]
        return best


def cross_validate(
    runs: RunTable,
    targets: Sequence[str] | None = None,
    *,
    candidates: Sequence[str] | None = None,
    seed: int = 0,
    folds: int | None = None,
) -> CrossValidation:
    """Hold out mixtures, and the largest scale, for every candidate.

    Args:
        runs: rows of failed runs are left out.
        targets: default: all losses of the table.
        candidates: names from the catalogue, and "stack" for a stack of the others; default: the
            laws of scale when sizes or horizons vary, else the laws of the mixture alone.
        seed: of the folds and of the starting points.
        folds: groups of mixtures, each held out once; default: eight, five for many mixtures.
    Raises: FitError: fewer than four mixtures, or an unknown candidate.
    """
    runs = runs.done()
    targets = tuple(targets or (t for t in runs.targets if not higher_is_better(t)))
    axes = varying_axes(runs)
    names = candidates or list(DEFAULT_MANY_SCALES if axes else DEFAULT_ONE_SCALE)
    splits = make_splits(runs, folds=folds, seed=seed)
    batch = batch_of(runs, targets)
    scores: dict[str, dict[str, Scores]] = {name: {} for name in names}
    refused: dict[str, dict[str, str]] = {name: {} for name in names}
    fits: dict[str, Fits] = {}
    for name in names:
        if name == STACK:
            continue  # made of the others, below
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
    validation = CrossValidation(runs, targets, splits, scores, refused, fits)
    return _with_stack(validation) if STACK in names else validation


def _with_stack(validation: CrossValidation) -> CrossValidation:
    """The same with a stack of the candidates that did nearly as well as the best."""
    ranking, values = validation.ranking(), validation.values()
    best = next(iter(ranking.values()))
    splits = validation.splits
    names = [
        name
        for name, error in ranking.items()
        if error <= STACKED_ERROR * best and set(splits) <= set(validation.scores[name])
    ]
    full_shares: dict[str, np.ndarray] = {}
    scores: dict[str, Scores] = {}
    folds_of: dict[str, tuple[Mapping[str, Fitted], ...]] = {}
    for split in splits.values():
        parts = np.stack([validation.scores[name][split.name].predictions for name in names])
        predictions = np.full_like(values, np.nan)
        by_fold: list[dict[str, np.ndarray]] = [{} for _ in split.folds]
        for t, target in enumerate(validation.targets):
            of_target = parts[:, :, t]
            predictions[:, t], shares = stacked_predictions(of_target, values[:, t], split)
            for fold, share in zip(by_fold, shares, strict=True):
                fold[target] = share
            if split.name == validation.deciding_split:
                known = np.isfinite(of_target).all(axis=0) & np.isfinite(values[:, t])
                full_shares[target] = stack_shares(of_target[:, known], values[known, t])
        scores[split.name] = score(predictions, validation.runs, validation.targets, split)
        folds_of[split.name] = tuple(
            fitted_stack([validation.fits[name].folds[split.name][k] for name in names], fold)
            for k, fold in enumerate(by_fold)
        )
    full = fitted_stack([validation.fits[name].full for name in names], full_shares)
    return replace(
        validation,
        scores={**validation.scores, STACK: scores},
        fits={**validation.fits, STACK: Fits(full, folds_of)},
    )


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
    strength is chosen anew from a fold's own rows. On the mixture split a prior that was learned
    from all targets is kept with its noise: its few numbers have seen the held-out rows, and hardly
    change (docs/decisions.md). On the scale split it is learned anew in every fold, since it would
    bring what the held-out scale says of the exponents.
    """
    num_targets, num_folds = len(batch), len(split.folds)
    learned = any(fitted.start is not None and fitted.start.prior is not None for fitted in full)
    if split.name == SCALE_SPLIT and learned and bases is None:
        starts = [f.start and replace(f.start, prior=None, keep=False) for f in full]
        found = []
        for train, _ in split.folds:
            alone = batch.times(np.tile(train, (num_targets, 1)), np.arange(num_targets))
            fitted = _fit(recipe, alone.rows(train), None, starts, seed)
            found.append(dict(zip(batch.targets, fitted, strict=True)))
        return tuple(found)
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
