"""One readable decoder, K members at once.

Shape letters: K members, B sequences, T positions, N = B T tokens, C width, H heads, D head width,
V vocabulary. Every parameter has the leading population axis K; members never exchange a number,
so K = 1 is an ordinary model and a stack of K gives what K separate models give.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlaw.train.recipe import HEAD_WIDTH, ModelConfig

ROTARY_BASE = 10_000.0
INIT_STD = 0.02


Parameters = dict[str, Tensor]


def initial_parameters(config: ModelConfig, seeds: list[int]) -> Parameters:
    """Stacked initial weights (K, in, out); members of equal seed start equal.

    Normal(0, 0.02) embedding; normal with variance 1 / fan-in elsewhere; matrices that write to the
    residual stream start at zero, so every block begins as the identity.
    """
    members = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        member = {}
        for name, shape in config.shapes.items():
            std = INIT_STD if name == "embedding" else shape[0] ** -0.5
            weight = torch.randn(shape, generator=generator) * std
            member[name] = torch.zeros(shape) if name.endswith((".out", ".down")) else weight
        members.append(member)
    return {name: torch.stack([m[name] for m in members]) for name in config.shapes}


def rotary_factors(sequence_length: int) -> Tensor:
    """Unit complex numbers (T, D/2) of rotary position embedding (Su et al., arXiv 2104.09864)."""
    frequency = ROTARY_BASE ** (-torch.arange(0, HEAD_WIDTH, 2) / HEAD_WIDTH)
    angle = torch.outer(torch.arange(sequence_length), frequency)
    return torch.polar(torch.ones_like(angle), angle)


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


def hidden_states(config: ModelConfig, parameters: Parameters, tokens: Tensor) -> Tensor:
    """Final normalised hidden states (K, N, C) for tokens (K, B, T)."""
    K, B, T = tokens.shape
    C, H = config.width, config.width // HEAD_WIDTH
    rotary = rotary_factors(T).to(tokens.device)[:, None, None]  # (T, 1, 1, D/2)

    def norm(x: Tensor) -> Tensor:
        return F.rms_norm(x, (C,))

    # One gather for all members: member k's rows start at k V.
    offset = torch.arange(K, device=tokens.device)[:, None] * config.vocab_size
    rows = (tokens.reshape(K, B * T) + offset).reshape(-1)
    x = F.embedding(rows, parameters["embedding"].reshape(-1, C)).view(K, B * T, C)
    x = norm(x)  # without it tied embeddings learn far slower
    for layer in range(config.num_layers):
        qkv = torch.bmm(norm(x), parameters[f"{layer}.qkv"]).view(K * B, T, 3, H, HEAD_WIDTH)
        pairs = torch.view_as_complex(qkv[:, :, :2].unflatten(-1, (-1, 2)))  # (KB, T, 2, H, D/2)
        q, k = torch.view_as_real(pairs * rotary).flatten(-2).permute(2, 0, 3, 1, 4)
        v = qkv[:, :, 2].transpose(1, 2)  # (KB, H, T, D), as q and k
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(K, B * T, C)
        x = x + torch.bmm(mixed, parameters[f"{layer}.out"])
        up = torch.bmm(norm(x), parameters[f"{layer}.up"])
        x = x + torch.bmm(ReluSquared.apply(up), parameters[f"{layer}.down"])
    return norm(x)


class LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy (K,) of `hidden @ embedding.T`, one member's logits in memory at a time.

    The gradient is formed in the forward pass while the logits are still in cache; the K N V
    logits of the stack never exist together.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
        """hidden (K, N, C), embedding (K, V, C), targets (K, N)."""
        K, N, _ = hidden.shape
        losses = hidden.new_empty(K)
        train = any(ctx.needs_input_grad)
        hidden_grad = torch.empty_like(hidden) if train else None
        embedding_grad = torch.empty_like(embedding) if train else None
        # One buffer for all members: fresh pages for each would cost more than the arithmetic. And
        # the steps of log-softmax one by one: torch's fused CPU kernel takes three times as long.
        logits = hidden.new_empty(N, embedding.shape[1])
        for k in range(K):
            torch.mm(hidden[k], embedding[k].T, out=logits)
            largest = logits.amax(dim=1, keepdim=True)
            picked = logits.gather(1, targets[k, :, None]) - largest
            total = logits.sub_(largest).exp_().sum(dim=1, keepdim=True)
            losses[k] = (total.log() - picked).mean()
            if hidden_grad is not None and embedding_grad is not None:
                delta = logits.div_(total)
                delta.scatter_add_(1, targets[k, :, None], delta.new_full((N, 1), -1.0))
                torch.mm(delta, embedding[k], out=hidden_grad[k])
                torch.mm(delta.T, hidden[k], out=embedding_grad[k])
        if hidden_grad is not None and embedding_grad is not None:
            ctx.save_for_backward(hidden_grad.div_(N), embedding_grad.div_(N))
        return losses

    @staticmethod
    def backward(ctx, *grads: Tensor):
        hidden_grad, embedding_grad = ctx.saved_tensors
        scale = grads[0][:, None, None]
        return hidden_grad * scale, embedding_grad * scale, None


def losses(config: ModelConfig, parameters: Parameters, sequences: Tensor) -> Tensor:
    """Next-token loss in nats per token (K,) of sequences (K, B, T + 1)."""
    inputs, targets = sequences[..., :-1], sequences[..., 1:]
    hidden = hidden_states(config, parameters, inputs)
    flat = targets.reshape(targets.shape[0], -1)
    return LinearCrossEntropy.apply(hidden, parameters["embedding"], flat)  # type: ignore[return-value]
