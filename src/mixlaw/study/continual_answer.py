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
from mixlaw.mixture import Mixture
from mixlaw.optimize import Objective
from mixlaw.runs import RunTable, higher_is_better
from mixlaw.study.config import StudyConfig
from mixlaw.study.continual_config import ContinualConfig
from mixlaw.study.deciding import fit_targets

FORMAT_VERSION = 2


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
        here = trained.rows(setting)
        found = dict(zip(self.laws.targets, trained.losses[:, here], strict=True))
        return trained.share[here], found

    def means(self, setting: Setting) -> tuple[np.ndarray, dict[str, np.ndarray], tuple[int, int]]:
        """The shares (k,) trained at a setting, target -> mean losses (k,), NaN where a share has
        none, and the fewest and most seeds of a share."""
        trained = self.laws.trained
        here = trained.rows(setting)
        ids = trained.share_ids[here]
        distinct = np.unique(ids)
        members = ids == distinct[:, None]  # (k, n)
        seeds = [len(set(trained.seed[here][of_share])) for of_share in members]
        means = {}
        for target, losses in self.seen(setting)[1].items():
            known = members & np.isfinite(losses)
            total, count = np.where(known, losses, 0.0).sum(axis=1), known.sum(axis=1)
            means[target] = np.divide(
                total, count, out=np.full(len(count), np.nan), where=count > 0
            )
        shares = np.array([trained.share[here][of_share].mean() for of_share in members])
        return shares, means, (min(seeds), max(seeds))

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
    targets, left_out = _targets(config, settings, runs)
    laws = fit_continual(runs, new=settings.new, base=base, targets=targets, seed=config.seed)
    if config.table is not None:
        asked = {"old": settings.old_mixture, "new": settings.new_mixture}
        laws = laws.continuing(**{side: Mixture(m) for side, m in asked.items() if m is not None})
    weights, notes = _weights(config.objective.build())
    moves = laws.moves(weights, tolerance=settings.tolerance, level=config.fit.level)
    return ContinualAnswer(laws, moves, (*left_out, *notes))


def basis_of(config: StudyConfig, settings: ContinualConfig, runs: RunTable) -> dict[str, Any]:
    """All that an answer is made from, JSON-able."""
    told = {"new", "old", "tolerance", "targets", "old_mixture", "new_mixture"}
    basis = {"runs": digest(runs.rows()), "settings": settings.model_dump(include=told)}
    basis |= {"base": settings.base.losses, "format": [FORMAT_VERSION, LAWS_FORMAT]}
    basis |= {"seed": config.seed, "level": config.fit.level}
    return basis | config.model_dump(include={"objective"})


def continues_alone(settings: ContinualConfig, runs: RunTable) -> bool:
    """Whether all rows of a table continue a model."""
    started = np.isfinite(runs.start).any(axis=1)
    return settings.base.losses is not None or (len(runs) > 0 and bool(started.all()))


def of_sides(settings: ContinualConfig, runs: RunTable) -> RunTable:
    """The runs over the old and new domains alone. Raises: StudyError: they have others, too."""
    try:
        settings.check_domains(runs.domains)
        settings.check_mixtures(runs.domains)
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
) -> tuple[dict[str, str] | list[str], tuple[str, ...]]:
    """What is fitted: losses of a side, with the side, and else those of the objective; and notes
    of what is left out.

    A target of neither side leaves out the laws that read the share of a target's own.
    """
    wanted, losses = fit_targets(config, runs)
    old, base = settings.old_of(runs.domains), settings.base.losses
    for key, named in (("targets", settings.targets), ("base.losses", base or {})):
        if strangers := sorted(set(named) - set(losses)):
            raise StudyError(
                f"continual.{key} names {strangers}, which are no losses of the runs in the metric "
                f"of the objective: {losses}"
            )
    sides = {name: "old" if name in old else "new" for name in runs.domains}
    known = {t: settings.targets.get(t) or sides.get(t.partition("/")[2]) for t in losses}
    protected = [target for target, side in known.items() if side == "old"]
    if not protected:
        raise StudyError(
            f"none of {list(known)} is named after an old domain, so it is unknown what must not "
            "be lost; say it: continual: {targets: {loss/...: old}}"
        )
    if base is not None and (bare := [t for t in protected if t not in base]):
        raise StudyError(
            f"continual.base.losses lacks {bare}, which would not be kept from rising; give the "
            "base's loss of each old target"
        )
    kept, notes = {}, []
    for target, side in known.items():
        if target in wanted or side == "old":
            kept[target] = side
        elif side is None:
            continue
        elif base is not None and target not in base:
            notes.append(f"{target} is left out: continual.base.losses lacks it")
        elif _constant(runs.column(target)):
            notes.append(f"{target} is left out: it is constant, so nothing can be learned from it")
        else:
            kept[target] = side
    of_a_side = {t: side for t, side in kept.items() if side is not None}
    return of_a_side if len(of_a_side) == len(kept) else list(kept), tuple(notes)


def _constant(losses: np.ndarray) -> bool:
    known = losses[np.isfinite(losses)]
    return known.size > 0 and np.ptp(known) <= 1e-12 * np.abs(known).max()


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
