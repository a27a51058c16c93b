"""MosaicML Streaming and llm-foundry: the streams of a train loader, and stages as a curriculum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixlaw.errors import ExportError
from mixlaw.files import parse_yaml
from mixlaw.interop.handover import (
    DOCUMENT,
    SAMPLE,
    Exported,
    Handover,
    example_counts,
    example_tokens,
)
from mixlaw.interop.read_back import gather, reading
from mixlaw.interop.snippet import Part, Snippet, by_tokens, realised_shares, yaml_text
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
        folders = _folders(handover)
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
        if handover.schedule.is_static:
            mixture = handover.schedule.dose
            made = _chosen(handover, unit, tokens, sum(counts[0].values()) if counts else None)
            text, realised = made.text(mixture), Schedule.static(realised_shares(made, mixture))
        else:
            text, realised = _curriculum(handover, folders, counts or [])
        return Exported(
            files={FILE: text},
            realised=realised,
            unit=unit,
            how=_HOW,
            notes=tuple(_notes(handover, counts is not None)),
        )

    def snippet(self, handover: Handover) -> Snippet:
        """The streams: with `choose` where the samples of the run are known, whatever the mixture;
        else with `proportion`. Raises: ExportError: as `export`."""
        unit, tokens = example_tokens(handover, "MosaicML Streaming")
        handover.stage_samples("MosaicML Streaming")
        samples = handover.num_samples if unit == SAMPLE else None
        return _chosen(handover, unit, tokens, samples)

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The streams of a train loader, by `choose` or `proportion`, and those of its curriculum.

        Raises: ExportError: it has none, or they are weighted by `repeat`, which needs the data."""
        with reading(path, "a config with the streams of train_loader.dataset, by their names"):
            config = parse_yaml(path.read_text(encoding="utf-8"))
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


def _chosen(
    handover: Handover, unit: str, tokens: Mapping[str, float], examples: int | None
) -> Snippet:
    """The part of an llm-foundry config that says what data to train on, of one mixture.

    Args: examples: of the run, to choose; None: not known, and each stream has its proportion.
    """
    folders, length, batch = _folders(handover), handover.sequence_length, handover.batch_sequences
    loader = "train_loader:\n  name: text\n  dataset:\n"
    loader += "" if length is None else f"    max_seq_len: {length}\n"
    key = "proportion" if examples is None else "choose"
    lines = [
        (yaml_text({name: _place(folder)}, 6) + f"        {key}: ", "\n")
        for name, folder in folders.items()
    ]
    end = "" if batch is None else f"global_train_batch_size: {batch}\n"
    end += "" if examples is None else "max_duration: 1ep\n"
    return Snippet(
        file=FILE,
        entries=by_tokens(tokens),
        parts=(Part(f"seed: {handover.seed}\n{loader}    streams:\n", tuple(lines)),),
        after=f"    shuffle: true\n    shuffle_seed: {handover.seed}\n  drop_last: true\n{end}",
        unit=unit,
        total=10**9 if examples is None else examples,
        digits=9 if examples is None else 0,
        notes=tuple(_notes(handover, examples is not None)[:2]),
    )


def _place(folder: str) -> dict[str, str]:
    return {"remote" if "://" in folder else "local": folder}


def _curriculum(
    handover: Handover, folders: Mapping[str, str], parts: Sequence[Mapping[str, int]]
) -> tuple[str, Schedule]:
    """The same of several mixtures, and what of each domain is drawn in its stages.

    Args: parts: of each stage, domain -> samples.
    """
    length = handover.sequence_length or 1
    datasets: list[dict[str, Any]] = [
        {
            "streams": {n: {**_place(folders[n]), "choose": count} for n, count in part.items()},
            "shuffle": True,
            # Another seed in each stage: with the same, it would choose the same samples again.
            "shuffle_seed": handover.seed + number,
        }
        for number, part in enumerate(parts)
    ]
    sizes = [sum(part.values()) for part in parts]
    later = [
        {"duration": f"{size * length}tok", "dataset": dataset}
        for size, dataset in zip(sizes[1:], datasets[1:], strict=True)
    ]
    first = {"max_seq_len": length, **datasets[0]}
    config = {
        "seed": handover.seed,
        "train_loader": {"name": "text", "dataset": first, "drop_last": True},
        "global_train_batch_size": handover.batch_sequences,
        "max_duration": f"{sum(sizes) * length}tok",
        "callbacks": {
            "curriculum_learning": {"duration": f"{sizes[0] * length}tok", "schedule": later}
        },
    }
    drawn = Schedule.of(
        (size / sum(sizes), Mixture.from_weights(part))
        for size, part in zip(sizes, parts, strict=True)
    )
    return yaml_text(config), drawn


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
