"""RegMix, a fork of TinyLlama: the YAML file of its --data_yaml_file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mixlaw.errors import ExportError
from mixlaw.files import parse_yaml
from mixlaw.interop.handover import SAMPLE, Exported, Handover, refuse_schedule
from mixlaw.interop.read_back import gather, reading
from mixlaw.interop.snippet import (
    Part,
    Snippet,
    realised_shares,
    whole,
    yaml_flow,
    yaml_key,
    yaml_text,
)
from mixlaw.schedule import Schedule

FILE = "mixture.yaml"


class TinyLlama:
    """Weights of packed samples by the prefix of their files' names; the domain of every sample is
    drawn by its weight, so the realised shares are expected ones. Files that begin alike are read
    alike: a prefix that begins another one would take its files, too. TinyLlama itself reads no
    such file.

    Source: sail-sg/regmix, model_training/pretrain/tinyllama.py (0529f0d) and
    model_training/lit_gpt/packed_dataset.py.
    """

    name = "tinyllama"
    what = "RegMix, a fork of TinyLlama: the YAML of its --data_yaml_file"
    schedules = False
    checked = "source of sail-sg/regmix 0529f0d"

    def export(self, handover: Handover) -> Exported:
        """Raises: ExportError: no paths, several of a domain, one that begins another's or is a
        pattern, a schedule, or a run shorter than a step."""
        mixture = refuse_schedule(
            handover,
            "RegMix",
            "train each stage's mixture from the checkpoint before (load_from)",
        )
        snippet = self.snippet(handover)
        return Exported(
            files={FILE: snippet.text(mixture)},
            realised=Schedule.static(realised_shares(snippet, mixture)),
            unit=SAMPLE,
            how=f"python pretrain/tinyllama.py --data_yaml_file {FILE} --train_data_dir ... "
            "--val_data_dir ...",
            notes=(*_NOTES, _about_length(handover)),
        )

    def snippet(self, handover: Handover) -> Snippet:
        """The file. Raises: ExportError: as `export`."""
        prefixes = _prefixes(handover)
        valid = [_valid(prefix) for prefix in prefixes.values()]
        train = tuple((yaml_key(prefix, 2), "\n") for prefix in prefixes.values())
        run: dict[str, Any] = {"data_seed": handover.seed}
        if handover.num_steps is not None:
            run["global_batch_size"] = handover.batch_sequences
            run["max_step"] = handover.num_steps
        return Snippet(
            file=FILE,
            entries=whole(list(prefixes)),
            parts=(
                Part("train:\n", train),
                Part("valid: {", tuple((yaml_flow(p, 1.0),) if p else () for p in valid), ", "),
            ),
            after="}\n" + yaml_text(run),
            unit=SAMPLE,
            total=10**9,
            digits=9,
            notes=_NOTES[:2],
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The weights of `train`, by its prefixes. Raises: ExportError: there are none."""
        with reading(path, "a YAML file with a `train` section of prefixes and weights"):
            weights = parse_yaml(path.read_text(encoding="utf-8"))["train"].items()
        return Schedule.static(gather(weights, domains, str(path)))


def _prefixes(handover: Handover) -> dict[str, str]:
    paths = handover.paths_of("RegMix", "the prefix of its packed files, such as train_web")
    prefixes = {}
    for name, (prefix, *others) in paths.items():
        if others:
            raise ExportError(
                f"{name!r} has {1 + len(others)} prefixes, and RegMix weighs each by itself; "
                "give its files one prefix"
            )
        if strange := set("*?[") & set(prefix):
            raise ExportError(
                f"the prefix of {name!r} is {prefix!r}, and RegMix takes {sorted(strange)} for "
                "a pattern; rename the files"
            )
        prefixes[name] = prefix
    for name, prefix in prefixes.items():
        for other, longer in prefixes.items():
            if other != name and longer.startswith(prefix):
                raise ExportError(
                    f"RegMix reads all files that begin with {prefix!r} as {name!r}, those of "
                    f"{other!r} ({longer!r}), too; rename the files, or end the prefix with the "
                    f"first figure of their numbers ({prefix}_0)"
                )
    return prefixes


def _valid(prefix: str) -> str:
    """The prefix of a domain's validation files, by RegMix's habit; empty: it has none."""
    path = PurePosixPath(prefix)
    if not path.name.startswith("train_"):
        return ""
    return str(path.with_name("valid_" + path.name.removeprefix("train_")))


def _about_length(handover: Handover) -> str:
    if handover.num_steps is None:
        return (
            "the run is as long as RegMix's script says (25,000 steps of 512 samples); give "
            "--train-tokens, --sequence-length and --batch-sequences to have the file say it"
        )
    return (
        f"max_step are steps of {handover.batch_sequences} samples, which must be a multiple of "
        "total_devices x micro_batch_size (8 x 4 in the script; both can be set in the file) and "
        f"of {handover.sequence_length} tokens if that is the model's block_size; warmup_steps "
        "(1,000) are set likewise"
    )


_NOTES = (
    "the file is read by RegMix, not by TinyLlama itself: there edit train_data_config in "
    "pretrain/tinyllama.py",
    "the domain of each sample is drawn by lot, on all devices alike (each with the same seed): "
    "the realised shares are expected ones, and a step holds fewer draws than samples",
    "each weight is of all files whose names begin with its prefix, in --train_data_dir",
    "a prefix with fewer files than devices is skipped with no more than a printed line, and the "
    "others share its weight",
    "a domain that is used up starts anew, silently",
    "valid must be there, if empty; each of its prefixes is validated by itself, and skipped where "
    "there are no files",
)
