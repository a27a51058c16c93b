"""From a study file and its corpus to run specs and the swarm that trains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.design import design
from mixlaw.errors import StudyError
from mixlaw.files import digest
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.plan.proposals import Proposal
from mixlaw.runs import REPLICATE, SWARM, VERIFY, RunSpec
from mixlaw.schedule import Schedule
from mixlaw.study.config import StudyConfig
from mixlaw.study.training_config import TrainingConfig
from mixlaw.train.recipe import Size

if TYPE_CHECKING:
    from mixlaw.corpus import Corpus
    from mixlaw.train.swarm import Swarm


@dataclass(frozen=True)
class Training:
    """What a study trains. `config` has a training section."""

    config: StudyConfig
    corpus: Corpus

    @property
    def settings(self) -> TrainingConfig:
        assert self.config.training is not None, "a study that trains has the section"
        return self.config.training

    @cached_property
    def sizes(self) -> Mapping[str, Size]:
        """Name -> architecture for this corpus' vocabulary, and recipe."""
        return {
            name: size.build(name, self.settings, self.corpus.vocab_size)
            for name, size in self.config.sizes.items()
        }

    def swarm(self, runs: str | Path) -> Swarm:
        """The trainer of this study's specs, with its run folders in `runs`, a folder or URL."""
        from mixlaw.train.swarm import Swarm

        hardware = self.config.hardware.build()
        # Workers start in folders and on machines of their own.
        return Swarm(str(self.corpus.root.resolve()), self.sizes, str(runs), hardware)

    def pools(self, train_tokens: int, sequence_length: int) -> dict[str, int] | None:
        """Tokens of each domain that a run draws from to repeat it as the target run will, in whole
        sequences; None: all of the corpus.

        A verification run stands for the target run: it draws from as much as the target has.
        Raises: DesignError: this corpus cannot be cut so.
        """
        from mixlaw.design.repetition import matched_pools

        if not self.config.design.match_repetition:
            return None
        return matched_pools(
            [Domain(name, given.available_tokens) for name, given in self.config.domains.items()],
            proxy_tokens=train_tokens,
            target_tokens=self.config.target.train_tokens,
            sequence_length=sequence_length,
            tokens_on_disk={name: r.train_tokens for name, r in self.corpus.records.items()},
        )

    @property
    def longest(self) -> tuple[int, int]:
        """Training tokens of the swarm's longest horizon, and tokens of its longest sequence."""
        recipes = [self.sizes[name].recipe for name in self.settings.sizes]
        return (
            max(map(self.config.longest_tokens, self.settings.sizes)),
            max(recipe.sequence_length for recipe in recipes),
        )

    def proxy_domains(self) -> list[Domain]:
        """The trained domains with the tokens that the swarm's runs draw from."""
        pools = self.pools(*self.longest) or {}
        return [Domain(d.name, pools.get(d.name, d.available_tokens)) for d in self.corpus.domains]

    def basis(self) -> dict[str, Any]:
        """What the runs of the swarm depend on, JSON-able; speed settings do not count."""
        config, training = self.config, self.settings
        basis = config.model_dump(include={"seed"})
        basis["corpus"] = self.corpus.digest  # of its tokens: edited text counts, too
        basis["domains"] = list(config.domains)
        basis["design"] = config.design.model_dump(exclude={"match_repetition"})
        basis["pools"] = self.pools(*self.longest)  # None: all text
        basis["training"] = training.model_dump()
        basis["sizes"] = {
            name: {
                **config.sizes[name].model_dump(exclude={"processes"}),
                "known": asdict(config.sizes[name].named(name)),  # a new version may know better
            }
            for name in training.sizes
        }
        return basis

    def mixtures(self, prior: Mixture) -> list[Mixture]:
        """The mixtures of the swarm, spread around `prior`. Raises: as `mixlaw.design.design`."""
        settings = self.config.design
        limits = Constraints(settings.lower, settings.upper, settings.max_epochs)
        return design(
            [domain.name for domain in self.corpus.domains],
            settings.mixtures,
            method=settings.method,
            bounds=limits.bounds(self.proxy_domains(), self.longest[0]),
            prior=prior,
            temperature=settings.temperature,
            min_share=settings.min_share,
            seed=self.config.seed,
        )

    def swarm_specs(self, mixtures: Sequence[Mixture]) -> list[RunSpec]:
        """Every mixture at every trained size, and more seeds of a few mixtures for the noise."""
        settings, seed = self.config.design, self.config.seed
        labels = [f"m{i:02d}" for i in range(len(mixtures))]
        # From the most even to the most extreme: noise differs over the simplex.
        order = np.argsort([max(mixture.values()) for mixture in mixtures], kind="stable")
        picks = np.linspace(0, len(mixtures) - 1, settings.replicated_mixtures).round().astype(int)
        runs = [
            (mixture, label, SWARM, seed) for mixture, label in zip(mixtures, labels, strict=True)
        ]
        runs += [
            (mixtures[i], labels[i], REPLICATE, seed + extra)
            for i in dict.fromkeys(order[picks].tolist())
            for extra in range(1, settings.replicate_seeds)
        ]
        return [
            self.spec(*run, size, self.config.horizon_steps(size))
            for size in self.settings.sizes
            for run in runs
        ]

    def further_specs(
        self, proposals: Sequence[Proposal], specs: Sequence[RunSpec]
    ) -> list[RunSpec]:
        """Runs that a swarm of `specs` gets in addition.

        Raises: StudyError: a proposal at another scale than those of the swarm.
        """
        scales = {
            (self.config.num_params(name), self.config.longest_tokens(name)): name
            for name in self.settings.sizes
        }
        further = []
        for number, proposal in enumerate(proposals, start=len(specs)):
            size = scales.get((proposal.num_params, proposal.train_tokens))  # type: ignore[arg-type]
            if size is None:
                known = ", ".join(f"{params} and {tokens}" for params, tokens in scales)
                raise StudyError(
                    f"the swarm has runs of these parameters and tokens: {known}; none of "
                    f"{proposal.scale}; let plan.scales name no others, or leave them out"
                )
            run = (proposal.mixture, f"n{number:02d}", SWARM, self.config.seed)
            further.append(self.spec(*run, size, self.config.horizon_steps(size)))
        known = {spec.run_id for spec in specs}
        return [spec for spec in further if spec.run_id not in known]

    def verify_specs(self, mixtures: Mapping[str, Mixture | Schedule]) -> list[RunSpec]:
        """Runs of the target scale on named mixtures or schedules, several seeds each.

        Raises: StudyError: the target is no size of this study, or no whole number of steps.
        """
        target, verify = self.config.target, self.config.verify
        if target.size is None or target.train_tokens is None:
            raise StudyError(
                "verification trains the target; give target.size (one of "
                f"{list(self.config.sizes)}) and target.train_tokens"
            )
        per_step = self.config.recipe(target.size).tokens_per_step
        steps, rest = divmod(target.train_tokens, per_step)
        horizons = verify.horizon_steps or [steps]
        if rest or horizons[-1] != steps:
            raise StudyError(
                f"target.train_tokens is {target.train_tokens}, the last verify horizon "
                f"{horizons[-1]} steps of {per_step} tokens; they must be equal"
            )
        return [
            self.spec(mixture, label, VERIFY, self.config.seed + extra, target.size, horizons)
            for label, mixture in mixtures.items()
            for extra in range(verify.seeds)
        ]

    def spec(
        self,
        mixture: Mixture | Schedule,
        label: str,
        role: str,
        seed: int,
        size: str,
        horizon_steps: Sequence[int],
    ) -> RunSpec:
        """One run of this corpus and these recipes."""
        chosen = self.sizes[size]
        per_step = chosen.recipe.tokens_per_step
        schedule = mixture if isinstance(mixture, Schedule) else None
        return RunSpec(
            mixture=mixture.dose if isinstance(mixture, Schedule) else mixture,
            label=label,
            role=role,
            size=size,
            num_params=chosen.config.num_params,
            horizon_tokens=tuple(h * per_step for h in horizon_steps),
            pools=self.pools(horizon_steps[-1] * per_step, chosen.recipe.sequence_length),
            seed=seed,
            context=digest([self.corpus.digest, asdict(chosen.config), asdict(chosen.recipe)]),
            schedule=schedule,
        )
