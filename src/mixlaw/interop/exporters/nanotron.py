"""nanotron: data stages with weighted folders of tokenised files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from mixlaw.errors import ExportError
from mixlaw.files import parse_yaml
from mixlaw.interop.exporters.megatron import blended, normalised
from mixlaw.interop.handover import SAMPLE, Exported, Handover
from mixlaw.interop.read_back import gather, reading
from mixlaw.interop.snippet import Part, Snippet, by_size, yaml_text
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

STAGES_FILE = "data_stages.yaml"
_HEAD = "data_stages:\n"


class Nanotron:
    """`data_stages`, each with its `dataset_folder` and `dataset_weights`.

    The first stage starts at step 1, and the starts ascend. Weights are normalised and drawn by
    Megatron's blending index, from its beginning in each stage. Source: of nanotron, after its
    0.4: config/config.py (DatasetStageArgs, NanosetDatasetsArgs), data/tokenized_bytes.py,
    data/nemo_dataset/blendable_dataset.py, run_train.py.
    """

    name = "nanotron"
    what = "nanotron: data_stages with weighted folders"
    schedules = True
    checked = (
        "source of nanotron after 0.4 (no release has weights); its index: megatron-core 0.16.1"
    )

    def export(self, handover: Handover) -> Exported:
        """The stages. Raises: ExportError: a schedule whose steps are not known or are too few; a
        domain without a path; several of one whose files are not here to be weighted by."""
        paths, entries = _paths(handover), by_size(_paths(handover), _folder_bytes)
        schedule = handover.schedule
        if not schedule.is_static:
            handover.need("nanotron", "train_tokens", "sequence_length", "batch_sequences")
        samples = handover.stage_samples("nanotron")
        starts = [1]
        if not schedule.is_static and samples is not None and handover.batch_sequences:
            steps = [count // handover.batch_sequences for count in samples]
            starts += [1 + done for done in accumulate(steps[:-1])]
        texts, parts, notes = [], [], []
        for i, (stage, start) in enumerate(zip(schedule.stages, starts, strict=True)):
            label = "mixture" if schedule.is_static else f"stage {i + 1}"
            written = _stage(label, start, paths, entries, handover.seed)
            texts.append(written.text(stage.mixture))
            realised, told = blended(
                stage.mixture,
                paths,
                normalised([weight for _, weight in written.numbers(stage.mixture)]),
                None if samples is None else samples[i],
            )
            parts.append((stage.share, realised.dose))
            notes += told if schedule.is_static else [f"{label}: {note}" for note in told]
        if samples is not None:
            shares = [count / sum(samples) for count in samples]
            parts = [(share, part) for share, (_, part) in zip(shares, parts, strict=True)]
        return Exported(
            _files(texts),
            Schedule.of(parts),
            SAMPLE,
            _how(handover, starts),
            (*_traps(starts), *notes),
        )

    def snippet(self, handover: Handover) -> Snippet:
        """The one stage. Raises: ExportError: as `export`."""
        paths = _paths(handover)
        made = _stage("mixture", 1, paths, by_size(paths, _folder_bytes), handover.seed)
        return replace(
            made,
            parts=(replace(made.parts[0], before=_HEAD + made.parts[0].before), made.parts[1]),
            notes=tuple(_traps([1])[:3]),
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The weights of a config's stages, by their folders; a schedule needs
        `tokens.train_steps`, too, for the share of its last stage.

        Raises: ExportError: it has no stages, or folders without weights.
        """
        with reading(path, "a config with data_stages of weighted folders"):
            data = parse_yaml(path.read_text(encoding="utf-8"))
            stages = sorted(data["data_stages"], key=lambda stage: stage["start_training_step"])
            mixtures = [_mixture(stage["data"]["dataset"], domains, str(path)) for stage in stages]
            starts = [int(stage["start_training_step"]) for stage in stages]
            if starts[0] != 1:
                raise ExportError(f"{path}: the first stage starts at step {starts[0]}, not at 1")
            if len(mixtures) == 1:
                return Schedule.static(mixtures[0])
            last = (data.get("tokens") or {}).get("train_steps")
            if not isinstance(last, int) or last < starts[-1]:
                raise ExportError(
                    f"{path} has {len(stages)} stages, the last from step {starts[-1]}, and "
                    f"tokens.train_steps is {last}; set it, for the share of that stage"
                )
            steps = [
                end - start for start, end in zip(starts, [*starts[1:], last + 1], strict=True)
            ]
            if min(steps) < 1:
                raise ExportError(f"{path}: two stages start at one step, of {starts}")
            shares = [step / sum(steps) for step in steps]
            return Schedule.of(zip(shares, mixtures, strict=True))


