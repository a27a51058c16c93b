from __future__ import annotations

import json
from dataclasses import replace
from typing import Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from mixlaw.errors import ExportError
from mixlaw.interop.exporters.levanter import Levanter
from mixlaw.interop.handover import Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

WANTED = Mixture({"web": 0.7, "code": 0.3})
STAGED = Schedule.of([(0.75, WANTED), (0.25, Mixture({"code": 1.0}))])
PATHS = {"web": ("gs://c/web",), "code": ("gs://c/code",)}


class Strict(BaseModel):
    """As draccus reads: no unknown key."""

    model_config = ConfigDict(extra="forbid", strict=True)


class UrlSource(Strict):
    """UrlDatasetSourceConfig."""

    type: Literal["url"]
    train_urls: list[str]


class Cached(Strict):
    """DatasetComponent, which is what a component without a type is."""

    source: UrlSource | None = None
    cache_dir: str | None = None


class Concat(Strict):
    """ConcatDatasetComponent."""

    type: Literal["concat"]
    children: dict[str, Cached]


class LmDataConfig(Strict):
    """What of it we write; marin-levanter 0.2.20, levanter/data/text/datasets.py."""

    components: dict[str, Cached | Concat]
    train_weights: dict[str, float] | list[tuple[int, dict[str, float]]]
    mixture_block_size: int = Field(lt=2**16)
    stop_strategy: Literal["first_exhausted", "all_exhausted", "restart"]


def config(handover):
    exported = Levanter().export(handover)
    made = yaml.safe_load(exported.files["levanter_data.yaml"])
    data = LmDataConfig.model_validate_json(json.dumps(made["data"]))
    weights = data.train_weights
    for part in [weights] if isinstance(weights, dict) else [part for _, part in weights]:
        assert set(part) <= set(data.components)
        assert sum(part.values()) == 1.0
    return exported, made


def test_weights_are_whole_samples_of_a_block():
    exported, made = config(Handover(Schedule.static(WANTED), PATHS))
    assert made["data"]["mixture_block_size"] == 2048
    assert made["data"]["train_weights"] == {"web": 1434 / 2048, "code": 614 / 2048}
    assert exported.realised.dose == made["data"]["train_weights"]


def test_blocks_grow_for_a_domain_of_less_than_a_sample():
    small = Mixture({"web": 0.9999, "code": 0.0001})
    exported, made = config(Handover(Schedule.static(small), PATHS))
    assert made["data"]["mixture_block_size"] == 16_384
    assert exported.realised.dose["code"] == pytest.approx(0.0001, rel=0.3)


def test_stages_begin_at_steps_that_begin_a_block():
    handover = Handover(
        STAGED, PATHS, train_tokens=64 * 10_000 * 48, sequence_length=64, batch_sequences=48
    )
    exported, made = config(handover)
    (_, first), (start, second) = made["data"]["train_weights"]
    assert start * 48 % made["data"]["mixture_block_size"] == 0
    assert start == pytest.approx(7500, abs=100)
    assert set(first) == {"web", "code"}
    assert second == {"code": 1.0}
    assert made["trainer"] == {"seed": 0, "num_train_steps": 10_000, "train_batch_size": 48}
    assert made["train_seq_len"] == 64
    assert exported.realised.stages[0].share == start / 10_000


def test_short_runs_get_smaller_blocks_for_their_stages():
    handover = Handover(
        STAGED, PATHS, train_tokens=64 * 500 * 16, sequence_length=64, batch_sequences=16
    )
    exported, made = config(handover)
    assert made["data"]["mixture_block_size"] < 512
    assert exported.realised.stages[0].share == pytest.approx(0.75, abs=0.011)


def test_stages_that_could_not_begin_in_time_are_refused():
    handover = Handover(
        STAGED, PATHS, train_tokens=64 * 4 * 33, sequence_length=64, batch_sequences=33
    )
    with pytest.raises(ExportError, match=r"near their times.*--batch-sequences"):
        Levanter().export(handover)


