"""Runs: what was asked for (RunSpec), what came out (RunResult), and both as one RunTable."""

from mixlaw.runs.cells import HIGHER_IS_BETTER, UNITS, higher_is_better
from mixlaw.runs.spec import (
    DONE,
    FAILED,
    MISSING,
    REPLICATE,
    SWARM,
    VERIFY,
    RunResult,
    RunSpec,
    Start,
)
from mixlaw.runs.table import RunTable

__all__ = [
    "DONE",
    "FAILED",
    "HIGHER_IS_BETTER",
    "MISSING",
    "REPLICATE",
    "SWARM",
    "UNITS",
    "VERIFY",
    "RunResult",
    "RunSpec",
    "RunTable",
    "Start",
    "higher_is_better",
]
