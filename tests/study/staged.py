"""A made-up table with staged runs, in which later tokens count for more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mixlaw.mixture import Mixture
from mixlaw.runs import RunTable
from mixlaw.schedule import Schedule

NAMES = ("web", "code", "books")
WORTH = np.array([[3.0, 0.3, 1.0], [0.2, 3.0, 0.3], [0.6, 0.2, 2.0]])
RATE = 3.0
NOISE = 0.001
TRAIN_TOKENS = 1_000_000

STUDY = """table: runs.csv
objective: {loss/web: 1, loss/code: 1}
"""

SCARCE = """domains:
  web: {available_tokens: 75_000}
  code: {available_tokens: 2_000_000}
  books: {available_tokens: 2_000_000}
constraints: {max_epochs: 2}
target: {train_tokens: 1_000_000}
"""
"""With the study: at most 15 % of a run may be web."""


def true_losses(schedule: Schedule) -> np.ndarray:
    """(3,) of web, code and books."""
    ends = np.concatenate([schedule.starts, [1.0]])
    weights = np.diff(ends**RATE)
    seen = weights @ schedule.array(NAMES)
    return 2 + (0.1 + np.sqrt(seen + 1e-3) @ WORTH.T) ** -0.7


def row(schedule: Schedule, rng: np.random.Generator) -> dict:
    losses = true_losses(schedule) + rng.normal(0, NOISE, 3)
    found: dict[str, Any] = {f"weight/{name}": p for name, p in schedule.dose.items()}
    found |= {f"loss/{name}": loss for name, loss in zip(NAMES, losses.tolist(), strict=True)}
    found |= {"score/quiz": 0.5, "train_tokens": TRAIN_TOKENS}
    if not schedule.is_static:
        found["schedule"] = json.dumps(schedule.to_list())
    return found


def mixture(shares: np.ndarray) -> Mixture:
    return Mixture.from_array(NAMES, shares)


def static_rows(count: int = 24) -> list[dict]:
    rng = np.random.default_rng(0)
    mixtures = rng.dirichlet(np.ones(3), count)
    return [row(Schedule.static(mixture(shares)), rng) for shares in mixtures]


def staged_rows(count: int = 10) -> list[dict]:
    rng = np.random.default_rng(1)
    stages = rng.dirichlet(np.ones(3), (count, 2))
    return [
        row(Schedule.of([(0.8, mixture(early)), (0.2, mixture(late))]), rng)
        for early, late in stages
    ]


def write_study(folder: Path, rows: list[dict], text: str = STUDY) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    RunTable.from_rows(rows).write(folder / "runs.csv")
    (folder / "study.yaml").write_text(text)
    return folder
