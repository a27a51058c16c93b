"""One readable decoder, K members at once.

Shape letters: K members, B sequences, T positions, N = B T tokens, C width, H heads, D head width,
V vocabulary. Every parameter has the leading population axis K; members never exchange a number,
so K = 1 is an ordinary model and a stack of K gives what K separate models give.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlaw.train.recipe import ModelConfig

ROTARY_BASE = 10_000.0
INIT_STD = 0.02

LOGIT_BYTES = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Logits in memory at once: what a core's cache holds; near what a large GPU's cache does."""

Parameters = dict[str, Tensor]

Layers = Callable[[ModelConfig, Parameters, Tensor, torch.dtype], Tensor]


def initial_parameters(config: ModelConfig, seeds: list[int]) -> Parameters:
    """Stacked initial weights (K, in, out), float32 on the CPU; members of equal seed start equal.

    Normal(0, 0.02) embedding; normal with variance 1 / fan-in elsewhere; matrices that write to the
    residual stream start at zero, so every block begins as the identity.
    """
    drawn = {seed: _draw(config, seed) for seed in dict.fromkeys(seeds)}
    return {name: torch.stack([drawn[seed][name] for seed in seeds]) for name in config.shapes}


def _draw(config: ModelConfig, seed: int) -> Parameters:
    generator = torch.Generator().manual_seed(seed)
    member = {}
    for name, shape in config.shapes.items():
        std = INIT_STD if name == "embedding" else shape[0] ** -0.5
        weight = torch.randn(shape, generator=generator) * std
        member[name] = torch.zeros(shape) if name.endswith((".out", ".down")) else weight
    return member


