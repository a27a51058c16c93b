"""TinyLlama and RegMix: the YAML file of --data_yaml_file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import yaml

from mixlaw.errors import ExportError
from mixlaw.interop.handover import (
    SAMPLE,
    Exported,
    Handover,
    apportion,
    gather,
    refuse_schedule,
)
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

FILE = "mixture.yaml"
_UNIT = 10**9


class TinyLlama:
    """Weights of packed samples by the prefix of their files' names; the domain of every sample is
    drawn by its weight, so the realised shares are expected ones. Files that begin alike are read
    alike: a prefix that begins another one would take its files, too.

    Source: sail-sg/regmix, model_training/pretrain/tinyllama.py (0529f0d) and
    model_training/lit_gpt/packed_dataset.py.
    """

    name = "tinyllama"
    what = "TinyLlama and RegMix: a YAML file of train and valid weights by file prefix"
    schedules = False
    checked = "source of sail-sg/regmix 0529f0d"

    def export(self, handover: Handover) -> Exported:
        """Raises: ExportError: no paths, several of a domain, one that begins another's or is a
        pattern, or a schedule."""
        mixture = refuse_schedule(
            handover,
            "TinyLlama",
            "train each stage's mixture from the checkpoint before (load_from)",
        )
        prefixes = _prefixes(handover)
        counts = apportion(mixture, _UNIT)
        valid = {_valid(prefixes[name]): 1.0 for name in counts}
        config = {
            "train": {prefixes[name]: count / _UNIT for name, count in counts.items()},
            "valid": {prefix: weight for prefix, weight in valid.items() if prefix},
            "data_seed": handover.seed,
        }
        return Exported(
            files={FILE: yaml.safe_dump(config, sort_keys=False, allow_unicode=True)},
            realised=Schedule.static(Mixture.from_weights(counts)),
            unit=SAMPLE,
            how=f"python pretrain/tinyllama.py --data_yaml_file {FILE} --train_data_dir ... "
            "--val_data_dir ...",
            notes=_NOTES,
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The weights of `train`, by its prefixes. Raises: ExportError: there are none."""
        try:
            weights = yaml.safe_load(path.read_text(encoding="utf-8"))["train"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise ExportError(
                f"{path} has no train section of prefixes and weights: {error!r}"
            ) from error
        return Schedule.static(gather(weights, domains, str(path)))


def _prefixes(handover: Handover) -> dict[str, str]:
    paths = handover.paths_of("TinyLlama", "the prefix of its packed files, such as train_web")
    prefixes = {}
    for name, (prefix, *others) in paths.items():
        if others:
            raise ExportError(
                f"{name!r} has {1 + len(others)} prefixes, and TinyLlama weighs each by itself; "
                "give its files one prefix"
            )
        if strange := set("*?[") & set(prefix):
            raise ExportError(
                f"the prefix of {name!r} is {prefix!r}, and TinyLlama takes {sorted(strange)} for "
                "a pattern; rename the files"
            )
        prefixes[name] = prefix
    for name, prefix in prefixes.items():
        for other, longer in prefixes.items():
            if other != name and longer.startswith(prefix):
                raise ExportError(
                    f"TinyLlama reads all files that begin with {prefix!r} as {name!r}, those of "
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


_NOTES = (
    "the domain of each sample is drawn by lot: the realised shares are expected ones",
    "each weight is of all files whose names begin with its prefix, in --train_data_dir",
    "a prefix with fewer files than devices is skipped with no more than a printed line, and the "
    "others share its weight",
    "a domain that is used up starts anew, silently",
    "valid must be there, if empty; each of its prefixes is validated by itself, and skipped where "
    "there are no files",
)
