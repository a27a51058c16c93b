"""Fit one recipe to one target of a run table."""

from __future__ import annotations

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Fitted, Points, Recipe, TargetRows
from mixlaw.runs import RunTable


def target_rows(runs: RunTable, target: str) -> TargetRows:
    """The rows of `runs` on which `target` can be fitted; what is left out becomes a warning.

    Raises:
        RunTableError: no such target.
        FitError: no usable row.
    """
    values = runs.column(target)
    failed = runs.status != "done"
    missing = ~failed & np.isnan(values)
    warnings = []
    if failed.any():
        labels = ", ".join(sorted(set(runs.label[failed]))[:5])
        warnings.append(f"{target}: left out {failed.sum()} rows of failed runs ({labels})")
    if missing.any():
        warnings.append(f"{target}: left out {missing.sum()} rows without a value")
    keep = np.flatnonzero(~failed & ~missing)
    if len(keep) == 0:
        raise FitError(
            f"{target!r} has no usable row among {len(runs)} ({failed.sum()} of failed runs, "
            f"{missing.sum()} without a value); measure it on some finished runs"
        )
    used = runs.select(keep)
    name = target.partition("/")[2]
    return TargetRows(
        target=target,
        domains=runs.domains,
        own=runs.domains.index(name) if name in runs.domains else None,
        points=Points.of(used),
        y=values[keep],
        mixture_ids=used.mixture_ids(),
        num_runs=len(set(used.run)),
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
    return recipe.fit_rows(target_rows(runs, target), seed=seed)
