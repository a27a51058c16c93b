"""Checkpoints of one run: a safetensors file with its JSON state and a checksum inside.

State and tensors share one file so that no crash can pair the tensors of one step with the state
of another; the checksum tells a whole file from one that the disk damaged.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mixlaw.errors import CheckpointError

FORMAT = 2


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Write both. Raises: OSError: the disk refused."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **state}, allow_nan=False)
    metadata = {"state": text, "sha256": _checksum(tensors, text)}
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:  # as it calls what the disk refuses
        raise OSError(str(error)) from error


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read both. Raises: CheckpointError: the file is cut short, damaged or not ours."""
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
    if state.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path.name} has another format than {FORMAT}")
    return tensors, state


def _checksum(tensors: dict[str, torch.Tensor], text: str) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(memoryview(tensors[name].view(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return found.hexdigest()
