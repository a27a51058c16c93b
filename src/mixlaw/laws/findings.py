"""What the table itself forbids: domains that cannot be told apart, units mixed up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixlaw.laws.splits import scale_ids
from mixlaw.runs import UNITS, RunTable

MOST_NAMED = 3

NEAR_A_BIT = 0.03
"""Relative distance of a ratio from 1 / ln 2 (nats to bits)."""

COLLINEAR = 1e-6
"""Smallest singular value of the centred shares, relative to the largest, that still varies."""


@dataclass(frozen=True)
class Finding:
    """One thing to know before a forecast is trusted.

    Attributes:
        kind: "noise floor", "large error", "level shift", "scale trend", "moving optimum",
            "rivals disagree", "leverage", "outlier", "few runs", "loose parameters", "far
            target", "absent domain", "fixed domain", "collinear domains" or "mixed units".
        names: of the targets, domains, mixtures or laws concerned, worst first.
        text: what was seen, what it means, what to do.
        figures: the numbers behind it.
    """

    kind: str
    names: tuple[str, ...]
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**vars(self), "names": list(self.names), "figures": dict(self.figures)}


def design_findings(runs: RunTable) -> list[Finding]:
    """What no law can learn from the mixtures of a table: domains that are absent, that never
    vary, or that always go together."""
    weights = np.unique(np.round(runs.weights, 9), axis=0)
    names, found = np.array(runs.domains), []
    absent = weights.max(axis=0) == 0
    if absent.any():
        found.append(
            Finding(
                "absent domain",
                tuple(names[absent].tolist()),
                f"domain {listed(names[absent])} is absent from all runs: its effect stays what "
                "the prior says, so a forecast with any share of it is a guess; train mixtures "
                "with it, or drop its column",
            )
        )
    fixed = ~absent & (np.ptp(weights, axis=0) < 1e-6)
    if fixed.any() and len(weights) > 1:
        found.append(
            Finding(
                "fixed domain",
                tuple(names[fixed].tolist()),
                f"domain {listed(names[fixed])} has the same share in all runs "
                f"({listed(f'{s:.3g}' for s in weights[0, fixed])}): nothing tells what more or "
                "less of it does; keep that share, or vary it",
                by_name(names[fixed], weights[0, fixed]),
            )
        )
    free = ~absent & ~fixed
    collinear = _collinear(weights[:, free])
    if collinear.any():
        together = names[free][collinear]
        found.append(
            Finding(
                "collinear domains",
                tuple(together.tolist()),
                f"the shares of {listed(together)} always move together: only their joint effect "
                "is known, and how to divide between them is the prior's choice; train mixtures "
                "that part them",
                {"num_mixtures": float(len(weights))},
            )
        )
    return found


def unit_findings(runs: RunTable, targets: Sequence[str]) -> list[Finding]:
    """Runs of one mixture at one scale whose losses differ by the factor 1 / ln 2."""
    pairs = np.column_stack([runs.mixture_ids(), scale_ids(runs)])
    cells, cell_of = np.unique(pairs, axis=0, return_inverse=True)
    suspect = {}
    for target in targets:
        logs = np.log(runs.column(target))
        known = np.isfinite(logs)
        low, high = np.full(len(cells), np.inf), np.full(len(cells), -np.inf)
        np.minimum.at(low, cell_of.reshape(-1)[known], logs[known])
        np.maximum.at(high, cell_of.reshape(-1)[known], logs[known])
        alike = np.abs(high - low + np.log(np.log(2))) < NEAR_A_BIT
        if alike.any():
            suspect[target] = float(alike.sum())
    if not suspect:
        return []
    names = sorted(suspect, key=lambda target: -suspect[target])
    return [
        Finding(
            "mixed units",
            tuple(names),
            f"{listed(names)}: repeated runs of {suspect[names[0]]:.0f} mixtures differ by a "
            "factor of about 1.44, that of nats to bits: some rows may be in another unit than "
            f"{UNITS[names[0].partition('/')[0]]}; convert them",
            suspect,
        )
    ]


def _collinear(shares: np.ndarray) -> np.ndarray:
    """(k,) domains in a linear relation of the centred shares besides that they sum to one."""
    m, k = shares.shape
    none = np.zeros(k, bool)
    if k < 3 or m < 2:
        return none
    centred = shares - shares.mean(axis=0)
    # A basis of the directions within the simplex: what varies there should have rank k - 1.
    basis = np.linalg.svd(np.ones((1, k)))[2][1:].T  # (k, k - 1)
    _, size, directions = np.linalg.svd(centred @ basis)
    size = np.concatenate([size, np.zeros(k - 1 - len(size))])
    null = directions[size <= COLLINEAR * size[0]] @ basis.T
    if not len(null) or m < k:  # with fewer mixtures than domains every domain is in some relation
        deviation = np.sqrt((centred**2).sum(axis=0))
        correlation = np.abs(centred.T @ centred) / np.outer(deviation, deviation)
        np.fill_diagonal(correlation, 0.0)
        return none if m < 4 else correlation.max(axis=0) > 0.999
    # Up to a shift of all (the sum), the domains with a different coefficient take part.
    null = null - np.median(null, axis=1, keepdims=True)
    return np.abs(null).max(axis=0) > 1e-6


# Words


def listed(names: Iterable[Any], most: int = 5) -> str:
    names = [str(name) for name in names]
    if len(names) > most:
        return ", ".join(names[: most - 1]) + f" and {len(names) - most + 1} more"
    return ", ".join(names)


def by_name(names: Sequence[str] | np.ndarray, values: np.ndarray) -> dict[str, float]:
    return {str(name): float(value) for name, value in zip(names, values, strict=True)}
