"""Megatron-LM and Megatron Bridge: a blend of indexed token files."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixlaw.errors import ExportError
from mixlaw.interop.handover import SAMPLE, Exported, Handover, refuse_schedule
from mixlaw.interop.read_back import gather, reading
from mixlaw.interop.snippet import Part, Snippet, by_size
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

SPLITS_FILE, ARGS_FILE = "blend_per_split.json", "data_args.txt"

EXACT_SAMPLES = 100_000
"""Runs up to this long are followed draw by draw; in longer ones shares are rounded to samples,
which is off by one of a dataset at most."""


class Megatron:
    """Weights of fixed-length samples, > 0, each before its path.

    The validation and test splits are null in the per-split file: all three keys must be there, and
    a split without a blend is not built. Source: megatron/core/datasets/utils.py
    (get_blend_from_list), blended_megatron_dataset_builder.py and helpers.cpp of 0.16.1;
    get_blend_and_blend_per_split of megatron/training/utils.py, which Bridge has too.
    """

    name = "megatron"
    what = "Megatron-LM and Megatron Bridge: a blend of token files"
    schedules = False
    checked = "megatron-core 0.16.1; source of megatron-bridge 0.3.1"

    def export(self, handover: Handover) -> Exported:
        """The blend. Raises: ExportError: a schedule, a domain without a path, or several paths of
        one domain whose `.bin` files are not here to be weighted by."""
        mixture = refuse_schedule(
            handover,
            "Megatron-LM",
            "export each stage's mixture, train the first up to its end (--exit-interval), and go "
            "on from that checkpoint with the next blend (each domain then begins at its new share "
            "of the samples consumed, not where it was left)",
        )
        prefixes, snippet = _prefixes(handover), self.snippet(handover)
        files, notes = {SPLITS_FILE: snippet.text(mixture)}, list(snippet.notes)
        blend = json.loads(files[SPLITS_FILE])["train"]
        if not any(char.isspace() for text in blend for char in text):
            files[ARGS_FILE] = " ".join(blend) + "\n"
            notes.append(f"{ARGS_FILE} is the same for --data-args-path, with a --split beside it")
        # The builder divides by the sum, then the dataset does: last bits decide between equals.
        shares = normalised(normalised([weight for _, weight in snippet.numbers(mixture)]))
        samples = handover.stage_samples("Megatron-LM")
        realised, rounding = blended(mixture, prefixes, shares, samples[0] if samples else None)
        return Exported(files, realised, SAMPLE, _how(handover), (*notes, *rounding))

    def snippet(self, handover: Handover) -> Snippet:
        """The per-split blend. Raises: ExportError: as `export`."""
        prefixes = _prefixes(handover)
        lines = [('"', f'", {json.dumps(p)}') for places in prefixes.values() for p in places]
        return Snippet(
            file=SPLITS_FILE,
            entries=by_size(prefixes, lambda prefix: os.stat(f"{prefix}.bin").st_size),
            parts=(Part('{"train": [', tuple(lines), ", "),),
            after='], "valid": null, "test": null}\n',
            unit=SAMPLE,
            notes=(
                f"{SPLITS_FILE} has no validation blend, so the trainer evaluates nothing: put "
                "yours under valid, or give --eval-iters 0",
            ),
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The training blend of a per-split JSON, of a file of arguments, or of what a shell's
        command or script gives to --data-path or --train-data-path.

        Raises: ExportError: paths without weights, which Megatron takes from the files' lengths.
        """
        with reading(path, "a blend"):
            text = path.read_text(encoding="utf-8")
            data = json.loads(text) if text.lstrip().startswith(("{", "[")) else text
            if isinstance(data, Mapping):
                data = data.get("train")
            parts = _words(data) if isinstance(data, str) else data
            if not isinstance(parts, list) or len(parts) % 2 or not parts:
                raise ExportError(
                    f"{path} holds no blend (weight path weight path ...); paths without weights "
                    "are mixed by their sizes: give each its weight"
                )
            return Schedule.static(
                gather(zip(parts[1::2], parts[::2], strict=True), domains, str(path))
            )


