"""The section of a study file on schedules: the mixture over training, in stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from mixlaw.mixture import SUM_TOLERANCE
from mixlaw.schedule import stage_steps
from mixlaw.study.section import Count, Positive, Section

if TYPE_CHECKING:
    from mixlaw.study.config import StudyConfig

MOST_STAGES = 3

StageShares = tuple[float, ...]
"""Shares of training, in the order of the stages."""


def _alternatives(value: Any) -> Any:
    # One list of shares, or several such lists.
    numbers = isinstance(value, list) and all(isinstance(v, int | float) for v in value)
    return [value] if numbers else value


def _whole(shares: StageShares) -> StageShares:
    if not 2 <= len(shares) <= MOST_STAGES:
        raise ValueError(
            f"stages are {list(shares)}; give 2 to {MOST_STAGES} shares of training (each further "
            "stage asks the same few runs for as many parameters again)"
        )
    if abs(math.fsum(shares) - 1) > SUM_TOLERANCE:
        raise ValueError(
            f"stages are {list(shares)}; these shares of training sum to {math.fsum(shares):g} and "
            "must sum to 1"
        )
    return shares


class ScheduleConfig(Section):
    """What `mixlaw schedule` trains and decides.

    `stages` are shares of training, or a list of such lists: alternatives, of which the best is
    recommended. `runs` staged runs of one `size` (default: the largest trained one) are trained
    beside the swarm.
    """

    stages: Annotated[
        list[Annotated[tuple[Positive, ...], AfterValidator(_whole)]],
        Field(min_length=1),
        BeforeValidator(_alternatives),
    ] = [(0.8, 0.2)]
    runs: Annotated[Count, Field(ge=2)] = 12
    size: str | None = None

    def trained_size(self, config: StudyConfig) -> str:
        """The size of the staged runs. `config` has a training section."""
        assert config.training is not None, "a study that trains has the section"
        return self.size or max(config.training.sizes, key=config.num_params)

    def check_training(self, config: StudyConfig) -> None:
        """Raises: ValueError: a size without a swarm, or a stage without a step in its runs."""
        assert config.training is not None, "a study that trains has the section"
        size = self.trained_size(config)
        if size not in config.training.sizes:
            raise ValueError(
                f"schedule.size is {size!r}, not among training.sizes {config.training.sizes}: "
                "staged runs are compared with static ones of their size"
            )
        steps = config.horizon_steps(size)[-1]
        for shares in self.stages:
            refuse_empty_stages(shares, steps, f"a run of size {size!r}")


def refuse_empty_stages(shares: Sequence[float], steps: int, what: str) -> None:
    """Raises: ValueError: a stage of a run of so many steps would have none of them."""
    found = stage_steps(shares, steps)
    if min(found) < 1:
        raise ValueError(
            f"{what} has {steps} steps, of which the stages {list(shares)} would get {found}; give "
            "each at least one: a larger share, or longer runs"
        )
