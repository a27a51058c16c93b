"""A made-up table of runs with a known law, and studies of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mixlaw.runs import RunTable
from mixlaw.study import Study
from tests.study.sheets import EXPORT, NAMES, OBJECTIVE, TARGET, TOKENS

WORTH = np.array([[3.0, 0.3, 1.0], [0.2, 3.0, 0.3], [0.6, 0.2, 2.0]])


def true_losses(weights: np.ndarray) -> np.ndarray:
    """(n, 3) losses on web, code and books of mixtures (n, 3)."""
    return 2 + (0.1 + np.sqrt(weights + 1e-3) @ WORTH.T) ** -0.7


def made_up_runs(num_runs: int = 24) -> RunTable:
    """Runs with losses and one score, which follows the loss on web."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), num_runs)
    losses = true_losses(weights) + rng.normal(0, 0.002, (num_runs, 3))
    scores = 0.25 + 0.6 / (1 + np.exp(5 * (losses[:, 0] - 2.8)))
    scores += rng.normal(0, 0.003, num_runs)
    return RunTable.from_rows(
        {f"weight/{name}": share for name, share in zip(NAMES, w, strict=True)}
        | {f"loss/{name}": loss for name, loss in zip(NAMES, values, strict=True)}
        | {"score/quiz": score}
        for w, values, score in zip(weights.tolist(), losses.tolist(), scores.tolist(), strict=True)
    )


@pytest.fixture(scope="session")
def fitted_folder(tmp_path_factory) -> Path:
    """A study of the made-up runs with its losses fitted. Copy before use."""
    folder = tmp_path_factory.mktemp("fitted") / "study"
    folder.mkdir()
    made_up_runs().write(folder / "runs.csv")
    (folder / "study.yaml").write_text("table: runs.csv\n" + OBJECTIVE)
    Study(folder).fit()
    return folder


@pytest.fixture
def study_of(fitted_folder, tmp_path):
    """(text of the study file but for its table) -> Study in an own folder."""
    folder = Path(shutil.copytree(fitted_folder, tmp_path / "study"))

    def of(text: str) -> Study:
        (folder / "study.yaml").write_text("table: runs.csv\n" + text)
        return Study(folder)

    return of


@pytest.fixture
def ready(study_of):
    """A study that says all that an export needs."""
    return study_of(OBJECTIVE + TOKENS + TARGET + EXPORT)
