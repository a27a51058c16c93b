"""Levanter and Marin: the data section of a config, with native schedules."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mixlaw.errors import ExportError
from mixlaw.files import parse_yaml
from mixlaw.interop.exporters.huggingface import file_kind
from mixlaw.interop.handover import SAMPLE, Exported, Handover, apportion, without_zeros
from mixlaw.interop.read_back import gather, reading
from mixlaw.interop.snippet import Part, Snippet, whole, yaml_key, yaml_text
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

FILE = "levanter_data.yaml"
_BLOCK, _LARGEST, _SMALLEST = 2048, 2**15, 128
"""Samples of a block: Levanter's default, the largest power of two that it takes, and the smallest
that a schedule makes it."""
_ASTRAY = 0.05
"""Of a run: with more of its samples on another domain than at their time, a schedule is another
one."""
_TEXTS = {"json", "text", "parquet"}
"""The kinds of files that Levanter makes a cache of."""


class Levanter:
    """A block of `mixture_block_size` samples (2048) holds the same number of each domain, in
    random order: int(weight * size), and what is left goes to the largest domain. Weights here are
    multiples of 1 / size by largest remainder, and come out as they are. Stages of `train_weights`
    begin at a training step, which must begin a block, too.

    Source: marin-levanter 0.2.20, levanter/data/mixture.py and levanter/data/text/datasets.py.
    """

    name = "levanter"
    what = "Levanter and Marin: the data section of a config (components, train_weights)"
    schedules = True
    checked = "marin-levanter 0.2.20.dev202606180959 (its mixture; config after its source)"

    def export(self, handover: Handover) -> Exported:
        """Raises: ExportError: no paths, or some of a domain that Levanter does not read, more
        domains than samples in a block, a run of no step, a schedule of unknown steps, or with
        stages that are shorter than a block."""
        components = _components(handover)
        handover.stage_samples("Levanter")
        starts, length, block = [0], handover.num_steps or 1, _static_block(handover)
        if not handover.schedule.is_static:
            starts, block = _timing(handover)
        counts = [apportion(stage.mixture, block) for stage in handover.schedule.stages]
        weights = [{name: count / block for name, count in part.items()} for part in counts]
        if handover.schedule.is_static:
            text = self.snippet(handover).text(handover.schedule.dose)
        else:
            stages = [[start, part] for start, part in zip(starts, weights, strict=True)]
            data = {"components": components, "train_weights": stages, **_ending(block)}
            text = yaml_text({**_run(handover), "data": data})
        ends = [*starts[1:], length]
        return Exported(
            files={FILE: text},
            realised=Schedule.of(
                ((end - start) / length, Mixture(part))
                for start, end, part in zip(starts, ends, weights, strict=True)
            ),
            unit=SAMPLE,
            how=f"# put the sections of {FILE} into your config, beside its model and tokenizer\n"
            "python -m levanter.main.train_lm --config_path your_config.yaml",
            notes=tuple(_notes(handover, starts, block, counts)),
        )

    def snippet(self, handover: Handover) -> Snippet:
        """The sections of a config. Raises: ExportError: as `export`."""
        components, block = _components(handover), _static_block(handover)
        known = tuple((yaml_text({name: part}, 4),) for name, part in components.items())
        weights = tuple((yaml_key(name, 4), "\n") for name in components)
        return Snippet(
            file=FILE,
            entries=whole(list(components)),
            parts=(
                Part(yaml_text(_run(handover)) + "data:\n  components:\n", known),
                Part("  train_weights:\n", weights),
            ),
            after=yaml_text(_ending(block), 2),
            unit=SAMPLE,
            total=block,
            digits=block.bit_length() - 1,  # as many as a power of two has, so they are exact
            notes=(f"weights are of samples, in {block} to a block, and multiples of 1/{block}",),
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """`train_weights` of a config, in `data` or by themselves; those of a schedule need
        `trainer.num_train_steps`, too. Raises: ExportError: there are none, or no steps."""
        what = (
            "a config with train_weights (domain -> weight; or stages of them, beside "
            "trainer.num_train_steps)"
        )
        with reading(path, what):
            config = parse_yaml(path.read_text(encoding="utf-8"))
            given = config.get("data", config)["train_weights"]
            if isinstance(given, dict):
                return Schedule.static(gather(given.items(), domains, str(path)))
            starts = [int(start) for start, _ in given]
            mixtures = [gather(weights.items(), domains, str(path)) for _, weights in given]
            if len(mixtures) == 1:
                return Schedule.static(mixtures[0])
            length = int(config["trainer"]["num_train_steps"])
            if starts[0] != 0 or starts != sorted({*starts}) or starts[-1] >= length:
                raise ExportError(
                    f"{path}: stages begin at the steps {starts} of {length}; the first must begin "
                    "at 0, and each later than the one before"
                )
            return Schedule.of(
                ((end - start) / length, mixture)
                for start, end, mixture in zip(starts, [*starts[1:], length], mixtures, strict=True)
            )


def _static_block(handover: Handover) -> int:
    """The default; larger where a domain would get no sample of it."""
    smallest = min(without_zeros(handover.schedule.dose).values())
    block = _BLOCK
    while smallest * block < 1 and block < _LARGEST:
        block *= 2
    return block


def _timing(handover: Handover) -> tuple[list[int], int]:
    """The steps at which stages begin, and the samples of a block: at most as many as without
    stages, and as many as send fewest samples astray."""
    handover.need("Levanter", "train_tokens", "sequence_length", "batch_sequences")
    samples, batch = handover.stage_samples("Levanter") or [], handover.batch_sequences or 1
    schedule, length = handover.schedule, sum(samples)
    most = max(len(without_zeros(stage.mixture)) for stage in schedule.stages)
    astray: dict[int, float] = {}
    begun: dict[int, list[int]] = {}
    block = _static_block(handover)
    while block >= max(_SMALLEST, most):
        grid = math.lcm(block, batch)
        starts = [round(sum(samples[:i]) / grid) * grid for i in range(len(samples))]
        if all(start < end for start, end in itertools.pairwise([*starts, length])):
            counts = [apportion(stage.mixture, block) for stage in schedule.stages]
            astray[block] = _astray(schedule, [start / length for start in starts], counts)
            begun[block] = starts
        block //= 2
    best = min(astray, key=astray.__getitem__, default=0)
    if not best or astray[best] > _ASTRAY:
        raise ExportError(
            f"Levanter begins a stage where a block of samples and an optimiser step (of {batch}) "
            f"begin together, and this run has {length:,} samples: its stages could not "
            "begin near their times; give more --train-tokens, a --batch-sequences that is a power "
            "of two, or fewer stages or domains"
        )
    return [start // batch for start in begun[best]], best


def _astray(
    wanted: Schedule, starts: Sequence[float], counts: Sequence[Mapping[str, int]]
) -> float:
    """The part of a run's samples that are of other domains than they should be at their time.

    Args: starts, counts: of the stages as they are drawn; parts of the run, samples of a block.
    """
    astray = 0.0
    for begin, end in itertools.pairwise(sorted({*wanted.starts, *starts, 1.0})):
        should = wanted.stages[bisect.bisect(wanted.starts, begin) - 1].mixture
        drawn = counts[bisect.bisect(starts, begin) - 1]
        block = sum(drawn.values())
        names = {*should, *drawn}
        moved = sum(abs(should.get(name, 0.0) - drawn.get(name, 0) / block) for name in names)
        astray += (end - begin) * moved / 2
    return astray


def _run(handover: Handover) -> dict[str, Any]:
    """What a config says beside its data, of what is known."""
    trainer = {"seed": handover.seed}
    if handover.num_steps is not None and handover.batch_sequences is not None:
        trainer["num_train_steps"] = handover.num_steps
        trainer["train_batch_size"] = handover.batch_sequences
    length = handover.sequence_length
    return {"trainer": trainer} | ({} if length is None else {"train_seq_len": length})


def _ending(block: int) -> dict[str, Any]:
    return {"mixture_block_size": block, "stop_strategy": "restart"}


def _components(handover: Handover) -> dict[str, dict[str, Any]]:
    paths = handover.paths_of("Levanter", "a cache folder or text files")
    return {name: _component(name, places) for name, places in paths.items()}


def _component(name: str, places: Sequence[str]) -> dict[str, Any]:
    """Text files, or a cache folder; several folders are one component, by their sizes."""
    kinds = [file_kind(place) for place in places]
    if unread := {*kinds} - {None, *_TEXTS}:
        raise ExportError(
            f"{name!r} has {sorted(filter(None, unread))} files, which Levanter does not read; "
            "give .jsonl, .json, .txt or .parquet, or the folder of a cache that it built"
        )
    if None in kinds and any(kinds):
        raise ExportError(
            f"the paths of {name!r} are {list(places)}; Levanter reads text files or cache folders "
            "as one domain, not both: give the one or the other"
        )
    if all(kinds):
        component: dict[str, Any] = {"source": {"type": "url", "train_urls": list(places)}}
        if "/" in name or name.startswith("."):  # Levanter makes a folder of this name
            component["cache_dir"] = "cache/" + quote(name, safe="").replace(".", "%2E")
        return component
    if len(places) == 1:
        return {"cache_dir": places[0]}
    return {
        "type": "concat",
        "children": {str(i): {"cache_dir": place} for i, place in enumerate(places)},
    }


def _notes(
    handover: Handover, starts: Sequence[int], block: int, counts: Sequence[Mapping[str, int]]
) -> list[str]:
    notes = [
        f"weights are of samples, in {block} to a block; a domain that is used up starts anew "
        "(stop_strategy restart)"
    ]
    raised = {
        name: f"{stage.mixture[name]:.3g}"
        for stage, part in zip(handover.schedule.stages, counts, strict=True)
        for name, count in part.items()
        if stage.mixture[name] * block < 0.5 * count
    }
    if raised:
        notes.append(
            f"a share of less than half a sample is raised to one of {block}, {1 / block:.2g}: "
            f"{raised}"
        )
    if len(starts) > 1:
        wanted = [round(s * (handover.num_steps or 0)) for s in handover.schedule.starts]
        notes.append(
            f"stages begin at steps {list(starts)}, for {wanted} wanted: train_weights counts "
            "optimiser steps here (MixtureDataset itself: samples), and a stage must begin a "
            "block; keep train_batch_size as it is"
        )
    samples = handover.num_samples
    if samples is not None and samples < 4 * block:
        notes.append(
            f"the run has only {samples:,} samples, {samples / block:.2g} blocks: what its last, "
            "begun block holds is left to chance"
        )
    if any(file_kind(place) is None for places in handover.paths.values() for place in places):
        notes.append("a cache folder is one that Levanter built; it holds train/ and validation/")
    return notes
