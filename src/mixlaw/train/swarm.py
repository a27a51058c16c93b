"""A swarm: run specs into stacks of one size, and the training of a stack into the store."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from mixlaw.claims import Worker
from mixlaw.corpus import load_corpus
from mixlaw.errors import TrainError
from mixlaw.runs import RunSpec
from mixlaw.store import RunStore
from mixlaw.train import devices
from mixlaw.train.hardware import Hardware
from mixlaw.train.ranks import Ranks, join_ranks
from mixlaw.train.recipe import Recipe, Size
from mixlaw.train.record import StoreJournal, TakenOver
from mixlaw.train.stack import RunStack, horizon_steps, shared

Stack = list[RunSpec]


@dataclass(frozen=True)
class Swarm:
    """Trains run specs, several of one size, set of horizons and pools as one stack.

    Plain data, so that it travels to another process or machine as JSON.

    Attributes:
        corpus: folder of a built corpus.
        sizes: name -> architecture and recipe.
        runs: folder or URL of the runs.
    """

    corpus: str
    sizes: Mapping[str, Size]
    runs: str
    hardware: Hardware = field(default_factory=Hardware)

    @property
    def store(self) -> RunStore:
        return RunStore(self.runs)

    def to_dict(self) -> dict[str, Any]:
        return {
            "corpus": self.corpus,
            "sizes": {name: size.to_dict() for name, size in self.sizes.items()},
            "runs": self.runs,
            "hardware": asdict(self.hardware),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Swarm:
        sizes = {name: Size.from_dict(size) for name, size in data["sizes"].items()}
        return cls(data["corpus"], sizes, data["runs"], Hardware(**data["hardware"]))

    def unfinished(self, specs: Sequence[RunSpec], *, workers: int = 1) -> list[Stack]:
        """The runs without result, or without the model that they are to keep, in stacks of
        balanced sizes, the costliest first.

        On a CPU no bit of a run depends on its stack, so stacks are cut as it suits the workers.
        """
        groups: dict[tuple, Stack] = {}
        for spec in self.store.unfinished(specs):
            groups.setdefault(shared(spec), []).append(spec)
        stacks = []
        for group in groups.values():
            most = self._most_members(group[0].size)
            count = max(-(-len(group) // most), min(workers, len(group)))
            ends = np.linspace(0, len(group), count + 1).round().astype(int)
            stacks += [group[a:b] for a, b in itertools.pairwise(ends.tolist())]
        return sorted(stacks, key=self.flops, reverse=True)

    def _most_members(self, size: str) -> int:
        if self.sizes[size].processes > 1:
            return 1
        if self.hardware.stack_size is not None:
            return self.hardware.stack_size
        # A worker whose GPU holds fewer trains them in turns.
        gpu = self.hardware.device == "cuda" or (
            self.hardware.device == "auto" and torch.cuda.is_available()
        )
        return devices.MOST_MEMBERS if gpu else devices.CPU_STACK

    def steps(self, stack: Stack) -> int:
        """Training steps of a stack, all horizons."""
        recipe = self._recipe(stack)
        return recipe.total_steps(horizon_steps(stack, recipe))

    def tokens_per_step(self, stack: Stack) -> int:
        """Tokens of one step over all members."""
        return self._recipe(stack).tokens_per_step * len(stack)

    def processes(self, stack: Stack) -> int:
        """Processes, each with its own device, that train one stack of this size together."""
        return self.sizes[stack[0].size].processes

    def flops(self, stack: Stack) -> float:
        """Training cost of a stack, output matrix and attention included."""
        size = self.sizes[stack[0].size]
        per_token = size.config.flops_per_token(size.recipe.sequence_length)
        return per_token * self.tokens_per_step(stack) * self.steps(stack)

    def train(self, stack: Stack, worker: Worker) -> None:
        """Train the runs of a stack that nobody else has, from their checkpoints, into the store.

        One thread on a CPU: the sums of a matrix product depend on how many threads share it, so
        with more the losses would depend on the machine. Whole stacks in parallel use the cores
        better.

        Raises: TrainError, StorageError, CorpusError; finished runs stay in the store.
        """
        torch.set_num_threads(1)
        device = devices.pick_device(self.hardware.device)
        ranks = join_ranks(device)
        devices.free_memory(device)
        most = self.hardware.stack_size or devices.members_at_once(
            self.sizes[stack[0].size], device
        )
        for start in range(0, len(stack), most):
            self._train_claimed(stack[start : start + most], worker, device, ranks)
        ranks.part()

    def _train_claimed(
        self, stack: Stack, worker: Worker, device: torch.device, ranks: Ranks
    ) -> None:
        """Claim no more than what trains now, so that others find the rest."""
        claimed = []
        if ranks.leads:
            keeping = {spec.run_id for spec in stack if spec.keep}
            claimed = worker.claim([spec.run_id for spec in stack], keeping=keeping)
        mine = set(ranks.from_leader(claimed))
        try:
            for group in self._at_one_place([spec for spec in stack if spec.run_id in mine]):
                # Of several ranks only the leader knows when others took over: the error ends all.
                with contextlib.suppress(*([TakenOver] if ranks.count == 1 else [])):
                    self._train_together(group, worker, device, ranks)
        finally:
            if ranks.leads:
                worker.release(claimed)

    def _at_one_place(self, specs: Stack) -> list[Stack]:
        """The runs in groups that can go on together: those with a checkpoint of the same step."""
        numbers = {spec.run_id: self.store.checkpoints(spec.run_id) for spec in specs}
        having = Counter(itertools.chain.from_iterable(numbers.values()))
        groups: dict[int, Stack] = {}
        for spec in specs:
            # A stack that was killed while it saved: the step that most of them have, not the last.
            place = max(numbers[spec.run_id], key=lambda n: (having[n], n), default=0)
            groups.setdefault(place, []).append(spec)
        return list(groups.values())

    def _train_together(
        self, stack: Stack, worker: Worker, device: torch.device, ranks: Ranks
    ) -> None:
        """Train runs that begin at one place; halves them where the GPU's memory is too small."""
        devices.free_memory(device)  # of the stack before, which free memory does not count
        try:
            self._train_stack(stack, worker, device, ranks)
            return
        except torch.OutOfMemoryError as error:
            if len(stack) == 1:
                raise TrainError(
                    f"one {stack[0].size} does not fit in the memory of {device}; give the size "
                    "fewer sequences per step (batch_size), or more processes"
                ) from error
        # Out here the error, and with it every tensor of the frames it came through, is gone.
        middle = len(stack) // 2
        for half in (stack[:middle], stack[middle:]):
            for group in self._at_one_place(half):
                self._train_together(group, worker, device, ranks)

    def _train_stack(
        self, stack: Stack, worker: Worker, device: torch.device, ranks: Ranks
    ) -> None:
        runs = RunStack(
            stack,
            self.sizes[stack[0].size],
            corpus=load_corpus(self.corpus),
            hardware=self.hardware,
            device=device,
            ranks=ranks,
        )
        journal = StoreJournal(
            self.store,
            worker,
            stack,
            steps_total=self.steps(stack),
            tokens_per_step=runs.recipe.tokens_per_step,
            checkpoint_seconds=self.hardware.checkpoint_seconds,
            ranks=ranks,
        )
        runs.train(journal)

    def _recipe(self, stack: Stack) -> Recipe:
        return self.sizes[stack[0].size].recipe
