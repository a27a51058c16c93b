"""From a study's settings and fitted laws to the question that a decision answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixlaw.errors import InfeasibleError
from mixlaw.laws import FittedLaws
from mixlaw.laws.bootstrap import bootstrap
from mixlaw.laws.links import LinkedLaws, fit_links
from mixlaw.laws.points import AXES, TRAIN_TOKENS
from mixlaw.mixture import Domain, Mixture
from mixlaw.optimize import Robust, unimax
from mixlaw.optimize.decide import Question
from mixlaw.optimize.objective import Objective
from mixlaw.runs import RunTable, higher_is_better
from mixlaw.study.config import StudyConfig

NATURAL, UNIFORM, UNIMAX = "natural", "uniform", "unimax"

UNIMAX_EPOCHS = 4.0
"""Up to four passes are nearly as good as new text (Muennighoff et al., arXiv 2305.16264)."""

BEYOND = 4.0
"""How far beyond the target, in parameters and tokens, the optimum is followed."""

Counts = tuple[float | None, float | None]
"""num_params and train_tokens."""


@dataclass(frozen=True, eq=False)
class Deciding:
    """What a study decides, and from what.

    Attributes:
        runs: the runs that were fitted.
        domains: with the tokens of the big run.
        target: the scale of the decision.
    """

    config: StudyConfig
    fitted: FittedLaws
    runs: RunTable
    domains: Sequence[Domain]
    target: Counts

    @property
    def objective(self) -> Objective:
        return self.config.objective.build()

    def forecaster(self) -> FittedLaws | LinkedLaws:
        """The laws, with links to the scores that the study names, if it does."""
        named = named_targets(self.config)
        scores = [target for target in named if higher_is_better(target)]
        if not scores:
            return self.fitted
        chance = {task: share for task, share in self.config.fit.chance.items() if task in scores}
        return fit_links(self.fitted, self.runs, scores, chance=chance)

    def question(self) -> Question:
        """The question of the study at its target scale."""
        return Question(
            self.forecaster(),
            self.objective,
            self.domains,
            self.config.constraints.build(),
            *self.target,
            self.runs.done().weights,
            self.baselines(),
        )

    def baselines(self) -> dict[str, Mixture]:
        """Mixtures to compare with, by name."""
        return baselines(self.config, self.domains, self.target[1])

    def robust(self) -> Robust | None:
        """Over which refits to decide; None: by the one fit."""
        settings = self.config.optimize
        if settings.robust is None:
            return None
        draws = bootstrap(self.fitted, num_draws=settings.draws, seed=self.config.seed)
        return Robust(draws, settings.robust)

    def other_scales(self) -> list[Counts]:
        """The largest trained scale, one half way to the target's, and one beyond; none where
        neither the law nor repetition reads a scale."""
        trained = self.fitted.within.largest
        moves = set(self.fitted.needs)
        if self.target[1] and any(domain.available_tokens for domain in self.domains):
            moves.add(TRAIN_TOKENS)  # repetition and epoch caps change with it
        path: list[list[float | None]] = [[], [], []]
        for axis, target in zip(AXES, self.target, strict=True):
            known = axis in moves and target and np.isfinite(trained[axis])
            start = trained[axis] if known else target
            beyond = target * BEYOND if known and target else target
            half = (start * target) ** 0.5 if start and target else target
            for scale, count in zip(path, (start, half, beyond), strict=True):
                scale.append(count)
        out = [(scale[0], scale[1]) for scale in path]
        return [scale for k, scale in enumerate(out) if scale not in (*out[:k], self.target)]


def named_targets(config: StudyConfig) -> tuple[str, ...]:
    """Every target that the objective, its floors or the trade-offs name, each once."""
    objectives = [config.objective.build(), *(o.build() for o in config.tradeoffs.values())]
    named = [t for one in objectives for t in (*one.targets, *one.floors)]
    return tuple(dict.fromkeys(named))


def baselines(
    config: StudyConfig, domains: Sequence[Domain], train_tokens: float | None
) -> dict[str, Mixture]:
    """Natural and UniMax where token counts are known, uniform, and the study's own."""
    names = [domain.name for domain in domains]
    out = {UNIFORM: Mixture.uniform(names)}
    if all(domain.available_tokens is not None for domain in domains):
        out = {NATURAL: Mixture.natural(domains), **out}
        capped = _unimax(config, domains, train_tokens)
        if capped is not None and not np.allclose(capped.array(names), 1 / len(names)):
            out[UNIMAX] = capped
    return out | {name: Mixture(shares) for name, shares in config.baselines.items()}


def _unimax(
    config: StudyConfig, domains: Sequence[Domain], train_tokens: float | None
) -> Mixture | None:
    """None where the domains cannot fill the run within the cap, or the run is not known."""
    cap = config.constraints.max_epochs
    if not train_tokens:
        return None
    try:
        epochs = cap if isinstance(cap, float) else UNIMAX_EPOCHS
        return unimax(domains, train_tokens, epochs)
    except InfeasibleError:
        return None
