"""TRL: the `datasets` of a script's config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixlaw.errors import ExportError
from mixlaw.files import parse_yaml
from mixlaw.interop.exporters.huggingface import sources, trainer_arguments
from mixlaw.interop.handover import (
    DOCUMENT,
    Exported,
    Handover,
    example_tokens,
    refuse_schedule,
    without_zeros,
)
from mixlaw.interop.read_back import gather, reading
from mixlaw.interop.snippet import Part, Snippet, by_tokens, realised_shares, yaml_text
from mixlaw.schedule import Schedule

FILE = "trl_datasets.yaml"


class Trl:
    """`fraction` is a dataset's share of the mixture's rows. The mixture is as large as it can be
    without repeating a row: the first round(fraction * rows) rows of each dataset, one dataset
    after the other, for the trainer to shuffle.

    Source: trl 1.16.0, scripts/utils.py.
    """

    name = "trl"
    what = "TRL: the datasets, seed and length of a script's config (DatasetMixtureConfig)"
    schedules = False
    checked = "trl 1.16.0"

    def export(self, handover: Handover) -> Exported:
        """Raises: ExportError: no paths, or several of a domain that are not files of one kind;
        examples of unknown length; a schedule, or a run shorter than a step."""
        mixture = refuse_schedule(
            handover, "TRL", "export each stage's mixture, and train it from the one before"
        )
        snippet = self.snippet(handover)
        return Exported(
            files={FILE: snippet.text(mixture)},
            realised=Schedule.static(realised_shares(snippet, mixture)),
            unit=snippet.unit,
            how=f"# put the sections of {FILE} into your config, and\n"
            "trl sft --config your_config.yaml",
            notes=tuple(_notes(handover, snippet.unit)),
        )

    def snippet(self, handover: Handover) -> Snippet:
        """The datasets. Raises: ExportError: as `export`."""
        paths = handover.paths_of("TRL", "files or the name of a dataset")
        unit, tokens = example_tokens(handover, "TRL")
        lines = [
            (yaml_text([_source(name, places)]) + "  fraction: ", "\n")
            for name, places in paths.items()
        ]
        arguments: dict[str, Any] = trainer_arguments(handover)
        if handover.sequence_length is not None:
            arguments["max_length"] = handover.sequence_length
        return Snippet(
            file=FILE,
            entries=by_tokens(tokens),
            parts=(Part("datasets:\n", tuple(lines)),),
            after=yaml_text(arguments),
            unit=unit,
            total=10**9,
            digits=9,
            notes=tuple(_notes(replace(handover, available_tokens={}), unit)[:2]),
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The fractions of `datasets`, by what their paths and names say.

        Raises: ExportError: there are none, or a dataset without one."""
        what = (
            "a config with datasets, each with a fraction (without, a share depends on how many "
            "rows a dataset has)"
        )
        with reading(path, what):
            entries = parse_yaml(path.read_text(encoding="utf-8"))["datasets"]
            weights = [(_speaking(entry), entry["fraction"]) for entry in entries]
        return Schedule.static(gather(weights, domains, str(path)))


def _source(name: str, paths: Sequence[str]) -> dict[str, Any]:
    found = sources(paths)
    if len(found) > 1:
        raise ExportError(
            f"the paths of {name!r} are {list(paths)}; TRL weighs each dataset by itself, so give "
            "files of one kind or one dataset"
        )
    return found[0]


def _speaking(entry: dict[str, Any]) -> str:
    """What of an entry may name its domain: its files, else its name, configuration and folder."""
    files = entry.get("data_files")
    if isinstance(files, dict):  # of splits
        files = files.get(entry.get("split", "train"), next(iter(files.values()), None))
    if isinstance(files, str):
        return files
    if files:
        return str(files[0])
    return "/".join(str(entry[key]) for key in ("path", "name", "data_dir") if entry.get(key))


def _notes(handover: Handover, unit: str) -> list[str]:
    shares = without_zeros(handover.schedule.dose)
    available = handover.available_tokens
    notes = [
        "fraction is a share of the rows of the mixture in trl 1.16; of an earlier release look at "
        "DatasetConfig first",
        "no dataset is repeated: the mixture ends where the scarcest does, and of the others only "
        "the first rows are kept; more epochs of training see these same rows again. It does not "
        "stream",
    ]
    if handover.num_steps is not None:
        notes.append(
            f"max_steps are of {handover.batch_sequences} samples: per_device_train_batch_size x "
            "gradient_accumulation_steps x devices"
        )
    if any("data_files" not in _source(name, handover.paths[name]) for name in shares):
        notes.append("a folder is one of data files: what save_to_disk wrote TRL does not read")
    if all(name in available for name in shares):
        lengths = {name: available[name] / share for name, share in shares.items()}
        scarce = min(lengths, key=lengths.__getitem__)
        size = lengths[scarce]
        seen = handover.train_tokens
        epochs = f"; {seen:,} training tokens are {seen / size:.3g} epochs of it" if seen else ""
        notes.append(f"the mixture is then about {size:,.0f} tokens, all of {scarce!r}{epochs}")
    if unit == DOCUMENT:
        notes.append(
            "the fractions are of documents; they give the wanted shares of tokens if the mean "
            "tokens of a document are as given, after the trainer has cut the long ones"
        )
    return notes
