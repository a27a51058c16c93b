"""Where a stack's training stands, as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.train.model import Parameters, initial_parameters
from mixlaw.train.recipe import ModelConfig, Recipe, Size


def weight_dtype(recipe: Recipe) -> torch.dtype:
    return torch.float64 if recipe.precision == "float64" else torch.float32


def product_dtype(recipe: Recipe) -> torch.dtype:
    return torch.bfloat16 if recipe.precision == "bf16" else weight_dtype(recipe)


@dataclass
class TrainState:
    """Parameters and AdamW moments (K, in, out) of a stack after `step` steps.

    Attributes:
        earlier: (K,) updates that each member's moments saw in a training before this one.
    """

    step: int
    parameters: Parameters
    first: Parameters
    second: Parameters
    earlier: tuple[int, ...]

    @property
    def updates(self) -> list[int]:
        """(K,) updates that the moments have seen."""
        return [earlier + self.step for earlier in self.earlier]

    @classmethod
    def fresh(cls, size: Size, seeds: Sequence[int], device: torch.device | str) -> TrainState:
        start = initial_parameters(size.config, list(seeds))
        dtype = weight_dtype(size.recipe)
        parameters = {k: v.to(device, dtype, copy=True) for k, v in start.items()}
        first, second = ({k: torch.zeros_like(v) for k, v in parameters.items()} for _ in range(2))
        return cls(0, parameters, first, second, (0,) * len(seeds))

    def copy(self) -> TrainState:
        copies = {
            name: {k: v.clone() for k, v in group.items()} for name, group in self.groups().items()
        }
        return TrainState(self.step, **copies, earlier=self.earlier)

    def groups(self) -> dict[str, Parameters]:
        return {"parameters": self.parameters, "first": self.first, "second": self.second}

    def member(self, prefix: str, k: int) -> dict[str, Tensor]:
        """Tensors (in, out) of member k by `prefix/group/name`; `earlier` is not in them."""
        return {
            f"{prefix}/{group}/{name}": stacked[k]
            for group, found in self.groups().items()
            for name, stacked in found.items()
        }

    @classmethod
    def of_members(
        cls,
        prefix: str,
        members: Sequence[Mapping[str, Tensor]],
        config: ModelConfig,
        device: torch.device | str,
        *,
        step: int,
        earlier: Sequence[int],
    ) -> TrainState:
        """The inverse of `member` for all members."""
        groups = {
            group: {
                # In the order of the architecture, whatever order a checkpoint came back in: sums
                # over parameters must round alike.
                name: torch.stack([m[f"{prefix}/{group}/{name}"] for m in members]).to(device)
                for name in config.shapes
            }
            for group in ("parameters", "first", "second")
        }
        return cls(step, **groups, earlier=tuple(earlier))
