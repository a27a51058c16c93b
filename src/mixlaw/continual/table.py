"""A run table as continued runs: shares of the new side, settings, losses over their base's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixlaw.continual.forms import FEWEST_SHARES, REWARM, SETTINGS, ContinualPoints
from mixlaw.errors import FitError
from mixlaw.laws.batch import MANY_ROWS, Batch
from mixlaw.laws.points import scale_levels
from mixlaw.mixture import Mixture
from mixlaw.runs import DONE, VERIFY, RunTable, higher_is_better

OLD, NEW = "old", "new"
SIDES = (OLD, NEW)

SAME_COMPOSITION = 0.01
"""Runs whose sides are composed alike to this share are runs of one composition."""

SHARE_DIGITS = 6
"""Shares that agree to so many decimals are one share."""


SAME_BASE = 1e-3
"""Base losses that are given and those of the table may differ by so much of themselves, as rounded
ones do."""


def share_ids(share: np.ndarray) -> np.ndarray:
    """(n,) integers, equal for rows of one share (n,); ascending."""
    return np.unique(np.round(share, SHARE_DIGITS), return_inverse=True)[1].reshape(-1)


def inner_rows(share: np.ndarray) -> np.ndarray:
    """(n,) whether a row's share lies between others: an end held out is an extrapolation, and
    says little of what is asked of the runs."""
    ids = share_ids(share)
    return (ids > 0) & (ids < ids.max())


@dataclass(frozen=True, eq=False)
class ContinuedRuns:
    """n rows of continued runs.

    Attributes:
        targets: T names; side: (T,) 0 old, 1 new, -1 neither.
        groups: G names; group_side: (G,) 0 old, 1 new. A side is one group when all runs compose it
            alike, else its domains are.
        domains: side -> its domains; composition: side -> their mean mixture over the runs.
        points: settings of the rows; rewarm: (n,) as there; share: (n,) of the new side.
        ratio: (T, n) loss over the base's; NaN where not measured; base: (T, n) that of each row.
        bases: (num_params, (T,) losses of the base) for each trained size, NaN for any size.
        inner_mixtures: side -> (n, its domains) how a row composed it, NaN where it has nothing of
            it; of the sides that are no group.
        run, seed: (n,).
        axes: the settings that vary -> their geometric mean.
        warnings: what was left out, and what the rows cannot tell.
    """

    targets: tuple[str, ...]
    side: np.ndarray
    groups: tuple[str, ...]
    group_side: np.ndarray
    domains: Mapping[str, tuple[str, ...]]
    composition: Mapping[str, Mixture]
    points: ContinualPoints
    rewarm: np.ndarray
    share: np.ndarray
    ratio: np.ndarray
    base: np.ndarray
    bases: tuple[tuple[float, np.ndarray], ...]
    inner_mixtures: Mapping[str, np.ndarray]
    run: np.ndarray
    seed: np.ndarray
    axes: Mapping[str, float]
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.share)

    @property
    def share_ids(self) -> np.ndarray:
        """(n,) integers, equal for rows of one share; ascending."""
        return share_ids(self.share)

    @property
    def inner(self) -> np.ndarray:
        """(n,) whether a row's share lies between others."""
        return inner_rows(self.share)

    def batch(self) -> Batch:
        """The targets as problems; what is held out together is a share."""
        known = np.isfinite(self.ratio)
        return Batch(
            targets=self.targets,
            domains=self.groups,
            own=self.side,
            points=self.points,
            y=np.where(known, self.ratio, 1.0),
            use=known.astype(float),
            mixture_ids=self.share_ids,
            run_ids=np.unique(self.run, return_inverse=True)[1].reshape(-1),
            warnings=tuple(() for _ in self.targets),
        )


