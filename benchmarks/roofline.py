"""What a device can do at best: its two ceilings, measured, and the floor under a training step."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.peers import Shape

BF16_BYTES, FLOAT_BYTES = 2, 4
STATE_PASSES = 8
"""Parameters, gradients and two moments, float32: each read and written once in a step."""
ACTIVATION_PASSES = 5
"""An activation is written and read, read again in the backward pass; its gradient written, read"""

DENSE_BF16_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""What makers state for dense bfloat16 products (SXM modules), by a part of the device's name."""


@dataclass(frozen=True)
class Ceilings:
    """Measured rates: FLOPs per second of a bfloat16 product, bytes per second of a copy."""

    flops: float
    bytes: float


def seconds_of(function: Callable[[], object], device: str, *, repeats: int = 30) -> float:
    """Median seconds of a call, after warm-up, by device events (a CPU's clock without them)."""
    for _ in range(3):
        function()
    if device == "cpu":
        found = []
        for _ in range(repeats):
            started = time.perf_counter()
            function()
            found.append(time.perf_counter() - started)
        return statistics.median(found)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        function()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in itertools.pairwise(marks)) / 1e3


def measure_ceilings(device: str, *, side: int = 8192, copy_bytes: int = 4 << 30) -> Ceilings:
    """A square product of random bfloat16 matrices, and a copy far larger than any cache."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(a)
    product_seconds = seconds_of(lambda: torch.mm(a, b, out=product), device)
    source = torch.randint(0, 255, (copy_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_seconds = seconds_of(lambda: target.copy_(source), device)
    return Ceilings(2 * side**3 / product_seconds, 2 * copy_bytes / copy_seconds)


def flops_per_token(shape: Shape) -> float:
    """Training FLOPs: 6 per weight, output matrix included, and causal attention.

    Attention has 12 L C T per token (Chowdhery et al., arXiv 2204.02311, appendix B); a causal mask
    leaves half of it.
    """
    weights = shape.num_params + shape.vocab_size * shape.width
    attention = shape.num_layers * shape.width * shape.sequence_length
    return 6.0 * (weights + attention)


@dataclass(frozen=True)
class Floor:
    """Least seconds of one training step of one model, by what takes them.

    Attributes:
        state: parameters, gradients, moments.
        activations: what the five products of a layer write; logits left out, since an output
            layer can do without writing them.
        logits: theirs if they are written once and their gradient once, bfloat16.
    """

    compute: float
    state: float
    activations: float
    logits: float

    @property
    def memory(self) -> float:
        return self.state + self.activations

    @property
    def seconds(self) -> float:
        return max(self.compute, self.memory)

    @property
    def bound(self) -> str:
        return "compute" if self.compute >= self.memory else "memory"


def floor(shape: Shape, ceilings: Ceilings) -> Floor:
    """The floor under one step of one model; a stack of K has K times it."""
    tokens = shape.tokens_per_step
    state = (shape.num_params + shape.vocab_size * shape.width) * FLOAT_BYTES * STATE_PASSES
    outputs = (6 + shape.mlp_ratio) * shape.width * shape.num_layers  # qkv 3, attention, out, down
    activations = tokens * outputs * BF16_BYTES * ACTIVATION_PASSES
    logits = tokens * shape.vocab_size * BF16_BYTES * 4
    return Floor(
        compute=tokens * flops_per_token(shape) / ceilings.flops,
        state=state / ceilings.bytes,
        activations=activations / ceilings.bytes,
        logits=logits / ceilings.bytes,
    )
