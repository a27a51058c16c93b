"""Hugging Face `datasets`: a plan in JSON, and a module that loads it and interleaves."""

from __future__ import annotations

import glob
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from mixlaw.interop.handover import (
    DOCUMENT,
    Exported,
    Handover,
    example_counts,
    example_tokens,
    in_tokens,
    without_zeros,
)
from mixlaw.interop.read_back import gather, reading
from mixlaw.interop.snippet import Part, Snippet, by_tokens, json_lines
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

FILE = "mixture.json"
_KINDS: Mapping[str, str] = {
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".txt": "text",
}
_COMPRESSED = {".gz", ".zst", ".xz", ".bz2"}


class HuggingFace:
    """`interleave_datasets` draws the domain of every example with its probability: the realised
    shares are expected ones. Stages are each of an exact number of examples of each domain.

    Source: datasets 5.2.0, combine.py, arrow_dataset.py, iterable_dataset.py.
    """

    name = "huggingface"
    what = "Hugging Face datasets: interleave_datasets, as mixture.json and load_mixture.py"
    schedules = True
    checked = "datasets 5.2.0"

    def export(self, handover: Handover) -> Exported:
        """Raises: ExportError: no paths, unknown length of examples, a run shorter than a step, a
        schedule of no known length, or one whose stages are too short."""
        handover.stage_samples("Hugging Face datasets")
        unit, tokens = example_tokens(handover, "Hugging Face datasets")
        if handover.schedule.is_static:
            text = self.snippet(handover).text(handover.schedule.dose)
        else:
            handover.need("Hugging Face datasets to change its mixture", "train_tokens")
            stages = example_counts(handover, unit, tokens, "Hugging Face datasets")
            known = {"domains": _domains(handover), "stages": stages}
            plan = {"unit": unit, "tokens_per_example": tokens, "seed": handover.seed, **known}
            text = json.dumps(plan, indent=2) + "\n"
        plan = json.loads(text)
        notes = [*_about_examples(unit, handover), *_about_ends(plan, handover)]
        module = resources.files("mixlaw.interop.exporters") / "modules" / "load_mixture.py"
        return Exported(
            files={
                FILE: text,
                "load_mixture.py": module.read_text(encoding="utf-8"),
            },
            realised=_drawn(plan),
            unit=unit,
            how=_how(handover, unit),
            notes=tuple(notes),
        )

    def snippet(self, handover: Handover) -> Snippet:
        """The plan, which load_mixture.py reads. Raises: ExportError: as `export`."""
        unit, tokens = example_tokens(handover, "Hugging Face datasets")
        head = f'{{\n  "unit": "{unit}",\n  "seed": {handover.seed},\n'
        ends = '\n  },\n  "stopping_strategy": "all_exhausted",\n'
        weights = tuple((f"    {json.dumps(name)}: ", "") for name in tokens)
        return Snippet(
            file=FILE,
            entries=by_tokens(tokens),
            parts=(
                Part(head + '  "tokens_per_example": {\n', json_lines(tokens, 4), ",\n"),
                Part('\n  },\n  "domains": {\n', json_lines(_domains(handover), 4), ",\n"),
                Part(ends + '  "probabilities": {\n', weights, ",\n"),
            ),
            after="\n  }\n}\n",
            unit=unit,
            total=10**9,  # numpy wants probabilities that sum to 1 within 1.5e-8
            digits=9,
            notes=("load_mixture.py, which reads this file, comes with mixlaw export",),
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The shares of tokens of a mixture.json. Raises: ExportError: it is none of ours."""
        with reading(path, "a mixture.json of an export to huggingface"):
            plan = json.loads(path.read_text(encoding="utf-8"))
            drawn, tokens = _drawn(plan), plan["tokens_per_example"]
            parts = [
                stage.share * sum(share * tokens[name] for name, share in stage.mixture.items())
                for stage in drawn.stages
            ]
            mixtures = [in_tokens(stage.mixture, tokens) for stage in drawn.stages]
            return Schedule.of(
                (part / sum(parts), gather(mixture.items(), domains, str(path)))
                for part, mixture in zip(parts, mixtures, strict=True)
            )


def _domains(handover: Handover) -> dict[str, list[dict[str, Any]]]:
    paths = handover.paths_of(
        "Hugging Face datasets", "files, a local saved folder or the name of a dataset"
    )
    return {name: sources(places) for name, places in paths.items()}


def sources(paths: Sequence[str]) -> list[dict[str, Any]]:
    """What `load_dataset` is to be given for the paths of a domain: files of each kind together, a
    folder, or the name of a dataset, also as "name:configuration"."""
    files: dict[str, list[str]] = {}
    named = []
    for path in paths:
        if kind := file_kind(path):
            # "[1].jsonl" is a name here, and would be a pattern there.
            files.setdefault(kind, []).append(path if set("*?") & set(path) else glob.escape(path))
        elif configured := re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?):([\w.-]+)", path):
            named.append({"path": configured[1], "name": configured[2]})
        else:
            named.append({"path": path})
    return [{"path": kind, "data_files": places} for kind, places in files.items()] + named


def file_kind(path: str) -> str | None:
    """How `load_dataset` calls files of this name; None: it names no file."""
    suffixes = PurePosixPath(path).suffixes
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return _KINDS.get(suffixes[-1]) if suffixes else None


def trainer_arguments(handover: Handover) -> dict[str, int]:
    """What `TrainingArguments` of transformers can be told of a run."""
    steps = {} if handover.num_steps is None else {"max_steps": handover.num_steps}
    return {"seed": handover.seed, **steps}


def _drawn(plan: Mapping[str, Any]) -> Schedule:
    """The shares of examples of a plan, and of its stages."""
    if "stages" not in plan:
        return Schedule.static(Mixture(plan["probabilities"]))
    sizes = [sum(stage.values()) for stage in plan["stages"]]
    return Schedule.of(
        (size / sum(sizes), Mixture.from_weights(stage))
        for size, stage in zip(sizes, plan["stages"], strict=True)
    )


def _about_examples(unit: str, handover: Handover) -> list[str]:
    if unit != DOCUMENT:
        return [
            f"each example is taken for a packed block of {handover.sequence_length} tokens: pack "
            "each domain by itself before it is mixed (prepare=...); if your examples are "
            "documents, give their mean tokens (--document-tokens), or the shares of tokens will "
            "be others"
        ]
    return [
        "the shares are of documents, which are drawn by number and not by length; they give the "
        "wanted shares of tokens if the mean tokens of a document are as given, after the "
        "trainer has cut the long ones"
    ]


def _about_ends(plan: Mapping[str, Any], handover: Handover) -> list[str]:
    """What ends the data, and how often each domain is seen by then."""
    if "stages" in plan:
        return [
            "each stage holds exactly the examples that the plan counts, its domains in random "
            "order; a domain goes on where the stage before left it, and starts anew when it is "
            "used up. The data "
            "come as an IterableDataset of one shard: of a map-style one a trainer shuffles the "
            "stages, and of several shards each loader worker would take some stages",
            _IN_ORDER,
        ]
    notes = [
        "the domain of each example is drawn by lot: the realised shares are expected ones",
        "stopping_strategy is all_exhausted: domains that are used up start anew until the last "
        "is, and the shares hold throughout. The library's default, first_exhausted, stops "
        "silently when the first is, and a longer run repeats the same beginnings; with "
        "all_exhausted_without_replacement the shares drift to the sizes of the domains",
        "load() is shuffled by the trainer; of load(streaming=True): " + _IN_ORDER + ". On several "
        "ranks it draws the domains of all ranks alike where these share its files evenly: give "
        "each domain one file, or do not stream",
    ]
    available = {n: t for n, t in handover.available_tokens.items() if n in handover.domains}
    if len(available) == len(handover.domains):
        shares = without_zeros(handover.schedule.dose)
        lengths = {name: available[name] / share for name, share in shares.items()}
        first, last = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        if (handover.train_tokens or math.inf) <= lengths[first]:
            return notes  # the run ends before any domain is used up
        epochs = {name: lengths[last] / length for name, length in lengths.items()}
        notes.append(
            f"one pass is then about {lengths[last]:,.0f} tokens (until {last!r} is used up): "
            + ", ".join(f"{name!r} {count:.3g} epochs" for name, count in epochs.items())
            + f"; first_exhausted would stop at about {lengths[first]:,.0f} (with {first!r})"
        )
    return notes


_IN_ORDER = (
    "each domain is read in the order of its files, and no trainer shuffles an IterableDataset: "
    "shuffle the files before, or each domain in prepare"
)


def _how(handover: Handover, unit: str) -> str:
    arguments = ", ".join(f"{name}={value}" for name, value in trainer_arguments(handover).items())
    steps = ""
    if handover.num_steps is not None:
        batch, length = handover.batch_sequences, handover.sequence_length
        steps = f", steps of {batch} samples of {length} tokens over all devices"
    load = (
        "load(streaming=True)  # or load(); prepare=f is done to each domain's dataset"
        if unit == DOCUMENT
        else "load(prepare=pack)  # pack: a domain's dataset -> its blocks of tokens"
    )
    return f"""\
# mixture.json and load_mixture.py lie together, in a folder that Python imports from
from load_mixture import load

train_dataset = {load}
# of a Trainer: TrainingArguments({arguments}){steps}"""
