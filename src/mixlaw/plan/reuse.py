"""What outlives an edit of the domains: old runs, laws and ratios over the new domains.

Old runs are carried to the new domains, each exactly or moved with the help of the old law; a few
new runs tell of what no old mixture had, and one law is fitted to all (`refit`). The new runs keep
the ratios among the unaffected domains, which become one *existing* domain (Olmix's mixture reuse),
but the decision from the refitted law is free: freezing it there as well loses more
(docs/decisions.md).

Shapes: n rows, M domains, K units, T targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixlaw.errors import MixtureError, RunTableError
from mixlaw.laws import FittedLaws, Points, fit_laws
from mixlaw.mixture import Mixture
from mixlaw.optimize.objective import Forecaster
from mixlaw.plan.edits import Composition, Shared
from mixlaw.runs import RunTable

EXACT = 1e-6
"""A run is carried exactly when no more than this share of its tokens would stand elsewhere."""

MOVED = 0.5
"""Runs are moved to a shared mixture, with the law's help, up to this share of their tokens.
From .1 to .9 the choice hardly shows."""

EXISTING = "existing"


@dataclass(frozen=True, eq=False)
class Carried:
    """Old runs as runs over the new domains.

    Attributes:
        runs: n rows over the new domains.
        kept: (n,) their rows in the old table, ascending.
        misplaced: (n,) share of the run's tokens that stood elsewhere.
        left_out: why -> how many old rows were left out for it.
    """

    runs: RunTable
    kept: np.ndarray
    misplaced: np.ndarray
    left_out: Mapping[str, int]

    @property
    def exact(self) -> np.ndarray:
        """(n,) bool: which rows are the same run under new names."""
        return self.misplaced <= EXACT


def carry_runs(
    runs: RunTable,
    shared: Shared,
    *,
    tolerance: float = EXACT,
    law: FittedLaws | None = None,
) -> Carried:
    """The old runs that are runs over the new domains.

    A run that is no shared mixture can be moved to the nearest one, an error of value that grows
    with the tokens that stand elsewhere. With the old law each value is moved, too, by the ratio of
    the law's values at the two mixtures. That holds since a shared mixture is the same data before
    and after the edits: there the old law, which learned from the removed (merged, revised) domain
    as well, prices the new domains, and the run adds its residual.

    Args:
        runs: over the old domains.
        tolerance: the share of a run's tokens that may stand elsewhere; without a law .003 suits
            tables rounded to three decimals, with one `MOVED`.
        law: fitted to the old runs; targets that it lacks are kept in exact rows only.
    Raises: RunTableError: runs or a law of other domains, rows of schedules, or a tolerance outside
        [0, 1).
    """
    if staged := len(runs.staged()):
        raise RunTableError(
            f"{staged} of {len(runs)} rows are of schedules, and what is carried is one mixture; "
            "carry runs.static()"
        )
    for what, given in (("runs have", runs.domains), ("law has", law and law.domains)):
        if given is not None and tuple(given) != shared.old.domains:
            raise RunTableError(
                f"the {what} the domains {list(given)}, the edits are of "
                f"{list(shared.old.domains)}; both need the same, in the same order"
            )
    if not 0 <= tolerance < 1:
        raise RunTableError(f"the tolerance is {tolerance}; it must lie in [0, 1)")
    units, misplaced = shared.old.reduce(runs.weights)
    keep = misplaced <= max(tolerance, EXACT)
    kept = np.flatnonzero(keep)
    there = replace(runs.select(kept), weights=shared.old.expand(units[keep]))
    values = runs.values[kept]
    if law is not None:
        moved = misplaced[kept] > EXACT
        values[moved] *= _ratios(law, there.select(moved), runs.select(kept[moved]))
    available = shared.old.unit_tokens(there.available_tokens)
    carried = replace(
        there,
        domains=shared.new.domains,
        weights=shared.new.expand(units[keep]),
        available_tokens=shared.new.domain_tokens(available),
        values=values,
    )
    return Carried(carried, kept, misplaced[kept], _why_left_out(runs.weights[~keep], shared))


def _ratios(law: FittedLaws, there: RunTable, here: RunTable) -> np.ndarray:
    """(n, T) the law's values at one table's points over those at another's."""
    ratios = np.full(here.values.shape, np.nan)
    for t, target in enumerate(here.targets):
        if target in law.targets:
            predict = law.laws[target].predict
            ratios[:, t] = predict(Points.of(there)) / predict(Points.of(here))
    return ratios


