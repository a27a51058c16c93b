"""nanotron's data stages, against a schema written after its source: no release has them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixlaw.errors import ExportError
from mixlaw.interop.exporters.megatron import draws, normalised
from mixlaw.interop.exporters.nanotron import Nanotron
from mixlaw.interop.handover import Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

MIXTURE = Mixture({"web": 0.6, "code": 0.4})
STAGED = Schedule.of([(0.8, MIXTURE), (0.2, Mixture({"web": 0.1, "books": 0.9}))])
HANDOVER = Handover(
    Schedule.static(MIXTURE),
    paths={"web": ("/d/web",), "code": ("/d/code",), "books": ("/d/books",)},
    train_tokens=1000 * 4 * 16,
    sequence_length=16,
    batch_sequences=4,
    seed=6,
)


class Strict(BaseModel):
    """As dacite reads with strict=True: no unknown key, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Dataset(Strict):
    """NanosetDatasetsArgs."""

    dataset_folder: list[str]
    dataset_weights: list[float]

    @model_validator(mode="after")
    def alike(self):
        assert len(self.dataset_folder) == len(self.dataset_weights)
        return self


class Data(Strict):
    """DataArgs."""

    dataset: Dataset
    seed: int | None
    num_loading_workers: int | None = 1


class Stage(Strict):
    """DatasetStageArgs."""

    name: str
    start_training_step: int = Field(ge=0)
    data: Data


class Config(Strict):
    """The part of Config that is ours, with its own checks."""

    data_stages: list[Stage]

    @model_validator(mode="after")
    def begin_at_one_and_differ(self):
        starts = [stage.start_training_step for stage in self.data_stages]
        assert min(starts) == 1
        assert len({stage.name for stage in self.data_stages}) == len(starts) == len(set(starts))
        return self


@pytest.mark.parametrize("schedule", [Schedule.static(MIXTURE), STAGED])
def test_files_are_of_the_schema(schedule):
    for text in Nanotron().export(replace(HANDOVER, schedule=schedule)).files.values():
        Config.model_validate(yaml.safe_load(text))


def test_stages_start_at_their_steps_and_leave_out_what_has_no_share():
    exported = Nanotron().export(replace(HANDOVER, schedule=STAGED))
    first, second = yaml.safe_load(exported.files["data_stages.yaml"])["data_stages"]
    assert (first["start_training_step"], second["start_training_step"]) == (1, 801)
    assert second["data"] == {
        "dataset": {"dataset_folder": ["/d/web", "/d/books"], "dataset_weights": [0.1, 0.9]},
        "num_loading_workers": 1,
        "seed": 6,
    }
    begun = yaml.safe_load(exported.files["data_stages_1.yaml"])["data_stages"]
    assert begun == [first]
    assert "train_steps: 800" in exported.how


def test_each_stage_is_drawn_from_the_beginning_of_its_index():
    exported = Nanotron().export(replace(HANDOVER, schedule=STAGED))
    for stage, weights, count in zip(
        exported.realised.stages, [[0.6, 0.4], [0.1, 0.9]], [3200, 800], strict=True
    ):
        drawn = draws(normalised(weights), count)
        assert list(stage.mixture.values()) == [part / count for part in drawn]
        assert stage.share == count / 4000


def test_a_schedule_needs_steps():
    with pytest.raises(ExportError, match="--batch-sequences"):
        Nanotron().export(replace(HANDOVER, schedule=STAGED, batch_sequences=None))
    Nanotron().export(replace(HANDOVER, batch_sequences=None))


def test_a_stage_of_no_step_is_refused():
    with pytest.raises(ExportError, match="would not see stage 2"):
        Nanotron().export(replace(HANDOVER, schedule=STAGED, train_tokens=2 * 4 * 16))


def test_several_folders_are_weighted_by_their_files(tmp_path):
    for name, size in {"a": 600, "b": 200}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.ds").write_bytes(bytes(size))
    paths = {"web": (f"{tmp_path}/a", f"{tmp_path}/b"), "code": ("/d/code",)}
    exported = Nanotron().export(replace(HANDOVER, paths=paths))
    (stage,) = yaml.safe_load(exported.files["data_stages.yaml"])["data_stages"]
    assert stage["data"]["dataset"]["dataset_weights"] == [0.45, 0.15, 0.4]


def config(stages, **more):
    made = [
        {"name": str(start), "start_training_step": start, "data": {"dataset": dataset}}
        for start, dataset in stages
    ]
    return yaml.safe_dump({"data_stages": made, **more})


def test_a_config_with_stages_is_read(tmp_path):
    (tmp_path / "c.yaml").write_text(
        config(
            [
                (76, {"dataset_folder": "s3://b/code/std"}),
                (1, {"dataset_folder": ["/d/web", "/d/code"], "dataset_weights": [3, 1]}),
            ],
            tokens={"train_steps": 100},
        )
    )
    back = Nanotron().read(tmp_path / "c.yaml", ["web", "code"])
    assert back.to_list() == [[0.75, {"web": 0.75, "code": 0.25}], [0.25, {"web": 0, "code": 1}]]


def test_the_weights_of_configs_of_2024_are_read(tmp_path):
    (tmp_path / "c.yaml").write_text(config([(1, {"dataset_folder": {"/d/web": 3, "/d/code": 1}})]))
    back = Nanotron().read(tmp_path / "c.yaml", ["web", "code"])
    assert back.dose == {"web": 0.75, "code": 0.25}


def test_the_batch_that_the_starts_stand_on_is_told():
    assert "* dp: 4\n" in Nanotron().export(HANDOVER).how
    assert "* dp" not in Nanotron().export(replace(HANDOVER, batch_sequences=None)).how


TWO = [(1, {"dataset_folder": "/web"}), (9, {"dataset_folder": "/code"})]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (config([]), "is not a config with data_stages"),
        (config(TWO, tokens=3), "is not a config with data_stages"),
        (config([TWO[0], TWO[0]], tokens={"train_steps": 9}), "two stages start at one step"),
        (config(TWO[1:]), "the first stage starts at step 9, not at 1"),
        ("data_stages: [1\nb: {", r"c.yaml is not .*: line 2, column"),
        (config([(1, {"dataset_folder": ["/web", "/code"]})]), "folders without weights"),
        (config([(1, {"hf_dataset_or_datasets": "c4"})]), "it has no 'dataset_folder'"),
        (config(TWO), "tokens.train_steps is None"),
        (config([(1, {"dataset_folder": "/arts"})]), "names none of the domains"),
    ],
)
def test_other_configs_are_refused(tmp_path, text, told):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ExportError, match=told):
        Nanotron().read(tmp_path / "c.yaml", ["web", "code"])