def _words(text: str) -> list[str]:
    """Weights and paths: as Megatron splits a file of arguments, or as a shell does what stands
    behind the option, which may be within a quoted variable."""
    option = re.compile(r"--(train-)?data-path")
    if not option.search(text):
        return text.split()
    words = shlex.split(text.replace("\\\n", " "), comments=True)
    for i, word in enumerate(words):
        inner = shlex.split(word) if option.search(word) else []
        for j, part in enumerate(inner):
            if option.fullmatch(part.rpartition("=")[2].lstrip("(")):
                behind = inner[j + 1 :] if len(inner) > 1 else words[i + 1 :]
                return list(itertools.takewhile(lambda w: not w.startswith(("--", ")")), behind))
    return []


def _prefixes(handover: Handover) -> dict[str, tuple[str, ...]]:
    paths = handover.paths_of("Megatron-LM", "an indexed token file (its prefix, without .bin)")
    return {name: tuple(map(_prefix, places)) for name, places in paths.items()}


def _prefix(path: str) -> str:
    """As Megatron wants it. Raises: ExportError: it would be read as another one."""
    prefix = path.removesuffix(".bin").removesuffix(".idx")
    if prefix != prefix.strip():
        raise ExportError(
            f"the path {path!r} begins or ends with a space, which Megatron-LM cuts off; rename it"
        )
    return prefix


def _how(handover: Handover) -> str:
    options: dict[str, Any] = {
        "--per-split-data-args-path": SPLITS_FILE,
        "--seq-length": handover.sequence_length,
        "--global-batch-size": handover.batch_sequences,
        "--train-iters": handover.num_steps,
        "--train-samples": None if handover.num_steps else handover.num_samples,
        "--seed": handover.seed + 1,  # 0 is refused; replicates stay apart
    }
    given = [str(part) for pair in options.items() if pair[1] is not None for part in pair]
    return "\n".join(
        [
            "# Megatron-LM:",
            f"torchrun ... pretrain_gpt.py ... {shlex.join(given)}",
            "# Megatron Bridge, on the config of a recipe:",
            "from megatron.bridge.recipes.utils.dataset_utils import "
            "get_blend_fields_from_data_paths",
            "data = cfg.dataset",
            "data.blend, data.blend_per_split, data.split = get_blend_fields_from_data_paths(",
            f'    per_split_data_args_path="{SPLITS_FILE}"',
            ")",
        ]
    )


def blended(
    mixture: Mixture,
    paths: Mapping[str, Sequence[str]],
    shares: np.ndarray,
    num_samples: int | None,
) -> tuple[Schedule, list[str]]:
    """What a run draws of each domain, and what there is to be said of it.

    Args:
        mixture: that was wanted.
        paths: domain -> its datasets, in the order of their `shares`.
        shares: (datasets,) as the trainer has them, normalised.
        num_samples: of the run; None: not known, and the shares stand for it.
    """
    owners = [name for name, share in mixture.items() if share > 0 for _ in paths[name]]
    notes = []
    counts: Sequence[float] = shares.tolist()
    if num_samples is None:
        notes.append(
            "realised is what the weights say: the samples of the run (train_tokens, "
            "sequence_length) are not known"
        )
    else:
        counts = draws(shares, num_samples)
    drawn = _by_owner(zip(owners, counts, strict=True))
    never = [name for name, share in drawn.items() if not share]
    if never:
        none = "none" if num_samples is None or num_samples <= EXACT_SAMPLES else "next to none"
        notes.append(f"a run of {num_samples:,} samples draws {none} of {never}")
    return Schedule.static(Mixture.from_weights(drawn)), notes


def normalised(weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Divided by their sum, once."""
    shares = np.array(weights, dtype=np.float64)
    return shares / shares.sum()


def draws(shares: np.ndarray, num_samples: int) -> list[int]:
    """Samples of each dataset among the first `num_samples` of a blend: each draw goes to the one
    that is furthest behind its share. Source: helpers.cpp, build_blending_indices."""
    if num_samples > EXACT_SAMPLES:
        exact = shares * num_samples
        rounded = np.floor(exact)
        rounded[np.argsort(rounded - exact)[: num_samples - int(rounded.sum())]] += 1
        return rounded.astype(int).tolist()
    drawn = np.zeros(len(shares))
    for sample in range(num_samples):
        drawn[np.argmax(shares * max(sample, 1) - drawn)] += 1
    return drawn.astype(int).tolist()


def _by_owner(parts: Iterable[tuple[str, float]]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for name, part in parts:
        shares[name] = shares.get(name, 0) + part
    return shares
