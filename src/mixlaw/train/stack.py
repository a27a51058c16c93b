"""A stack: runs that train together, what they draw, and what came of each."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixlaw.corpus import BatchSampler, Corpus, Segments
from mixlaw.errors import TrainError
from mixlaw.runs import DONE, FAILED, RunResult, RunSpec
from mixlaw.schedule import Online, Schedule
from mixlaw.train import devices
from mixlaw.train.checkpoint import continue_models, save_model
from mixlaw.train.evaluate import Evaluator
from mixlaw.train.feed import Feed
from mixlaw.train.hardware import Hardware
from mixlaw.train.loop import StackJob, StackResult, train_stack
from mixlaw.train.online import OnlineJob, OnlineMixtures
from mixlaw.train.ranks import Ranks
from mixlaw.train.recipe import Recipe, Size
from mixlaw.train.record import StoreJournal


def shared(spec: RunSpec) -> tuple[Any, ...]:
    """What all runs of a stack have alike."""
    pools = tuple((spec.pools or {}).items())
    rewarm = spec.start and spec.start.rewarm  # one learning rate for all members
    return spec.size, spec.horizon_tokens, pools, rewarm, spec.online


def horizon_steps(specs: Sequence[RunSpec], recipe: Recipe) -> list[int]:
    """The horizons of a stack in steps, ascending."""
    return [tokens // recipe.tokens_per_step for tokens in specs[0].horizon_tokens]


class RunStack:
    """K runs to train together on one device, or on the devices of several ranks.

    Args:
        specs: K runs that have alike what `shared` tells.
        size: of all of them.
    Raises:
        TrainError: runs that cannot train together, or a size that cannot train so.
        MixtureError: a schedule with a stage that would have no step.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        size: Size,
        *,
        corpus: Corpus,
        hardware: Hardware,
        device: torch.device,
        ranks: Ranks,
    ):
        _check(specs, size, ranks)
        self.specs, self.size, self.recipe = specs, size, size.recipe
        self.corpus, self.hardware, self.device, self.ranks = corpus, hardware, device, ranks
        self.domains = [domain.name for domain in corpus.domains]
        self.vocabulary = {key: corpus.manifest["tokenizer"][key] for key in ("name", "digest")}
        self.bytes_per_token = {name: corpus.bytes_per_token(name) for name in corpus.targets}
        self.seeds, pools = [spec.seed for spec in specs], specs[0].pools
        self.horizons = horizon_steps(specs, self.recipe)
        self.sampler = BatchSampler(
            [corpus.train_tokens(name) for name in self.domains],
            sequence_length=self.recipe.sequence_length,
            batch_size=self.recipe.batch_size,
            seeds=self.seeds,
            pools=None if pools is None else [pools[name] for name in self.domains],
        )
        schedules = [spec.schedule or Schedule.static(spec.mixture) for spec in specs]
        self.planned = Segments.of(schedules, self.domains, num_steps=self.horizons[-1])
        self.online: OnlineMixtures | None = None
        self.feed = Feed(
            self._draw,
            step_bytes=8 * len(specs) * self.recipe.tokens_per_step // ranks.count,
            last_step=self.horizons[-1],
            device=device,
        )
        if (online := specs[0].online) is not None:
            self.online = OnlineMixtures(self._online_job(online))

    @property
    def segments(self) -> Segments:
        """What batches follow now."""
        return self.online.segments if self.online else self.planned

    def _draw(self, first_step: int, num_steps: int) -> np.ndarray:
        drawn = self.sampler.batches(first_step, num_steps, self.segments)
        return drawn[:, :, self.ranks.rank :: self.ranks.count]

    def train(self, journal: StoreJournal) -> None:
        """Train to all horizons, from the last checkpoint, and hand the journal what came of it.

        Raises: CheckpointError, TrainError, StorageError; TakenOver.
        """
        with contextlib.closing(self.feed):
            result = train_stack(self._job(journal))
        if self.ranks.leads:

            def keep(path: Path, k: int) -> None:
                save_model(path, result.state, k, size=self.size, vocabulary=self.vocabulary)

            journal.finish(self._results(result), keep)

    def _job(self, journal: StoreJournal) -> StackJob:
        starts = [spec.start for spec in self.specs if spec.start is not None]  # of all, or of none
        vocabulary, device = self.vocabulary, self.device

        def begin():
            located = [journal.store.located(start) for start in starts]
            return continue_models(located, self.size, vocabulary=vocabulary, device=device)

        return StackJob(
            size=self.size,
            horizon_steps=self.horizons,
            seeds=self.seeds,
            step=devices.training_step(
                self.size,
                len(self.specs),
                device,
                compiled=self.hardware.compile,
                ranks=self.ranks,
            ),
            batches=self.feed,
            evaluate=self._evaluator(self.size, self.corpus.targets, ranks=self.ranks),
            journal=journal,
            device=device,
            report_steps=self.hardware.report_steps,
            begin=begin if starts else None,
            rewarm=starts[0].rewarm if starts else 1.0,
            online=self.online,
        )

    def _results(self, result: StackResult) -> list[RunResult]:
        """(K,) of a training to its end."""
        counts = self.sampler.domain_counts(self.horizons[-1], self.segments)
        epochs = [
            dict(zip(self.domains, row, strict=True))
            for row in (counts / self.sampler.windows).tolist()
        ]
        return [
            RunResult(FAILED, (), reason)
            if (reason := result.failed[k])
            else RunResult(
                DONE,
                tuple(targets[k] for targets in result.targets),
                epochs=epochs[k],
                at_start=result.start[k],
                schedules=self._schedules(k),
            )
            for k in range(len(self.specs))
        ]

    def _schedules(self, k: int) -> tuple[Schedule, ...]:
        """What a member has seen up to each horizon; () of one mixture throughout."""
        if self.online:
            return self.online.schedules(k)
        if (schedule := self.specs[k].schedule) is None:
            return ()
        in_steps = partial(schedule.in_steps, num_steps=self.horizons[-1])
        return tuple(in_steps(horizon) for horizon in self.horizons)

    def _evaluator(self, size: Size, targets: Sequence[str], *, ranks: Ranks) -> Evaluator:
        valid = {name: self.corpus.valid_tokens(name) for name in targets}
        bytes_per_token = {name: self.bytes_per_token[name] for name in targets}
        return Evaluator(size, valid, bytes_per_token, device=self.device, ranks=ranks)

    def _online_job(self, online: Online) -> OnlineJob:
        """Raises: TrainError: an objective of targets that this corpus does not have."""
        known = [f"loss/{name}" for name in self.corpus.targets]
        known += [f"bpb/{name}" for name, size in self.bytes_per_token.items() if size is not None]
        if unknown := set(online.weights).difference(known):
            raise TrainError(
                f"the online objective weighs {', '.join(sorted(unknown))}; this corpus has the "
                f"targets {', '.join(known)}"
            )
        heard = {target.partition("/")[2] for target in online.weights}
        cheap = replace(self.recipe, evaluation_tokens=online.evaluation_tokens)
        return OnlineJob(
            online=online,
            domains=self.domains,
            mixtures=np.stack([spec.mixture.array(self.domains) for spec in self.specs]),
            seeds=self.seeds,
            sampler=self.sampler,
            evaluate=self._evaluator(
                replace(self.size, recipe=cheap),
                [name for name in self.corpus.targets if name in heard],
                ranks=self.ranks,
            ),
            renew=self.feed.renew,
            first_step=self.recipe.warmup_steps,
            last_step=self.recipe.branch_step(self.horizons[-1]),
            num_steps=self.horizons[-1],
        )


def _check(specs: Sequence[RunSpec], size: Size, ranks: Ranks) -> None:
    """Raises: TrainError: as `RunStack`."""
    other = next((spec for spec in specs if shared(spec) != shared(specs[0])), None)
    if other is not None:
        raise TrainError(
            f"the runs {specs[0].label} and {other.label} cannot train in one stack: they differ "
            "in size, horizons, pools, rewarm or online settings, or only one of them continues a "
            "model; stack them as Swarm.unfinished does"
        )
    name, recipe = specs[0].size, size.recipe
    if recipe.batch_size % ranks.count:
        raise TrainError(
            f"{name} has batches of {recipe.batch_size} sequences for {ranks.count} processes; let "
            "processes divide batch_size"
        )
    if specs[0].online and (recipe.schedule != "wsd" or size.processes > 1):
        raise TrainError(
            f"an online mixture needs a size with the schedule wsd and processes 1; {name} has "
            f"{recipe.schedule} and {size.processes}"
        )
