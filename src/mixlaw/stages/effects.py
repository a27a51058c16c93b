"""What the order of the stages adds to the static law: one class per form.

    loss of a schedule = static law at the dose + effect of the order

The effect is zero when all stages are equal, in every form and exactly, so that staged and static
forecasts differ by the order alone. And it composes: a stage cut into two equal ones is one.

Shapes: n schedules, S stages, M domains, T targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlaw.laws import Points
from mixlaw.laws.together import Together
from mixlaw.stages.points import StagePoints, average


class Effect(ABC):
    """The effect of the order on T targets, by one form with its parameters."""

    form: str

    @abstractmethod
    def values(self, law: Together, at: StagePoints) -> np.ndarray:
        """(n, T) by the static laws of the T targets; 0 where all stages are equal."""

    @abstractmethod
    def slopes(self, law: Together, at: StagePoints) -> np.ndarray:
        """(n, T, S, M) in the worth of the stages' mixtures (`StagePoints.worth`)."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `forms.load_effect` gives an effect that predicts bit-identically."""


@dataclass(frozen=True, eq=False)
class Dose(Effect):
    """None: the order does not matter."""

    form = "dose"

    def values(self, law: Together, at: StagePoints) -> np.ndarray:
        return np.zeros((len(at), len(law)))

    def slopes(self, law: Together, at: StagePoints) -> np.ndarray:
        return np.zeros((len(at), len(law), *at.mixtures.shape[1:]))

    def to_dict(self) -> dict[str, Any]:
        return {"form": self.form}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Dose:
        return cls()