def _paths(handover: Handover) -> dict[str, tuple[str, ...]]:
    return handover.paths_of("nanotron", "a folder of tokenised .ds files")


def _stage(
    label: str,
    start: int,
    paths: Mapping[str, Sequence[str]],
    entries: tuple[tuple[str, float], ...],
    seed: int,
) -> Snippet:
    """One of data_stages, for any mixture."""
    head = f"""\
- name: {label}
  start_training_step: {start}
  data:
    dataset:
      dataset_folder:
"""
    folders = tuple((yaml_text([path], 6),) for places in paths.values() for path in places)
    weights = tuple(("      - ", "\n") for _ in folders)
    return Snippet(
        file=STAGES_FILE,
        entries=entries,
        parts=(Part(head, folders), Part("      dataset_weights:\n", weights)),
        after=f"    num_loading_workers: 1\n    seed: {seed}\n",
        unit=SAMPLE,
    )


def _folder_bytes(folder: str) -> int:
    return sum(file.stat().st_size for file in Path(folder).glob("*.ds"))


def _files(stages: Sequence[str]) -> dict[str, str]:
    """All stages; and what to start each from the second on with, where loaders take the last."""
    files = {STAGES_FILE: stages}
    for count in range(1, len(stages)):
        files[f"data_stages_{count}.yaml"] = stages[:count]
    return {name: _HEAD + "".join(part) for name, part in files.items()}


def _how(handover: Handover, starts: Sequence[int]) -> str:
    lines = [
        f"# copy data_stages of {STAGES_FILE} into your config, and set there:",
        *(
            f"#   {name}: {value}"
            for name, value in {
                "tokens.train_steps": handover.num_steps,
                "tokens.sequence_length": handover.sequence_length,
                "micro_batch_size * batch_accumulation_per_replica * dp": handover.batch_sequences,
            }.items()
            if value is not None
        ),
        "torchrun --nproc_per_node=8 run_train.py --config-file config.yaml",
    ]
    if len(starts) > 1:
        lines += [
            "# where the loader takes the last stage only (2025 on): train stage by stage,",
            *(
                f"#   with data_stages_{i}.yaml and train_steps: {start - 1}, then go on from "
                "its checkpoint"
                for i, start in enumerate(starts[1:], 1)
            ),
            f"#   with {STAGES_FILE} and train_steps: {handover.num_steps}",
        ]
    return "\n".join(lines)


def _traps(starts: Sequence[int]) -> list[str]:
    notes = [
        "the release on package indexes (0.4) has neither stages nor weights: use the repository",
        "folders without a .metadata file need tokenizer_name, vocab_size and "
        "token_size_in_bytes beside dataset_folder",
        "configs of 2024 want {folder: weight} as dataset_folder, and take a list for folders "
        "without weights, whatever dataset_weights says",
        "loaders before TokenizedBytes (Nanoset) shuffle the index, so a run's shares vary a "
        "little around the realised ones",
    ]
    if len(starts) > 1:
        notes.append(
            "run_train.py of 2025 trains on the last stage of a config only, and a new stage is "
            "begun from the checkpoint before it; set lr_decay_steps, whose default follows "
            "train_steps"
        )
    return notes


def _mixture(dataset: Mapping[str, Any], domains: Sequence[str], where: str) -> Mixture:
    folders, weights = dataset["dataset_folder"], dataset.get("dataset_weights")
    if isinstance(folders, Mapping):  # as in 2024
        return gather(folders.items(), domains, where)
    if isinstance(folders, str):  # one folder has the weight 1, whatever is written
        folders, weights = [folders], [1.0]
    if not weights or len(weights) != len(folders):
        raise ExportError(
            f"{where}: {len(folders)} folders have the weights {weights}; folders without weights "
            "are mixed evenly or by size: give each its weight"
        )
    return gather(zip(folders, weights, strict=True), domains, where)
