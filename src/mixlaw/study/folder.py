"""What lies in the folder of a study.

The folder of a study holds

    study.yaml          what the user decided
    corpus/             token files, documents.jsonl, corpus.json
    design.json         the run specs of the swarm
    runs/<run id>/      result, checkpoints, metrics and claims of each run
    runs.csv            the table of finished runs
    runs.original.csv   the table as it was, had it columns that mixlaw does not keep
    .lock               held while runs are taken or asked for
    asked.json          runs that were asked for
    import.yaml         from where, and how, the runs of others were imported
    fit.json            laws, held-out errors
    refits.json         the laws refitted to resampled runs, for the report
    decision.json       the mixture and its evidence
    pareto.json         what the objectives cost each other
    verification.json   the larger model trained on it, predicted against observed
    continual.csv       the table of runs that continue a model
    continual.json      how much new data it takes
    continual-bases.json  digests of the models that were continued, which may then be deleted
    staged-design.json  the run specs of the staged runs
    staged.csv          the table of them, and of those that verify a schedule
    stages.json         stage laws, held-out errors
    schedule.json       the schedule and its evidence
    schedule-verification.json
    export/<trainer>/   the mixture as a trainer wants it, and export.json
    report.html
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixlaw.errors import StudyError
from mixlaw.mixture import Domain, Mixture
from mixlaw.optimize import Objective
from mixlaw.optimize.decide import outside_support
from mixlaw.runs import VERIFY, RunTable
from mixlaw.store import RunStore
from mixlaw.study.artefacts import DESIGN, Artefacts
from mixlaw.study.config import StudyConfig, load_config
from mixlaw.study.continual_answer import continues_alone
from mixlaw.study.deciding import Scale, baselines
from mixlaw.study.launch_config import LaunchConfig
from mixlaw.study.launching import Launching
from mixlaw.study.own_runs import RUNS, OwnRuns

if TYPE_CHECKING:
    from mixlaw.launch.driver import Progress


class StudyFolder:
    """One study file and the folder around it: what a study knows before its first step."""

    def __init__(self, path: str | Path):
        """Args: path: the study's folder or its YAML file. Raises: StudyError."""
        path = Path(path)
        self.file = path if path.suffix in (".yaml", ".yml") else path / "study.yaml"
        self.folder = self.file.parent
        self.config: StudyConfig = load_config(self.file)

    @property
    def store(self) -> RunStore:
        return self._own_runs.store

    @property
    def home(self) -> Path:
        """What names the study: its folder, or the file where that is not study.yaml."""
        return self.folder if self.file.name == "study.yaml" else self.file

    @property
    def from_table(self) -> bool:
        """True when the runs came as a table and nothing is trained here."""
        return self.config.table is not None

    @property
    def only_continual(self) -> bool:
        """Whether the study is about continuing a model alone: it has designed no swarm, or has a
        table of continued runs."""
        if self.config.continual is None:
            return False
        return self.from_table or not (self.folder / DESIGN).exists()

    @property
    def objective(self) -> Objective:
        """What is minimised. One that is relative to a baseline gets its reference when it is
        optimised: see `Decision.objective`."""
        return self.config.objective.build()

    @property
    def scale(self) -> Scale:
        """The target scale. Raises: StudyError: the runs vary in what the study leaves open, or
        continue a model."""
        scale = Scale(self.config.target_params, self.config.target.train_tokens)
        runs = self.runs().trained()
        self._refuse_continued(runs)
        for name, value in vars(scale).items():
            if value is None and len(np.unique(getattr(runs, name))) > 1:
                raise StudyError(
                    f"{self.file}: the runs differ in {name}; say at which scale to decide, "
                    f"with target: {{{name}: ...}}"
                )
        return scale

    def runs(self) -> RunTable:
        """The table of finished runs. Raises: StudyError: there is none yet."""
        if self.config.table is not None:
            path = self.folder / self.config.table
            if not path.exists():
                raise StudyError(
                    f"no runs yet at {path}; put the table there, or ask what to run first: "
                    f"mixlaw design {shlex.quote(str(self.folder))} --next 1"
                )
            return RunTable.read(path)
        path = self.folder / RUNS
        if not path.exists():
            raise StudyError(
                f"no finished runs in {self.folder}; first: mixlaw train "
                f"{shlex.quote(str(self.folder))}"
            )
        return RunTable.read(path)

    def domains(self) -> list[Domain]:
        """Trained domains with their tokens: from the corpus, or as the study file gives them."""
        if not self.from_table:
            return self._own("domains").domains()
        runs = self._runs_so_far()
        given = self.config.domains
        names = runs.domains if runs is not None else tuple(given)
        if not names:
            raise StudyError(
                f"{self.file}: there is no table at {self.config.table} yet; name the domains, for "
                "instance domains: {web: {}, code: {}}, to ask what to run first"
            )
        strangers = sorted(set(given) - set(names))
        if strangers:
            raise StudyError(
                f"{self.file}: domains {strangers} are not in the table: {list(names)}"
            )
        return [Domain(n, given[n].available_tokens if n in given else None) for n in names]

    def baselines(self) -> dict[str, Mixture]:
        """Mixtures to compare with: natural and UniMax where token counts are known, uniform, and
        the study's own."""
        return baselines(self.config, self.domains(), self._scale_if_known().train_tokens)

    def extrapolates(self, mixture: Mixture) -> list[str]:
        """Domains whose share no trained mixture had, one phrase each: a forecast is a guess."""
        runs = self._fitted_runs().done()
        return list(outside_support(mixture, runs.domains, runs.weights))

    # For the steps

    @property
    def _artefacts(self) -> Artefacts:
        return Artefacts(self.folder, self.config.seed)

    @cached_property
    def _own_runs(self) -> OwnRuns:
        return OwnRuns(self.config, self.file)

    def _own(self, step: str) -> OwnRuns:
        """What a step of training works on. Raises: StudyError: the runs came as a table."""
        if self.from_table:
            asked = "; for the runs to do next: --next 8" if step == "design" else ""
            raise StudyError(
                f"{self.file} works from the table {self.config.table}; `{step}` needs domains "
                f"with text, sizes and a training section{asked}"
            )
        return self._own_runs

    def _launching(
        self,
        launch: LaunchConfig | None,
        on_progress: Callable[[Progress], None] | None,
        on_note: Callable[[str], None],
    ) -> Launching:
        return Launching(launch or self.config.launch, self.folder, on_progress, on_note)

    def _fitted_runs(self) -> RunTable:
        """What the laws of static mixtures learn from."""
        runs = self.runs().trained().static()
        return runs.select(runs.role != VERIFY)

    def _runs_so_far(self) -> RunTable | None:
        """Finished runs to learn from; None when there are none."""
        path = self.folder / (self.config.table or RUNS)
        return self._fitted_runs() if path.exists() else None

    def _scale_if_known(self) -> Scale:
        """The target scale; unknown where the study leaves it open, which a fit may."""
        try:
            return self.scale
        except StudyError:
            return Scale(None, None)

    def _refuse_continued(self, runs: RunTable) -> None:
        """Laws of mixtures are of runs from scratch. Raises: StudyError: a table's are not."""
        settings = self.config.continual
        if self.from_table and settings is not None and continues_alone(settings, runs):
            raise StudyError(
                f"{self.file}: the rows of {self.config.table} continue a model, and laws of "
                f"mixtures are of runs from scratch; ask: mixlaw continual "
                f"{shlex.quote(str(self.folder))}"
            )
