"""Checkpoints of one run, and the models that others continue from: safetensors files with their
JSON state and a checksum inside.

State and tensors share one file so that no crash can pair the tensors of one step with the state
of another; the checksum tells a whole file from one that the disk damaged. Of a kept model it is
its digest, too: safetensors orders a header as chance wills, so equal models are unequal files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mixlaw.errors import CheckpointError, TrainError
from mixlaw.runs import Start
from mixlaw.store import MODEL_FORMAT, ModelFacts, reading_model
from mixlaw.train.model import Parameters
from mixlaw.train.recipe import ModelConfig, Size
from mixlaw.train.state import TrainState, weight_dtype

FORMAT = 3
BEFORE_STARTS = 2
"""The format of the time when no run continued another; the rest is the same."""


def save_checkpoint(path: Path, tensors: Parameters, state: dict[str, Any]) -> None:
    """Write both. Raises: OSError: the disk refused."""
    _save(path, tensors, {"format": FORMAT, **state})


def load_checkpoint(path: Path, place: str) -> tuple[Parameters, dict[str, Any]]:
    """Read both.

    Args:
        place: path or URL of the file of which `path` is the local one, for messages.
    Raises:
        CheckpointError: the file is cut short or damaged.
        TrainError: it is whole and of another mixlaw.
    """
    tensors, state = _load(path)
    found = state.pop("format", None)
    if found == BEFORE_STARTS:
        state |= {"earlier": 0, "start": {}}
    elif found != FORMAT:
        raise TrainError(
            f"{place} is whole, but of format {found}, and this mixlaw reads {BEFORE_STARTS} and "
            f"{FORMAT}; end its training with the mixlaw that began it, or delete the file"
        )
    return tensors, state


def save_model(
    path: Path, state: TrainState, member: int, *, size: Size, vocabulary: Mapping[str, Any]
) -> None:
    """Write the model of a member, with its moments, for `continue_models`.

    Args:
        vocabulary: what token ids mean: "name" and "digest" of the tokenizer.
    Raises: OSError: the disk refused.
    """
    facts = {
        "num_params": size.config.num_params,
        "config": asdict(size.config),
        "recipe": asdict(size.recipe),
        "vocabulary": dict(vocabulary),
        "updates": state.updates[member],
    }
    _save(path, state.member("model", member), {"model_format": MODEL_FORMAT, **facts})


def continue_models(
    starts: Sequence[Start],
    size: Size,
    *,
    vocabulary: Mapping[str, Any],
    device: torch.device | str = "cpu",
) -> TrainState:
    """The state at step 0 of a stack whose members continue kept models.

    Raises:
        TrainError: a model of another architecture, vocabulary or content than is asked for, or
            without the moments that are asked for.
        CheckpointError: a file that is cut short, damaged or no model of ours.
        StorageError: there is no such file.
    """
    read = {start: _read_model(start, size, vocabulary) for start in dict.fromkeys(starts)}
    found = [read[start] for start in starts]
    tensors = [of_one for of_one, _ in found]
    earlier = [facts.updates if s.optimizer else 0 for s, (_, facts) in zip(starts, found)]  # noqa: B905
    return TrainState.of_members("model", tensors, size.config, device, step=0, earlier=earlier)


def _read_model(
    start: Start, size: Size, vocabulary: Mapping[str, Any]
) -> tuple[Parameters, ModelFacts]:
    """Tensors of a kept model in the type of the size's weights; moments of zero where they are
    not carried on."""
    place = start.checkpoint
    with reading_model(place) as (path, facts):
        _check_model(place, facts, start, size.config, vocabulary)
        try:
            tensors, _ = _load(path)
        except CheckpointError as error:
            raise CheckpointError(
                f"the model {place} is damaged ({error}); delete it and train the run that keeps "
                "it again"
            ) from error
    dtype = weight_dtype(size.recipe)
    for name in size.config.shapes:
        weight = tensors[f"model/parameters/{name}"]
        for group in ("first", "second"):
            if not start.optimizer:
                tensors[f"model/{group}/{name}"] = torch.zeros_like(weight)
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}, facts


def _check_model(
    place: str,
    facts: ModelFacts,
    start: Start,
    config: ModelConfig,
    vocabulary: Mapping[str, Any],
) -> None:
    """Raises: TrainError: it is not what is to be continued."""
    if facts.digest != start.digest:
        raise TrainError(
            f"the model {place} has the digest {facts.digest[:16]}, and the run is to continue "
            f"{start.digest[:16]}: it was replaced since the run was planned; plan it again"
        )
    differ = {k: v for k, v in asdict(config).items() if facts.config.get(k) != v}
    if differ:
        told = ", ".join(f"{k} {facts.config.get(k)}, not {v}" for k, v in differ.items())
        raise TrainError(
            f"the model {place} is of another size than the run that is to continue it ({told}); "
            "continue it at its own size"
        )
    if facts.vocabulary.get("digest") != vocabulary["digest"]:
        raise TrainError(
            f"the model {place} was trained on ids of the tokenizer "
            f"{facts.vocabulary.get('name')}, the corpus of this run has those of another, "
            f"{vocabulary['name']}; build the corpus with the model's tokenizer (tokenizer: "
            "{kind: file})"
        )
    if start.optimizer and not facts.optimizer:
        raise TrainError(
            f"the model {place} has no optimizer state; continue it with its weights only "
            "(optimizer: false)"
        )


def _save(path: Path, tensors: Parameters, state: Mapping[str, Any]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(state, allow_nan=False)
    metadata = {"state": text, "sha256": _checksum(tensors, text)}
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:  # as it calls what the disk refuses
        raise OSError(str(error)) from error


def _load(path: Path) -> tuple[Parameters, dict[str, Any]]:
    """Raises: CheckpointError: cut short or damaged."""
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            text, expected = metadata["state"], metadata["sha256"]
            # Cloned: mapped tensors are not aligned as torch aligns its own, and BLAS sums in an
            # order that depends on alignment, so a resumed run would differ in the last bit.
            tensors = {name: handle.get_tensor(name).clone() for name in handle.keys()}  # noqa: SIM118
        state = json.loads(text)
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(f"{path.name} cannot be read ({error}); it is cut short") from error
    if _checksum(tensors, text) != expected:
        raise CheckpointError(f"{path.name} does not match its checksum; the disk damaged it")
    return tensors, state


def _checksum(tensors: Parameters, text: str) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(memoryview(tensors[name].view(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return found.hexdigest()
