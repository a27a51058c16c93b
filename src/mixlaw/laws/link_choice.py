"""Which form of link, and which loss, forecasts a score best on held-out mixtures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.link_forms import CURVES, Link, fit_form
from mixlaw.laws.scoring import score as scored
from mixlaw.laws.selection import FittedLaws
from mixlaw.laws.splits import FEWEST_MIXTURES, MIXTURE_SPLIT, scale_ids
from mixlaw.laws.validation import CrossValidation
from mixlaw.runs import VERIFY, RunTable

MOST_NUMBERS = 1_000_000
"""Links are fitted together while their residuals are no more than this."""


@dataclass(frozen=True, eq=False)
class Choice:
    """The link chosen for a score, and its predictions (n,) where held out.

    Attributes:
        full: fitted to all rows; folds: one per fold of the mixture split.
        chained: split -> from the losses forecast; direct: from the losses measured.
        fitted_losses: L of the rows that it was fitted to.
        same_scale: whether the scale split had to use links fitted to the held-out scale.
    """

    full: Link
    folds: Sequence[Link]
    chained: Mapping[str, np.ndarray]
    direct: np.ndarray
    fitted_losses: np.ndarray
    same_scale: bool


@dataclass(frozen=True, eq=False)
class Input:
    """One L that a link may read.

    Attributes:
        losses: target -> share.
        loss: (n,) measured; forecast: split -> (n,) held out.
        use: (1 + folds, n) rows to fit: all, then those of each fold of each split.
        widened: whether some fold of the scale split had to use the held-out scale.
    """

    losses: Mapping[str, float]
    loss: np.ndarray
    forecast: Mapping[str, np.ndarray]
    use: np.ndarray
    widened: bool


@dataclass(frozen=True, eq=False)
class Case:
    """The table that laws were fitted to, now with scores.

    Attributes:
        laws: of the losses; runs: n rows; ids: (n,) mixtures.
        losses: (n, L) measured; forecast: split -> (n, L) held out.
        splits: name -> folds of (train (n,), test (n,)).
    """

    laws: FittedLaws
    runs: RunTable
    ids: np.ndarray
    losses: np.ndarray
    forecast: Mapping[str, np.ndarray]
    splits: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]

    @classmethod
    def of(cls, laws: FittedLaws, runs: RunTable) -> Case:
        """Raises: FitError: not the table that the laws were fitted to."""
        validation = laws.cross_validation
        runs, fitted = runs.select(runs.role != VERIFY).done(), validation.runs
        same = runs.domains == fitted.domains and len(runs) == len(fitted)
        same = same and set(laws.targets) <= set(runs.targets)
        if same:
            losses = np.stack([runs.column(target) for target in laws.targets], axis=1)
            pairs = [(losses, validation.values()), (runs.weights, fitted.weights)]
            same = all(np.allclose(a, b, rtol=1e-9, equal_nan=True) for a, b in pairs)
        if not same:
            raise FitError(
                f"the laws were fitted to {len(fitted)} finished rows of {list(laws.targets)}, and "
                f"these {len(runs)} are others; give links the same table (scores may have been "
                "added), or fit the laws to this one first"
            )
        scores = validation.scores[laws.law]
        return cls(
            laws=laws,
            runs=runs,
            ids=runs.mixture_ids(),
            losses=np.stack([runs.column(target) for target in laws.targets], axis=1),
            forecast={split: scores[split].predictions for split in validation.splits},
            splits={name: split.folds for name, split in validation.splits.items()},
        )

    def inputs(self, score: np.ndarray) -> list[Input]:
        """Every loss alone and the mean of each metric, where they were measured often enough."""
        metrics = np.array([target.partition("/")[0] for target in self.laws.targets])
        means = [metrics == metric for metric in dict.fromkeys(metrics.tolist())]
        alone = list(np.eye(len(metrics), dtype=bool))
        found = (self._input(c, score) for c in (*alone, *(m for m in means if m.sum() > 1)))
        return [one for one in found if one is not None]

    def _input(self, counts: np.ndarray, score: np.ndarray) -> Input | None:
        """The mean of the losses that count; None when it was measured, with the score, on too few
        mixtures of some fold."""
        loss = self.losses[:, counts].mean(axis=1)
        usable = np.isfinite(score) & np.isfinite(loss)
        use, widened = [usable], False
        for split in self.splits:
            rows, wide = self.training_rows(split, usable)
            use, widened = [*use, *rows], widened or wide
        for rows in use:
            few = len(np.unique(self.ids[rows])) < FEWEST_MIXTURES
            if few or np.ptp(loss[rows]) == 0 or np.ptp(score[rows]) == 0:
                return None
        names = [name for name, c in zip(self.laws.targets, counts, strict=True) if c]
        forecast = {split: table[:, counts].mean(axis=1) for split, table in self.forecast.items()}
        shares = dict.fromkeys(names, 1 / len(names))
        return Input(shares, loss, forecast, np.stack(use), widened)

    def observed(self, name: str) -> np.ndarray:
        """(n,) values of a score where a loss was measured, too; NaN elsewhere.

        Raises: FitError: too few for a link, or for its errors.
        """
        score = np.where(np.isfinite(self.losses).any(axis=1), self.runs.column(name), np.nan)
        known = np.isfinite(score)
        if not known.any():
            raise FitError(
                f"{name!r} was never measured on a finished run together with one of "
                f"{list(self.laws.targets)}; a link needs both"
            )
        left = [len(np.unique(self.ids[known & train])) for train, _ in self.splits[MIXTURE_SPLIT]]
        if min(left) < FEWEST_MIXTURES:
            raise FitError(
                f"{name!r} is measured on {len(np.unique(self.ids[known]))} mixtures, {min(left)} "
                f"when a fold is held out ({FEWEST_MIXTURES} needed); measure it on more"
            )
        if min(np.ptp(score[known & train]) for train, _ in self.splits[MIXTURE_SPLIT]) == 0:
            raise FitError(
                f"{name!r} is constant in all {known.sum()} rows, or but for one fold of mixtures; "
                "check the column or leave the score out"
            )
        at = known & self._largest_scale()
        if len(np.unique(self.ids[at])) < 2 or np.ptp(score[at]) == 0:
            raise FitError(
                f"{name!r} has {len(np.unique(score[at]))} different values at the largest scale, "
                "where forecasts are checked (2 mixtures needed); measure it there"
            )
        return score

    def _largest_scale(self) -> np.ndarray:
        """(n,) the rows that `HeldOut` takes."""
        scales, measured = scale_ids(self.runs), np.isfinite(self.losses).any(axis=1)
        levels = np.unique(scales[measured])
        shared = [s for s in levels if len(np.unique(self.ids[measured & (scales == s)])) > 1]
        return scales == max(shared, default=levels.max())

    def training_rows(self, split: str, usable: np.ndarray) -> tuple[list[np.ndarray], bool]:
        """(n,) rows of each fold that a link may use: those of the split, or of any scale of the
        other mixtures where these are too few (a score that only large runs have); and whether
        it was so anywhere."""
        rows, widened = [], False
        for train, test in self.splits[split]:
            use = train & usable
            if len(np.unique(self.ids[use])) < FEWEST_MIXTURES:
                use, widened = usable & ~np.isin(self.ids, self.ids[test]), True
            rows.append(use)
        return rows, widened

    def validation(self, chained: Mapping[str, Mapping[str, np.ndarray]]) -> CrossValidation:
        """Losses and scores side by side; `chained` is split -> score -> held-out values (n,)."""
        of_losses, law = self.laws.cross_validation, self.laws.law
        targets = (*self.laws.targets, *next(iter(chained.values())))
        scores = {
            split: scored(
                np.column_stack([self.forecast[split], *columns.values()]),
                self.runs,
                targets,
                of_losses.splits[split],
            )
            for split, columns in chained.items()
        }
        return CrossValidation(self.runs, targets, of_losses.splits, {law: scores}, {})


def choose(case: Case, name: str, chance: float | None) -> Choice:
    """Form and L of least held-out error, for all rows and for every fold by the other folds."""
    score = case.observed(name)
    inputs = case.inputs(score)
    if not inputs:
        raise FitError(
            f"no loss was measured on enough mixtures that have {name!r}, too; measure both on more"
        )
    trials = [trial for form in CURVES for trial in _trials(case, form, inputs, score, chance)]
    deciding = case.laws.cross_validation.deciding_split
    errors = np.stack([(trial.chained[deciding] - score) ** 2 for trial in trials])
    counted = np.isfinite(errors.sum(axis=0))

    def best(rows: np.ndarray) -> int:
        """Index of the best trial on some rows; on all where none of them has an error."""
        both = rows & counted
        return int(np.argmin(errors[:, both if both.any() else counted].mean(axis=1)))

    everywhere = best(counted)
    chosen = {
        split: [best(~np.isin(case.ids, case.ids[test])) for _, test in folds]
        for split, folds in case.splits.items()
    }

    def assembled(split: str, of_trial: Callable[[Choice], np.ndarray]) -> np.ndarray:
        out = np.full(len(score), np.nan)
        for (_, test), k in zip(case.splits[split], chosen[split], strict=True):
            out[test] = of_trial(trials[k])[test]
        return np.where(np.isfinite(score), out, np.nan)

    return replace(
        trials[everywhere],
        folds=[trials[k].folds[fold] for fold, k in enumerate(chosen[MIXTURE_SPLIT])],
        chained={split: assembled(split, lambda t, s=split: t.chained[s]) for split in case.splits},
        direct=assembled(MIXTURE_SPLIT, lambda trial: trial.direct),
    )


def _trials(
    case: Case, form: str, inputs: Sequence[Input], score: np.ndarray, chance: float | None
) -> list[Choice]:
    """One form with every L, fitted to all rows and without each fold."""
    sizes = max(1, MOST_NUMBERS // inputs[0].use.size)
    numbers: list[np.ndarray] = []
    for first in range(0, len(inputs), sizes):
        part = inputs[first : first + sizes]
        loss, use = np.stack([one.loss for one in part]), np.stack([one.use for one in part])
        numbers += list(fit_form(form, loss, score, use, floor=chance))
    return [
        _trial(case, one, [Link(form, one.losses, *link) for link in links.tolist()])
        for one, links in zip(inputs, numbers, strict=True)
    ]


def _trial(case: Case, one: Input, links: list[Link]) -> Choice:
    """Predictions of the links of one L: to all rows, then split by split without each fold."""
    full, links = links[0], links[1:]
    folds, chained = {}, {}
    for split, pairs in case.splits.items():
        folds[split], links = links[: len(pairs)], links[len(pairs) :]
        chained[split] = _held_out(folds[split], pairs, one.forecast[split])
    return Choice(
        full=full,
        folds=folds[MIXTURE_SPLIT],
        chained=chained,
        direct=_held_out(folds[MIXTURE_SPLIT], case.splits[MIXTURE_SPLIT], one.loss),
        fitted_losses=one.loss[one.use[0]],
        same_scale=one.widened,
    )


def _held_out(
    links: Sequence[Link], folds: Sequence[tuple[np.ndarray, np.ndarray]], loss: np.ndarray
) -> np.ndarray:
    """Predictions (n,) of each fold's test rows from its own link; NaN where not held out."""
    out = np.full(len(loss), np.nan)
    for link, (_, test) in zip(links, folds, strict=True):
        out[test] = link.score(loss[test])
    return out
