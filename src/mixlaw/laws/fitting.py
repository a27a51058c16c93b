"""Fit one recipe to targets of a run table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Batch, Fitted, Recipe
from mixlaw.laws.noise import noise_weights
from mixlaw.laws.points import Points
from mixlaw.runs import RunTable


def batch_of(runs: RunTable, targets: Sequence[str]) -> Batch:
    """The targets of `runs` as problems, rows weighted by the noise that repeated runs show; what
    is left out becomes a warning.

    Raises:
        RunTableError: no such target.
        FitError: a target has no usable row.
    """
    values = np.stack([runs.column(target) for target in targets])
    failed = runs.status != "done"
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


def fit(recipe: Recipe, runs: RunTable, *, target: str, seed: int = 0) -> Fitted:
    """Fit one recipe to one target.

    Args:
        recipe: a law, or the nested pipeline.
        runs: rows of failed runs and rows without a value are left out, with a warning.
        target: `metric/name`; when `name` is a domain it is the target's own domain.
        seed: of the starting points.
    Returns: read `.warnings` before extrapolating.
    Raises: FitError: too few distinct runs, a constant target, an input that is unknown or the
        same everywhere; the message has the numbers and the remedy.
    """
    return recipe.fit_batch(batch_of(runs, [target]), seed=seed)[0]
