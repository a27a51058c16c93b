"""One training loop: a stack of K proxies, a constant-rate trunk and a decay branch per horizon.

The learning rate warms up, stays constant, and decays linearly to zero over the last part of each
horizon. The runs to all horizons share their constant part, so it is trained once (the trunk) and
each horizon branches off it; batches depend on (seed, step, mixture) alone, so a branch is exactly
the run that trains to that horizon only (warmup-stable-decay: Hu et al., arXiv 2404.06395;
Haegele et al., arXiv 2405.18392).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mixlaw.errors import CheckpointError
from mixlaw.train.checkpoint import load_checkpoint, save_checkpoint
from mixlaw.train.model import Parameters, initial_parameters, losses
from mixlaw.train.recipe import ModelConfig, Recipe

BETAS = (0.9, 0.95)
EPSILON = 1e-8


class Batches(Protocol):
    """Where sequences come from; a pure function of the step."""

    def __call__(self, step: int) -> np.ndarray:
        """Token ids (K, B, T + 1) of `step`."""
        ...


Evaluate = Callable[[Parameters], list[dict[str, float]]]
"""Parameters of a stack -> one mapping target -> value per member."""


@dataclass
class TrainState:
    """Parameters and AdamW moments of a stack after `step` steps; `failed_step` (K,) is -1 while
    a member's loss is finite."""

    step: int
    parameters: Parameters
    first: Parameters
    second: Parameters
    failed_step: Tensor

    @classmethod
    def fresh(cls, config: ModelConfig, seeds: Sequence[int]) -> TrainState:
        parameters = initial_parameters(config, list(seeds))
        first, second = ({k: torch.zeros_like(v) for k, v in parameters.items()} for _ in range(2))
        return cls(0, parameters, first, second, torch.full((len(seeds),), -1))

    def copy(self) -> TrainState:
        parameters, first, second = (
            {k: v.clone() for k, v in group.items()} for group in self._groups()
        )
        return TrainState(self.step, parameters, first, second, self.failed_step.clone())

    def _groups(self) -> tuple[Parameters, Parameters, Parameters]:
        return self.parameters, self.first, self.second

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        names = ("parameters", "first", "second")
        groups = zip(names, self._groups(), strict=True)
        out = {f"{prefix}/{n}/{k}": v for n, group in groups for k, v in group.items()}
        return out | {f"{prefix}/failed_step": self.failed_step}

    @classmethod
    def of_tensors(cls, prefix: str, step: int, tensors: dict[str, Tensor]) -> TrainState:
        def group(name: str) -> Parameters:
            start = f"{prefix}/{name}/"
            return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}

        groups = group("parameters"), group("first"), group("second")
        return cls(step, *groups, tensors[f"{prefix}/failed_step"])


