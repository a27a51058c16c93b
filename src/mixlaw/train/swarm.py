"""A swarm: run specs into stacks of one size, and the training of a stack into the store."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mixlaw.corpus import BatchSampler, load_corpus
from mixlaw.files import digest
from mixlaw.runs import DONE, FAILED, RunResult, RunSpec, RunStore
from mixlaw.train.evaluate import Evaluator
from mixlaw.train.loop import StackJob, train_stack
from mixlaw.train.recipe import Recipe, Size

Stack = list[RunSpec]


@dataclass(frozen=True)
class Swarm:
    """Trains run specs, several of one size, set of horizons and pools as one stack.

    Plain data, so that it travels to another process as it is.

    Attributes:
        corpus: folder of a built corpus.
        sizes: name -> architecture.
        checkpoints: folder for the resume state of unfinished stacks.
        stack_size: the most proxies that train together.
    """

    corpus: Path
    sizes: Mapping[str, Size]
    recipe: Recipe
    store: RunStore
    checkpoints: Path
    stack_size: int = 8

    def unfinished(self, specs: Sequence[RunSpec], *, workers: int = 1) -> list[Stack]:
        """The stacks still to train, of balanced sizes, the costliest first.

        Stacks are cut from all specs, done or not, so that after an interruption the same stacks
        come back and find their checkpoints; of a stack that lost its checkpoint, only the members
        without a result are trained.
        """
        groups: dict[tuple, Stack] = {}
        for spec in specs:
            pools = tuple((spec.pools or {}).items())
            groups.setdefault((spec.size, spec.horizon_tokens, pools), []).append(spec)
        stacks = []
        for group in groups.values():
            count = max(-(-len(group) // self.stack_size), min(workers, len(group)))
            ends = np.linspace(0, len(group), count + 1).round().astype(int)
            for start, end in itertools.pairwise(ends.tolist()):
                stack = group[start:end]
                pending = [spec for spec in stack if not self.store.has(spec)]
                if pending:
                    stacks.append(stack if self._checkpoint(stack).exists() else pending)
        return sorted(stacks, key=self.flops, reverse=True)

    def steps(self, stack: Stack) -> int:
        """Training steps of a stack, all horizons."""
        return self.recipe.total_steps(self._horizon_steps(stack))

    def tokens_per_step(self, stack: Stack) -> int:
        """Tokens of one step over all members."""
        return self.recipe.tokens_per_step * len(stack)

    def flops(self, stack: Stack) -> float:
        """Training cost of a stack: 6 FLOPs per parameter and token, output matrix included."""
        config = self.sizes[stack[0].size].config
        per_token = 6 * (config.num_params + config.vocab_size * config.width)
        return per_token * self.tokens_per_step(stack) * self.steps(stack)

    def train_stack(self, stack: Stack, on_step: Callable[[int], None] | None = None) -> None:
        """Train one stack, resuming from its checkpoint, and store its results.

        One thread: the sums of a matrix product depend on how many threads share it, so with more
        the losses would depend on the machine. Whole stacks in parallel use the cores better.

        Raises: TrainError, CheckpointError, StorageError; finished runs stay in the store.
        """
        torch.set_num_threads(1)
        size, recipe, corpus = self.sizes[stack[0].size], self.recipe, load_corpus(self.corpus)
        names = [domain.name for domain in corpus.domains]
        seeds, pools = [spec.seed for spec in stack], stack[0].pools
        sampler = BatchSampler(
            [corpus.train_tokens(name) for name in names],
            sequence_length=recipe.sequence_length,
            batch_size=recipe.batch_size,
            seeds=seeds,
            pools=None if pools is None else [pools[name] for name in names],
        )
        proportions = np.stack([spec.mixture.array(names) for spec in stack])
        checkpoint = self._checkpoint(stack)
        job = StackJob(
            config=size.config,
            recipe=recipe,
            horizon_steps=self._horizon_steps(stack),
            seeds=seeds,
            learning_rates=[size.learning_rate] * len(stack),
            batches=lambda step: sampler.batch(step, proportions),
            evaluate=Evaluator(
                size.config,
                {name: corpus.valid_tokens(name) for name in corpus.targets},
                {name: corpus.bytes_per_token(name) for name in corpus.targets},
                max_tokens=recipe.evaluation_tokens,
            ),
            checkpoint=checkpoint,
            identity=checkpoint.stem,
        )
        result = train_stack(job, on_step)
        for k, spec in enumerate(stack):
            failed = result.failed_step[k]
            if failed >= 0:
                reason = f"the loss was not finite at step {failed}"
                self.store.save(spec, RunResult(FAILED, (), reason))
            else:
                self.store.save(spec, RunResult(DONE, tuple(t[k] for t in result.targets)))
        checkpoint.unlink(missing_ok=True)

    def _checkpoint(self, stack: Stack) -> Path:
        return self.checkpoints / f"{digest([spec.run_id for spec in stack])}.safetensors"

    def _horizon_steps(self, stack: Stack) -> list[int]:
        return [tokens // self.recipe.tokens_per_step for tokens in stack[0].horizon_tokens]
