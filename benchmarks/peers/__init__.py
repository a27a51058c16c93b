"""Ways to train a language model that the benchmarks compare: the loops that people run.

Every way is a `Train`: a function that trains, with its own data pipeline, and calls `on_step`
after each step until that says stop. Whoever measures brings the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

OnStep = Callable[[], bool]
"""Called after each step; False: stop training."""

Train = Callable[[OnStep], None]

WEIGHT_DECAY, BETAS, CLIP, LEARNING_RATE = 0.1, (0.9, 0.95), 1.0, 1e-3


@dataclass(frozen=True)
class Shape:
    """What is trained, whoever trains it: a decoder and the tokens of one of its steps."""

    width: int
    num_layers: int
    head_width: int
    vocab_size: int
    sequence_length: int
    batch_size: int
    mlp_ratio: int = 4

    @property
    def num_params(self) -> int:
        """Non-embedding parameters in matrices."""
        return (4 + 2 * self.mlp_ratio) * self.width**2 * self.num_layers

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one step of one model."""
        return self.batch_size * self.sequence_length


@dataclass(frozen=True)
class On:
    """What a way trains on, and how.

    Attributes:
        bfloat16: products in bfloat16, weights in float32.
        backend: of torch.compile; None: eager.
    """

    device: str = "cpu"
    bfloat16: bool = False
    backend: str | None = None


def write_tokens(path: Path, shape: Shape, count: int = 1 << 22) -> Path:
    """A file of random token ids, uint16, for everyone to read from."""
    rng = np.random.default_rng(0)
    rng.integers(0, shape.vocab_size, count, dtype=np.uint16).tofile(path)
    return path


def random_batch(
    tokens: np.ndarray, shape: Shape, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (B, T), int64, from random places of a token file."""
    starts = rng.integers(0, len(tokens) - shape.sequence_length, shape.batch_size)
    inputs = [tokens[i : i + shape.sequence_length].astype(np.int64) for i in starts]
    targets = [tokens[i + 1 : i + 1 + shape.sequence_length].astype(np.int64) for i in starts]
    return np.stack(inputs), np.stack(targets)
