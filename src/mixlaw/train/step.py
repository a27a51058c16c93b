"""One AdamW step of a stack by autograd, all members at once: what a GPU wants."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.train.model import Parameters, losses
from mixlaw.train.ranks import ALONE, Ranks
from mixlaw.train.recipe import ModelConfig, Recipe, Size
from mixlaw.train.state import TrainState, product_dtype

BETAS = (0.9, 0.95)
EPSILON = 1e-8

Step = Callable[[TrainState, Tensor, float], tuple[Tensor, Tensor]]
"""(state, sequences (K, B, T + 1), learning rate) -> losses (K,) before the step and gradient norms
(K,) before clipping; changes the state in place. Members share no number, so one whose loss is not
finite harms no other."""

LossFunction = Callable[[ModelConfig, Parameters, Tensor, torch.dtype], Tensor]


def adamw(
    recipe: Recipe,
    update: int,
    rate: float,
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    moments: tuple[Sequence[Tensor], Sequence[Tensor]],
) -> None:
    """The update number `update` of these moments, counted from 1, in place and in one pass over
    the memory.

    Source: Loshchilov & Hutter, arXiv 1711.05101, algorithm 2.
    """
    count = torch.full((), float(update), device=weights[0].device)
    # What torch.optim.AdamW(fused=True) comes to, without its bookkeeping.
    torch._fused_adamw_(  # type: ignore[attr-defined]
        list(weights),
        list(grads),
        list(moments[0]),
        list(moments[1]),
        [],
        [count] * len(weights),
        lr=rate,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=recipe.weight_decay,
        eps=EPSILON,
        amsgrad=False,
        maximize=False,
    )


@dataclass(frozen=True)
class StackStep:
    """`Step` by autograd, with clipping per member.

    Attributes:
        loss_function: the model's, or its compiled form.
        sequences_at_once: of each member in one pass; gradients add up over the passes.
        ranks: of several processes, each has its own rows of the batch.
    """

    size: Size
    loss_function: LossFunction = losses
    sequences_at_once: int | None = None
    ranks: Ranks = ALONE

    def __call__(self, state: TrainState, sequences: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        recipe = self.size.recipe
        leaves = {k: weight.detach().requires_grad_() for k, weight in state.parameters.items()}
        parts = sequences.split(self.sequences_at_once or sequences.shape[1], dim=1)
        loss, grads = None, []
        for part in parts:
            share = part.shape[1] / sequences.shape[1]
            now = self.loss_function(self.size.config, leaves, part, product_dtype(recipe))
            found = list(torch.autograd.grad(now.sum(), list(leaves.values())))
            if len(parts) > 1:
                now, found = now * share, [g * share for g in found]
            # A copy: a graph that is replayed writes its loss to the same place again.
            loss = now.detach().clone() if loss is None else loss + now.detach()
            grads = found if not grads else [a.add_(b) for a, b in zip(grads, found, strict=True)]
        assert loss is not None, "a batch has at least one sequence"
        self.ranks.mean_([loss, *grads])
        with torch.no_grad():
            squares = [g.flatten(1).square().sum(dim=1) for g in grads]
            norm = torch.stack(squares).sum(dim=0).sqrt()  # (K,)
            clip = (recipe.clip / norm).clamp(max=1.0)[:, None, None]
            for grad in grads:
                grad.mul_(clip)
            state.step += 1
            first_member = 0
            # Members that began alike are updated at once: all of them, but where the moments of
            # different models go on.
            for update, alike in itertools.groupby(state.updates):
                members = slice(first_member, first_member := first_member + len(list(alike)))
                weights, first, second = (
                    [stacked[members] for stacked in group.values()]
                    for group in state.groups().values()
                )
                adamw(recipe, update, rate, weights, [g[members] for g in grads], (first, second))
        return loss, norm
