"""The steps of a study, each resumable and idempotent, each one call of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.errors import StudyError
from mixlaw.files import digest
from mixlaw.laws import FittedLaws, fit_laws
from mixlaw.laws.diagnostics import diagnose
from mixlaw.laws.findings import Finding
from mixlaw.laws.links import LinkedLaws
from mixlaw.laws.selection import FORMAT_VERSION as FIT_FORMAT
from mixlaw.mixture import Mixture
from mixlaw.optimize import Decision
from mixlaw.optimize.decide import distinct
from mixlaw.optimize.pareto import FORMAT_VERSION as PARETO_FORMAT
from mixlaw.optimize.pareto import ParetoFront
from mixlaw.plan.edit_plan import EditPlan, plan_edit
from mixlaw.plan.edits import Edit, apply_edits, shared_mixtures
from mixlaw.plan.reuse import MOVED, Carried, carry_runs
from mixlaw.runs import VERIFY, RunSpec, RunTable
from mixlaw.schedule import Schedule
from mixlaw.stages import FittedStages, ScheduleDecision
from mixlaw.study.artefacts import (
    DECISION,
    FIT,
    PARETO,
    SCHEDULE,
    VERIFICATION,
)
from mixlaw.study.continual_answer import ContinualAnswer
from mixlaw.study.continual_steps import ContinualSteps
from mixlaw.study.deciding import (
    Deciding,
    Scale,
    fit_targets,
    named_targets,
    typical_half_widths,
)
from mixlaw.study.export_config import ExportConfig
from mixlaw.study.exported_design import ExportedDesign, export_design
from mixlaw.study.exporting import Export, baseline, decided, export, given
from mixlaw.study.launch_config import LaunchConfig
from mixlaw.study.launching import refuse_missing
from mixlaw.study.schedule_verification import ScheduleVerification
from mixlaw.study.scheduling import Scheduling, refuse_scores
from mixlaw.study.staging import StagedRuns
from mixlaw.study.status import status_of
from mixlaw.study.study_runs import StudyRuns
from mixlaw.study.verification import FORMAT_VERSION as VERIFICATION_FORMAT
from mixlaw.study.verification import RECOMMENDED, Verification, verify

if TYPE_CHECKING:
    from mixlaw.corpus import Corpus
    from mixlaw.launch.driver import Progress


class Study(StudyRuns):
    """One study file and the folder around it.

    >>> study = Study("my-study")          # my-study/study.yaml
    >>> study.train(); study.fit()
    >>> study.optimize().recommended
    """

    # Steps

    def corpus(self) -> Corpus:
        """Build (or open) the token files."""
        return self._own("corpus").corpus

    def design(self) -> list[RunSpec]:
        """The run specs of the swarm; fixed from its first training step on.

        Raises: StudyError: the study was edited under a swarm that has begun.
        """
        return self._own("design").design()

    def train(
        self,
        on_progress: Callable[[Progress], None] | None = None,
        *,
        launch: LaunchConfig | None = None,
        on_note: Callable[[str], None] = print,
    ) -> RunTable:
        """Train what is missing of the swarm; interrupt and call again at will.

        Args:
            launch: instead of the study's launch section.
            on_note: told what went wrong without ending the training.
        Raises: TrainError: runs still have no result, after the table is written; it names them.
        """
        own = self._own("train")
        specs, launching = own.design(), self._launching(launch, on_progress, on_note)
        missing = launching.train(own.swarm, specs)
        runs = own.write_table(own.verified_specs())
        refuse_missing(missing, specs)
        return runs

    def train_commands(self, slots: int = 1) -> list[str]:
        """Shell commands that train the swarm, one a stack, to be run wherever the run folder and
        the corpus are in reach; `train` then only collects.

        Args: slots: machines at hand; at least so many commands, where there are as many runs.
        """
        from mixlaw.launch.commands import print_commands

        own = self._own("train")
        return print_commands(own.swarm, own.design(), slots=slots)

    def export(
        self,
        to: str | None = None,
        *,
        mixture: Mixture | Schedule | str | None = None,
        out: str | Path | None = None,
        train_tokens: int | None = None,
        settings: ExportConfig | None = None,
    ) -> Export:
        """Write a mixture as a trainer wants it, and what the trainer will make of it.

        Args:
            to: name of the trainer's format (`mixlaw.interop.EXPORTERS`); None: as the study says.
            mixture: None: the decision's; text: the name of a baseline.
            out: folder; None: export/<to> beside the study.
            train_tokens: of the run; None: the target's.
            settings: what stands instead of the study's export section.
        Raises: ExportError: the trainer cannot be told so, or needs what is not known. StudyError,
            MixtureError: no such baseline or domain.
        """
        if mixture is None:
            choice = decided(self)
        elif isinstance(mixture, str):
            choice = baseline(self, mixture)
        else:
            choice = given(self, mixture)
        folder = None if out is None else Path(out)
        return export(self, choice, to, out=folder, train_tokens=train_tokens, settings=settings)

    def export_design(
        self,
        out: str | Path,
        to: str | None = None,
        *,
        count: int | None = None,
        settings: ExportConfig | None = None,
    ) -> ExportedDesign:
        """Write the runs of the design as configs for another trainer, and a list of them by which
        `import_runs` finds their results.

        Args:
            to, settings: as `export`.
            count: the next runs worth doing instead, as `ask`; nothing is written where none are.
        The configs of a study that trains get a study.yaml beside them, for the results.
        Raises: StudyError: a study of a table without `count`, or one that trains with it; as
            `export` and `ask`.
        """
        return export_design(self, Path(out), to, count=count, settings=settings)

    def plan_edit(self, edits: Sequence[Edit]) -> EditPlan:
        """What a change of domains makes of the runs and the decision; `mixlaw.plan.edit_plan`.

        The study's constraints hold as far as the domains that they name are still there.
        """
        scale, domains = self.scale, self.domains()
        constraints = self.config.constraints.build().surviving(apply_edits(domains, edits))
        return plan_edit(
            self.fit(),
            self.optimize().recommended,
            edits,
            domains=domains,
            objective=self.objective,
            constraints=constraints,
            num_params=scale.num_params,
            train_tokens=scale.train_tokens,
            seed=self.config.seed,
        )

    def carry(self, edits: Sequence[Edit]) -> Carried:
        """The runs as runs over the domains after the edits, for the table of the next study."""
        fitted = self.fit()
        named = {domain.name: domain for domain in self.domains()}
        shared = shared_mixtures([named[name] for name in fitted.domains], edits)
        return carry_runs(fitted.cross_validation.runs, shared, tolerance=MOVED, law=fitted)

    def fit(self) -> FittedLaws:
        """Choose a law by cross-validation and fit it to every target.

        Raises: StudyError: the runs did not measure what the study names, or continue a model.
            FitError: as `fit_laws`.
        """
        runs, config = self._fitted_runs(), self.config
        if not len(runs) and len(self.runs().staged()):
            raise StudyError(
                f"{self.file}: every finished row of the table changed its mixture during "
                "training, and laws of mixtures are of runs with one throughout; add such rows"
            )
        self._refuse_continued(runs)
        try:
            wanted, also = fit_targets(config, runs)
        except StudyError as error:
            raise StudyError(f"{self.file}: {error}") from error

        def make() -> dict[str, Any]:
            laws, seed = config.fit.laws, config.seed
            return fit_laws(runs, wanted, also=also, candidates=laws, seed=seed).to_dict()

        return FittedLaws.from_dict(self._artefacts.cached(FIT, self._fit_basis(), make))

    def diagnose(self) -> tuple[Finding, ...]:
        """What speaks against trusting the fit, for the study's objective at its target scale."""
        fitted, scale = self.fit(), self._scale_if_known()
        shares = self.objective.shares
        weights = np.array([shares.get(target, 0.0) for target in fitted.targets])
        if not weights.any():  # scores only: what their links may start from
            weights = np.full(len(fitted.targets), 1 / len(fitted.targets))
        return diagnose(fitted, **vars(scale), coefficients=weights)

    def half_widths(self) -> dict[str, tuple[float, float]]:
        """Target -> typical half width of its interval at the largest trained scale and at the
        target's: the median over trained mixtures."""
        target = self._scale_if_known()
        return typical_half_widths(self.fit(), target, self.config.fit.level)

    def predict(
        self, mixtures: Sequence[Mixture], scale: Scale | None = None
    ) -> list[dict[str, tuple[float, float]]]:
        """Forecasts of mixtures: one mapping target -> (value, half width of the interval) each."""
        return self._deciding(scale or self.scale).predict(mixtures)

    def optimize(self) -> Decision:
        """The mixture to train the target scale on, with its evidence."""
        deciding = self._deciding(self.scale)
        found = self._artefacts.cached(
            DECISION, deciding.basis(), lambda: deciding.decide().to_dict()
        )
        return Decision.from_dict(found)

    def pareto(self, count: int = 11) -> ParetoFront:
        """What the study's objective and its trade-offs cost each other.

        Raises: StudyError: the study names no trade-off.
        """
        tradeoffs = self.config.tradeoffs
        if not tradeoffs:
            raise StudyError(
                f"{self.file} names no trade-off; add for instance "
                "tradeoffs: {code: {loss/code: 1}} to see what code costs the objective"
            )
        deciding = self._deciding(self.scale)
        basis = deciding.basis() | {"count": count, "format": PARETO_FORMAT}
        basis |= {"tradeoffs": {name: other.model_dump() for name, other in tradeoffs.items()}}
        found = self._artefacts.cached(PARETO, basis, lambda: deciding.front(count).to_dict())
        return ParetoFront.from_dict(found)

    def forecaster(self) -> FittedLaws | LinkedLaws:
        """The laws, with links to the scores that the study names, if it does."""
        return self._deciding(self.scale).forecaster()

    def _deciding(self, scale: Scale) -> Deciding:
        fitted, runs = self.fit(), self._fitted_runs()
        return Deciding(self.config, fitted, runs, self.domains(), scale)

    def verify(
        self,
        on_progress: Callable[[Progress], None] | None = None,
        *,
        launch: LaunchConfig | None = None,
        on_note: Callable[[str], None] = print,
    ) -> Verification:
        """Train the target size on the recommended mixture and the baselines; compare.

        Args: as `train`.
        """
        own, decision = self._own("verify"), self.optimize()
        own.design()  # refuses an edited study before anything is trained
        specs = self._verify_specs(decision)
        missing = self._launching(launch, on_progress, on_note).train(own.swarm, specs)
        runs = own.write_table(specs)
        refuse_missing(missing, specs)
        found = verify(decision, runs.select(runs.role == VERIFY))
        basis = self._verification_basis(decision, specs)
        self._artefacts.write(VERIFICATION, basis, found.to_dict())
        return found

    def verification(self) -> Verification | None:
        """The stored verification, if it is of the present decision and settings."""
        if self.from_table or not (self.folder / VERIFICATION).exists():
            return None
        decision = self.optimize()
        basis = self._verification_basis(decision, self._verify_specs(decision))
        stored = self._artefacts.current(VERIFICATION, basis)
        return None if stored is None else Verification.from_dict(stored)

    def continual(
        self,
        on_progress: Callable[[Progress], None] | None = None,
        *,
        launch: LaunchConfig | None = None,
        on_note: Callable[[str], None] = print,
    ) -> ContinualAnswer:
        """How much new data a model may be continued on, without losing the old: trains the base
        and what continues it (where the study is not one of a table), fits, answers.

        Args: as `train`.
        Raises: StudyError: the study continues no model, or its runs do not answer. TrainError: as
            `train`.
        """
        return ContinualSteps(self).answer(self._launching(launch, on_progress, on_note))

    def continual_answer(self) -> ContinualAnswer | None:
        """The stored answer, if it is of the present runs and settings; trains nothing."""
        return ContinualSteps(self).stored()

    def schedule(
        self,
        on_progress: Callable[[Progress], None] | None = None,
        *,
        launch: LaunchConfig | None = None,
        on_note: Callable[[str], None] = print,
    ) -> ScheduleDecision:
        """The schedule to train, or the static mixture where no order is known to be better: trains
        the staged runs that are missing (where the study is not one of a table), fits, decides.

        Args: as `train`.
        Raises: StudyError: no swarm yet, a table without staged runs, or an objective on scores.
            TrainError: as `train`.
        """
        refuse_scores(self.config, self.file)
        if not self.from_table:
            own, optimum = self._own("schedule"), self.optimize().recommended
            StagedRuns(own).train(optimum, self._launching(launch, on_progress, on_note))
        return self._scheduling().decide()

    def schedule_decision(self) -> ScheduleDecision | None:
        """The stored decision, if it is of the present runs and settings; trains nothing."""
        if not (self.folder / SCHEDULE).exists():
            return None
        if not self.from_table and not StagedRuns(self._own("schedule")).complete:
            return None
        return self._scheduling().stored()

    def fit_stages(self) -> FittedStages:
        """What the order of the data does, fitted to the staged runs that there are."""
        return self._scheduling().fit()

    def _scheduling(self) -> Scheduling:
        staged = self.runs() if self.from_table else StagedRuns(self._own("schedule")).table()
        return Scheduling(self._deciding(self.scale), staged, self.file)

    def verify_schedule(
        self,
        on_progress: Callable[[Progress], None] | None = None,
        *,
        online: bool = False,
        launch: LaunchConfig | None = None,
        on_note: Callable[[str], None] = print,
    ) -> ScheduleVerification:
        """Train the target size on the staged schedule, the best static mixture and the static one
        of the schedule's dose; compare.

        Args: online: also runs that adapt their own mixture; the others as `train`.
        """
        staged = StagedRuns(self._own("schedule --verify"))
        decision = self.schedule(on_progress, launch=launch, on_note=on_note)
        launching = self._launching(launch, on_progress, on_note)
        return staged.verify(decision, launching, online=online)

    def schedule_verification(self) -> ScheduleVerification | None:
        """The stored verification, if it is of the present decision on schedules."""
        decision = None if self.from_table else self.schedule_decision()
        if decision is None or decision.staged.schedule.is_static:
            return None
        return StagedRuns(self._own("schedule")).verification(decision)

    def status(self) -> dict[str, Any]:
        """What is done and what is next; `steps` maps each step to a line for people, or None."""
        return status_of(self)

    # How it is done

    def _verify_specs(self, decision: Decision) -> list[RunSpec]:
        try:
            return self._own("verify").training.verify_specs(
                {RECOMMENDED: decision.recommended, **distinct(self.baselines())}
            )
        except StudyError as error:
            raise StudyError(f"{self.file}: {error}") from error

    def _fit_basis(self) -> dict[str, Any]:
        """What fit.json is made from."""
        metrics = sorted({t.partition("/")[0] for t in named_targets(self.config)})
        basis = {"runs": digest(self._fitted_runs().rows()), "metrics": metrics}
        basis |= {"format": FIT_FORMAT, "seed": self.config.seed}
        return basis | {"fit": self.config.fit.model_dump()}

    def _verification_basis(self, decision: Decision, specs: Sequence[RunSpec]) -> dict[str, Any]:
        """What verification.json is made from."""
        basis = {"decision": digest(decision.to_dict()), "format": VERIFICATION_FORMAT}
        return basis | {"runs": [spec.to_dict() for spec in specs]}