def _why_left_out(weights: np.ndarray, shared: Shared) -> dict[str, int]:
    """Reason -> rows; a row counts under the domain with most of its misplaced tokens."""
    units, _ = shared.old.reduce(weights)
    names = list(shared.old.domains)
    found: dict[str, int] = {}
    away = np.abs(weights - shared.old.expand(units))
    at = [j for j, name in enumerate(names) if name in shared.reasons]
    for row in away[:, at]:
        reason = shared.reasons[names[at[int(np.argmax(row))]]]
        found[reason] = found.get(reason, 0) + 1
    return found


def refit(
    fitted: FittedLaws,
    shared: Shared,
    new_runs: RunTable | None = None,
    *,
    candidates: Sequence[str] | None = None,
    seed: int = 0,
) -> FittedLaws:
    """The laws of the new domains, from the old runs that can be carried and the new ones.

    Args:
        fitted: the old laws, with the runs that they were fitted to.
        new_runs: over the new domains, those of `edit_plan.EditPlan.new_mixtures` for
            example; None where the
            old runs tell all.
        candidates: as `fit_laws`.
    Raises:
        RunTableError: new runs of other domains, or none at all that can be used.
        FitError: as `fit_laws`.
    """
    old = fitted.cross_validation.runs
    carried = carry_runs(old, shared, tolerance=MOVED, law=fitted)
    names = [f"carried/{run}" for run in carried.runs.run]
    rows = replace(carried.runs, run=np.array(names, str)).rows()
    if new_runs is not None:
        if set(new_runs.domains) != set(shared.new.domains):
            raise RunTableError(
                f"the new runs have the domains {list(new_runs.domains)}, after the edits there "
                f"are {list(shared.new.domains)}; both need the same"
            )
        rows += new_runs.rows()
    if not rows:
        raise RunTableError(
            f"none of the {len(old)} old rows can be carried ({dict(carried.left_out)}) and there "
            "are no new ones; train some"
        )
    runs = RunTable.from_rows(rows)
    return fit_laws(runs, fitted.targets, candidates=candidates, seed=seed)


@dataclass(frozen=True, eq=False)
class UnitLaw:
    """A law of M domains as a law of K units made of them: a `Forecaster`.

    Fixed ratios are linear, so a convex law stays convex and a decreasing one decreasing.
    """

    fitted: Forecaster
    composition: Composition

    @property
    def law(self) -> str:
        return self.fitted.law

    @property
    def domains(self) -> tuple[str, ...]:
        return self.composition.names

    @property
    def targets(self) -> tuple[str, ...]:
        return self.fitted.targets

    @property
    def convex(self) -> bool:
        return self.fitted.convex

    @property
    def decreasing(self) -> bool:
        return self.fitted.decreasing

    def _tokens(self, available_tokens: np.ndarray | None) -> np.ndarray | None:
        if available_tokens is None:
            return None
        return self.composition.domain_tokens(available_tokens)

    def predict(
        self,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Values (n, T) of mixtures of units (n, K), with (K,) unique tokens."""
        full, tokens = self.composition.expand(weights), self._tokens(available_tokens)
        return self.fitted.predict(full, num_params, train_tokens, available_tokens=tokens)

    def gradient(
        self,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Slopes (n, T, K)."""
        full, tokens = self.composition.expand(weights), self._tokens(available_tokens)
        slopes = self.fitted.gradient(full, num_params, train_tokens, available_tokens=tokens)
        return slopes @ self.composition.matrix

    def half_width(
        self,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        level: float,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Half widths (n,)."""
        full, tokens = self.composition.expand(weights), self._tokens(available_tokens)
        scale = (num_params, train_tokens)
        return self.fitted.half_width(
            coefficients, full, *scale, level=level, available_tokens=tokens
        )

    def difference_scale(
        self,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> float:
        full, tokens = self.composition.expand(weights), self._tokens(available_tokens)
        scale = (num_params, train_tokens)
        return self.fitted.difference_scale(coefficients, full, *scale, available_tokens=tokens)


def freeze(mixture: Mixture, free: Sequence[str], *, domains: Sequence[str]) -> Composition:
    """One unit of the domains that are not `free`, at the mixture's ratios, and each free domain.

    The unit is called "existing", with a prime for every domain that already is. It is missing
    where all domains are free.

    Raises: MixtureError: the mixture has nothing of the domains that are to be frozen.
    """
    frozen = {name: mixture.get(name, 0.0) for name in domains if name not in free}
    units: dict[str, Mapping[str, float]] = {name: {name: 1.0} for name in free}
    if frozen:
        if not sum(frozen.values()) > 0:
            raise MixtureError(
                f"the mixture has nothing of {list(frozen)}, so they have no ratios to freeze"
            )
        name = EXISTING
        while name in domains:
            name += "'"
        units = {name: dict(Mixture.from_weights(frozen)), **units}
    return Composition(tuple(domains), units)
