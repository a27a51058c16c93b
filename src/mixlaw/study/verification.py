"""Predicted against observed: the target size trained on the recommended mixture and baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.optimize import Decision, Interval, Objective
from mixlaw.runs import FAILED, RunTable

RECOMMENDED = "recommended"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Verified:
    """One mixture trained at the target scale.

    Attributes:
        predicted: of the objective.
        observed: objective by seed, in seed order.
        targets: target -> (prediction, mean observation).
        curve: (training tokens, objective averaged over seeds) per finished-schedule horizon.
    """

    predicted: Interval
    observed: tuple[float, ...]
    targets: Mapping[str, tuple[Interval, float]]
    curve: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> float:
        return math.fsum(self.observed) / len(self.observed)

    @property
    def inside(self) -> bool:
        """Whether the mean observation fell in the interval of the forecast."""
        return self.predicted.low <= self.mean <= self.predicted.high

    def to_dict(self) -> dict[str, Any]:
        return {
            "predicted": self.predicted.to_dict(),
            "observed": list(self.observed),
            "targets": {
                name: {"predicted": forecast.to_dict(), "observed": seen}
                for name, (forecast, seen) in self.targets.items()
            },
            "curve": [list(point) for point in self.curve],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Verified:
        return cls(
            predicted=Interval.from_dict(data["predicted"]),
            observed=tuple(data["observed"]),
            targets={
                name: (Interval.from_dict(entry["predicted"]), entry["observed"])
                for name, entry in data["targets"].items()
            },
            curve=tuple((tokens, value) for tokens, value in data["curve"]),
        )


@dataclass(frozen=True)
class Gain:
    """The recommended mixture against one baseline, as observed.

    Attributes:
        predicted: gain that the law promised.
        observed: baseline minus recommended, by seed (the seeds share data order and weights).
        tokens_share: tokens at which the recommended mixture reaches the baseline's final
            objective, as a share of the baseline's; None when it never does, and only an upper
            bound when `tokens_share_is_bound`.
    """

    predicted: float
    observed: tuple[float, ...]
    tokens_share: float | None
    tokens_share_is_bound: bool

    @property
    def mean(self) -> float:
        return math.fsum(self.observed) / len(self.observed)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "observed": list(self.observed)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Gain:
        return cls(**{**data, "observed": tuple(data["observed"])})


@dataclass(frozen=True)
class Verification:
    """What the larger model said.

    Attributes:
        mixtures: name -> mixture as verified, "recommended" first.
        gains: baseline -> gain of the recommended mixture over it.
        failed: runs that diverged, one phrase each.
    """

    mixtures: Mapping[str, Verified]
    gains: Mapping[str, Gain]
    failed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "mixtures": {name: verified.to_dict() for name, verified in self.mixtures.items()},
            "gains": {name: gain.to_dict() for name, gain in self.gains.items()},
            "failed": list(self.failed),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Verification:
        return cls(
            mixtures={name: Verified.from_dict(v) for name, v in data["mixtures"].items()},
            gains={name: Gain.from_dict(gain) for name, gain in data["gains"].items()},
            failed=tuple(data["failed"]),
        )


class Forecasted(Protocol):
    """What is expected of a mixture or a schedule."""

    @property
    def objective(self) -> Interval: ...

    @property
    def targets(self) -> Mapping[str, Interval]: ...


def verify(decision: Decision, runs: RunTable) -> Verification:
    """Compare a decision with the runs labelled "recommended" and as its baselines.

    Args and raises: as `compare`.
    """
    forecasts = {RECOMMENDED: decision.forecast}
    forecasts |= {name: found.forecast for name, found in decision.baselines.items()}
    gains = {name: found.gain for name, found in decision.baselines.items()}
    return compare(forecasts, gains, decision.objective, runs)


def compare(
    forecasts: Mapping[str, Forecasted],
    gains: Mapping[str, float],
    objective: Objective,
    runs: RunTable,
) -> Verification:
    """What was forecast with what the runs of the same labels showed.

    Args:
        gains: label -> predicted gain of the first of the forecasts over this one.
        runs: the verification runs, all horizons; several seeds per label.
    Raises: RunTableError: a label has no finished run, so there is nothing to compare.
    """
    bad = runs.status == FAILED
    failed = tuple(sorted({f"{runs.label[i]} (seed {runs.seed[i]})" for i in np.flatnonzero(bad)}))
    done = runs.done()
    scores = objective_values(done, objective)
    verified, by_seed = {}, {}
    for name, forecast in forecasts.items():
        rows = done.label == name
        if not rows.any():
            raise RunTableError(f"no finished verification run of {name!r}; failed: {list(failed)}")
        horizons = np.unique(done.train_tokens[rows])
        final = rows & (done.train_tokens == horizons[-1])
        by_seed[name] = dict(zip(done.seed[final].tolist(), scores[final].tolist(), strict=True))
        verified[name] = Verified(
            predicted=forecast.objective,
            observed=tuple(value for _, value in sorted(by_seed[name].items())),
            targets={
                target: (interval, float(done.column(target)[final].mean()))
                for target, interval in forecast.targets.items()
            },
            curve=tuple(
                (float(h), float(scores[rows & (done.train_tokens == h)].mean())) for h in horizons
            ),
        )
    first, found = next(iter(forecasts)), {}
    for name, predicted in gains.items():
        seeds = sorted(by_seed[name].keys() & by_seed[first].keys())
        if not seeds:
            raise RunTableError(
                f"{first!r} and {name!r} share no finished seed; failed: {list(failed)}"
            )
        differences = tuple(by_seed[name][s] - by_seed[first][s] for s in seeds)
        share, is_bound = tokens_to_reach(verified[first].curve, verified[name].mean)
        found[name] = Gain(predicted, differences, share, is_bound)
    return Verification(verified, found, failed)


def objective_values(runs: RunTable, objective: Objective) -> np.ndarray:
    """The objective (n,) of each row as observed."""
    return objective.values(runs.values, runs.targets)


def tokens_to_reach(
    curve: tuple[tuple[float, float], ...], value: float
) -> tuple[float | None, bool]:
    """Tokens at which a falling curve reaches `value`, as a share of its last point's tokens.

    Linear in log tokens between finished-schedule horizons. (None, False) when it never does;
    (share of the first horizon, True) when it has already there: the truth is no larger.
    """
    tokens, values = (np.array(column) for column in zip(*curve, strict=True))
    if values[-1] > value:
        return None, False
    if values[0] <= value:
        return float(tokens[0] / tokens[-1]), bool(len(tokens) > 1 or values[0] < value)
    after = int(np.argmax(values <= value))
    steep = (values[after - 1] - value) / (values[after - 1] - values[after])
    log_tokens = (1 - steep) * np.log(tokens[after - 1]) + steep * np.log(tokens[after])
    return float(np.exp(log_tokens) / tokens[-1]), False


def seed_noise(runs: RunTable, objective: Objective) -> dict[tuple[float, float], float]:
    """(num_params, train_tokens) -> pooled standard deviation of the objective over seeds."""
    done = runs.done()
    scores, mixtures = objective_values(done, objective), done.mixture_ids()
    out = {}
    for scale in sorted(set(zip(done.num_params, done.train_tokens, strict=True))):
        here = (done.num_params == scale[0]) & (done.train_tokens == scale[1])
        squares, freedom = 0.0, 0
        for mixture in np.unique(mixtures[here]):
            same = scores[here & (mixtures == mixture)]
            squares += float(((same - same.mean()) ** 2).sum())
            freedom += len(same) - 1
        if freedom:
            out[(float(scale[0]), float(scale[1]))] = math.sqrt(squares / freedom)
    return out
