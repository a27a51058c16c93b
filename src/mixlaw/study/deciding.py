"""From a study's settings and fitted laws to the question that a decision answers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixlaw.errors import ExportError, InfeasibleError, StudyError
from mixlaw.files import digest
from mixlaw.interop import read_mixture
from mixlaw.laws import FittedLaws
from mixlaw.laws.bootstrap import bootstrap
from mixlaw.laws.links import LinkedLaws, fit_links
from mixlaw.laws.points import AXES, TRAIN_TOKENS
from mixlaw.mixture import Domain, Mixture
from mixlaw.optimize import Decision, Objective, Robust, optimize, unimax
from mixlaw.optimize.decide import Question
from mixlaw.optimize.decision import FORMAT_VERSION
from mixlaw.optimize.pareto import ParetoFront, pareto
from mixlaw.runs import RunTable, higher_is_better
from mixlaw.study.config import StudyConfig
from mixlaw.study.export_config import BaselineConfig

NATURAL, UNIFORM, UNIMAX = "natural", "uniform", "unimax"

UNIMAX_EPOCHS = 4.0
"""Up to four passes are nearly as good as new text (Muennighoff et al., arXiv 2305.16264)."""

BEYOND = 4.0
"""How far beyond the target, in parameters and tokens, the optimum is followed."""

Counts = tuple[float | None, float | None]
"""num_params and train_tokens."""


@dataclass(frozen=True)
class Scale:
    """Where a forecast is made; None when the study's table does not vary it."""

    num_params: int | None
    train_tokens: int | None

    @property
    def counts(self) -> Counts:
        return self.num_params, self.train_tokens


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
    target: Scale

    @property
    def objective(self) -> Objective:
        return self.config.objective.build()

    def basis(self) -> dict[str, Any]:
        """All that a decision is made from, JSON-able."""
        config = self.config
        basis = {
            "fit": digest(self.fitted.to_dict()),
            "scale": vars(self.target),
            "seed": config.seed,
        }
        sections = {"objective", "constraints", "optimize"}
        basis |= config.model_dump(include=sections) | {"chance": config.fit.chance}
        basis |= {"baselines": own_baselines(config, self.domains)}
        basis |= {"format": FORMAT_VERSION, "level": config.fit.level}
        return basis | {"domains": [vars(domain) for domain in self.domains]}

    def decide(self) -> Decision:
        """The mixture to train, with its evidence. Raises: as `optimize`."""
        question = self.question()
        decision = optimize(
            **vars(question),
            robust=self.robust(),
            scales=self.other_scales(),
            level=self.config.fit.level,
            seed=self.config.seed,
        )
        laws = question.fitted
        if not isinstance(laws, LinkedLaws):
            return decision
        beyond = laws.extrapolations(
            decision.recommended.array(laws.domains)[None], *self.target.counts
        )
        return replace(decision, warnings=(*decision.warnings, *laws.warnings, *beyond))

    def front(self, count: int) -> ParetoFront:
        """What the objective and the trade-offs cost each other. Raises: as `pareto`."""
        others = {name: other.build() for name, other in self.config.tradeoffs.items()}
        objectives = {"objective": self.objective, **others}
        question = replace(self.question(), fitted=self.forecaster(tradeoffs=True))
        return pareto(question, objectives, count=count, seed=self.config.seed)

    def predict(self, mixtures: Sequence[Mixture]) -> list[dict[str, tuple[float, float]]]:
        """Target -> (value, half width of the interval) of each mixture."""
        laws, level = self.forecaster(), self.config.fit.level
        weights = np.stack([mixture.array(laws.domains) for mixture in mixtures])
        available = np.array([float(d.available_tokens or np.inf) for d in self.domains])
        at, known = self.target.counts, available if self.target.train_tokens else None
        values = laws.predict(weights, *at, available_tokens=known)
        each = np.eye(len(laws.targets))
        half = [
            laws.half_width(one, weights, *at, level=level, available_tokens=known) for one in each
        ]
        return [
            {
                target: (float(value), float(width))
                for target, value, width in zip(laws.targets, *row, strict=True)
            }
            for row in zip(values, np.transpose(half), strict=True)
        ]

    def forecaster(self, *, tradeoffs: bool = False) -> FittedLaws | LinkedLaws:
        """The laws, with links to the scores that the decision names (or its trade-offs, too), if
        it does: without, what is convex stays so."""
        objectives = [self.objective]
        if tradeoffs:
            objectives += [other.build() for other in self.config.tradeoffs.values()]
        named = {target for one in objectives for target in (*one.targets, *one.floors)}
        scores = sorted(target for target in named if higher_is_better(target))
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
            *self.target.counts,
            self.runs.done().weights,
            self.baselines(),
            self.config.optimize.guard,
        )

    def baselines(self) -> dict[str, Mixture]:
        """Mixtures to compare with, by name."""
        return baselines(self.config, self.domains, self.target.train_tokens)

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
        if self.target.train_tokens and any(domain.available_tokens for domain in self.domains):
            moves.add(TRAIN_TOKENS)  # repetition and epoch caps change with it
        path: list[list[float | None]] = [[], [], []]
        for axis, target in zip(AXES, self.target.counts, strict=True):
            known = axis in moves and target and np.isfinite(trained[axis])
            start = trained[axis] if known else target
            beyond = target * BEYOND if known and target else target
            half = (start * target) ** 0.5 if start and target else target
            for scale, count in zip(path, (start, half, beyond), strict=True):
                scale.append(count)
        out = [(scale[0], scale[1]) for scale in path]
        return [scale for k, scale in enumerate(out) if scale not in (*out[:k], self.target.counts)]