@dataclass(frozen=True, eq=False)
class Recency(Effect):
    """The static law at a mixture in which later tokens weigh more.

        f(sum_s w_s p_s),  w_s = end_s^a - start_s^a

    the weight of a token being as (share of training done)^(a - 1): a = 1 is the dose, a > 1 later
    tokens count for more, a < 1 earlier ones.

    Attributes: rates: (T,) a > 0.
    """

    rates: np.ndarray
    form = "recency"

    def _mixed(self, at: StagePoints) -> tuple[np.ndarray, Points]:
        """Weights (T, n, S) of the stages, and what they average, with the doses as one more:
        (T + 1) n points."""
        weights = np.stack([at.ends**rate - at.starts**rate for rate in self.rates])
        mixed = np.stack([*(average(one, at.worth) for one in weights), at.worth_at_dose])
        return weights, at.statics(mixed, np.ones(mixed.shape[:2]))

    def values(self, law: Together, at: StagePoints) -> np.ndarray:
        _, points = self._mixed(at)
        found = law.predict(points).reshape(len(law) + 1, len(at), -1)
        return np.einsum("tnt->nt", found[:-1]) - found[-1]

    def slopes(self, law: Together, at: StagePoints) -> np.ndarray:
        weights, points = self._mixed(at)
        found = law.gradient(points).reshape(len(law) + 1, len(at), len(law), -1)
        own = np.einsum("tntm->ntm", found[:-1])
        return np.einsum("tns,ntm->ntsm", weights, own) - np.einsum(
            "ns,ntm->ntsm", at.lengths, found[-1]
        )

    def to_dict(self) -> dict[str, Any]:
        return {"form": self.form, "rates": self.rates.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recency:
        return cls(np.array(data["rates"], float))


@dataclass(frozen=True, eq=False)
class Relaxation(Effect):
    """The excess loss L - c as a state: in a stage it makes the progress that a static run of the
    stage's mixture makes over the same tokens, and its distance from that run's fades.

        log excess at the end = static run's + (log excess - static run's at the start)
                                * (tokens at the start / tokens at the end)^a

    a = 0 is the log-linear dynamic law, L' - c = (L - c) exp(-A(p) log(D' / D)): a stage's progress
    depends on its mixture and on the loss at its start alone (Aioli, arXiv 2411.05735, with the
    progress A(p) of the static law, which was fitted to the swarm's trajectories, in place of a
    linear one). With a > 0 the start is forgotten. Whatever composes, keeps static runs as they are
    and is linear in the log excess at the start is of this form (docs/decisions.md).

    Attributes:
        rates: (T,) a >= 0.
        floors: (T,) c, below all losses.
    """

    rates: np.ndarray
    floors: np.ndarray
    form = "relaxation"

    def values(self, law: Together, at: StagePoints) -> np.ndarray:
        found = law.predict(self._runs(at)).reshape(-1, len(at), len(law))
        last, at_dose = found[-2], found[-1]
        return (last - self.floors) * np.expm1(self._fading(found, at)) + last - at_dose

    def slopes(self, law: Together, at: StagePoints) -> np.ndarray:
        runs, changes = self._runs(at), at.worth.shape[1] - 1
        found = law.predict(runs).reshape(-1, len(at), len(law))
        slopes = law.gradient(runs).reshape(*found.shape, -1)
        grown = np.exp(self._fading(found, at))[:, :, None]
        excess = (found - self.floors)[..., None]
        out = -at.lengths[:, None, :, None] * slopes[-1][:, :, None]
        out[:, :, -1] += grown * slopes[-2]
        turns = grown * excess[-2] * slopes[:-2] / excess[:-2]  # (2 (S - 1), n, T, M)
        for s in range(changes):
            kept = self._kept(at, s)[:, :, None]
            out[:, :, s] += kept * turns[s]
            out[:, :, s + 1] -= kept * turns[changes + s]
        return out

    def _runs(self, at: StagePoints) -> Points:
        """The static runs that a schedule is made of: of each stage but the last and of the stage
        after it, at its end; of the last stage's mixture, and of the dose, at the end of all."""
        worth = at.worth.transpose(1, 0, 2)
        done, whole = at.ends.T[:-1], np.ones((2, len(at)))
        mixtures = np.concatenate([worth[:-1], worth[1:], worth[-1:], at.worth_at_dose[None]])
        return at.statics(mixtures, np.concatenate([done, done, whole]))

    def _fading(self, found: np.ndarray, at: StagePoints) -> np.ndarray:
        """(n, T) how far the log excess ends from the static run of the last stage's mixture, by
        the values of `_runs`."""
        changes = at.worth.shape[1] - 1
        before, after = np.log(found[: 2 * changes] - self.floors).reshape(
            2, changes, *found.shape[1:]
        )
        kept = [self._kept(at, s) for s in range(changes)]
        return sum(
            (k * (b - a) for k, b, a in zip(kept, before, after, strict=True)),
            np.zeros(found.shape[1:]),
        )

    def _kept(self, at: StagePoints, s: int) -> np.ndarray:
        """(n, T) share of the distance at the end of stage s that is left at the end of all."""
        return at.ends[:, s, None] ** self.rates

    def to_dict(self) -> dict[str, Any]:
        return {"form": self.form, "rates": self.rates.tolist(), "floors": self.floors.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Relaxation:
        return cls(np.array(data["rates"], float), np.array(data["floors"], float))


class Dynamic(Relaxation):
    """The log-linear dynamic law: `Relaxation` that forgets nothing, a = 0."""

    form = "dynamic"


@dataclass(frozen=True, eq=False)
class Blend(Effect):
    """The mean of other effects, each with its own parameters: what averages mixtures and what
    averages losses err to opposite sides where a stage leaves a domain out (docs/decisions.md).

    Attributes: parts: at least one.
    """

    parts: tuple[Effect, ...]
    form = "blend"

    def values(self, law: Together, at: StagePoints) -> np.ndarray:
        return np.mean([part.values(law, at) for part in self.parts], axis=0)

    def slopes(self, law: Together, at: StagePoints) -> np.ndarray:
        return np.mean([part.slopes(law, at) for part in self.parts], axis=0)

    def to_dict(self) -> dict[str, Any]:
        return {"form": self.form, "parts": [part.to_dict() for part in self.parts]}


@dataclass(frozen=True, eq=False)
class Trajectory(Effect):
    """A regression of the steps between checkpoints on the mixture and on the loss at the start.

        d log L / d log D = a + B p - g log L + b log N

    fitted by ridge to the trajectories of static and staged runs (`trajectory.fit_trajectory`).
    What it says of a schedule less what it says of the static run of the same dose, both from the
    loss of the static law at `first_tokens`, is the effect (of the logarithm).

    Source: RegMix-D, arXiv 2606.18663, regresses losses along proxy trajectories; the differential
    form is ours, so that stages of any length compose.

    Attributes:
        pull: (T, M) B.
        fade: (T,) g >= 0.
        first_tokens: from where the equation runs.
    """

    pull: np.ndarray
    fade: np.ndarray
    first_tokens: float
    form = "trajectory"

    def values(self, law: Together, at: StagePoints) -> np.ndarray:
        at_dose = law.predict(at.static(at.worth_at_dose))
        return at_dose * np.expm1(self._log_effect(law, at))

    def slopes(self, law: Together, at: StagePoints) -> np.ndarray:
        effect, dose = self._log_effect(law, at), at.static(at.worth_at_dose)
        begun, first = self._beginning(at)
        left = self._left(first)[:, :, None]
        early, late = (
            left * law.gradient(points) / law.predict(points)[:, :, None]
            for points in self._two_beginnings(at, begun, first)
        )
        pulled = np.einsum("nst,tm->ntsm", self._kernel(at, first), self.pull)
        through_dose = -late - pulled.sum(axis=2)
        turn = begun[:, None, :, None] * early[:, :, None] + pulled
        turn += at.lengths[:, None, :, None] * through_dose[:, :, None]
        out = (law.predict(dose) * np.exp(effect))[:, :, None, None] * turn
        grown = law.gradient(dose) * np.expm1(effect)[:, :, None]
        return out + at.lengths[:, None, :, None] * grown[:, :, None]

    def _beginning(self, at: StagePoints) -> tuple[np.ndarray, np.ndarray]:
        """(n, S) the stages' weights up to `first_tokens`, and that as a share (n,) of the run."""
        first = np.minimum(1.0, self.first_tokens / at.train_tokens)
        overlap = np.minimum(at.ends, first[:, None]) - np.minimum(at.starts, first[:, None])
        return overlap / first[:, None], first

    def _two_beginnings(
        self, at: StagePoints, begun: np.ndarray, first: np.ndarray
    ) -> tuple[Points, Points]:
        """Up to the share `first` (n,): the schedules, and the static runs of their dose."""
        schedule = at.static(average(begun, at.worth), first)
        return schedule, at.static(at.worth_at_dose, first)

    def _left(self, first: np.ndarray) -> np.ndarray:
        """(n, T) share of a log loss at the share `first` (n,) that is left at the end."""
        return first[:, None] ** self.fade

    def _kernel(self, at: StagePoints, first: np.ndarray) -> np.ndarray:
        """(n, S, T) the integral of (share of training done)^fade over its logarithm, from the
        share `first` (n,) on: what is left at the end of what each stage added."""
        begin = np.log(np.maximum(at.starts, first[:, None]))[:, :, None]
        end = np.log(np.maximum(at.ends, first[:, None]))[:, :, None]
        return faded_length(begin, end, self.fade)

    def _log_effect(self, law: Together, at: StagePoints) -> np.ndarray:
        """(n, T)"""
        begun, first = self._beginning(at)
        early, late = (np.log(law.predict(p)) for p in self._two_beginnings(at, begun, first))
        apart = at.worth - at.worth_at_dose[:, None]
        later = np.einsum("nst,tm,nsm->nt", self._kernel(at, first), self.pull, apart)
        return self._left(first) * (early - late) + later

    def to_dict(self) -> dict[str, Any]:
        return {
            "form": self.form,
            "pull": self.pull.tolist(),
            "fade": self.fade.tolist(),
            "first_tokens": self.first_tokens,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trajectory:
        pull, fade = np.array(data["pull"], float), np.array(data["fade"], float)
        return cls(pull, fade, data["first_tokens"])


def faded_length(begin: np.ndarray, end: np.ndarray, fade: np.ndarray) -> np.ndarray:
    """The integral of exp(fade x) from `begin` to `end` (both <= 0), broadcast."""
    small = np.abs(fade) < 1e-9
    divisor = np.where(small, 1.0, fade)
    return np.where(small, end - begin, (np.exp(fade * end) - np.exp(fade * begin)) / divisor)
