"""What a device can hold and how it is set up; nothing here decides a loss."""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import Tensor

from mixlaw.errors import TrainError
from mixlaw.train.byhand import MemberStep
from mixlaw.train.model import LOGIT_BYTES, hidden_states, losses
from mixlaw.train.ranks import ALONE, Ranks
from mixlaw.train.recipe import Size
from mixlaw.train.step import LossFunction, StackStep, Step

CPU_STACK = 8
"""More members share no more overhead on a CPU."""

MOST_MEMBERS = 512
USABLE = 0.8
"""Of the free memory: the rest is for the allocator's gaps and the estimate's error."""

STATE_BYTES = {"float32": 32, "bf16": 34, "float64": 64}
"""Per weight: weight and two moments, twice while a branch leaves the trunk, the gradient, and the
copies of it that are made on the way."""

ACTIVATION_BYTES = {"float32": 4.0, "bf16": 2.3, "float64": 8.0}
"""Per value that is kept for the backward pass; in bf16 the residual stream stays float32."""


def pick_device(name: str) -> torch.device:
    """Raises: TrainError: a GPU is asked for and there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainError(
            "device is cuda, and PyTorch finds no GPU here; set device: auto or cpu, or install a "
            "CUDA build of PyTorch"
        )
    return torch.device(name)


def gpu_count() -> int:
    """GPUs that PyTorch sees here: none with a build for CPUs."""
    return torch.cuda.device_count()


def free_memory(device: torch.device) -> None:
    """Give back what PyTorch keeps of tensors that are gone; free memory counts it as used."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def state_bytes(size: Size) -> int:
    """Of one member, whatever its batch."""
    weights = size.config.num_params + size.config.vocab_size * size.config.width
    return STATE_BYTES[size.recipe.precision] * weights


def activation_bytes(size: Size) -> int:
    """Of one sequence of one member, kept for the backward pass."""
    config, recipe = size.config, size.recipe
    # Counted, see tests: attention 10, the two inner layers, and the ends of the network.
    values = (10 + 2 * config.mlp_ratio) * config.num_layers + 4
    each = ACTIVATION_BYTES[recipe.precision]
    return int(values * config.width * each * recipe.sequence_length)


def members_at_once(size: Size, device: torch.device, free_bytes: int | None = None) -> int:
    """Proxies of this size that train together; on a GPU, as many as its free memory holds."""
    if device.type == "cpu":
        return CPU_STACK
    if free_bytes is None:
        free_bytes = torch.cuda.mem_get_info(device)[0]
    room = USABLE * free_bytes - 3 * LOGIT_BYTES["cuda"]
    # A member whose batch does not fit takes it in parts, so one sequence each is the least.
    batch = activation_bytes(size) * size.recipe.batch_size
    return int(min(MOST_MEMBERS, max(1, room // (state_bytes(size) + batch))))


def sequences_at_once(
    size: Size,
    members: int,
    device: torch.device,
    free_bytes: int | None = None,
    ranks: Ranks = ALONE,
) -> int:
    """Sequences of each member in one pass, so that the activations fit."""
    batch = size.recipe.batch_size // ranks.count
    if device.type == "cpu":
        return batch
    if free_bytes is None:
        free_bytes = torch.cuda.mem_get_info(device)[0]
    room = USABLE * free_bytes - 3 * LOGIT_BYTES["cuda"] - members * state_bytes(size)
    fit = int(room // (members * activation_bytes(size)))
    parts = -(-batch // max(1, min(fit, batch)))
    return -(-batch // parts)


def training_step(
    size: Size, members: int, device: torch.device, *, compiled: bool = False, ranks: Ranks = ALONE
) -> Step:
    """The fastest way to train a stack there.

    Raises: TrainError: a compiled model is asked for on a CPU.
    """
    if compiled and device.type == "cpu":
        raise TrainError(
            "compile is for GPUs: on a CPU the gradients are written out by hand, which is faster; "
            "set hardware: {compile: false}"
        )
    if device.type == "cpu" and ranks.count == 1:
        return MemberStep(size)
    at_once = sequences_at_once(size, members, device, ranks=ranks)
    return StackStep(size, compiled_losses() if compiled else losses, at_once, ranks)


def compiled_losses() -> LossFunction:
    """The model's loss with its layers compiled: a stack is one shape all along, so their launches
    are replayed as a graph. The cross-entropy's chunks would be a graph of hundreds of pieces."""
    torch.compiler.reset()  # the graphs of the stack before, and the memory that they hold
    layers = torch.compile(hidden_states, dynamic=False, mode="reduce-overhead")

    def replayed(*arguments: Any) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # what the last step gave may be written over
        return losses(*arguments, layers=layers)

    return replayed