def continued_runs(
    runs: RunTable,
    new: Sequence[str],
    base: Mapping[str, float] | None,
    targets: Sequence[str] | Mapping[str, str] | None,
) -> ContinuedRuns:
    """Check a table and read it as continued runs. Args and raises: see `fit_continual`."""
    old = _check_sides(runs, new)
    usable, warnings = _usable(runs, base)
    columns = {OLD: [runs.domains.index(d) for d in old]}
    columns[NEW] = [j for j in range(len(runs.domains)) if j not in columns[OLD]]
    names, side = _targets(usable, old, targets)
    values = np.stack([usable.column(target) for target in names])
    bases, of_row = _bases(usable, names, base)
    ratio = values / of_row
    share = usable.weights[:, columns[NEW]].sum(axis=1)
    _check_shares(share)
    _check_values(names, ratio, share)
    weights, groups, group_side, inner = _groups(usable, columns)
    domains = {s: tuple(runs.domains[j] for j in columns[s]) for s in SIDES}
    scale = usable.num_params, usable.train_tokens
    points = ContinualPoints(weights, *scale, rewarm=usable.rewarm)
    axes = {}
    for axis in SETTINGS:
        axes |= _varying(axis, getattr(points, axis))
    return ContinuedRuns(
        targets=names,
        side=side,
        groups=groups,
        group_side=group_side,
        domains=domains,
        composition={
            s: Mixture.from_weights(
                dict(zip(domains[s], np.nanmean(inner[s], axis=0).tolist(), strict=True))
            )
            for s in SIDES
        },
        points=points,
        rewarm=usable.rewarm,
        share=share,
        ratio=ratio,
        base=of_row,
        bases=bases,
        inner_mixtures={s: inner[s] for s in SIDES if s not in groups},
        run=usable.run,
        seed=usable.seed,
        axes=axes,
        warnings=tuple(warnings),
    )


def _check_sides(runs: RunTable, new: Sequence[str]) -> list[str]:
    """The old domains."""
    new = [new] if isinstance(new, str) else list(new)
    if unknown := [d for d in new if d not in runs.domains]:
        raise FitError(
            f"new domains {unknown} are not in the table, which has {list(runs.domains)}"
        )
    old = [d for d in runs.domains if d not in new]
    if not new or not old:
        raise FitError(
            f"new={new} leaves the old side {old} of {list(runs.domains)}; name at least one new "
            "domain and leave at least one old one"
        )
    return old


def _usable(runs: RunTable, base: Mapping[str, float] | None) -> tuple[RunTable, list[str]]:
    """Finished rows of continued runs, and warnings of those left out."""
    runs = runs.select(runs.role != VERIFY).trained()
    failed = runs.status != DONE
    if failed.all():
        raise FitError(
            f"none of {len(runs)} rows is of a finished run ({failed.sum()} failed); train some "
            "continued runs at different shares of the new data"
        )
    warnings = []
    if failed.any():
        labels = ", ".join(sorted(set(runs.label[failed]))[:5])
        warnings.append(f"left out {failed.sum()} rows of failed runs ({labels})")
    runs = runs.done()
    if staged := sum(schedule is not None for schedule in runs.schedule):
        raise FitError(
            f"{staged} of {len(runs)} rows have a schedule, and the laws of the share are of "
            "one mixture throughout; leave these rows out (RunTable.static())"
        )
    started = np.any(np.isfinite(runs.start), axis=1)
    if base is None and not started.all():
        if not started.any():
            raise FitError(
                f"none of {len(runs)} rows has the base's losses (columns start/<target>); give "
                "base={target: loss}, in a study base: {losses: {loss/web: 2.3}}"
            )
        warnings.append(f"left out {(~started).sum()} rows without start/ columns: not continued")
        runs = runs.select(started)
    if len(runs) > MANY_ROWS:
        raise FitError(
            f"{len(runs)} rows of continued runs, {MANY_ROWS} at most; keep fewer checkpoints"
        )
    return runs, warnings


