"""One run: what was asked for (RunSpec) and what came out (RunResult)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from mixlaw.errors import MixtureError
from mixlaw.files import digest
from mixlaw.mixture import Mixture
from mixlaw.schedule import Online, Schedule

DONE, FAILED, MISSING = "done", "failed", "missing"
"""Status of a run: it has values; it diverged; it was planned and has no result."""
SWARM, REPLICATE, VERIFY = "swarm", "replicate", "verify"


@dataclass(frozen=True)
class Start:
    """The trained model that a run continues from.

    Attributes:
        checkpoint: path or URL of a model file that a run kept; its place decides nothing.
        digest: sha256 of what is in it (tensors and facts), as the file itself says.
        optimizer: whether the moments of Adam go on; else the weights alone are taken.
        rewarm: peak learning rate, as a share of the size's own.
    Raises: MixtureError: an empty place or digest, a setting of another kind, or a rewarm that is
        not finite and > 0.
    """

    checkpoint: str
    digest: str
    optimizer: bool = False
    rewarm: float = 1.0

    def __post_init__(self):
        for name in ("checkpoint", "digest"):
            if not isinstance(found := getattr(self, name), str) or not found:
                raise MixtureError(f"the {name} of a start is {found!r}; it must be text")
        if not isinstance(self.optimizer, bool):
            raise MixtureError(
                f"optimizer of a start is {self.optimizer!r}; it must be True or False"
            )
        is_number = isinstance(self.rewarm, Real) and not isinstance(self.rewarm, bool)
        if not (is_number and 0 < self.rewarm < math.inf):  # also so for NaN
            raise MixtureError(f"rewarm is {self.rewarm!r}; it must be a number, finite and > 0")
        object.__setattr__(self, "rewarm", float(self.rewarm))  # 1 and 1.0 are one run


@dataclass(frozen=True)
class RunSpec:
    """One training to do.

    Attributes:
        label: name of the mixture for people ("m07", "uniform").
        role: "swarm" (fitted), "replicate" (another seed, fitted and tells the noise) or
            "verify" (never fitted).
        size: name of the architecture in the study.
        num_params: non-embedding parameters.
        horizon_tokens: training tokens at which a finished-schedule loss is measured, ascending.
        seed: of initial weights and data order.
        context: digest of all else that decides the losses (corpus, tokenizer, recipe).
        pools: domain -> tokens of it that the run draws from; None: all of the corpus.
        schedule: mixtures over the training to the longest horizon, of which `mixture` is the dose;
            None: static. A shorter horizon sees its beginning.
        online: how the run adapts its mixture, which begins as `mixture`; None: it does not.
        start: the model to continue from; None: fresh weights.
        keep: whether the final model is kept, for others to continue from.
    Raises: MixtureError: a mixture that is not the dose of the schedule, or a schedule and `online`
        at once.
    """

    mixture: Mixture
    label: str
    role: str
    size: str
    num_params: int
    horizon_tokens: tuple[int, ...]
    seed: int
    context: str
    pools: Mapping[str, int] | None = field(default=None, hash=False)
    schedule: Schedule | None = None
    online: Online | None = None
    start: Start | None = None
    keep: bool = False

    def __post_init__(self):
        if self.schedule is None:
            return
        if self.online is not None:
            raise MixtureError(
                f"run {self.label} has a schedule and an online mixture; an online run begins with "
                "its mixture and makes its own schedule"
            )
        if self.schedule.is_static:
            object.__setattr__(self, "schedule", None)
        elif self.mixture != self.schedule.dose:
            raise MixtureError(
                f"the mixture of a scheduled run is {self.mixture}; it must be the dose of its "
                f"schedule, {self.schedule.dose}"
            )

    @property
    def run_id(self) -> str:
        """Hash of what decides the result; label, role and what is kept do not."""
        decides = [
            dict(self.mixture),
            self.size,
            self.num_params,
            self.horizon_tokens,
            self.seed,
            self.context,
        ]
        if self.pools is not None:
            decides.append(dict(self.pools))
        if self.schedule is not None:
            decides.append({"schedule": self.schedule.to_list()})
        if self.online is not None:
            decides.append({"online": self.online.to_dict()})
        if self.start is not None:
            kept = ("digest", "optimizer", "rewarm")
            decides.append({"start": {key: getattr(self.start, key) for key in kept}})
        return digest(decides)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what is as usual is left out."""
        data = {
            **vars(self),
            "mixture": dict(self.mixture),
            "horizon_tokens": list(self.horizon_tokens),
            "schedule": self.schedule and self.schedule.to_list(),
            "online": self.online and self.online.to_dict(),
            "start": self.start and vars(self.start),
        }
        usual = {"schedule": None, "online": None, "start": None, "keep": False}
        return {k: v for k, v in data.items() if k not in usual or v != usual[k]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunSpec:
        """The inverse of `to_dict`. Raises: MixtureError: a wrong mixture, schedule or start."""
        read = {**data, "mixture": Mixture(data["mixture"])}
        read["horizon_tokens"] = tuple(data["horizon_tokens"])
        if data.get("schedule"):
            read["schedule"] = Schedule.from_list(data["schedule"])
        if data.get("online"):
            read["online"] = Online.from_dict(data["online"])
        if data.get("start"):
            read["start"] = Start(**data["start"])
        return cls(**read)


@dataclass(frozen=True)
class RunResult:
    """What a training gave.

    Attributes:
        status: "done" or "failed".
        targets: one mapping target -> value per horizon; empty when failed.
        reason: why it failed.
        epochs: domain -> how often the longest horizon saw it, as counted; empty when failed.
        at_start: the targets at step 0 of a run that continued a model; empty for others.
        schedules: what an online or scheduled run has seen, to the step, one per horizon; empty for
            those of one mixture throughout.
    """

    status: str
    targets: tuple[Mapping[str, float], ...] = ()
    reason: str = ""
    epochs: Mapping[str, float] = field(default_factory=dict)
    at_start: Mapping[str, float] = field(default_factory=dict)
    schedules: tuple[Schedule, ...] = ()
