"""mixlaw's training of a stack, as a worker of a swarm does it, but endless.

Batches of a mixture from token files, the claimed runs' journal (metrics, heartbeat) in a store on
the disk, losses judged as they come. What the peers do not do either is left out: evaluation and
checkpoints.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers import CLIP, LEARNING_RATE, WEIGHT_DECAY, On, OnStep, Shape, Train
from mixlaw.claims import Worker
from mixlaw.corpus import BatchSampler
from mixlaw.mixture import Mixture
from mixlaw.runs import RunSpec
from mixlaw.store import RunStore
from mixlaw.train.devices import members_at_once, pick_device, training_step
from mixlaw.train.feed import Feed
from mixlaw.train.loop import StackJob, train_stack
from mixlaw.train.model import losses
from mixlaw.train.recipe import ModelConfig, Recipe, Size
from mixlaw.train.record import StoreJournal
from mixlaw.train.state import TrainState
from mixlaw.train.step import StackStep, Step

DOMAINS = 5
FOREVER = 10**6
"""Steps; the clock stops the training long before."""

FAST = 1e-2
"""A learning rate at which a dozen steps teach something."""


class Stopped(Exception):
    """Leaves a training from inside."""


def size_of(shape: Shape, precision: str) -> Size:
    """The same shape in mixlaw's words."""
    config = ModelConfig(
        shape.vocab_size, shape.width, shape.num_layers, shape.head_width, shape.mlp_ratio
    )
    recipe = Recipe(
        learning_rate=LEARNING_RATE,
        batch_size=shape.batch_size,
        sequence_length=shape.sequence_length,
        weight_decay=WEIGHT_DECAY,
        clip=CLIP,
        precision=precision,
    )
    return Size(config, recipe)


def largest_stack(shape: Shape, on: On) -> int:
    """Members that mixlaw trains together on this device."""
    return members_at_once(size_of(shape, _precision(on)), pick_device(on.device))


def stack(shape: Shape, members: int, tokens: Path, on: On) -> Train:
    """A stack of proxies, each with a mixture and a seed of its own."""
    size, device = size_of(shape, _precision(on)), pick_device(on.device)
    recipe, names = size.recipe, [f"domain-{j}" for j in range(DOMAINS)]
    streams = np.array_split(np.memmap(tokens, dtype=np.uint16, mode="r"), DOMAINS)
    proportions = np.random.default_rng(0).dirichlet(np.ones(DOMAINS), members)
    specs = [
        RunSpec(
            mixture=Mixture(dict(zip(names, proportions[k], strict=True))),
            label=f"m{k:02}",
            role="swarm",
            size="benchmark",
            num_params=shape.num_params,
            horizon_tokens=(FOREVER * shape.tokens_per_step,),
            seed=k,
            context="benchmark",
        )
        for k in range(members)
    ]

    def train(on_step: OnStep) -> None:
        sampler = BatchSampler(
            streams,
            sequence_length=shape.sequence_length,
            batch_size=shape.batch_size,
            seeds=range(members),
        )

        def draw(first: int, count: int) -> np.ndarray:
            return sampler.batches(first, count, proportions)

        step_bytes = 8 * members * shape.tokens_per_step
        feed = Feed(draw, step_bytes=step_bytes, last_step=FOREVER, device=device)

        def batches(step: int) -> torch.Tensor:
            if step and not on_step():  # the step before this one has been done
                raise Stopped
            return feed(step)

        with tempfile.TemporaryDirectory() as folder:
            store = RunStore(folder)
            with Worker(store) as worker, contextlib.suppress(Stopped):
                worker.claim([spec.run_id for spec in specs])
                train_stack(
                    StackJob(
                        size=size,
                        horizon_steps=[FOREVER],
                        seeds=range(members),
                        step=_step(size, members, device, on),
                        batches=batches,
                        evaluate=_no_evaluation,
                        journal=StoreJournal(
                            store,
                            worker,
                            specs,
                            steps_total=FOREVER,
                            tokens_per_step=recipe.tokens_per_step,
                            checkpoint_seconds=float("inf"),
                        ),
                        device=device,
                    )
                )

    return train


def loss_curves(
    shape: Shape,
    seeds: Sequence[int],
    batches: Sequence[torch.Tensor],
    precision: str,
    device: str = "cpu",
) -> np.ndarray:
    """Losses (steps, K) of a stack by autograd on batches (K, B, T + 1), one a step."""
    size, place = size_of(shape, precision), pick_device(device)
    state, step = TrainState.fresh(size, list(seeds), place), StackStep(size)
    losses = [step(state, batch.to(place), FAST)[0].double().cpu().numpy() for batch in batches]
    return np.stack(losses)


def _step(size: Size, members: int, device: torch.device, on: On) -> Step:
    if on.backend in (None, "inductor"):
        return training_step(size, members, device, compiled=on.backend is not None)
    # A test of the lines that only a GPU takes.
    return StackStep(size, torch.compile(losses, backend=on.backend, dynamic=False))


def _precision(on: On) -> str:
    return "bf16" if on.bfloat16 else "float32"


def _no_evaluation(parameters) -> list[dict[str, float]]:
    raise AssertionError("an endless training evaluates nothing")
