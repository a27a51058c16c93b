"""Hugging Face `datasets`: a plan in JSON, and a module that loads it and interleaves."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from mixlaw.errors import ExportError
from mixlaw.interop.handover import (
    DOCUMENT,
    Exported,
    Handover,
    apportion,
    example_counts,
    example_tokens,
    in_examples,
    in_tokens,
    without_zeros,
)
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

_UNIT = 10**9
"""Probabilities are multiples of 1 / this: numpy wants them to sum to 1 within 1.5e-8."""

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
        """Raises: ExportError: no paths, unknown length of examples, a schedule of no known length,
        or one whose stages are too short."""
        paths = handover.paths_of(
            "Hugging Face datasets", "files, a saved folder or the name of a dataset"
        )
        unit, tokens = example_tokens(handover, "Hugging Face datasets")
        plan: dict[str, Any] = {
            "unit": unit,
            "tokens_per_example": tokens,
            "seed": handover.seed,
            "domains": {name: sources(places) for name, places in paths.items()},
        }
        if handover.schedule.is_static:
            plan |= _static(in_examples(handover.schedule.dose, tokens))
        else:
            handover.need("Hugging Face datasets to change its mixture", "train_tokens")
            plan["stages"] = example_counts(handover, unit, tokens, "Hugging Face datasets")
        notes = [*_about_examples(unit, handover), *_about_ends(plan, handover)]
        module = resources.files("mixlaw.interop.exporters").joinpath("load_mixture.py")
        return Exported(
            files={
                "mixture.json": json.dumps(plan, indent=2) + "\n",
                "load_mixture.py": module.read_text(encoding="utf-8"),
            },
            realised=_drawn(plan),
            unit=unit,
            how=_HOW_BLOCKS if unit != DOCUMENT else _HOW_DOCUMENTS,
            notes=tuple(notes),
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The shares of tokens of a mixture.json. Raises: ExportError: it is none of ours."""
        try:
            plan = json.loads(path.read_text(encoding="utf-8"))
            drawn, tokens = _drawn(plan), plan["tokens_per_example"]
            parts = [
                stage.share * sum(share * tokens[name] for name, share in stage.mixture.items())
                for stage in drawn.stages
            ]
            found = Schedule.of(
                (part / sum(parts), in_tokens(stage.mixture, tokens))
                for part, stage in zip(parts, drawn.stages, strict=True)
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExportError(
                f"{path} is no mixture.json of an export to huggingface: {error}"
            ) from error
        if not set(domains) & set(found.domains):
            raise ExportError(
                f"{path} is of {list(found.domains)}; none is a domain here: {list(domains)}"
            )
        return found


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


def _static(examples: Mixture) -> dict[str, Any]:
    counts = apportion(examples, _UNIT)
    return {
        "stopping_strategy": "all_exhausted",
        "probabilities": {name: count / _UNIT for name, count in counts.items()},
    }


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
            "each stage holds exactly the examples that the plan counts, in random order; a domain "
            "goes on where the stage before left it, and starts anew when it is used up. The data "
            "come as an IterableDataset of one shard: of a map-style one a trainer shuffles the "
            "stages, and of several shards each loader worker would take some stages"
        ]
    notes = [
        "the domain of each example is drawn by lot: the realised shares are expected ones",
        "stopping_strategy is all_exhausted: domains that are used up start anew until the last "
        "is, and the shares hold throughout. The library's default, first_exhausted, stops "
        "silently when the first is, and a longer run repeats the same beginnings; with "
        "all_exhausted_without_replacement the shares drift to the sizes of the domains",
    ]
    available = {n: t for n, t in handover.available_tokens.items() if n in handover.domains}
    if len(available) == len(handover.domains):
        shares = without_zeros(handover.schedule.dose)
        lengths = {name: available[name] / share for name, share in shares.items()}
        first, last = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        epochs = {name: lengths[last] / length for name, length in lengths.items()}
        notes.append(
            f"one pass is then about {lengths[last]:,.0f} tokens (until {last!r} is used up): "
            + ", ".join(f"{name!r} {count:.3g} epochs" for name, count in epochs.items())
            + f"; first_exhausted would stop at about {lengths[first]:,.0f} (with {first!r})"
        )
    return notes


_HOW_DOCUMENTS = """\
# mixture.json and load_mixture.py lie together, in a folder that Python imports from
from load_mixture import load

train_dataset = load(streaming=True)  # or load(); prepare=f is done to each domain's dataset"""

_HOW_BLOCKS = """\
# mixture.json and load_mixture.py lie together, in a folder that Python imports from
from load_mixture import load

train_dataset = load(prepare=pack)  # pack: a domain's dataset -> its blocks of tokens"""
