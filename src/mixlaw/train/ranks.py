"""Several processes that train one stack together: each has a part of every batch.

Data parallel training of one large proxy under `torchrun`: all ranks hold all weights, work on
their own rows of the batch and average the gradients, so all take the same step. Up to the billion
parameters of a proxy the weights, gradients and moments (16 bytes a parameter) fit on one device of
24 GB and more, so nothing is sharded (docs/decisions.md).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """The one that claims, reports and writes."""
        return self.rank == 0

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Average in place over all ranks."""
        if self.count == 1:
            return
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()  # type: ignore[union-attr]
        for tensor in tensors:
            tensor.div_(self.count)

    def sum_(self, tensor: Tensor) -> None:
        """Add up in place over all ranks."""
        if self.count > 1:
            dist.all_reduce(tensor)

    def part(self) -> None:
        """All ranks are done. Not after an error, where the others may never come to it."""
        if self.count > 1:
            dist.destroy_process_group()

    def from_leader(self, value: Any) -> Any:
        """The leader's value, a small plain one, on every rank."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


ALONE = Ranks()


def join_ranks(device: torch.device) -> Ranks:
    """The group that `torchrun` started this process in; alone without it."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return ALONE
    if device.type == "cuda":  # each rank has one of the devices that the group was given
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(dist.get_rank(), count)
