"""The study files under examples/ are ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixlaw.study import Study

FILES = sorted((Path(__file__).parents[2] / "examples").glob("*/*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_an_example_is_a_study(file):
    study = Study(file)
    if study.from_table:
        assert len(study.runs()) > 0
        return
    config = study.config
    assert config.target.size is not None
    assert config.target.train_tokens == (
        config.verify.horizon_steps[-1] * config.recipe(config.target.size).tokens_per_step
    )
    assert all(config.longest_tokens(size) > 0 for size in config.training.sizes)


def test_there_are_examples():
    assert len(FILES) >= 3
