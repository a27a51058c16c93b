"""How much new data a continued model takes: the answer of a study, from its continued runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixlaw.continual import ContinualLaws, Move, Setting, fit_continual
from mixlaw.continual.laws import FORMAT_VERSION as LAWS_FORMAT
from mixlaw.errors import StudyError
from mixlaw.files import digest
from mixlaw.optimize import Objective
from mixlaw.runs import RunTable, higher_is_better
from mixlaw.study.config import StudyConfig
from mixlaw.study.continual_config import ContinualConfig
from mixlaw.study.deciding import fit_targets

FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class ContinualAnswer:
    """How much new data a model takes before it loses the old, and how much is best.

    Attributes:
        laws: of the share of new data, fitted to the continued runs.
        moves: both answers at every trained setting.
        notes: what is not answered, and why.
    """

    laws: ContinualLaws
    moves: tuple[Move, ...]
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> Move:
        """At the largest size and its longest horizon, re-warmed to nearest the usual rate."""

        def rank(move: Move) -> tuple[float, float, float]:
            at = move.setting
            return at.num_params or 0, at.train_tokens or 0, -abs(math.log(at.rewarm or 1))

        return max(self.moves, key=rank)

    @property
    def along_tokens(self) -> tuple[Move, ...]:
        """The main one and those that differ from it in their tokens only, ascending."""
        main = self.main.setting
        return tuple(
            move
            for move in self.moves
            if replace(main, train_tokens=move.setting.train_tokens) == move.setting
        )

    @property
    def targets(self) -> tuple[str, ...]:
        """Those of the old side first, then of the new, then of neither."""
        sides = dict(zip(self.laws.targets, self.laws.sides, strict=True))
        order = {"old": 0, "new": 1, None: 2}
        return tuple(sorted(sides, key=lambda target: order[sides[target]]))

    def base(self, setting: Setting) -> dict[str, float]:
        """Target -> loss of the base of that size."""
        size = setting.num_params or 0.0
        near = min(self.laws.bases, key=lambda sized: abs(sized[0] - size))
        return dict(zip(self.laws.targets, near[1], strict=True))

    def seen(self, setting: Setting) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Shares (n,) of the trained runs at a setting, every seed, and target -> losses (n,)."""
        trained = self.laws.trained
        here = np.ones(len(trained.share), bool)
        for axis, at in setting.to_dict().items():
            here &= np.isnan(getattr(trained, axis)) if at is None else getattr(trained, axis) == at
        found = dict(zip(self.laws.targets, trained.losses[:, here], strict=True))
        return trained.share[here], found

    def to_dict(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "moves": [move.to_dict() for move in self.moves],
            "notes": list(self.notes),
            "held_out_error": self.laws.held_out_error,
            "laws": self.laws.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ContinualAnswer:
        moves = tuple(Move.from_dict(move) for move in data["moves"])
        return cls(ContinualLaws.from_dict(data["laws"]), moves, tuple(data["notes"]))


def answer(config: StudyConfig, settings: ContinualConfig, runs: RunTable) -> ContinualAnswer:
    """Fit the laws of the share to continued runs, and ask them at every trained setting.

    Raises: StudyError: the runs did not measure what the study names, or mix in domains of neither
        side. FitError: as `mixlaw.continual.fit_continual`.
    """
    runs, base = of_sides(settings, runs), settings.base.losses
    targets = _targets(config, settings, runs)
    laws = fit_continual(runs, new=settings.new, base=base, targets=targets, seed=config.seed)
    weights, notes = _weights(config.objective.build())
    moves = laws.moves(weights, tolerance=settings.tolerance, level=config.fit.level)
    return ContinualAnswer(laws, moves, notes)


def basis_of(config: StudyConfig, settings: ContinualConfig, runs: RunTable) -> dict[str, Any]:
    """All that an answer is made from, JSON-able."""
    told = settings.model_dump(include={"new", "old", "tolerance", "targets"})
    basis = {"runs": digest(runs.rows()), "settings": told, "base": settings.base.losses}
    basis |= {"format": [FORMAT_VERSION, LAWS_FORMAT]}
    basis |= {"seed": config.seed, "level": config.fit.level}
    return basis | config.model_dump(include={"objective"})


def of_sides(settings: ContinualConfig, runs: RunTable) -> RunTable:
    """The runs over the old and new domains alone. Raises: StudyError: they have others, too."""
    try:
        settings.check_domains(runs.domains)
    except ValueError as error:
        raise StudyError(str(error)) from error
    sides = [*settings.old_of(runs.domains), *settings.new]
    others = [name for name in runs.domains if name not in sides]
    mixed_in = [d for d in others if (runs.weights[:, runs.domains.index(d)] > 0).any()]
    if mixed_in:
        raise StudyError(
            f"the runs were also trained on {mixed_in}, which stand in neither continual.old nor "
            "continual.new; name them on one side"
        )
    keep = [j for j, name in enumerate(runs.domains) if name in sides]
    return replace(
        runs,
        domains=tuple(runs.domains[j] for j in keep),
        weights=runs.weights[:, keep],
        available_tokens=runs.available_tokens[:, keep],
    )


def _targets(
    config: StudyConfig, settings: ContinualConfig, runs: RunTable
) -> dict[str, str] | list[str]:
    """What is fitted: losses of a side, with the side, and else those of the objective.

    A target of neither side leaves out the laws that read the share of a target's own.
    """
    wanted, losses = fit_targets(config, runs)
    if strangers := sorted(set(settings.targets) - set(losses)):
        raise StudyError(
            f"continual.targets names {strangers}, which are no losses of the runs in the metric "
            f"of the objective: {losses}"
        )
    old, base = settings.old_of(runs.domains), settings.base.losses
    sides = {name: "old" if name in old else "new" for name in runs.domains}
    known = {t: settings.targets.get(t) or sides.get(t.partition("/")[2]) for t in losses}
    known = {t: side for t, side in known.items() if base is None or t in base or t in wanted}
    if "old" not in known.values():
        raise StudyError(
            f"none of {list(known)} is named after an old domain, so it is unknown what must not "
            "be lost; say it: continual: {targets: {loss/...: old}}"
        )
    kept = {t: side for t, side in known.items() if side is not None or t in wanted}
    of_a_side = {t: side for t, side in kept.items() if side is not None}
    return of_a_side if len(of_a_side) == len(kept) else list(kept)


def _weights(objective: Objective) -> tuple[dict[str, float] | None, tuple[str, ...]]:
    """Target -> weight of what is minimised; None where that is no weighted sum of losses."""
    if scores := [target for target in objective.targets if higher_is_better(target)]:
        why = f"it is on the scores {scores}, and the laws of the share are of losses"
    elif objective.relative_to is not None:
        why = f"it is relative to the mixture {objective.relative_to!r}, which continues nothing"
    elif not objective.linear:
        why = "it is the worst of several targets, not their mean"
    else:
        return objective.shares, ()
    return None, (f"no best share is given for the objective: {why}",)