def rotary_factors(head_width: int, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine (T, 1, 1, D/2) of rotary position embedding (Su et al., arXiv 2104.09864)."""
    pairs = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32)
    angle = torch.outer(positions.float(), ROTARY_BASE ** (-pairs / head_width))
    return angle.cos()[:, None, None], angle.sin()[:, None, None]


class ReluSquared(torch.autograd.Function):
    """max(x, 0)^2 (So et al., arXiv 2109.08668), keeping one array for the backward pass."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        positive = x.relu()
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (grads[0] * positive).mul_(2)


def hidden_states(
    config: ModelConfig, parameters: Parameters, tokens: Tensor, products: torch.dtype
) -> Tensor:
    """Final normalised hidden states (K, N, C) for tokens (K, B, T).

    Args: products: type in which matrices are multiplied; the residual stream keeps the weights'.
    """
    K, B, T = tokens.shape
    C, D = config.width, config.head_width
    H, dtype = C // D, parameters["embedding"].dtype
    cosine, sine = (
        factor.to(products) for factor in rotary_factors(D, torch.arange(T, device=tokens.device))
    )

    def norm(x: Tensor) -> Tensor:
        return F.rms_norm(x, (C,)).to(products)

    def product(x: Tensor, name: str) -> Tensor:
        return torch.bmm(x, parameters[name].to(products))

    # One gather for all members: member k's rows start at k V.
    offset = torch.arange(K, device=tokens.device)[:, None] * config.vocab_size
    rows = (tokens.reshape(K, B * T) + offset).reshape(-1)
    x = F.embedding(rows, parameters["embedding"].reshape(-1, C)).view(K, B * T, C)
    x = F.rms_norm(x, (C,))  # without it tied embeddings learn far slower
    for layer in range(config.num_layers):
        qkv = product(norm(x), f"{layer}.qkv").view(K * B, T, 3, H, D)
        a, b = qkv[:, :, :2].unflatten(-1, (-1, 2)).unbind(-1)  # pairs, (KB, T, 2, H, D/2)
        turned = torch.stack([a * cosine - b * sine, b * cosine + a * sine], dim=-1).flatten(-2)
        q, k = turned.permute(2, 0, 3, 1, 4)
        v = qkv[:, :, 2].transpose(1, 2)  # (KB, H, T, D), as q and k
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(K, B * T, C)
        x = x + product(mixed, f"{layer}.out").to(dtype)
        up = product(norm(x), f"{layer}.up")
        x = x + product(ReluSquared.apply(up), f"{layer}.down").to(dtype)  # type: ignore[arg-type]
    return norm(x)


class LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy (K,) of `hidden @ embedding.T`, few logits in memory at a time.

    The gradient is formed in the forward pass while the logits are still in cache; the K N V
    logits of the stack never exist together. The softmax is never normalised as a whole: its
    totals scale the narrow arrays, and the targets' ones are added there.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
        """hidden (K, N, C), embedding (K, V, C), targets (K, N)."""
        K, N, C = hidden.shape
        V, dtype = embedding.shape[1], embedding.dtype
        train = any(ctx.needs_input_grad)
        losses = torch.zeros(K, dtype=dtype, device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if train else None
        embedding_grad = torch.zeros_like(embedding) if train else None
        members, rows = _chunk(K, N, V * hidden.itemsize, LOGIT_BYTES[hidden.device.type])
        # One buffer for all chunks: fresh pages for each would cost more than the arithmetic.
        buffer = torch.empty((members, rows, V), dtype=hidden.dtype, device=hidden.device)
        offset = torch.arange(members, device=hidden.device)[:, None] * V
        for k in range(0, K, members):
            inside_k = slice(k, k + members)
            weight = embedding[inside_k].to(hidden.dtype)
            for n in range(0, N, rows):
                inside_n = slice(n, n + rows)
                x, target = hidden[inside_k, inside_n], targets[inside_k, inside_n]
                logits = buffer[: x.shape[0], : x.shape[1]]
                torch.bmm(x, weight.transpose(1, 2), out=logits)
                largest = logits.amax(dim=2, keepdim=True)
                picked = (logits.gather(2, target[:, :, None]) - largest).to(dtype)
                odds = logits.sub_(largest).exp_()
                total = odds.sum(dim=2, keepdim=True, dtype=dtype)
                losses[inside_k] += (total.log() - picked).sum(dim=(1, 2))
                if hidden_grad is None or embedding_grad is None:
                    continue
                share = total.reciprocal().to(hidden.dtype)
                at = (target + offset[: x.shape[0]]).reshape(-1)
                taken = weight.view(-1, C)[at].view(x.shape)
                hidden_grad[inside_k, inside_n] = torch.bmm(odds, weight).mul_(share).sub_(taken)
                grad = embedding_grad[inside_k]
                grad += torch.bmm(odds.transpose(1, 2), x * share)
                grad.view(-1, C).index_add_(0, at, x.reshape(-1, C).to(dtype), alpha=-1)
        if hidden_grad is not None and embedding_grad is not None:
            ctx.save_for_backward(hidden_grad.div_(N), embedding_grad.div_(N))
        return losses.div_(N)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        hidden_grad, embedding_grad = ctx.saved_tensors
        scale = grads[0][:, None, None]
        return hidden_grad * scale.to(hidden_grad.dtype), embedding_grad * scale, None


def _chunk(members: int, rows: int, row_bytes: int, budget: int) -> tuple[int, int]:
    """Members and rows whose logits fit the budget together; whole members first."""
    if rows * row_bytes >= budget:
        return 1, max(1, min(rows, budget // row_bytes))
    return min(members, budget // (rows * row_bytes)), rows


def losses(
    config: ModelConfig,
    parameters: Parameters,
    sequences: Tensor,
    products: torch.dtype | None = None,
    layers: Layers = hidden_states,
) -> Tensor:
    """Next-token loss in nats per token (K,) of sequences (K, B, T + 1).

    Args:
        products: type in which matrices are multiplied; default: that of the weights.
        layers: `hidden_states`, or its compiled form.
    """
    inputs, targets = sequences[..., :-1], sequences[..., 1:]
    products = products or parameters["embedding"].dtype
    hidden = layers(config, parameters, inputs, products)
    flat = targets.reshape(targets.shape[0], -1)
    return LinearCrossEntropy.apply(hidden, parameters["embedding"], flat)  # type: ignore[return-value]
