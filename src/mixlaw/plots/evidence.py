"""What the pictures of the evidence show, taken from runs and fits; nothing is drawn here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.laws.points import scale_levels
from mixlaw.laws.splits import MIXTURE_SPLIT, SCALE_SPLIT, scale_ids
from mixlaw.laws.validation import CrossValidation
from mixlaw.optimize.decision import Decision
from mixlaw.optimize.objective import Objective
from mixlaw.plots.words import objective_unit
from mixlaw.runs import RunTable
from mixlaw.study.verification import objective_values, seed_noise

MOST_MIXTURES = 40


@dataclass(frozen=True, eq=False)
class Swarm:
    """The trained mixtures at one scale, best objective first.

    Attributes:
        weights: (m, M), labels and scores (objective by seed) aligned with it.
        left_out: mixtures that are not shown, evenly taken from the ranks between the ends.
    """

    domains: tuple[str, ...]
    labels: tuple[str, ...]
    weights: np.ndarray
    scores: tuple[tuple[float, ...], ...]
    left_out: int
    num_params: float | None
    train_tokens: float | None
    unit: str

    @property
    def means(self) -> np.ndarray:
        return np.array([np.mean(values) for values in self.scores])


def usable(runs: RunTable, objective: Objective) -> RunTable:
    """Finished runs of the swarm for which the objective was measured.

    Raises: RunTableError: there are none. StudyError: the table lacks a target of the objective.
    """
    done = runs.done()
    done = done.select(done.role != "verify")
    found = done.select(np.isfinite(objective_values(done, objective)))
    if not len(found):
        raise RunTableError(
            f"none of the {len(runs)} runs is finished and measured all targets of the objective, "
            f"{list(objective.targets)}; give the runs that the decision came from"
        )
    return found


def known(counts: np.ndarray) -> float | None:
    """The largest count; None where one is unknown."""
    return float(counts.max()) if np.isfinite(counts).all() else None


def swarm_at_largest_scale(runs: RunTable, objective: Objective) -> Swarm:
    """The mixtures at the largest scale that at least half as many as anywhere were trained at."""
    runs = usable(runs, objective)
    scales, ids = scale_ids(runs), runs.mixture_ids()
    how_many = np.array([len(set(ids[scales == s])) for s in range(scales.max() + 1)])
    chosen = int(np.flatnonzero(how_many >= how_many.max() / 2)[-1])
    here = runs.select(scales == chosen)
    scores, ids = objective_values(here, objective), here.mixture_ids()
    rows = [np.flatnonzero(ids == k) for k in np.unique(ids)]
    rows.sort(key=lambda at: float(scores[at].mean()))
    keep = np.linspace(0, len(rows) - 1, min(MOST_MIXTURES, len(rows))).round().astype(int)
    shown = [rows[k] for k in keep]
    return Swarm(
        domains=runs.domains,
        labels=tuple(str(here.label[at[0]]) for at in shown),
        weights=np.array([here.weights[at[0]] for at in shown]),
        scores=tuple(tuple(scores[at].tolist()) for at in shown),
        left_out=len(rows) - len(shown),
        num_params=known(here.num_params),
        train_tokens=known(here.train_tokens),
        unit=objective_unit(objective),
    )


@dataclass(frozen=True, eq=False)
class Centred:
    """Held-out predictions of one target less the observed mean of their scale.

    Attributes:
        predicted, observed: (m,); level: (m,) which size, 0 the smallest (0 when unknown).
    """

    predicted: np.ndarray
    observed: np.ndarray
    level: np.ndarray
    num_levels: int


def centred(validation: CrossValidation, law: str, split: str, target: str) -> Centred:
    """See `plots.predicted_vs_observed`."""
    t = validation.targets.index(target)
    predicted = validation.scores[law][split].predictions[:, t]
    observed = validation.values()[:, t]
    scales, levels = scale_ids(validation.runs), size_levels(validation.runs)
    held = np.isfinite(predicted) & np.isfinite(observed)
    means = np.zeros(len(observed))
    for scale in np.unique(scales[held]):
        at = held & (scales == scale)
        means[at] = observed[at].mean()
    return Centred(
        (predicted - means)[held], (observed - means)[held], levels[held], int(levels.max()) + 1
    )


def size_levels(runs: RunTable) -> np.ndarray:
    """(n,) which size each row has, 0 the smallest; all 0 where sizes are unknown."""
    return np.maximum(scale_levels(runs.num_params), 0)


@dataclass(frozen=True)
class Drift:
    """Residuals (predicted less observed) of one target on held-out mixtures at one scale.

    Attributes:
        split: "mixture", or "scale" where the scale was held out as well.
        level: which size, 0 the smallest.
        mean, deviation: over the held-out rows; spread: standard deviation of what was observed.
    """

    split: str
    level: int
    num_params: float | None
    train_tokens: float | None
    mean: float
    deviation: float
    spread: float


def drifts(validation: CrossValidation, law: str, target: str) -> list[Drift]:
    """One per split and scale, by size and then tokens."""
    runs, t = validation.runs, validation.targets.index(target)
    observed, levels = validation.values()[:, t], size_levels(runs)
    out = []
    for split in (MIXTURE_SPLIT, SCALE_SPLIT):
        if split not in validation.scores[law]:
            continue
        predicted = validation.scores[law][split].predictions[:, t]
        held = np.isfinite(predicted) & np.isfinite(observed)
        scales = scale_ids(runs)
        for scale in np.unique(scales[held]):
            at = held & (scales == scale)
            residuals = predicted[at] - observed[at]
            out.append(
                Drift(
                    split=split,
                    level=int(levels[at][0]),
                    num_params=known(runs.num_params[at]),
                    train_tokens=known(runs.train_tokens[at]),
                    mean=float(residuals.mean()),
                    deviation=float(residuals.std()),
                    spread=float(observed[at].std()),
                )
            )
    return out


@dataclass(frozen=True)
class Noise:
    """How much the objective differs between seeds.

    Attributes:
        deviation: pooled standard deviation of one run.
        where: the scale.
        at_target: False when it was measured at another scale than the target.
    """

    deviation: float
    where: tuple[float, float]
    at_target: bool


def noise_for(runs: RunTable, objective: Objective, decision: Decision) -> Noise | None:
    """Seed noise at the target scale, else at the largest scale with replicates."""
    done = runs.done()
    done = done.select(np.isfinite(objective_values(done, objective)))
    found = {
        scale: deviation
        for scale, deviation in seed_noise(done, objective).items()
        if np.isfinite(scale).all()
    }
    if not found:
        return None
    target = (decision.num_params or np.nan, decision.train_tokens or np.nan)
    where = target if target in found else max(found)
    return Noise(found[where], where, where == target)


def target_noise(runs: RunTable, targets: Sequence[str]) -> Mapping[str, float]:
    """Target -> standard deviation between seeds at the largest scale with replicates; without the
    targets for which it is not known or nil."""
    done, out = runs.done(), {}
    for target in targets:
        seen = done.select(np.isfinite(done.column(target)))
        found = seed_noise(seen, Objective({target: 1})) if len(seen) else {}
        if found and (deviation := found[max(found)]) > 0:
            out[target] = deviation
    return out
