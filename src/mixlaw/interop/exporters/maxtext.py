"""MaxText, which reads with Grain: a mixture file."""

from __future__ import annotations

import json
import math
import posixpath
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixlaw.errors import ExportError
from mixlaw.interop.handover import (
    DOCUMENT,
    Exported,
    Handover,
    example_tokens,
    refuse_schedule,
)
from mixlaw.interop.read_back import gather, reading
from mixlaw.interop.snippet import Part, Snippet, by_tokens
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

FILE = "mixture.json"


class MaxText:
    """Grain mixes records by whole numbers: it scales the weights until the smallest is 100, cuts
    off what is behind the point, and draws the domains in a fixed order in just these proportions.
    (Weights inside `grain_train_files` are rounded to 4 decimals before that, and a domain below
    0.00005 is an error.) A path is a folder, of whose files all are read, or a pattern with * or ?
    in its last part.

    Source: AI-Hypercomputer/maxtext 003d719, input_pipeline/grain_data_processing.py; grain 0.2.18,
    transformations/mix.py.
    """

    name = "maxtext"
    what = "MaxText with Grain: the file of grain_train_mixture_config_path"
    schedules = False
    checked = "grain 0.2.18 (its mixing); source of MaxText 003d719 (the file)"

    def export(self, handover: Handover) -> Exported:
        """Raises: ExportError: no paths, several of a domain, or one that MaxText would not expand;
        records of unknown length; a schedule, or a run shorter than a step."""
        mixture = refuse_schedule(
            handover,
            "MaxText",
            "export each stage's mixture for its part of the run: it can go on from a checkpoint "
            "with another mixture file, if the domains keep their names",
        )
        snippet = self.snippet(handover)
        return Exported(
            files={FILE: snippet.text(mixture)},
            realised=Schedule.static(grain_mixture(dict(snippet.numbers(mixture)))),
            unit=snippet.unit,
            how=_how(handover),
            notes=tuple(_notes(handover, snippet.unit)),
        )

    def snippet(self, handover: Handover) -> Snippet:
        """The mixture file. Raises: ExportError: as `export`."""
        patterns = _patterns(handover)
        unit, tokens = example_tokens(handover, "MaxText")
        lines = [
            (f'  {json.dumps(name)}: {{"path": {json.dumps(pattern)}, "weight": ', "}")
            for name, pattern in patterns.items()
        ]
        return Snippet(
            file=FILE,
            entries=by_tokens(tokens),
            parts=(Part("{\n", tuple(lines), ",\n"),),
            after="\n}\n",
            unit=unit,
            total=10**9,
            digits=9,
            notes=(
                "Grain ends the data when the first domain is used up: num_epoch must be at least "
                "the epochs of the most repeated one",
            ),
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The weights of a mixture file, by its names. Raises: ExportError: it is none."""
        with reading(path, "a mixture file of MaxText (JSON: name -> path and weight)"):
            entries: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            weights = [(name, entry["weight"]) for name, entry in entries.items()]
        return Schedule.static(gather(weights, domains, str(path)))


def _patterns(handover: Handover) -> dict[str, str]:
    """Raises: ExportError: none, several of a domain, or one that MaxText would not expand."""
    paths = handover.paths_of("MaxText", "a folder or pattern of ArrayRecord files")
    for name, (path, *others) in paths.items():
        if others:
            raise ExportError(
                f"{name!r} has {1 + len(others)} paths, and MaxText takes one pattern of files "
                "for each; give one with *, such as /data/web/*.array_record"
            )
        if set("*?") & set(posixpath.dirname(path)):
            raise ExportError(
                f"the path of {name!r} is {path!r}; MaxText expands * and ? in the last "
                "part alone, and looks for a folder of just this name: give one folder"
            )
    return {name: path for name, (path,) in paths.items()}


def grain_mixture(weights: Mapping[str, float]) -> Mixture:
    """What Grain makes of weights, with its own floating-point steps."""
    total = sum(weights.values())
    shares = {name: weight / total for name, weight in weights.items()}
    scale = 100 / min(shares.values())
    return Mixture.from_weights({name: int(share * scale) for name, share in shares.items()})


def _epochs(handover: Handover) -> int | None:
    """Passes over the domain that is used up most often; None: unknown."""
    available = handover.available_tokens
    if handover.train_tokens is None or not all(name in available for name in handover.domains):
        return None
    shares = handover.schedule.dose
    return math.ceil(
        max(shares[name] * handover.train_tokens / available[name] for name in handover.domains)
        # Grain's own rounding may need a little more of a domain.
        * 1.01
    )


def _how(handover: Handover) -> str:
    settings = [
        "dataset_type=grain",
        "grain_file_type=arrayrecord",
        f"grain_train_mixture_config_path={FILE}",
        f"data_shuffle_seed={handover.seed}",
        f"init_weights_seed={handover.seed}",
        f"num_epoch={_epochs(handover) or '...'}",
        f"run_name={handover.name}",
    ]
    if handover.sequence_length is not None:
        settings.append(f"max_target_length={handover.sequence_length}")
    if handover.num_steps is not None:
        settings += [f"steps={handover.num_steps}", "per_device_batch_size=..."]
    base = "src/maxtext/configs/base.yml"
    return " \\\n  ".join(
        [f"python3 -m maxtext.trainers.pre_train.train {base}", *map(shlex.quote, settings)]
    )


def _notes(handover: Handover, unit: str) -> list[str]:
    epochs = _epochs(handover)
    known = (
        f"{epochs} is enough here"
        if epochs
        else "it must be at least the epochs of the most repeated domain"
    )
    notes = [
        "Grain ends the data when the first domain is used up, and num_epoch says how often each "
        f"may be read: {known}",
        "of a folder MaxText reads all files; it expands * and ? in the last part of a path",
    ]
    if handover.num_steps is not None:
        notes.append(
            f"steps are of {handover.batch_sequences} samples: per_device_batch_size (times "
            "gradient_accumulation_steps) is that number over the devices"
        )
    if unit == DOCUMENT:
        notes.append(
            "records are mixed before they are cut and packed, so the weights are of documents; "
            "they give the wanted shares of tokens if the mean tokens of a document are as given"
        )
    else:
        notes.append(
            f"each record is taken for {handover.sequence_length} tokens; if it is a document, "
            "give --document-tokens, or the shares of tokens will be others"
        )
    return notes
