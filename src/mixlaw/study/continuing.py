"""Continuing a model on new domains: the base, and the runs that continue it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mixlaw.errors import StorageError, StudyError
from mixlaw.mixture import Mixture
from mixlaw.runs import FAILED, RunSpec, RunTable, Start
from mixlaw.store import start_from
from mixlaw.study.artefacts import CONTINUAL_BASES
from mixlaw.study.continual_config import ContinualConfig
from mixlaw.study.launching import Launching, refuse_missing
from mixlaw.study.own_runs import OwnRuns

CONTINUED_RUNS = "continual.csv"
BASE, CONTINUED = "base", "continued"
"""Roles of the runs: the model that is continued, and those that continue it."""


@dataclass(frozen=True)
class Continuing:
    """What a study trains to continue a model.

    Attributes:
        own: of a study with the sections for it.
        settings: the section on continuing.
    """

    own: OwnRuns
    settings: ContinualConfig

    @property
    def domains(self) -> list[str]:
        """Old ones first."""
        return [*self.settings.old_of(list(self.own.config.domains)), *self.settings.new]

    def mixture(self, share: float) -> Mixture:
        """With so much new data."""
        new, settings = self.settings.new, self.settings
        old = [name for name in self.domains if name not in new]
        replayed, base = settings.old_mixture, settings.base.mixture
        if replayed is None and base is not None:
            replayed = {name: base[name] for name in old if base.get(name)}
        sides = ((1 - share, old, replayed), (share, new, settings.new_mixture))
        return Mixture(
            {name: part * s for part, names, m in sides for name, s in self._side(names, m).items()}
        )

    def _side(self, names: Sequence[str], given: Mapping[str, float] | None) -> Mixture:
        if given is not None:
            return Mixture.from_weights({name: given.get(name, 0.0) for name in names})
        return Mixture.natural([d for d in self.own.domains() if d.name in names])

    def bases(self) -> dict[str, RunSpec]:
        """Size -> the run that trains its base; {} where the model was trained elsewhere."""
        if self.settings.base.checkpoint is not None:
            return {}
        config, given = self.own.config, self.settings.base.mixture
        mixture = self.mixture(0.0) if given is None else Mixture(given)
        horizons = {s: config.horizon_steps(s)[-1:] for s in self.settings.sizes_of(config)}
        return {
            size: self._spec(mixture, BASE, BASE, config.seed, size, steps)
            for size, steps in horizons.items()
        }

    def continued(self) -> list[RunSpec]:
        """The runs that continue the bases, which there are, or were when they were continued.

        Their order of data is by other seeds than the base's, so that what is replayed is not the
        beginning of what the base saw.
        Raises: StudyError: a base diverged. StorageError, CheckpointError: no model of ours.
        """
        config, settings = self.own.config, self.settings
        starts = self._starts()
        order = itertools.product(
            settings.sizes_of(config), settings.rewarm, settings.shares, range(settings.seeds)
        )
        specs = []
        for size, rewarm, share, extra in order:
            label = f"{share:g} new"
            if len(settings.rewarm) > 1:
                label += f", re-warmed to {rewarm:g}"
            seed, horizons = config.seed + 1 + extra, settings.horizons_of(size, config)
            spec = self._spec(self.mixture(share), label, CONTINUED, seed, size, horizons)
            start = replace(starts[size], optimizer=settings.optimizer, rewarm=rewarm)
            specs.append(replace(spec, start=start))
        return specs

    def _starts(self) -> dict[str, Start]:
        """Size -> the model that is continued. One that was deleted is known by its digest."""
        known = self._known_digests()
        found = {}
        for size, place in self._places().items():
            try:
                found[size] = start_from(place)
            except StorageError:
                if (digest := known.get(self._name_of(size))) is None:
                    raise
                found[size] = Start(place, digest)
        return found

    def _name_of(self, size: str) -> str:
        """Of the base of a size, wherever the study lies."""
        return self.settings.base.checkpoint or self.bases()[size].run_id

    def _known_digests(self) -> dict[str, str]:
        """Name of a base -> digest of its model, of all that this study has continued."""
        stored = self.own.artefacts.read(CONTINUAL_BASES)
        return dict(stored["result"]) if stored else {}

    def _remember(self, specs: Sequence[RunSpec]) -> None:
        """The bases of these runs, so that their models may be deleted."""
        known = self._known_digests()
        digests = {self._name_of(spec.size): spec.start.digest for spec in specs if spec.start}
        if known != known | digests:
            self.own.artefacts.write(CONTINUAL_BASES, sorted(known | digests), known | digests)

    def _places(self) -> dict[str, str]:
        """Size -> path or URL of the model that is continued."""
        given = self.settings.base.checkpoint
        if given is not None:
            place = given if "://" in given else str((self.own.folder / given).resolve())
            return dict.fromkeys(self.settings.sizes_of(self.own.config), place)
        bases = self.bases()
        for size, result in self._results(bases).items():
            if result.status == FAILED:
                raise StudyError(
                    f"{self.own.file}: the base of size {size} diverged ({result.reason}); lower "
                    f"sizes.{size}.learning_rate"
                )
        return {size: self.own.store.model_url(spec.run_id) for size, spec in bases.items()}

    def _results(self, bases: Mapping[str, RunSpec]):
        found = self.own.store.results(list(bases.values()))
        return {size: found[s.run_id] for size, s in bases.items() if s.run_id in found}

    def _spec(
        self, mixture: Mixture, label: str, role: str, seed: int, size: str, steps: Sequence[int]
    ) -> RunSpec:
        spec = self.own.training.spec(mixture, label, role, seed, size, steps)
        # `design.match_repetition` is about the swarm: these draw from all text there is.
        return replace(spec, pools=None, keep=role == BASE)

    def train(self, launching: Launching) -> RunTable:
        """Train what is missing: the bases first, then what continues them. A base without its
        model is trained again only where a run that continues it is missing.

        Raises: TrainError: runs have no result still; the table is written before.
        """
        swarm = self.own.swarm
        if self.trained() is None:
            bases = list(self.bases().values())
            refuse_missing(launching.train(swarm, bases), bases)
        specs = self.continued()
        self._remember(specs)
        missing = launching.train(swarm, specs)
        found = self._table(specs)
        found.write(self.own.folder / CONTINUED_RUNS)
        refuse_missing(missing, specs)
        return found

    def trained(self) -> RunTable | None:
        """The continued runs of the present settings; None when some are missing."""
        try:
            specs = self.continued()
        except (StorageError, StudyError):  # no model to continue yet, or none any more
            return None
        return None if self.own.store.unfinished(specs) else self._table(specs)

    def _table(self, specs: Sequence[RunSpec]) -> RunTable:
        unique = {
            d.name: d.available_tokens
            for d in self.own.corpus.domains
            if d.available_tokens and d.name in self.domains
        }
        return self.own.store.table(specs, self.domains, available_tokens=unique, missing=True)
