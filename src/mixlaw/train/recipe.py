"""Architectures and training recipes: plain data, importable without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEAD_WIDTH = 16


def non_embedding_params(width: int, num_layers: int) -> int:
    """Attention 4 C^2 and MLP 8 C^2 per layer; the norms have none."""
    return 12 * width**2 * num_layers


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of one size. `width` is a multiple of the head width, 16."""

    vocab_size: int
    width: int
    num_layers: int
    sequence_length: int

    @property
    def num_params(self) -> int:
        """Non-embedding parameters."""
        return non_embedding_params(self.width, self.num_layers)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Name -> shape of one member's matrices (in, out); the embedding is (V, C)."""
        width = self.width
        shapes = {"embedding": (self.vocab_size, width)}
        for layer in range(self.num_layers):
            shapes[f"{layer}.qkv"] = (width, 3 * width)
            shapes[f"{layer}.out"] = (width, width)
            shapes[f"{layer}.up"] = (width, 4 * width)
            shapes[f"{layer}.down"] = (4 * width, width)
        return shapes


@dataclass(frozen=True)
class Recipe:
    """How a proxy is trained, whatever its size.

    Attributes:
        batch_size: sequences per step and member.
        sequence_length: tokens per sequence.
        warmup_steps: linear warm-up.
        decay_fraction: last part of each horizon in which the rate falls linearly to zero.
        weight_decay: decoupled, on every matrix (Loshchilov & Hutter, arXiv 1711.05101).
        clip: largest gradient norm of one member.
        evaluation_tokens: validation tokens per domain, at most.
        checkpoint_steps: steps between checkpoints.
    """

    batch_size: int = 8
    sequence_length: int = 64
    warmup_steps: int = 30
    decay_fraction: float = 0.2
    weight_decay: float = 0.1
    clip: float = 1.0
    evaluation_tokens: int = 16_384
    checkpoint_steps: int = 100

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.sequence_length

    def branch_step(self, horizon: int) -> int:
        """The step at which the branch to `horizon` (in steps) leaves the trunk."""
        return horizon - round(self.decay_fraction * horizon)

    def rate(self, step: int, horizon: int) -> float:
        """Learning rate of `step` as a share of the peak, for a run of `horizon` steps."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        branch = self.branch_step(horizon)
        decay = 1.0 if step < branch else (horizon - step) / (horizon - branch + 1)
        return warm * decay

    def total_steps(self, horizons: Sequence[int]) -> int:
        """Steps done for all horizons: the trunk once and every branch."""
        branches = [self.branch_step(h) for h in horizons]
        return max(branches) + sum(h - b for h, b in zip(horizons, branches, strict=True))


@dataclass(frozen=True)
class Size:
    """An architecture and its peak learning rate."""

    config: ModelConfig
    learning_rate: float
