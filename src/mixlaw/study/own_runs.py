"""The runs that a study trains itself: its corpus, its design, and the table of what is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import StudyError
from mixlaw.mixture import Domain, Mixture
from mixlaw.plan.proposals import Plan, Proposal
from mixlaw.runs import RunSpec, RunTable
from mixlaw.store import RunStore
from mixlaw.study.artefacts import DESIGN, VERIFICATION, Artefacts, differences
from mixlaw.study.config import StudyConfig
from mixlaw.study.planning import Planning
from mixlaw.study.training import Training

if TYPE_CHECKING:
    from mixlaw.corpus import Corpus
    from mixlaw.train.swarm import Swarm

RUNS = "runs.csv"


@dataclass(frozen=True)
class OwnRuns:
    """What lies in the folder of a study that trains. `config` has a training section."""

    config: StudyConfig
    file: Path

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def store(self) -> RunStore:
        """Of the run folders: beside the study, or where its launch section says."""
        given = self.config.launch.runs or "runs"
        return RunStore(given if "://" in given else (self.folder / given).resolve())

    @property
    def artefacts(self) -> Artefacts:
        return Artefacts(self.folder, self.config.seed)

    @cached_property
    def corpus(self) -> Corpus:
        """The token files, built when they are not there."""
        from mixlaw.study.sources import corpus_of

        return corpus_of(self.config, self.folder)

    @cached_property
    def training(self) -> Training:
        return Training(self.config, self.corpus)

    def domains(self) -> list[Domain]:
        """The trained domains: what the study claims of the big run's data stands above what lies
        on this disk."""
        claims = {name: given.available_tokens for name, given in self.config.domains.items()}
        return [
            Domain(d.name, claim, claim) if (claim := claims[d.name]) else d
            for d in self.corpus.domains
        ]

    def design(self) -> list[RunSpec]:
        """The run specs of the swarm; fixed from its first training step on.

        Raises: StudyError: the study was edited under a swarm that has begun.
        """
        stored = self.artefacts.read(DESIGN)
        if stored is not None:
            changed = differences(stored["basis"], self.training.basis())
            specs = _specs(stored["result"])
            if not changed:
                return specs
            if not {spec.run_id for spec in specs}.isdisjoint(self.store.storage.names()):
                raise StudyError(
                    f"{self.file} was edited under its swarm: {'; '.join(changed)}. Restore these "
                    "settings to go on with it, or copy the study file to a new folder and start "
                    "there (nothing here is lost)"
                )
        mixtures = self.training.mixtures(prior=Mixture.natural(self.domains()))
        return self._write_design(self.training.swarm_specs(mixtures))

    def stored_design(self) -> list[RunSpec] | None:
        """The specs of the swarm as stored, of these settings or not; None when there are none."""
        stored = self.artefacts.read(DESIGN)
        return None if stored is None else _specs(stored["result"])

    def _write_design(self, specs: list[RunSpec]) -> list[RunSpec]:
        basis = self.training.basis()
        self.artefacts.write(DESIGN, basis, [spec.to_dict() for spec in specs])
        return specs

    def next(self, planning: Planning, count: int) -> Plan:
        """The next runs where those of the design will be done."""
        specs, finished = self.design(), self.store.finished()
        pending = [
            Proposal(s.mixture, s.num_params, s.horizon_tokens[-1], None, None, "planned")
            for s in specs
            if s.run_id not in finished
        ]
        return planning.plan(count, pending)

    def further_specs(self, plan: Plan) -> list[RunSpec]:
        """What a plan adds to the design."""
        return self.training.further_specs(plan.proposals, self.design())

    def join(self, plan: Plan) -> None:
        """The runs of a plan become those of the design."""
        self._write_design([*self.design(), *self.further_specs(plan)])

    @property
    def swarm(self) -> Swarm:
        return self.training.swarm(self.store.root)

    def write_table(self, verify_specs: Sequence[RunSpec]) -> RunTable:
        """Write runs.csv from the store: the swarm and the verification runs there are. Runs of
        the swarm without a result are in it as missing.

        Raises: RunTableError: no run has values.
        """
        unique = {d.name: d.available_tokens for d in self.corpus.domains if d.available_tokens}
        design = self.design()
        finished = self.store.finished()
        specs = [*design, *(spec for spec in verify_specs if spec.run_id in finished)]
        table = self.store.table(
            specs, list(self.config.domains), available_tokens=unique, missing=True
        )
        table.write(self.folder / RUNS)
        return table

    def verified_specs(self) -> list[RunSpec]:
        """Specs of the last verification, whatever has been decided since."""
        data = self.artefacts.read(VERIFICATION)
        return _specs(data["basis"]["runs"]) if data else []


def _specs(stored: Sequence[dict[str, Any]]) -> list[RunSpec]:
    return [RunSpec.from_dict(spec) for spec in stored]
