"""The example with a trainer that is not ours: Hugging Face `transformers` and `datasets`."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest

from mixlaw import Study

EXAMPLE = Path(__file__).parents[3] / "examples/foreign-trainer"
DOMAINS = ["docs", "python", "tests", "cpp", "data"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "study"
    done = subprocess.run(
        [sys.executable, EXAMPLE / "loop.py", folder, "--short"], capture_output=True, text=True
    )
    log = folder / "trainer.log"
    assert done.returncode == 0, (
        done.stdout + done.stderr + (log.read_text()[-4000:] if log.exists() else "")
    )
    return folder


def logged(run: Path) -> dict[str, float]:
    """What Trainer wrote last of each of its numbers."""
    state = json.loads((run / "seed-0/trainer_state.json").read_text())
    return {name: value for entry in state["log_history"] for name, value in entry.items()}


def test_rows_that_came_by_files_are_what_trainer_logged(folder):
    runs = {row["run"]: row for row in Study(folder).runs().rows()}
    planned = [json.loads(line) for line in (folder / "runs/runs.jsonl").read_text().splitlines()]
    assert len(planned) == 7
    for plan in planned:
        row, run = runs[plan["run"]], folder / "runs" / plan["run"]
        told = json.loads((run / "mixture.json").read_text())["probabilities"]
        assert [row[f"weight/{d}"] for d in DOMAINS] == pytest.approx(
            [told.get(d, 0.0) for d in DOMAINS], abs=1e-12
        )
        assert row["train_tokens"] == logged(run)["num_input_tokens_seen"]
        for target in (*DOMAINS, "cython"):
            assert row[f"loss/{target}"] == pytest.approx(logged(run)[f"eval_{target}_loss"])


def test_rows_that_were_told_are_what_trainer_logged(folder):
    rows = [row for row in Study(folder).runs().rows() if row["run"].startswith("told")]
    runs = sorted((folder / "asked").iterdir())
    assert len(rows) == len(runs) == 2
    for row, run in zip(rows, runs, strict=True):
        assert row["train_tokens"] == logged(run)["num_input_tokens_seen"]
        assert row["loss/cython"] == logged(run)["eval_cython_loss"]
    assert json.loads((folder / "asked.json").read_text()) == []


def test_the_trainer_draws_the_mixture_of_the_table(folder, monkeypatch):
    monkeypatch.chdir(folder)
    home = {
        tuple(block): name
        for name in DOMAINS
        for block in datasets.load_from_disk(f"data/{name}/train")["input_ids"]
    }
    row = next(row for row in Study(folder).runs().rows() if row["run"].startswith("ask-"))
    load = runpy.run_path(f"runs/{row['run']}/load_mixture.py")["load"]
    blocks = load(prepare=lambda part: part.shuffle(seed=0).to_iterable_dataset()).take(4000)
    counts = Counter(home[tuple(block["input_ids"])] for block in blocks)
    shares = np.array([row[f"weight/{name}"] for name in DOMAINS])
    drawn = np.array([counts[name] for name in DOMAINS]) / 4000
    assert (np.abs(drawn - shares) < 4 * np.sqrt(shares * (1 - shares) / 4000)).all()


def test_importing_again_changes_nothing(folder):
    table = (folder / "runs.csv").read_bytes()
    (done,) = Study(folder).import_again()
    assert len(done.taken.same) == 7
    assert not done.taken.added
    assert not done.taken.changed
    assert (folder / "runs.csv").read_bytes() == table


def test_the_decision_is_trained_beside_its_forecast(folder):
    result = json.loads((folder / "result.json").read_text())
    assert result["runs"] == 9
    assert sum(result["mixture"].values()) == pytest.approx(1)
    for name in ("recommended", "uniform"):
        (trained,) = result["trained"][name].values()
        # Far from zero and from the 6.93 nats of a model that knows nothing.
        assert trained == pytest.approx([result["forecast"][name]["value"]], abs=0.3)