def named_targets(config: StudyConfig) -> tuple[str, ...]:
    """Every target that the objective, its floors or the trade-offs name, each once."""
    objectives = [config.objective.build(), *(o.build() for o in config.tradeoffs.values())]
    named = [t for one in objectives for t in (*one.targets, *one.floors)]
    return tuple(dict.fromkeys(named))


def fit_targets(config: StudyConfig, runs: RunTable) -> tuple[list[str], list[str]]:
    """The losses that must be fitted, and all that are: every one in the objective's metrics.

    Raises: StudyError: the runs did not measure what the study names.
    """
    named = named_targets(config)
    unknown = [target for target in (*named, *config.fit.chance) if target not in runs.targets]
    if unknown:
        near = difflib.get_close_matches(unknown[0], runs.targets, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise StudyError(
            f"the study names {unknown}, not measured by the runs "
            f"(they have {list(runs.targets)}){hint}"
        )
    wanted = [target for target in named if not higher_is_better(target)]
    losses = [target for target in runs.targets if not higher_is_better(target)]
    if len(wanted) < len(named):  # a link to a score may start from any loss
        return wanted, losses
    metrics = {target.partition("/")[0] for target in named}
    return wanted, [target for target in losses if target.partition("/")[0] in metrics]


def typical_half_widths(
    fitted: FittedLaws, target: Scale, level: float
) -> dict[str, tuple[float, float]]:
    """Target -> typical half width of its interval at the largest trained scale and at the
    target's: the median over trained mixtures."""
    weights = np.unique(fitted.cross_validation.runs.weights, axis=0)
    trained = (fitted.within.largest[axis] for axis in AXES)
    largest = [None if np.isnan(count) else count for count in trained]
    given = [count or last for count, last in zip(target.counts, largest, strict=True)]

    def typical(one: np.ndarray, at: Sequence[float | None]) -> float:
        return float(np.median(fitted.half_width(one, weights, *at, level=level)))

    each = zip(fitted.targets, np.eye(len(fitted.targets)), strict=True)
    return {name: (typical(one, largest), typical(one, given)) for name, one in each}


def baselines(
    config: StudyConfig, domains: Sequence[Domain], train_tokens: float | None
) -> dict[str, Mixture]:
    """Natural and UniMax where token counts are known, uniform, and the study's own."""
    names = [domain.name for domain in domains]
    out = {UNIFORM: Mixture.uniform(names)}
    if all(domain.available_tokens is not None for domain in domains):
        out = {NATURAL: Mixture.natural(domains), **out}
        capped = _unimax(config, domains, train_tokens)
        if capped is not None:
            out[UNIMAX] = capped
    own = own_baselines(config, domains)
    return out | {name: Mixture(shares) for name, shares in own.items()}


def own_baselines(config: StudyConfig, domains: Sequence[Domain]) -> dict[str, dict[str, float]]:
    """Name -> shares of the study's own baselines: as the study says, or as a trainer's config
    holds them now.

    Raises: StudyError: such a config cannot be read, or changes its mixture during training.
    """
    return {
        name: given.shares or _read_baseline(name, given, [domain.name for domain in domains])
        for name, given in config.baselines.items()
    }


def _read_baseline(name: str, given: BaselineConfig, domains: Sequence[str]) -> dict[str, float]:
    try:
        found = read_mixture(given.file or "", given.format or "", domains)
    except (ExportError, OSError) as error:
        raise StudyError(f"baseline {name!r}: {error}") from error
    if not found.is_static:
        raise StudyError(
            f"baseline {name!r}: {given.file} changes its mixture during training, and a baseline "
            f"has one throughout; write its dose in the study instead: {dict(found.dose)}"
        )
    return dict(found.dose)


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