def test_what_every_stage_loses_is_counted_together():
    """Each of two stages begins half a step early or late, in a run of 10."""
    only = [Mixture({name: 1.0}) for name in ("web", "code")]
    schedule = Schedule.of([(0.25, only[0]), (0.25, only[1]), (0.25, only[0]), (0.25, only[1])])
    handover = Handover(
        schedule, PATHS, train_tokens=64 * 10 * 256, sequence_length=64, batch_sequences=256
    )
    with pytest.raises(ExportError, match="near their times"):
        Levanter().export(handover)
    longer = replace(handover, train_tokens=64 * 100 * 256)
    assert [stage.share for stage in Levanter().export(longer).realised.stages] == [0.25] * 4


def test_replicates_have_their_seeds():
    for seed in (0, 1):
        _, made = config(Handover(Schedule.static(WANTED), PATHS, seed=seed))
        assert made["trainer"] == {"seed": seed}


def test_a_run_shorter_than_a_step_is_refused():
    handover = Handover(
        Schedule.static(WANTED), PATHS, train_tokens=100, sequence_length=64, batch_sequences=8
    )
    with pytest.raises(ExportError, match="train longer"):
        Levanter().export(handover)


def test_what_is_raised_to_a_sample_is_said():
    exported, _ = config(Handover(Schedule.static(Mixture({"web": 1 - 1e-9, "code": 1e-9})), PATHS))
    assert any("{'code': '1e-09'}" in note for note in exported.notes)
    exported, _ = config(Handover(Schedule.static(WANTED), PATHS))
    assert not any("raised" in note for note in exported.notes)


def test_stages_need_their_steps():
    with pytest.raises(ExportError, match="--batch-sequences"):
        Levanter().export(Handover(STAGED, PATHS, train_tokens=10**6, sequence_length=64))


def test_text_is_told_from_caches():
    paths = {"a/../b": ("x.jsonl.gz", "y.jsonl"), "two": ("/c/1", "/c/2")}
    mixture = Mixture({"a/../b": 0.5, "two": 0.5})
    _, made = config(Handover(Schedule.static(mixture), paths))
    text = made["data"]["components"]["a/../b"]
    assert text["source"] == {"type": "url", "train_urls": ["x.jsonl.gz", "y.jsonl"]}
    assert text["cache_dir"] == "cache/a%2F%2E%2E%2Fb"  # Levanter would leave its cache folder
    two = made["data"]["components"]["two"]
    assert two == {
        "type": "concat",
        "children": {"0": {"cache_dir": "/c/1"}, "1": {"cache_dir": "/c/2"}},
    }


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("/d/c.csv",), "csv.*does not read"),
        (("/d/x.jsonl", "/d/cache"), "not both"),
    ],
)
def test_paths_that_levanter_would_not_read_are_refused(paths, message):
    with pytest.raises(ExportError, match=message):
        Levanter().export(Handover(Schedule.static(WANTED), {**PATHS, "web": paths}))


@pytest.mark.parametrize("starts", [(0, -1), (0, 5000), (5, 500), (500, 0), (0, 0)])
def test_stages_that_no_run_has_are_not_read(tmp_path, starts):
    path = tmp_path / "levanter.yaml"
    path.write_text(
        f"data: {{train_weights: [[{starts[0]}, {{web: 1}}], [{starts[1]}, {{code: 1}}]]}}\n"
        "trainer: {num_train_steps: 1000}\n"
    )
    with pytest.raises(ExportError, match=r"levanter\.yaml: stages begin at the steps"):
        Levanter().read(path, ["web", "code"])


def test_a_schedule_is_read_back(tmp_path):
    handover = Handover(
        STAGED, PATHS, train_tokens=64 * 4096 * 64, sequence_length=64, batch_sequences=64
    )
    exported, _ = config(handover)
    path = tmp_path / "levanter.yaml"
    path.write_text(exported.files["levanter_data.yaml"])
    back = Levanter().read(path, ["web", "code"])
    for stage, realised in zip(back.stages, exported.realised.stages, strict=True):
        assert stage.share == realised.share
        assert {n: s for n, s in stage.mixture.items() if s} == realised.mixture


def test_a_schedule_without_its_length_is_not_read(tmp_path):
    path = tmp_path / "levanter.yaml"
    path.write_text("train_weights: [[0, {web: 1}], [100, {code: 1}]]\n")
    with pytest.raises(ExportError, match="num_train_steps"):
        Levanter().read(path, ["web", "code"])
    path.write_text("train_weights: {raw/web-v2: 3, raw/code: 1}\n")
    assert Levanter().read(path, ["web", "code"]).dose == {"web": 0.75, "code": 0.25}
