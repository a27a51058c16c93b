"""The loop of nanoGPT (Karpathy, 2022), written anew: the strongest plain way to train one model.

A GPT-2 in one module (layer norms, GELU, learned positions, tied embeddings, fused attention),
batches from a memory-mapped token file, F.cross_entropy, gradient clipping, fused AdamW without
decay on vectors, a learning rate set each step, the loss read every ten steps. On a GPU in
bfloat16 by autocast with TF32 for what stays float32, batches from pinned memory copied while
the device works, and torch.compile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import (
    BETAS,
    CLIP,
    LEARNING_RATE,
    WEIGHT_DECAY,
    On,
    OnStep,
    Shape,
    Train,
    random_batch,
)

WARMUP_STEPS, DECAY_STEPS, LOG_STEPS = 100, 5_000, 10

Batches = Callable[[], tuple[Tensor, Tensor]]
"""The next inputs and targets, both (B, T)."""


class Block(nn.Module):
    """Attention and MLP, each on a normed copy of the residual stream."""

    def __init__(self, shape: Shape):
        super().__init__()
        C = shape.width
        self.heads = C // shape.head_width
        self.norm_1, self.norm_2 = nn.LayerNorm(C, bias=False), nn.LayerNorm(C, bias=False)
        self.qkv, self.out = nn.Linear(C, 3 * C, bias=False), nn.Linear(C, C, bias=False)
        inner = shape.mlp_ratio * C
        self.up, self.down = nn.Linear(C, inner, bias=False), nn.Linear(inner, C, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm_1(x)).split(C, dim=2)
        q, k, v = (y.view(B, T, self.heads, -1).transpose(1, 2) for y in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(B, T, C))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class GPT(nn.Module):
    """GPT-2 of a shape; returns the mean loss."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.tokens = nn.Embedding(shape.vocab_size, shape.width)
        self.positions = nn.Embedding(shape.sequence_length, shape.width)
        blocks = [Block(shape) for _ in range(shape.num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(shape.width, bias=False)
        self.head = nn.Linear(shape.width, shape.vocab_size, bias=False)
        for matrix in self.parameters():
            if matrix.dim() == 2:
                nn.init.normal_(matrix, std=0.02)
        for block in blocks:
            for last in (block.out, block.down):
                nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * shape.num_layers))
        self.head.weight = self.tokens.weight

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:  # both (B, T)
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        x = self.tokens(inputs) + self.positions(positions)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


def nanogpt(shape: Shape, tokens: Path, on: On) -> Train:
    """nanoGPT's loop on a shape."""

    def train(on_step: OnStep) -> None:
        model = GPT(shape).to(on.device)
        model_loss = torch.compile(model, backend=on.backend) if on.backend else model
        run_loop(model_loss, model, batches(shape, tokens, on), on, on_step)

    return train


def batches(shape: Shape, tokens: Path, on: On) -> Batches:
    """Random batches from a memory-mapped file, from pinned memory when they go to a GPU."""
    rng = np.random.default_rng(0)

    def next_batch() -> tuple[Tensor, Tensor]:
        data = np.memmap(tokens, dtype=np.uint16, mode="r")  # opened anew, as nanoGPT does
        inputs, targets = map(torch.from_numpy, random_batch(data, shape, rng))
        if on.device == "cpu":
            return inputs, targets
        inputs = inputs.pin_memory().to(on.device, non_blocking=True)
        return inputs, targets.pin_memory().to(on.device, non_blocking=True)

    return next_batch


def run_loop(
    loss_of: Callable[..., Tensor], model: nn.Module, next_batch: Batches, on: On, on_step: OnStep
) -> None:
    """The loop itself, for any model whose loss `loss_of(inputs, targets)` is."""
    if on.device != "cpu":
        torch.set_float32_matmul_precision("high")
    autocast = torch.autocast(on.device, torch.bfloat16) if on.bfloat16 else nullcontext()
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=True)
    batch, step = next_batch(), 0
    while True:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _schedule(step)
        with autocast:
            loss = loss_of(*batch)
        batch = next_batch()  # while the device works
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % LOG_STEPS == 0 and not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}")
        step += 1
        if not on_step():
            return


def _schedule(step: int) -> float:
    """Linear warm-up, then a cosine."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * min(1.0, step / DECAY_STEPS)))