def _targets(
    runs: RunTable, old: Sequence[str], targets: Sequence[str] | Mapping[str, str] | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names, and the side (T,) of each."""
    given = dict(targets) if isinstance(targets, Mapping) else {}
    every = [t for t in runs.targets if not higher_is_better(t)]
    names = tuple(every if targets is None else targets)
    if isinstance(targets, str) or (not names and every) or len(set(names)) < len(names):
        raise FitError(f"targets={targets!r}; name some of {every} in a list, each once")
    if scores := [t for t in names if higher_is_better(t)]:
        raise FitError(f"{scores} are scores, and laws are of losses; leave them out of targets")
    if not names:
        raise FitError(f"the table has scores only ({list(runs.targets)}); measure a loss, too")
    if strange := {t: s for t, s in given.items() if s not in SIDES}:
        raise FitError(f"the sides {strange} of targets must be one of {list(SIDES)}")
    side = []
    for target in names:
        name = target.partition("/")[2]
        known = name in runs.domains
        own = given.get(target) or ((OLD if name in old else NEW) if known else None)
        side.append(-1 if own is None else SIDES.index(own))
    return names, np.array(side)


def _bases(
    runs: RunTable, targets: tuple[str, ...], base: Mapping[str, float] | None
) -> tuple[tuple[tuple[float, np.ndarray], ...], np.ndarray]:
    """Base losses per size, and of each row (T, n)."""
    of_row = runs.start[:, [runs.targets.index(target) for target in targets]].T
    if base is not None:
        if strange := [target for target in base if target not in runs.targets]:
            raise FitError(f"base names {strange}, which are none of {list(runs.targets)}")
        check_base(base, targets)
        values = np.array([float(base[target]) for target in targets])[:, None]
        apart = np.abs(of_row - values) > SAME_BASE * values  # never where there is none
        if apart.any():
            t, row = np.argwhere(apart)[0]
            raise FitError(
                f"the base's {targets[t]!r} is given as {values[t, 0]:g}, and column "
                f"start/{targets[t]} has {of_row[t, row]:g}; give one of them"
            )
        return ((np.nan, values[:, 0]),), np.tile(values, len(runs))
    lacking = [t for t, row in zip(targets, of_row, strict=True) if np.isnan(row).any()]
    if lacking:
        raise FitError(
            f"the base's losses of {lacking} are missing in some rows (columns start/<target>); "
            "measure them, give base={target: loss} (in a study base: {losses: ...}), or leave "
            "these targets out"
        )
    sizes = scale_levels(runs.num_params)
    found = []
    for size in np.unique(sizes):
        rows = sizes == size
        found.append((float(np.mean(runs.num_params[rows])), of_row[:, rows].mean(axis=1)))
    return tuple(found), of_row


def check_base(base: Mapping[str, float], targets: Sequence[str]) -> None:
    """Raise FitError when a target's base loss is missing or no loss."""
    if missing := [t for t in targets if t not in base]:
        raise FitError(f"base lacks {missing}; it has {list(base)}: give the base's loss of each")
    for target in targets:
        if not (np.isfinite(base[target]) and base[target] > 0):
            raise FitError(
                f"the base's {target!r} is {base[target]}; a loss must be finite and > 0"
            )


def _check_values(targets: tuple[str, ...], ratio: np.ndarray, share: np.ndarray) -> None:
    for target, row in zip(targets, ratio, strict=True):
        if np.any(np.isinf(row) | (row <= 0)):
            raise FitError(f"{target!r} has values that are no loss; they must be finite and > 0")
        shares = len(np.unique(np.round(share[np.isfinite(row)], SHARE_DIGITS)))
        if shares < FEWEST_SHARES:
            raise FitError(
                f"{target!r} was measured at {shares} different shares of the new data, "
                f"{FEWEST_SHARES} are needed; measure it on more runs, or leave it out"
            )


def _check_shares(share: np.ndarray) -> None:
    shares = np.unique(np.round(share, SHARE_DIGITS))
    if len(shares) < FEWEST_SHARES:
        raise FitError(
            f"the runs have {len(shares)} different shares of the new data "
            f"({', '.join(f'{s:g}' for s in shares)}), {FEWEST_SHARES} are needed; train others"
        )


def _groups(runs: RunTable, columns: Mapping[str, list[int]]):
    """Weights (n, G) of the groups, their names and sides, and how each row composed each side."""
    weights, names, sides, inner = [], [], [], {}
    for s, side in enumerate(SIDES):
        of_side = runs.weights[:, columns[side]]
        total = of_side.sum(axis=1, keepdims=True)
        inner[side] = np.full(of_side.shape, np.nan)
        np.divide(of_side, total, out=inner[side], where=total > 0)
        domains = [runs.domains[j] for j in columns[side]]
        if np.ptp(inner[side][total[:, 0] > 0], axis=0).max() <= SAME_COMPOSITION:
            of_side, domains = total, [side]
        weights.append(of_side)
        names += domains
        sides += [s] * len(domains)
    return np.concatenate(weights, axis=1), tuple(names), np.array(sides), inner


def _varying(axis: str, counts: np.ndarray) -> dict[str, float]:
    """{axis: geometric mean} when it takes two values or more."""
    unknown = int(np.isnan(counts).sum())
    if 0 < unknown < len(counts):
        raise FitError(
            f"{axis} is missing in {unknown} of {len(counts)} rows; fill it in or drop these rows"
        )
    if unknown or scale_levels(counts).max() < 1:
        return {}
    # Re-warming is a share of the usual rate already.
    return {axis: 1.0 if axis == REWARM else float(np.exp(np.mean(np.log(counts))))}
