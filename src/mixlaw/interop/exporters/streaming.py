"""MosaicML Streaming and llm-foundry: the streams of a train loader, and stages as a curriculum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mixlaw.errors import ExportError
from mixlaw.interop.handover import (
    DOCUMENT,
    Exported,
    Handover,
    billionths,
    example_counts,
    example_tokens,
    in_examples,
)
from mixlaw.interop.read_back import gather, reading
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

FILE = "streaming.yaml"


class Streaming:
    """Streams with `choose`, their samples in the run, where its length is known: the run is one
    epoch then, and the counts come out as they are. Else with `proportion`, of which an epoch of n
    samples gets int(n * proportion), and what is left goes to streams by lot.

    Source: mosaicml-streaming 0.13.0, stream.py; llm-foundry 0.22.0,
    curriculum_learning_callback.py.
    """

    name = "streaming"
    what = "MosaicML Streaming and llm-foundry: streams, and a CurriculumLearning callback"
    schedules = True
    checked = "mosaicml-streaming 0.13.0 (streams); source of llm-foundry 0.22.0 (curriculum)"

    def export(self, handover: Handover) -> Exported:
        """Raises: ExportError: no paths or several of a domain, samples of unknown length, or a
        schedule of a run of unknown steps or of documents."""
        paths = _folders(handover)
        unit, tokens = example_tokens(handover, "MosaicML Streaming")
        counts = example_counts(handover, unit, tokens, "MosaicML Streaming")
        if not handover.schedule.is_static:
            if unit == DOCUMENT:
                raise ExportError(
                    "llm-foundry times the stages of a curriculum in tokens, and how many are in "
                    "the documents that a stage chooses is not known exactly; write samples of a "
                    "fixed length (convert_dataset_hf.py --concat_tokens) and export without "
                    "--document-tokens, or export each stage's mixture for its part of the run"
                )
            # A stage that were no whole number of batches would go on into a second epoch.
            known = ("train_tokens", "sequence_length", "batch_sequences")
            handover.need("llm-foundry to change its mixture", *known)
        if counts is None:
            parts = [billionths(in_examples(handover.schedule.dose, tokens))]
            streams = [_streams(paths, parts[0], "proportion")]
        else:
            parts = counts
            streams = [_streams(paths, part, "choose") for part in parts]
        config = _config(handover, streams, parts)
        sizes = [sum(part.values()) for part in parts]
        return Exported(
            files={FILE: yaml.safe_dump(config, sort_keys=False, allow_unicode=True)},
            realised=Schedule.of(
                (size / sum(sizes), Mixture.from_weights(part))
                for size, part in zip(sizes, parts, strict=True)
            ),
            unit=unit,
            how=_HOW,
            notes=tuple(_notes(handover, counts is not None)),
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The streams of a train loader, by `choose` or `proportion`, and those of its curriculum.

        Raises: ExportError: it has none, or they are weighted by `repeat`, which needs the data."""
        with reading(path, "a config with the streams of train_loader.dataset, by their names"):
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
            first = config["train_loader"]["dataset"]
            callback = (config.get("callbacks") or {}).get("curriculum_learning")
            if callback is None:
                return Schedule.static(_shares(first["streams"], domains, str(path)))
            stages = [{"duration": callback["duration"], "dataset": first}, *callback["schedule"]]
            tokens = [int(stage["duration"].removesuffix("tok")) for stage in stages]
            return Schedule.of(
                (count / sum(tokens), _shares(stage["dataset"]["streams"], domains, str(path)))
                for count, stage in zip(tokens, stages, strict=True)
            )


def _folders(handover: Handover) -> dict[str, str]:
    paths = handover.paths_of("MosaicML Streaming", "a folder or address of MDS shards")
    for name, places in paths.items():
        if len(places) > 1:
            raise ExportError(
                f"{name!r} has {len(places)} folders, and how many samples each holds is not "
                "known; merge their indices (streaming.base.util.merge_index) and give the one"
            )
    return {name: places[0] for name, places in paths.items()}


def _streams(
    paths: Mapping[str, str], weights: Mapping[str, float], key: str
) -> dict[str, dict[str, Any]]:
    return {
        name: {"remote" if "://" in paths[name] else "local": paths[name], key: weight}
        for name, weight in weights.items()
    }


def _config(
    handover: Handover,
    streams: Sequence[Mapping[str, Any]],
    parts: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """The part of an llm-foundry config that says what data to train on."""
    length = handover.sequence_length
    datasets = [
        # Another seed in each stage: with the same, it would choose the same samples again.
        {"streams": dict(part), "shuffle": True, "shuffle_seed": handover.seed + number}
        for number, part in enumerate(streams)
    ]
    if length is not None:
        datasets[0] = {"max_seq_len": length, **datasets[0]}
    loader = {"name": "text", "dataset": datasets[0], "drop_last": True}
    config: dict[str, Any] = {"seed": handover.seed, "train_loader": loader}
    if handover.batch_sequences is not None:
        config["global_train_batch_size"] = handover.batch_sequences
    if "choose" in next(iter(streams[0].values())):
        config["max_duration"] = "1ep"
    if len(datasets) > 1 and length is not None:
        tokens = [int(sum(part.values())) * length for part in parts]
        later = zip(tokens[1:], datasets[1:], strict=True)
        config["max_duration"] = f"{sum(tokens)}tok"
        config["callbacks"] = {
            "curriculum_learning": {
                "duration": f"{tokens[0]}tok",
                "schedule": [{"duration": f"{n}tok", "dataset": dataset} for n, dataset in later],
            }
        }
    return config


def _shares(streams: Mapping[str, Any], domains: Sequence[str], where: str) -> Mixture:
    """By the names of the streams, which are all weighted by `choose` or all by `proportion`."""
    for key in ("choose", "proportion"):
        if all(key in stream for stream in streams.values()):
            return gather([(n, stream[key]) for n, stream in streams.items()], domains, where)
    raise ExportError(
        f"{where}: neither choose nor proportion weighs all of the streams {list(streams)}; what "
        "shares they have depends on how many samples each holds"
    )


def _notes(handover: Handover, chosen: bool) -> list[str]:
    notes = [
        "an epoch is the whole run (choose): do not set epoch_size, which StreamingDataset refuses "
        "beside it"
        if chosen
        else "the length of the run is not known: set epoch_size to its samples, or each epoch, of "
        "as many samples as the folders hold, draws anew from the domains that it does not use up",
        "shuffle must stay on: without it the streams come one after the other",
    ]
    if not handover.schedule.is_static:
        notes.append(
            "each stage opens its streams anew and chooses its samples by its own seed: a domain "
            "of several stages may see some samples twice before it has seen all; give a stage "
            "folders of its own where that matters"
        )
    return notes


_HOW = f"""\
# llm-foundry: put the sections of {FILE} into your config, and
composer train.py your_config.yaml
# or, in your own loop (the first stage):
#   config = yaml.safe_load(open("{FILE}"))["train_loader"]["dataset"]
#   streams = [Stream(**known) for known in config["streams"].values()]
#   StreamingDataset(streams=streams, shuffle=True, shuffle_seed=config["shuffle_seed"],
#                    batch_size=...)"""
