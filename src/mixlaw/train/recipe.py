"""Architectures and training recipes: plain data, importable without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PRECISIONS = ("float32", "bf16", "float64")
SCHEDULES = ("wsd", "cosine")


def non_embedding_params(width: int, num_layers: int, mlp_ratio: int = 4) -> int:
    """Attention 4 C^2 and MLP 2 mlp_ratio C^2 per layer; the norms have none."""
    return (4 + 2 * mlp_ratio) * width**2 * num_layers


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of one size. `width` is a multiple of `head_width`."""

    vocab_size: int
    width: int
    num_layers: int
    head_width: int = 16
    mlp_ratio: int = 4

    @property
    def num_params(self) -> int:
        """Non-embedding parameters."""
        return non_embedding_params(self.width, self.num_layers, self.mlp_ratio)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Name -> shape of one member's matrices (in, out); the embedding is (V, C)."""
        width, inner = self.width, self.mlp_ratio * self.width
        shapes = {"embedding": (self.vocab_size, width)}
        for layer in range(self.num_layers):
            shapes[f"{layer}.qkv"] = (width, 3 * width)
            shapes[f"{layer}.out"] = (width, width)
            shapes[f"{layer}.up"] = (width, inner)
            shapes[f"{layer}.down"] = (inner, width)
        return shapes

    def flops_per_token(self, sequence_length: int) -> float:
        """Training FLOPs per token: 6 per weight, output matrix included, and causal attention.

        Source: Kaplan et al., arXiv 2001.08361, section 2.1; attention halved for causality.
        """
        weights = self.num_params + self.vocab_size * self.width
        return 6.0 * (weights + self.num_layers * sequence_length * self.width)


@dataclass(frozen=True)
class Recipe:
    """How a proxy of one size is trained; all that decides its losses beside its data.

    Attributes:
        learning_rate: peak of the schedule.
        batch_size: sequences per step.
        sequence_length: tokens per sequence.
        warmup_steps: linear warm-up.
        schedule: "wsd": constant, then linear decay, so that all horizons share one trunk
            (Haegele et al., arXiv 2405.18392); "cosine": each horizon is a run of its own.
        decay_fraction: last part of each horizon in which the rate of "wsd" falls.
        final_rate: the rate at the end, as a share of the peak.
        weight_decay: decoupled, on every matrix (Loshchilov & Hutter, arXiv 1711.05101).
        clip: largest gradient norm of one member.
        precision: "float32", "bf16" (products in bfloat16; weights, sums, moments in float32) or
            "float64".
        evaluation_tokens: validation tokens per domain, at most.
    """

    learning_rate: float
    batch_size: int = 8
    sequence_length: int = 64
    warmup_steps: int = 30
    schedule: str = "wsd"
    decay_fraction: float = 0.2
    final_rate: float = 0.0
    weight_decay: float = 0.1
    clip: float = 1.0
    precision: str = "float32"
    evaluation_tokens: int = 16_384

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.sequence_length

    def branch_step(self, horizon: int) -> int:
        """The step at which the branch to `horizon` (in steps) leaves what all horizons share."""
        if self.schedule == "cosine":
            return min(self.warmup_steps, horizon)
        return horizon - round(self.decay_fraction * horizon)

    def rate(self, step: int, horizon: int) -> float:
        """Learning rate of `step` as a share of the peak, for a run of `horizon` steps."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        branch = self.branch_step(horizon)
        if step < branch:
            return warm
        left = (horizon - step) / (horizon - branch + 1)  # of the branch; never zero in a step
        if self.schedule == "cosine":
            left = 0.5 * (1 - math.cos(math.pi * left))
        return warm * (self.final_rate + (1 - self.final_rate) * left)

    def total_steps(self, horizons: Sequence[int]) -> int:
        """Steps done for all horizons: the trunk once and every branch."""
        branches = [self.branch_step(h) for h in horizons]
        return max(branches) + sum(h - b for h, b in zip(horizons, branches, strict=True))


@dataclass(frozen=True)
class Size:
    """An architecture, its recipe, and how many devices one run of it takes."""

    config: ModelConfig
    recipe: Recipe
    processes: int = 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Size:
        return cls(ModelConfig(**data["config"]), Recipe(**data["recipe"]), data["processes"])
