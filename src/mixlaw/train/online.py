"""Mixtures that the runs of a stack adapt while they train.

Each round estimates the dynamic law (see `train.probes`) from the run's own probes, smooths it over
the rounds, and moves the shares by exponentiated gradient on the weighted objective, within bounds
(after Aioli: Chen et al., arXiv 2411.05735, algorithms 1 and 2). Each domain's bursts lie in mirror
image about the middle of the probes, so that the losses' steady fall favours none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlaw.corpus import BatchSampler, Segments
from mixlaw.errors import TrainError
from mixlaw.mixture import Mixture
from mixlaw.schedule import Online, Schedule
from mixlaw.train.probes import Bursts, bounded, fit_law, gains, trust

SPARE = 4
"""Sequences kept back of the epochs allowed, for each change of a mixture: its shares are drawn to
within a few."""


@dataclass(frozen=True)
class OnlineJob:
    """Everything that defines the mixtures of K members.

    Attributes:
        online: settings, the same for all members.
        domains: M names.
        mixtures: (K, M) at the start.
        seeds: (K,) of the orders of the probes.
        sampler: of the same members.
        evaluate: parameters -> one mapping target -> value per member.
        renew: called with a step when other batches are to come, known up to that step.
        first_step, last_step: between which the rounds lie.
        num_steps: of the longest horizon.
    """

    online: Online
    domains: Sequence[str]
    mixtures: np.ndarray
    seeds: Sequence[int]
    sampler: BatchSampler
    evaluate: Callable[[Any], list[dict[str, float]]]
    renew: Callable[[int], None]
    first_step: int
    last_step: int
    num_steps: int


class OnlineMixtures:
    """Where the mixtures of a stack of K members stand, over M domains and T targets: what was
    measured, decided and is drawn.

    Attributes:
        segments: what batches follow now: the trunk, or the branch that trains.
        trunk: what was drawn, and is planned up to the next decision and from there on.
        held: horizon -> the same with the branch to it, which keeps its mixture.
        mixtures: (K, M) as decided last, without probes.
        law: (K, T, M) effect of each domain on each target, as estimated over the rounds so far, in
            units of its largest effect on the objective; NaN before the first estimate.
        round: the one whose probes come next or run now, from 0; the number of rounds at the end.
        looks: log of the targets (K, T) at each look of this round so far; NaN: not finite.
        edges: (2 M,) steps of the looks of each round.
        burst: steps of one probe.
    Raises: TrainError: rounds too short for their probes, or a mixture at the start that exceeds
        the epochs allowed.
    """

    segments: Segments
    trunk: Segments
    held: dict[int, Segments]
    mixtures: np.ndarray
    law: np.ndarray
    round: int
    looks: list[np.ndarray]
    edges: list[np.ndarray]
    burst: int

    def __init__(self, job: OnlineJob):
        self.job = job
        self.edges = probe_edges(job)
        self.burst = int(self.edges[0][1] - self.edges[0][0])
        self.restore(None)

    # What the loop asks

    def look(self, step: int, parameters: Any) -> list[dict[str, Any]]:
        """The trunk stands at a step: measure and decide, where it is time.

        Returns: what was decided for each member; empty where nothing was.
        """
        decided = []
        if step == self.next_look:
            self.looks.append(self._measured(parameters))
            if len(self.looks) == len(self.edges[self.round]):
                decided = self._decide(step)
        if self.segments is not self.trunk:
            self._follow(self.trunk, self._known_until())
        return decided

    @property
    def next_look(self) -> int | None:
        """The step at which the targets are measured next."""
        return int(self.edges[self.round][len(self.looks)]) if self._adapting else None

    def hold(self, step: int, horizon: int) -> None:
        """A branch leaves the trunk at a step: it keeps the mixture up to its horizon."""
        self.held[horizon] = self._after(step, np.array([step]), self.mixtures[None])
        self._follow(self.held[horizon], horizon)

    def schedules(self, member: int) -> tuple[Schedule, ...]:
        """What became of a member's mixture on the way to each horizon."""
        return tuple(
            Schedule.of(
                (
                    (stop - first) / horizon,
                    Mixture(dict(zip(self.job.domains, shares[member].tolist(), strict=True))),
                )
                for first, stop, shares in segments.within(0, horizon)
            )
            for horizon, segments in self.held.items()
        )

    def state(self, member: int) -> dict[str, Any]:
        """JSON-able."""
        law = self.law[member]
        return {
            "round": self.round,
            "looks": [_numbers(look[member]) for look in self.looks],
            "mixture": self.mixtures[member].tolist(),
            "law": law.tolist() if np.isfinite(law).all() else None,
            "trunk": _of_member(self.trunk, member),
            "held": [[horizon, _of_member(s, member)] for horizon, s in self.held.items()],
        }

    def restore(self, states: Sequence[Mapping[str, Any]] | None) -> None:
        """As `state` gave it for each member; None: the start."""
        job = self.job
        shape = (len(job.mixtures), len(job.online.weights), len(job.domains))
        if states is None:
            self.round, self.looks, self.held = -1, [], {}
            self.mixtures, self.law = job.mixtures.copy(), np.full(shape, np.nan)
            self.trunk = Segments.static(job.mixtures)
            self._check_epochs()
            self._plan(0, job.mixtures.copy(), self._room(0)[0])
        else:
            self.round = states[0]["round"]
            looks = np.array([state["looks"] for state in states], dtype=float)
            self.looks = list(looks.reshape(len(states), -1, shape[1]).swapaxes(0, 1))
            self.mixtures = np.array([state["mixture"] for state in states])
            unknown = np.full(shape[1:], np.nan)
            laws = [unknown if state["law"] is None else state["law"] for state in states]
            self.law = np.stack([np.array(law) for law in laws])
            self.trunk = _of_members([state["trunk"] for state in states])
            held = zip(*(state["held"] for state in states), strict=True)
            self.held = {every[0][0]: _of_members([one[1] for one in every]) for every in held}
        self._follow(self.trunk, self._known_until())

    # A round

    @property
    def _adapting(self) -> bool:
        return self.round < self.job.online.rounds

    def _known_until(self) -> int:
        """The step of the next decision."""
        return int(self.edges[self.round][-1]) if self._adapting else self.job.num_steps

    def _follow(self, segments: Segments, until: int) -> None:
        self.segments = segments
        self.job.renew(until)

    def _measured(self, parameters: Any) -> np.ndarray:
        """Log of the targets (K, T); NaN where one is not finite."""
        names, found = self.job.online.weights, self.job.evaluate(parameters)
        values = np.array([[targets[name] for name in names] for targets in found])
        sound = np.isfinite(values) & (values > 0)
        return np.where(sound, np.log(np.where(sound, values, 1.0)), np.nan)

    def _decide(self, step: int) -> list[dict[str, Any]]:
        """End the probes of a round: estimate, and move the mixtures."""
        job, edges, logs = self.job, self.edges[self.round], np.stack(self.looks)
        counts = np.stack([job.sampler.domain_counts(int(e), self.trunk) for e in edges])
        steps = np.diff(edges)
        shares = np.diff(counts, axis=0) / (steps[:, None, None] * job.sampler.batch_size)
        rates = -np.diff(logs, axis=0) / steps[:, None, None]
        levels = np.array(list(job.online.weights.values())) * np.exp(logs[-1])  # (K, T)
        planned = np.stack([p for *_, p in self.trunk.within(int(edges[0]), int(edges[-1]))])
        wanted, reasons = self.mixtures.copy(), []
        for k in range(len(wanted)):
            if not np.isfinite(logs[:, k]).all():
                reasons.append("a target was not finite in the probes, which so tell nothing")
            elif np.count_nonzero(self.mixtures[k]) == 1:
                reasons.append("only one domain has a share, so there is nothing to adapt")
            elif not np.ptp(planned[:, k], axis=0).any():
                reasons.append("max_epochs left no room for probes")
            else:
                reasons.append("")
                bursts = Bursts(steps, shares[:, k], rates[:, k])
                self.law[k] = self._estimated(k, bursts, levels[k])
                wanted[k] *= np.exp(job.online.step_size * gains(self.law[k], levels[k]))
        unmoved = self._move(step, wanted)
        mixtures = [dict(zip(job.domains, row, strict=True)) for row in self.mixtures.tolist()]
        why = [reason or bound for reason, bound in zip(reasons, unmoved, strict=True)]
        return [{"mixture": m, "reason": r} for m, r in zip(mixtures, why, strict=True)]

    def _estimated(self, member: int, bursts: Bursts, levels: np.ndarray) -> np.ndarray:
        """The law (T, M) with one round more, at weighted levels (T,) of the targets.

        Progress slows down over a run, so each round is scaled by its largest effect on the
        objective, and by how far its probes can be trusted; where rounds disagree it shrinks.
        """
        found = fit_law(bursts)
        largest = np.abs(gains(found, levels)).max()
        if largest > 0:
            found = found / largest * trust(bursts, levels, self.mixtures[member])
        if np.isnan(self.law[member]).any():
            return found
        smoothing = self.job.online.smoothing
        return smoothing * self.law[member] + (1 - smoothing) * found

    def _move(self, step: int, wanted: np.ndarray) -> list[str]:
        """To the mixtures (K, M) within bounds that are nearest to those wanted.

        Returns: why a member's bounds let nothing move, or "".
        """
        online, old = self.job.online, self.mixtures
        probed, most = self._room(step)
        low = np.minimum(np.maximum(online.floor, old - online.max_change), old)
        high = np.where(old > 0, np.minimum(most, old + online.max_change), 0.0)
        new, reasons = old.copy(), [""] * len(old)
        for k, rows in enumerate(zip(wanted, np.minimum(low, high), high, strict=True)):
            if (found := bounded(*rows)) is None:
                probed[k], reasons[k] = False, "max_epochs leaves no mixture to move to"
                continue
            new[k] = found
            if (low[k] >= old[k]).all():
                reasons[k] = f"no share may fall: none is above the floor, {online.floor:g}"
        self._plan(step, new, probed)
        return reasons

    def _plan(self, step: int, mixtures: np.ndarray, probed: np.ndarray) -> None:
        """What is drawn until the next decision."""
        self.round, self.looks = self.round + 1, []
        self.mixtures, self.trunk = mixtures, self._with_probes(step, mixtures, probed)

    def _with_probes(self, step: int, mixtures: np.ndarray, probed: np.ndarray) -> Segments:
        """The trunk from a step on: the mixtures (K, M), and the probes of the round that comes."""
        if not self._adapting:
            return self._after(step, np.array([step]), mixtures[None])
        edges, tilt = self.edges[self.round], self.job.online.tilt
        rows = np.stack([mixtures] * (len(edges) + 1))  # (before, bursts, after)
        for k, seed in enumerate(self.job.seeds):
            order = np.random.default_rng([seed, self.round]).permutation(mixtures.shape[1])
            for burst, domain in enumerate([*order, *order[-2::-1]], start=1):
                if probed[k, domain]:
                    rows[burst, k] *= 1 - tilt
                    rows[burst, k, domain] += tilt
        return self._after(step, np.append(step, edges), rows)

    def _after(self, step: int, first_steps: np.ndarray, rows: np.ndarray) -> Segments:
        """The trunk before a step, and other segments from it on."""
        past = self.trunk.first_steps < step
        return Segments(
            np.concatenate([self.trunk.first_steps[past], first_steps]),
            np.concatenate([self.trunk.proportions[past], rows]),
        )

    # Epochs

    def _room(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Which domains (K, M) can be probed next, and the largest shares from a step on."""
        online, job, old = self.job.online, self.job, self.mixtures
        if online.max_epochs is None:
            return old > 0, np.ones(old.shape)
        allowed = np.floor(online.max_epochs * job.sampler.windows) - SPARE * 2 * len(job.domains)
        left = allowed - job.sampler.domain_counts(step, self.trunk)
        probes = online.tilt * 2 * self.burst if self.round + 1 < online.rounds else 0.0
        steps = job.num_steps - step
        left = left / job.sampler.batch_size
        probed = (old > 0) & (steps * old + probes <= left)
        return probed, np.clip((left - probes * probed) / steps, 0.0, 1.0)

    def _over(self, segments: Segments) -> np.ndarray:
        """Sequences (K, M) above the epochs allowed, if a run went on so to its end."""
        sampler, most = self.job.sampler, self.job.online.max_epochs
        if most is None:
            return np.zeros(self.job.mixtures.shape)
        counts = sampler.domain_counts(self.job.num_steps, segments)
        return np.maximum(counts - np.floor(most * sampler.windows), 0)

    def _check_epochs(self) -> None:
        over = self._over(self.trunk)
        if over.any():
            k, j = np.argwhere(over)[0]
            seen = over[k, j] / self.job.sampler.windows[j] + (self.job.online.max_epochs or 0)
            raise TrainError(
                f"an online run begins with {self.job.mixtures[k, j]:.3g} of "
                f"{self.job.domains[j]} and would see it {seen:.3g} times, more than max_epochs "
                f"{self.job.online.max_epochs:g}; begin with less of it, or allow more epochs"
            )


def probe_edges(job: OnlineJob) -> list[np.ndarray]:
    """Steps (2M,) at which each round measures: before its probes, and after each burst.

    Raises: TrainError: a round has too few steps for two bursts of every domain.
    """
    online, M = job.online, len(job.domains)
    starts = np.linspace(job.first_step, job.last_step, online.rounds + 1).astype(int)
    shortest = int(np.diff(starts).min())
    burst = int(online.probe_share * shortest / (2 * M))
    if burst < 1:
        raise TrainError(
            f"an online run has {online.rounds} rounds of {shortest} steps, of which "
            f"{online.probe_share:g} are probes: fewer than the two for each of {M} domains; train "
            "longer (the rounds lie between warm-up and decay), or lower rounds"
        )
    # The two bursts of the domain in the middle are one.
    ends = np.array([end for end in range(2 * M + 1) if end != M]) * burst
    return [start + ends for start in starts[:-1]]


def _numbers(values: np.ndarray) -> list[float | None]:
    """JSON has no NaN."""
    return [value if np.isfinite(value) else None for value in values.tolist()]


def _of_member(segments: Segments, member: int) -> list[Any]:
    rows = segments.proportions[:, member].tolist()
    return list(zip(segments.first_steps.tolist(), rows, strict=True))


def _of_members(found: Sequence[Sequence[Any]]) -> Segments:
    """The inverse of `_of_member` for all members, whose segments begin at the same steps."""
    rows = [[row for _, row in one] for one in found]
    return Segments(np.array([first for first, _ in found[0]]), np.array(rows).swapaxes(0, 1))
