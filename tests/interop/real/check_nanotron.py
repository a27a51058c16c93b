"""nanotron's blending, which is Megatron's. Its release on package indexes has no weights: its
stages are checked against a schema, in tests/interop/exporters/test_nanotron.py."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml
from megatron.core.datasets.helpers_cpp import build_blending_indices

from mixlaw.interop.exporters.nanotron import Nanotron
from mixlaw.interop.handover import Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule


def test_the_release_has_neither_stages_nor_weights():
    """As the notes say; when it has, this exporter can be checked against it."""
    assert version("nanotron") == "0.4"
    package = Path(importlib.util.find_spec("nanotron").submodule_search_locations[0])
    source = "".join(path.read_text() for path in (package / "config").glob("*.py"))
    assert "PretrainDatasetsArgs" in source
    assert "data_stages" not in source
    assert "dataset_weights" not in source


@pytest.mark.parametrize("seed", range(8))
def test_a_stage_draws_the_beginning_of_an_index_of_the_whole_run(seed):
    """get_tb_datasets builds each stage's index for all of the run's samples, and its sampler
    begins with the first."""
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(6)]
    parts = [np.round(rng.dirichlet(np.ones(6)), 4) + 1e-4 for _ in range(2)]
    mixtures = [Mixture.from_weights(dict(zip(names, part, strict=True))) for part in parts]
    handover = Handover(
        Schedule.of([(0.7, mixtures[0]), (0.3, mixtures[1])]),
        paths={name: (f"/d/{name}",) for name in names},
        train_tokens=500 * 8 * 16,
        sequence_length=16,
        batch_sequences=8,
    )
    exported = Nanotron().export(handover)
    stages = yaml.safe_load(exported.files["data_stages.yaml"])["data_stages"]
    for stage, count, realised in zip(
        stages, (350 * 8, 150 * 8), exported.realised.stages, strict=True
    ):
        weights = np.array(stage["data"]["dataset"]["dataset_weights"])
        index, within = np.zeros(4000, dtype=np.int16), np.zeros(4000, dtype=np.int64)
        build_blending_indices(index, within, weights / weights.sum(), 6, 4000, False)
        drawn = np.bincount(index[:count], minlength=6) / count
        assert realised.mixture == pytest.approx(dict(zip(names, drawn, strict=True)), abs=1e-15)