def advance(
    state: TrainState, config: ModelConfig, recipe: Recipe, sequences: Tensor, rates: Tensor
) -> Tensor:
    """One AdamW step in place, with clipping and learning rate per member.

    Args: sequences (K, B, T + 1); rates (K,) learning rates.
    Returns: losses (K,) before the step. A member whose loss is not finite is marked and left
        alone: members share no number, so the others go on as if it were not there.
    """
    # In the order of the architecture, whatever order a checkpoint came back in: sums over
    # parameters must round alike.
    leaves = {name: state.parameters[name].detach().requires_grad_() for name in config.shapes}
    loss = losses(config, leaves, sequences)
    grads = dict(zip(leaves, torch.autograd.grad(loss.sum(), list(leaves.values())), strict=True))
    with torch.no_grad():
        lost = ~torch.isfinite(loss) & (state.failed_step < 0)
        state.failed_step[lost] = state.step
        norm = torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)  # (K,)
        clip = (recipe.clip / (norm + 1e-6)).clamp(max=1.0)[:, None, None]
        rate = rates[:, None, None]
        step = state.step + 1
        first_scale, second_scale = (1 - beta**step for beta in BETAS)
        for name, grad in grads.items():
            grad = grad * clip
            weight, first, second = (group[name] for group in state._groups())
            first.lerp_(grad, 1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
            weight.mul_(1 - rate * recipe.weight_decay)
            update = first / (second / second_scale).sqrt_().add_(EPSILON)
            weight.sub_(update.mul_(rate / first_scale))
        state.step = step
    return loss.detach()


@dataclass
class StackJob:
    """Everything that defines the training of one stack.

    Attributes:
        horizon_steps: ascending.
        learning_rates: (K,) peak rates.
        checkpoint: file for the resume state; None trains without one.
        identity: digest of what is trained; a checkpoint is resumed only by its own.
    """

    config: ModelConfig
    recipe: Recipe
    horizon_steps: Sequence[int]
    seeds: Sequence[int]
    learning_rates: Sequence[float]
    batches: Batches
    evaluate: Evaluate
    checkpoint: Path | None = None
    identity: str = ""


@dataclass
class StackResult:
    """What a stack gave so far.

    Attributes:
        targets: [horizon][member] -> target -> value.
        failed_step: (K,) first step at which a member's loss was not finite, or -1.
    """

    targets: list[list[dict[str, float]]] = field(default_factory=list)
    failed_step: list[int] = field(default_factory=list)


def train_stack(job: StackJob, on_step: Callable[[int], None] | None = None) -> StackResult:
    """Train a stack to all its horizons, resuming from its checkpoint when there is one.

    Args:
        on_step: called after each step with the steps done so far (see `Recipe.total_steps`).
    Raises: CheckpointError: the checkpoint is cut short or of another stack; StorageError.
    """
    trunk, branch, result = _resume(job)
    peak = torch.tensor(job.learning_rates, dtype=torch.float32)
    last = job.horizon_steps[-1]

    def step(state: TrainState, horizon: int) -> None:
        sequences = torch.from_numpy(np.ascontiguousarray(job.batches(state.step), dtype=np.int64))
        advance(
            state, job.config, job.recipe, sequences, peak * job.recipe.rate(state.step, horizon)
        )
        if job.checkpoint and state.step % job.recipe.checkpoint_steps == 0:
            _save(job, trunk, branch, result)
        if on_step:
            on_step(_steps_done(job, trunk, branch, result))

    for horizon in job.horizon_steps[len(result.targets) :]:
        while trunk.step < job.recipe.branch_step(horizon):
            step(trunk, last)
        # Nothing leaves the trunk after the last branch, so that branch takes it over uncopied.
        branch = branch or (trunk if horizon == last else trunk.copy())
        while branch.step < horizon:
            step(branch, horizon)
        found = job.evaluate(branch.parameters)
        for k, values in enumerate(found):
            failed = int(branch.failed_step[k])
            if failed < 0 and not np.isfinite(list(values.values())).all():
                failed = horizon
            if result.failed_step[k] < 0:
                result.failed_step[k] = failed
        # JSON has no NaN; the values of a failed member mean nothing anyway.
        result.targets.append(
            [{} if step >= 0 else v for v, step in zip(found, result.failed_step, strict=True)]
        )
        branch = None
        if job.checkpoint and horizon != last:
            _save(job, trunk, branch, result)
    return result


def _steps_done(
    job: StackJob, trunk: TrainState, branch: TrainState | None, result: StackResult
) -> int:
    finished = job.horizon_steps[: len(result.targets)]
    done = sum(h - job.recipe.branch_step(h) for h in finished)
    return done + (trunk if branch is None else branch).step


def _save(job: StackJob, trunk: TrainState, branch: TrainState | None, result: StackResult) -> None:
    assert job.checkpoint is not None
    branch = None if branch is trunk else branch
    state = {
        "identity": job.identity,
        "trunk_step": trunk.step,
        "branch_step": branch.step if branch else None,
        "targets": result.targets,
        "failed_step": result.failed_step,
    }
    tensors = trunk.tensors("trunk") | (branch.tensors("branch") if branch else {})
    save_checkpoint(job.checkpoint, tensors, state)


def _resume(job: StackJob) -> tuple[TrainState, TrainState | None, StackResult]:
    if job.checkpoint is None or not job.checkpoint.exists():
        fresh = TrainState.fresh(job.config, job.seeds)
        return fresh, None, StackResult([], [-1] * len(job.seeds))
    tensors, state = load_checkpoint(job.checkpoint)
    if state["identity"] != job.identity:
        raise CheckpointError(
            f"the checkpoint {job.checkpoint} belongs to another training than the one asked for; "
            "restore the study's settings, or delete the file to train these proxies afresh"
        )
    trunk = TrainState.of_tensors("trunk", state["trunk_step"], tensors)
    branch = None
    if state["branch_step"] is not None:
        branch = TrainState.of_tensors("branch", state["branch_step"], tensors)
    return trunk, branch, StackResult(state["targets"], state["failed_step"])
