"""One AdamW step of a stack with gradients by hand, member after member: what a CPU core wants.

Autograd spends more time on fresh memory and bookkeeping than a proxy of this size spends on
arithmetic. Here every array of a step lives in one workspace that all members of a stack use in
turn, so it stays in cache, and the gradients land where the optimiser reads them. It is 1.2 to 1.7
times as fast (docs/decisions.md), and a member's bits cannot depend on its stack. `train.model` is
the definition of the model; the tests hold this to it.

Shape letters: B sequences, T positions, N = B T tokens, C width, H heads, D head width, I inner
width, V vocabulary. A name starting with `d` is the gradient of the loss by the rest of the name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from math import prod

import torch
from torch import Tensor

from mixlaw.train.model import Parameters, rotary_factors
from mixlaw.train.recipe import Size
from mixlaw.train.state import TrainState, weight_dtype
from mixlaw.train.step import adamw


class _Layer:
    """What one layer keeps for its backward pass."""

    def __init__(self, shape: tuple[int, int, int, int], inner: int, dtype: torch.dtype):
        new = partial(torch.empty, dtype=dtype)
        B, T, H, D = shape
        N, C = B * T, H * D
        self.attention_in, self.attention_inverse = new(N, C), new(N, 1)
        self.heads = new(3, B * H, T, D)
        self.weights = new(B * H, T, T)
        self.mixed = new(N, C)
        self.mlp_in, self.mlp_inverse = new(N, C), new(N, 1)
        self.positive = new(N, inner)


class MemberGradients:
    """Losses and gradients of models of one size, one model at a time."""

    def __init__(self, size: Size):
        config, recipe, dtype = size.config, size.recipe, weight_dtype(size.recipe)
        B, T, C, D = recipe.batch_size, recipe.sequence_length, config.width, config.head_width
        N, H, inner = B * T, C // D, config.mlp_ratio * C
        self.shape, self.scale = (B, T, H, D), D**-0.5
        self.epsilon = torch.finfo(dtype).eps  # of F.rms_norm
        new = partial(torch.empty, dtype=dtype)
        self.layers = [_Layer(self.shape, inner, dtype) for _ in range(config.num_layers)]
        self.x, self.dx, self.narrow, self.narrow2 = (new(N, C) for _ in range(4))
        self.first, self.first_inverse = new(N, C), new(N, 1)
        self.hidden, self.hidden_inverse = new(N, C), new(N, 1)
        self.along, self.wide = new(N, 1), new(N, inner)
        self.qkv, self.dheads = new(N, 3 * C), new(3, B * H, T, D)
        self.dscores, self.logits = new(B * H, T, T), new(N, config.vocab_size)
        cosine, sine = (factor.view(T, D // 2) for factor in rotary_factors(D, torch.arange(T)))
        turn = torch.complex(cosine, sine).repeat(1, 2 * H).to(dtype.to_complex())  # (T, C)
        self.rotary, self.rotary_back = turn, turn.conj().resolve_conj()
        pairs = self.qkv[:, : 2 * C].unflatten(-1, (-1, 2))
        self.pairs = torch.view_as_complex(pairs).view(B, T, C)  # of queries and keys, in place
        self.split = self.qkv.view(B, T, 3, H, D).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        self.future = torch.full((T, T), float("-inf"), dtype=dtype).triu(1)

    def __call__(self, weights: Parameters, grads: Parameters, tokens: Tensor) -> Tensor:
        """Loss (), and the gradients into `grads`.

        Args: weights, grads: name -> (in, out); tokens (B, T + 1).
        """
        inputs, targets = tokens[:, :-1].flatten(), tokens[:, 1:].flatten()
        self._forward(weights, inputs)
        loss = self._cross_entropy(weights["embedding"], grads["embedding"], targets)
        self._backward(weights, grads)
        grads["embedding"].index_add_(0, inputs, self.dx)
        return loss

    def _forward(self, w: Parameters, inputs: Tensor) -> None:
        x = self.x
        torch.index_select(w["embedding"], 0, inputs, out=x)
        self._normalise(x, self.first, self.first_inverse)
        x.copy_(self.first)
        for i, layer in enumerate(self.layers):
            self._normalise(x, layer.attention_in, layer.attention_inverse)
            torch.mm(layer.attention_in, w[f"{i}.qkv"], out=self.qkv)
            self._attention(layer)
            x.addmm_(layer.mixed, w[f"{i}.out"])
            self._normalise(x, layer.mlp_in, layer.mlp_inverse)
            positive = torch.mm(layer.mlp_in, w[f"{i}.up"], out=layer.positive).relu_()
            x.addmm_(torch.mul(positive, positive, out=self.wide), w[f"{i}.down"])
        self._normalise(x, self.hidden, self.hidden_inverse)

    def _backward(self, w: Parameters, g: Parameters) -> None:
        dx, narrow, wide = self.dx, self.narrow, self.wide
        self._normalise_backward(dx, self.hidden, self.hidden_inverse)
        for i, layer in reversed(list(enumerate(self.layers))):
            squared = torch.mul(layer.positive, layer.positive, out=wide)
            torch.mm(squared.T, dx, out=g[f"{i}.down"])
            # The 2 of d(p^2) = 2 p dp rides on the products, where it costs nothing.
            dup = torch.mm(dx, w[f"{i}.down"].T, out=wide).mul_(layer.positive)
            g[f"{i}.up"].addmm_(layer.mlp_in.T, dup, beta=0, alpha=2)
            narrow.addmm_(dup, w[f"{i}.up"].T, beta=0, alpha=2)
            dx += self._normalise_backward(narrow, layer.mlp_in, layer.mlp_inverse)
            torch.mm(layer.mixed.T, dx, out=g[f"{i}.out"])
            self._attention_backward(layer, torch.mm(dx, w[f"{i}.out"].T, out=narrow))
            torch.mm(layer.attention_in.T, self.qkv, out=g[f"{i}.qkv"])
            torch.mm(self.qkv, w[f"{i}.qkv"].T, out=narrow)
            dx += self._normalise_backward(narrow, layer.attention_in, layer.attention_inverse)
        self._normalise_backward(dx, self.first, self.first_inverse)

    def _normalise(self, x: Tensor, y: Tensor, inverse: Tensor) -> None:
        """y = x / rms(x) and 1 / rms(x)."""
        torch.mul(x, x, out=self.narrow2)
        torch.mean(self.narrow2, 1, keepdim=True, out=inverse).add_(self.epsilon).rsqrt_()
        torch.mul(x, inverse, out=y)

    def _normalise_backward(self, dy: Tensor, y: Tensor, inverse: Tensor) -> Tensor:
        """dx = (dy - y mean(dy y)) / rms(x), in the place of dy."""
        torch.mul(dy, y, out=self.narrow2)
        along = torch.mean(self.narrow2, 1, keepdim=True, out=self.along)
        return dy.addcmul_(y, along, value=-1).mul_(inverse)

    def _attention(self, layer: _Layer) -> None:
        B, T, H, D = self.shape
        self.pairs.mul_(self.rotary)
        layer.heads.view(self.split.shape).copy_(self.split)
        queries, keys, values = layer.heads
        scores = self.dscores.baddbmm_(queries, keys.mT, beta=0, alpha=self.scale)
        torch.softmax(scores.add_(self.future), -1, out=layer.weights)
        out = torch.bmm(layer.weights, values, out=self.dheads[0])
        layer.mixed.view(B, T, H, D).copy_(out.view(B, H, T, D).transpose(1, 2))

    def _attention_backward(self, layer: _Layer, dmixed: Tensor) -> None:
        """Leaves the gradient of the projections in `qkv`."""
        B, T, H, D = self.shape
        queries, keys, values = layer.heads
        dqueries, dkeys, dvalues = self.dheads
        dout = self.narrow2.view(B * H, T, D)
        dout.view(B, H, T, D).copy_(dmixed.view(B, T, H, D).transpose(1, 2))
        torch.bmm(layer.weights.mT, dout, out=dvalues)
        ds = torch.bmm(dout, values.mT, out=self.dscores).mul_(layer.weights)
        ds.addcmul_(layer.weights, ds.sum(-1, keepdim=True), value=-1)
        dqueries.baddbmm_(ds, keys, beta=0, alpha=self.scale)
        dkeys.baddbmm_(ds.mT, queries, beta=0, alpha=self.scale)
        self.split.copy_(self.dheads.view(self.split.shape))
        self.pairs.mul_(self.rotary_back)

    def _cross_entropy(self, embedding: Tensor, dembedding: Tensor, targets: Tensor) -> Tensor:
        """Mean loss; its gradients into `dembedding` and `dx`.

        The softmax is never normalised as a whole: its (N, 1) totals scale the narrow arrays.
        """
        N = len(targets)
        logits = torch.mm(self.hidden, embedding.T, out=self.logits)
        largest = logits.amax(1, keepdim=True)
        picked = logits.gather(1, targets[:, None]).sub_(largest)
        total = logits.sub_(largest).exp_().sum(1, keepdim=True)
        loss = total.log().sub_(picked).mean()
        share = total.reciprocal_().div_(N)
        torch.mm(logits, embedding, out=self.dx).mul_(share)
        self.dx.sub_(torch.index_select(embedding, 0, targets, out=self.narrow), alpha=1 / N)
        torch.mm(logits.T, torch.mul(self.hidden, share, out=self.narrow), out=dembedding)
        dembedding.index_add_(0, targets, torch.mul(self.hidden, -1 / N, out=self.narrow))
        return loss


class MemberStep:
    """`train.step.Step` on a CPU, with clipping per member."""

    def __init__(self, size: Size):
        self.size, self.gradients = size, MemberGradients(size)
        shapes = size.config.shapes
        self.flat = torch.empty(sum(map(prod, shapes.values())), dtype=weight_dtype(size.recipe))
        parts = self.flat.split([prod(shape) for shape in shapes.values()])
        self.grads = {n: p.view(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}

    @torch.no_grad()
    def __call__(self, state: TrainState, sequences: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        recipe, losses, norms = self.size.recipe, [], []
        state.step += 1
        with _products(recipe.precision):
            for k, tokens in enumerate(sequences):
                weights, first, second = (
                    {name: stacked[k] for name, stacked in group.items()}
                    for group in state.groups().values()
                )
                losses.append(self.gradients(weights, self.grads, tokens))
                norms.append(norm := self.flat.norm())
                if norm > recipe.clip:
                    self.flat.mul_(recipe.clip / norm)
                adamw(
                    recipe,
                    state.updates[k],
                    rate,
                    list(weights.values()),
                    list(self.grads.values()),
                    (list(first.values()), list(second.values())),
                )
        return torch.stack(losses), torch.stack(norms)


@contextlib.contextmanager
def _products(precision: str) -> Iterator[None]:
    """Whether products of float32 matrices may round their factors to bfloat16."""
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = "bf16" if precision == "bf16" else "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before
