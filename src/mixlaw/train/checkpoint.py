"""Checkpoints: one safetensors file with its JSON state inside, replaced atomically.

State and tensors share one file so that no crash can pair the tensors of one step with the state
of another.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mixlaw.errors import CheckpointError
from mixlaw.files import atomic_path

FORMAT = 1


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Write both, atomically. Raises: StorageError: the disk refused."""
    metadata = {"state": json.dumps({"format": FORMAT, **state}, allow_nan=False)}
    with atomic_path(path) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata=metadata)


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read both. Raises: CheckpointError: the file is cut short or not ours."""
    try:
        with safe_open(path, framework="pt") as handle:
            state = json.loads((handle.metadata() or {})["state"])
            # Cloned: mapped tensors are not aligned as torch aligns its own, and BLAS sums in an
            # order that depends on alignment, so a resumed run would differ in the last bit.
            names = list(handle.keys())
            tensors = {name: handle.get_tensor(name).clone() for name in names}
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read ({error}); it is cut short or foreign. "
            "Delete it to train these proxies again from their start; finished runs are kept"
        ) from error
    if state.pop("format", None) != FORMAT:
        raise CheckpointError(f"the checkpoint {path} has another format than {FORMAT}; delete it")
    return tensors, state
