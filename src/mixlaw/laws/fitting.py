"""Fit one recipe to targets of a run table, or move a law to a larger scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Fitted, Recipe
from mixlaw.laws.batch import Batch
from mixlaw.laws.noise import noise_weights
from mixlaw.laws.points import Points
from mixlaw.laws.transfer import Transfer, laws_of
from mixlaw.runs import DONE, RunTable

if TYPE_CHECKING:
    from mixlaw.laws.selection import FittedLaws


def batch_of(runs: RunTable, targets: Sequence[str]) -> Batch:
    """The targets of `runs` as problems, rows weighted by the noise that repeated runs show; what
    is left out becomes a warning.

    Raises:
        RunTableError: no such target.
        FitError: a target has no usable row, or a value that is no loss.
    """
    runs = runs.trained()
    values = observed(runs, targets)
    failed = runs.status != DONE
    missing = ~failed & np.isnan(values)
    warnings = []
    for target, without in zip(targets, missing, strict=True):
        texts = []
        if failed.any():
            labels = ", ".join(sorted(set(runs.label[failed]))[:5])
            texts.append(f"{target}: left out {failed.sum()} rows of failed runs ({labels})")
        if without.any():
            texts.append(f"{target}: left out {without.sum()} rows without a value")
        if np.all(failed | without):
            raise FitError(
                f"{target!r} has no usable row among {len(runs)} ({failed.sum()} of failed runs, "
                f"{without.sum()} without a value); measure it on some finished runs"
            )
        warnings.append(tuple(texts))
    names = [target.partition("/")[2] for target in targets]
    use = ~(failed | missing)
    return Batch(
        targets=tuple(targets),
        domains=runs.domains,
        own=np.array([runs.domains.index(n) if n in runs.domains else -1 for n in names]),
        points=Points.of(runs),
        y=np.where(use, values, 0.0),
        use=use * noise_weights(runs, targets),
        mixture_ids=runs.mixture_ids(),
        run_ids=np.unique(runs.run, return_inverse=True)[1].reshape(-1),
        warnings=tuple(warnings),
    )


def observed(runs: RunTable, targets: Sequence[str]) -> np.ndarray:
    """(T, n) values, NaN where not measured.

    Raises:
        RunTableError: no such target.
        FitError: a row is of a schedule, or continues a trained model, which these laws of one
            mixture and fresh weights cannot read; or a value of a finished run is infinite or not
            above 0, as only a table that was not made by `RunTable.from_rows` can have.
    """
    if staged := len(runs.staged()):
        raise FitError(
            f"{staged} of {len(runs)} rows are of schedules, and these laws are of one mixture "
            "throughout; fit runs.static(), and mixlaw.stages for the schedules"
        )
    refuse_continued(runs)
    values = np.stack([runs.column(target) for target in targets])
    bad = (np.isinf(values) | (values <= 0)) & (runs.status == DONE)
    if bad.any():
        t, row = np.argwhere(bad)[0]
        raise FitError(
            f"{targets[t]!r} is {values[t, row]:g} in row {row + 1} and no loss in {bad[t].sum()} "
            f"of {len(runs)} rows; losses must be finite and > 0 (NaN where not measured)"
        )
    return values


def refuse_continued(runs: RunTable) -> None:
    """Raises: FitError: rows continue a trained model, so their losses are not of their mixture."""
    if continued := len(runs.continued()):
        raise FitError(
            f"{continued} of {len(runs)} rows continue a trained model (columns start/ or rewarm), "
            "and these laws are of runs that begin with fresh weights; leave them out here, and "
            "fit them with mixlaw.continual (`mixlaw continual`)"
        )


def fit(
    recipe: Recipe, runs: RunTable, *, target: str, seed: int = 0, prior: Fitted | None = None
) -> Fitted:
    """Fit one recipe to one target.

    Args:
        recipe: a law, or the nested pipeline.
        runs: rows of failed runs and rows without a value are left out, with a warning; those of
            missing runs without one.
        target: `metric/name`; when `name` is a domain it is the target's own domain.
        seed: of the starting points.
        prior: a law of a smaller scale. Then `runs` are a few of one larger scale, and the prior
            is moved to it (`transfer.Transfer`) in place of fitting `recipe`. `fit_transfer` does
            so for several targets, which help each other.
    Returns: read `.warnings` before extrapolating.
    Raises: FitError: too few distinct runs, a constant target, an input that is unknown or the
        same everywhere; the message has the numbers and the remedy.
    """
    if prior is not None:
        recipe = Transfer({target: prior})
    return recipe.fit_batch(batch_of(runs, [target]), seed=seed)[0]


def fit_transfer(
    priors: FittedLaws | Mapping[str, Fitted],
    runs: RunTable,
    targets: Sequence[str] | None = None,
) -> dict[str, Fitted]:
    """Move laws of a small scale to the larger one of a few runs.

    Args:
        priors: target -> law of a smaller scale, or what `fit_laws` gave there. Laws that read
            counts are asked at the large runs'.
        runs: at one larger scale, three mixtures or more.
        targets: default: all of `priors`.
    Returns: target -> `transfer.FittedTransfer`; read `.warnings` and `.left_out_error`.
    Raises: FitError: see `transfer.Transfer.check`.
    """
    laws = laws_of(priors)
    trained = None if isinstance(priors, Mapping) else priors.cross_validation.runs.weights
    targets = tuple(targets or laws)
    fitted = Transfer(laws, trained).fit_batch(batch_of(runs, targets))
    return dict(zip(targets, fitted, strict=True))
