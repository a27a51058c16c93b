"""What the planner answers: runs to do next, or the advice to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixlaw.mixture import Mixture
from mixlaw.plan.question import RunScale


@dataclass(frozen=True)
class Proposal:
    """A run worth doing.

    Attributes:
        num_params, train_tokens, flops: None where unknown.
        expected_gain: by how much the run is expected to lower the objective of the decision, after
            the proposals before it; None while there are too few runs to say.
        reason: in words.
    """

    mixture: Mixture
    num_params: float | None
    train_tokens: float | None
    flops: float | None
    expected_gain: float | None
    reason: str

    @property
    def scale(self) -> RunScale:
        return RunScale(self.num_params, self.train_tokens)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "mixture": dict(self.mixture)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Proposal:
        return cls(**{**data, "mixture": Mixture(data["mixture"])})


@dataclass(frozen=True)
class Plan:
    """The next runs, or the advice to stop.

    Attributes:
        proposals: best first; when `stop`, the ones that are not worth it.
        recommended: the mixture that the plan's own belief would decide for now, among all that
            constraints allow. A decision keeps to the trained range and may name another: the next
            runs may widen that range. None while there are too few runs.
        expected_regret: how much worse it is expected to be than the best one, in the objective's
            unit, by that belief; None while there are too few runs.
        expected_gain: of all proposals together; None as well.
        stop: whether that gain is below the threshold.
        reason: why to go on or to stop.
        warnings: of the fit.
    """

    proposals: tuple[Proposal, ...]
    recommended: Mixture | None
    expected_regret: float | None
    expected_gain: float | None
    stop: bool
    reason: str
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an equal plan."""
        return {
            **vars(self),
            "proposals": [proposal.to_dict() for proposal in self.proposals],
            "recommended": self.recommended and dict(self.recommended),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        proposals = tuple(Proposal.from_dict(item) for item in data["proposals"])
        recommended = data["recommended"] and Mixture(data["recommended"])
        changed = {"proposals": proposals, "recommended": recommended}
        return cls(**{**data, **changed, "warnings": tuple(data["warnings"])})
