"""mixlaw's export against the real mixture of Levanter: blocks hold what we said, stages begin when
we said."""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import importlib.util
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from levanter.data.dataset import AsyncDataset, ListAsyncDataset

from mixlaw import Mixture, Schedule
from mixlaw.interop.exporters.levanter import Levanter
from mixlaw.interop.handover import Handover

sys.modules["levanter.data"].AsyncDataset = AsyncDataset  # mixture.py imports it from there
from levanter.data.mixture import (  # noqa: E402
    MixtureDataset,
    rescale_mixture_schedule_for_batch_schedule,
)
from levanter.schedule import BatchSchedule  # noqa: E402

WANTED = Mixture({"web": 0.7, "code": 0.299, "a b'[1]\n": 0.001, "none": 0.0})


def loaded(exported):
    """The mixture that Levanter makes of our file, as `LmDataConfig.train_set` does."""
    config = yaml.safe_load(exported.files["levanter_data.yaml"])["data"]
    weights = config["train_weights"]
    if isinstance(weights, list):
        trainer = yaml.safe_load(exported.files["levanter_data.yaml"])["trainer"]
        weights = rescale_mixture_schedule_for_batch_schedule(
            [tuple(stage) for stage in weights], BatchSchedule(trainer["train_batch_size"])
        )
    assert {name for part in _parts(weights) for name in part} <= set(config["components"])
    datasets = {name: ListAsyncDataset([name] * 97) for name in config["components"]}
    return MixtureDataset(
        datasets,
        weights,
        config["mixture_block_size"],
        key=0,
        stop_strategy=config["stop_strategy"],
    )


def _parts(weights):
    return [weights] if isinstance(weights, dict) else [part for _, part in weights]


def draw(mixture, begin, end):
    async def several():
        rows = []
        for at in range(begin, end, 512):
            rows += await mixture.get_batch(list(range(at, min(at + 512, end))))
        return rows

    return Counter(asyncio.run(several()))


def handed(schedule, **more):
    return Handover(schedule, paths={name: (f"gs://c/{name}",) for name in WANTED}, **more)


def test_the_library_is_the_one_we_name():
    assert importlib.metadata.version("marin-levanter") in Levanter.checked


def test_the_settings_of_a_run_are_fields_of_the_configs():
    """Of their source: levanter.main cannot be imported here."""
    exported = Levanter().export(
        handed(
            Schedule.static(WANTED), train_tokens=64 * 800, sequence_length=64, batch_sequences=8
        )
    )
    made = yaml.safe_load(exported.files["levanter_data.yaml"])
    assert set(made) <= fields("main/train_lm.py", "TrainLmConfig")
    assert set(made["trainer"]) <= fields("trainer.py", "TrainerConfig")
    assert set(made["data"]) <= fields("data/text/datasets.py", "LmDataConfig")


def fields(file, name):
    """Of a dataclass."""
    (home,) = importlib.util.find_spec("levanter").submodule_search_locations
    for node in ast.walk(ast.parse((Path(home) / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
    raise LookupError(name)


def test_every_block_holds_exactly_the_realised_shares():
    exported = Levanter().export(handed(Schedule.static(WANTED)))
    mixture = loaded(exported)
    for block in (0, 3):
        counts = draw(mixture, 2048 * block, 2048 * (block + 1))
        assert {name: count / 2048 for name, count in counts.items()} == dict(
            exported.realised.dose
        )
    assert counts["a b'[1]\n"] == 2


def test_any_mixture_comes_out_as_it_was_written():
    rng = np.random.default_rng(0)
    for size in (2, 17, 300):
        shares = rng.dirichlet(np.full(size, 0.3)) + 1e-12
        mixture = Mixture.from_weights({f"d{j}": float(s) for j, s in enumerate(shares)})
        exported = Levanter().export(
            Handover(Schedule.static(mixture), paths={name: (name,) for name in mixture})
        )
        real = loaded(exported)
        (counts,) = real._counts_per_block_per_stage
        named = {name: n / real.block_size for name, n in zip(real.datasets, counts, strict=True)}
        assert named == dict(exported.realised.dose)
        assert min(named.values()) > 0


@pytest.mark.parametrize("batch", [16, 48, 512])
def test_stages_begin_at_their_steps_in_the_real_mixture(batch):
    early = Mixture({"web": 0.9, "code": 0.1})
    schedule = Schedule.of([(0.75, early), (0.25, WANTED)])
    handover = handed(
        schedule, train_tokens=10_000 * batch * 64, sequence_length=64, batch_sequences=batch
    )
    exported = Levanter().export(handover)
    real = loaded(exported)
    length = 10_000 * batch
    begin = round(exported.realised.stages[0].share * length)
    assert begin == pytest.approx(0.75 * length, abs=0.01 * length)
    assert real.weight_stages[1][0] == begin
    for at, stage in zip((0, begin), exported.realised.stages, strict=True):
        counts = draw(real, at, at + real.block_size)
        assert {n: c / real.block_size for n, c in counts.items()} == dict(stage.mixture)
    # the block before the second stage is still of the first
    counts = draw(real, begin - real.block_size, begin)
    assert set(counts) == {"web", "code"}
