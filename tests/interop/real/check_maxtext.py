"""mixlaw's export against real Grain, mixing ArrayRecord files as MaxText does (its source cannot
be installed here)."""

from __future__ import annotations

import glob
import importlib.metadata
import json
from collections import Counter

import grain
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from mixlaw import Mixture, Schedule
from mixlaw.interop.exporters.maxtext import MaxText, grain_mixture
from mixlaw.interop.handover import Handover

SIZES = {"web": 400, "code": 30, "a b' ,;": 100}
WANTED = Mixture({"web": 0.7, "code": 0.1, "a b' ,;": 0.2, "none": 0.0})


@pytest.fixture
def paths(tmp_path):
    patterns = {}
    for number, (name, size) in enumerate(SIZES.items()):
        for part in range(2):
            writer = ArrayRecordWriter(
                str(tmp_path / f"{number}-{part}.array_record"), "group_size:1"
            )
            for i in range(part, size, 2):
                writer.write(json.dumps([name, i]).encode())
            writer.close()
        patterns[name] = (str(tmp_path / f"{number}-*.array_record"),)
    return patterns


def mixed(exported, num_epoch):
    """What MaxText's get_datasets does with a mixture file."""
    entries = json.loads(exported.files["mixture.json"])
    weights = [float(entry["weight"]) for entry in entries.values()]
    datasets = {}
    for name, entry in entries.items():
        source = grain.sources.ArrayRecordDataSource(glob.glob(entry["path"]))
        data = grain.MapDataset.source(source).shuffle(seed=0).repeat(num_epoch)
        datasets[name] = data.to_iter_dataset()
    shares = {name: weight / sum(weights) for name, weight in zip(entries, weights, strict=True)}
    return grain.IterDataset.mix(datasets, shares)


def test_the_library_is_the_one_we_name():
    assert f"grain {importlib.metadata.version('grain')}" in MaxText.checked


def test_the_records_drawn_are_in_the_realised_proportions(paths):
    handover = Handover(Schedule.static(WANTED), paths=paths, sequence_length=64)
    exported = MaxText().export(handover)
    data = iter(mixed(exported, num_epoch=100))
    counts = Counter(json.loads(next(data))[0] for _ in range(5000))
    for name, share in exported.realised.dose.items():
        assert abs(counts[name] - 5000 * share) < 2


def test_data_end_with_the_first_domain_unless_num_epoch_is_as_we_say(paths):
    available = {name: 64 * size for name, size in SIZES.items()}
    handover = Handover(
        Schedule.static(WANTED),
        paths=paths,
        sequence_length=64,
        train_tokens=1000 * 64,
        available_tokens=available,
    )
    exported = MaxText().export(handover)
    assert "num_epoch=4" in exported.how  # 100 samples of code's 30
    assert len(list(mixed(exported, num_epoch=1))) < 310
    assert len(list(mixed(exported, num_epoch=4))) >= 1000


def test_grain_cuts_any_weights_to_the_whole_numbers_we_say():
    rng = np.random.default_rng(0)
    sources = grain.MapDataset.source([0]).to_iter_dataset()
    for size in (2, 3, 17, 300):
        shares = rng.dirichlet(np.full(size, 0.5)) + 1e-9
        mixture = Mixture.from_weights({f"d{j:03}": float(s) for j, s in enumerate(shares)})
        exported = MaxText().export(
            Handover(
                Schedule.static(mixture),
                paths={name: (f"/d/{name}-*",) for name in mixture},
                sequence_length=8,
            )
        )
        entries = json.loads(exported.files["mixture.json"])
        weights = {name: float(entry["weight"]) for name, entry in entries.items()}
        total = sum(weights.values())
        mix = grain.IterDataset.mix(
            dict.fromkeys(weights, sources), {n: w / total for n, w in weights.items()}
        )
        real = dict(zip(sorted(weights), mix._proportions, strict=True))
        ours = {name: share * sum(real.values()) for name, share in exported.realised.dose.items()}
        assert ours == pytest.approx(real, rel=1e-12)


def test_what_the_inline_form_would_lose():
    weights = {"web": 0.99996, "code": 0.00004}
    assert grain_mixture(weights)["code"] == pytest.approx(4e-5, rel=0.01)
    inline = [round(weight / sum(weights.values()), 4) for weight in weights.values()]
    sources = [grain.MapDataset.source([0]).to_iter_dataset()] * 2
    with pytest.raises(ValueError, match="non-zero"):
        grain.IterDataset.mix(sources, inline)
