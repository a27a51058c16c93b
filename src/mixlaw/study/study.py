"""The steps of a study, each resumable and idempotent, each one call of the library.

The folder of a study holds

    study.yaml          what the user decided
    corpus/             token files, documents.jsonl, corpus.json
    design.json         the run specs of the swarm
    runs/<run id>/      result, checkpoints, metrics and claims of each run
    runs.csv            the table of finished runs
    asked.json          runs that were asked for
    fit.json            laws, held-out errors
    decision.json       the mixture and its evidence
    pareto.json         what the objectives cost each other
    verification.json   the larger model trained on it, predicted against observed
    continual.csv       the table of runs that continue a model
    continual.json      how much new data it takes
    staged-design.json  the run specs of the staged runs
    staged.csv          the table of them, and of those that verify a schedule
    stages.json         stage laws, held-out errors
    schedule.json       the schedule and its evidence
    schedule-verification.json
    report.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
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
from mixlaw.mixture import Domain, Mixture
from mixlaw.optimize import Decision, Objective
from mixlaw.optimize.decide import distinct, outside_support
from mixlaw.optimize.pareto import FORMAT_VERSION as PARETO_FORMAT
from mixlaw.optimize.pareto import ParetoFront
from mixlaw.plan.budget import BudgetPlan
from mixlaw.plan.edit_plan import EditPlan, plan_edit
from mixlaw.plan.edits import Edit, apply_edits, shared_mixtures
from mixlaw.plan.proposals import Plan
from mixlaw.plan.reuse import MOVED, Carried, carry_runs
from mixlaw.runs import VERIFY, RunSpec, RunTable, higher_is_better
from mixlaw.schedule import Schedule
from mixlaw.stages import FittedStages, ScheduleDecision
from mixlaw.store import RunStore
from mixlaw.study.artefacts import (
    CONTINUAL,
    DECISION,
    DESIGN,
    FIT,
    PARETO,
    REPORT,
    SCHEDULE,
    VERIFICATION,
    Artefacts,
)
from mixlaw.study.config import StudyConfig, load_config
from mixlaw.study.continual_answer import ContinualAnswer, answer, basis_of
from mixlaw.study.continual_config import ContinualConfig
from mixlaw.study.continuing import Continuing
from mixlaw.study.deciding import (
    Deciding,
    Scale,
    baselines,
    fit_targets,
    named_targets,
    typical_half_widths,
)
from mixlaw.study.launch_config import LaunchConfig
from mixlaw.study.launching import Launching, refuse_missing
from mixlaw.study.own_runs import RUNS, OwnRuns
from mixlaw.study.planning import Planning, read_asked, still_pending, told, write_asked
from mixlaw.study.schedule_verification import ScheduleVerification
from mixlaw.study.scheduling import Scheduling, refuse_scores
from mixlaw.study.staging import STAGED_TABLE, StagedRuns
from mixlaw.study.status import STEPS, RunsStatus, with_continual
from mixlaw.study.verification import FORMAT_VERSION as VERIFICATION_FORMAT
from mixlaw.study.verification import RECOMMENDED, Verification, verify

if TYPE_CHECKING:
    from mixlaw.corpus import Corpus
    from mixlaw.launch.driver import Progress


class Study:
    """One study file and the folder around it.

    >>> study = Study("my-study")          # my-study/study.yaml
    >>> study.train(); study.fit()
    >>> study.optimize().recommended
    """

    def __init__(self, path: str | Path):
        """Args: path: the study's folder or its YAML file. Raises: StudyError."""
        path = Path(path)
        self.file = path if path.suffix in (".yaml", ".yml") else path / "study.yaml"
        self.folder = self.file.parent
        self.config: StudyConfig = load_config(self.file)

    # What lies in the folder

    @property
    def store(self) -> RunStore:
        return self._own_runs.store

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
        """The target scale. Raises: StudyError: the runs vary in what the study leaves open."""
        scale = Scale(self.config.target_params, self.config.target.train_tokens)
        runs = self.runs().trained()
        for name, value in vars(scale).items():
            if value is None and len(np.unique(getattr(runs, name))) > 1:
                raise StudyError(
                    f"{self.file}: the runs differ in {name}; say at which scale to decide, "
                    f"with target: {{{name}: ...}}"
                )
        return scale

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

    def _launching(
        self,
        launch: LaunchConfig | None,
        on_progress: Callable[[Progress], None] | None,
        on_note: Callable[[str], None],
    ) -> Launching:
        return Launching(launch or self.config.launch, self.folder, on_progress, on_note)

    def runs(self) -> RunTable:
        """The table of finished runs. Raises: StudyError: there is none yet."""
        if self.config.table is not None:
            path = self.folder / self.config.table
            if not path.exists():
                raise StudyError(
                    f"no runs yet at {path}; put the table there, or ask what to run first: "
                    f"mixlaw design {self.folder} --next 1"
                )
            return RunTable.read(path)
        path = self.folder / RUNS
        if not path.exists():
            raise StudyError(
                f"no finished runs in {self.folder}; first: mixlaw train {self.folder}"
            )
        return RunTable.read(path)

    def ask(self, count: int = 1) -> Plan:
        """The next runs worth doing, or the advice to stop; `mixlaw.plan.propose`.

        What is asked for is remembered until the table has it, so that asking again, or from
        several workers, gives other runs. A study that trains adds the runs to its design.

        Raises: StudyError: neither runs nor the study name the domains, or the objective is on
            scores; and as `mixlaw.plan.propose`.
        """
        if self.from_table:
            return self._planning.ask(count, self.folder)
        return self._own("ask").ask(self._planning, count)

    def tell(
        self,
        mixture: Mixture | Schedule,
        targets: Mapping[str, float],
        *,
        num_params: float | None = None,
        train_tokens: float | None = None,
        seed: int = 0,
    ) -> RunTable:
        """Add a finished run to the study's table.

        Args: targets: "metric/name" -> value; every loss that the study names, which a fit needs.
        Raises: StudyError: a study that trains its runs itself, or a loss that is missing.
            RunTableError, MixtureError: what is told makes no sense.
        """
        if self.config.table is None:
            raise StudyError(
                f"{self.file} trains its runs itself: mixlaw train {self.folder}; only a study of "
                "a table can be told of others"
            )
        named = [target for target in named_targets(self.config) if not higher_is_better(target)]
        missing = [target for target in named if target not in targets]
        if missing:
            raise StudyError(
                f"{self.file} names {missing}, and the run that is told has {list(targets)}; a law "
                "needs all of them of every run"
            )
        path = self.folder / self.config.table
        runs = told(
            RunTable.read(path) if path.exists() else None,
            mixture,
            targets,
            num_params=num_params,
            train_tokens=train_tokens,
            seed=seed,
            domains=[domain.name for domain in self.domains()],
        )
        runs.write(path)
        write_asked(self.folder, still_pending(read_asked(self.folder), runs.static()))
        return runs

    def plan_budget(self, flops: float) -> BudgetPlan:
        """What a budget of FLOPs buys for this study; see `mixlaw.plan.budget`.

        Raises: StudyError: the target scale or that of the proxies is not known.
        """
        return self._planning.budget(flops)

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

    def _runs_so_far(self) -> RunTable | None:
        """Finished runs to learn from; None when there are none."""
        path = self.folder / (self.config.table or RUNS)
        return self._fitted_runs() if path.exists() else None

    @property
    def _planning(self) -> Planning:
        return Planning(self.config, self.domains(), self._runs_so_far())

    def fit(self) -> FittedLaws:
        """Choose a law by cross-validation and fit it to every target.

        Raises: StudyError: the runs did not measure what the study names. FitError: as `fit_laws`.
        """
        runs, config = self._fitted_runs(), self.config
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

    def _scale_if_known(self) -> Scale:
        """The target scale; unknown where the study leaves it open, which a fit may."""
        try:
            return self.scale
        except StudyError:
            return Scale(None, None)

    def predict(
        self, mixtures: Sequence[Mixture], scale: Scale | None = None
    ) -> list[dict[str, tuple[float, float]]]:
        """Forecasts of mixtures: one mapping target -> (value, half width of the interval) each."""
        return self._deciding(scale or self.scale).predict(mixtures)

    def extrapolates(self, mixture: Mixture) -> list[str]:
        """Domains whose share no trained mixture had, one phrase each: a forecast is a guess."""
        runs = self._fitted_runs().done()
        return list(outside_support(mixture, runs.domains, runs.weights))

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
        Raises: StudyError: the study continues no model. TrainError: as `train`.
        """
        settings = self._continual_settings
        if self.from_table:
            runs = self.runs()
        else:
            launching = self._launching(launch, on_progress, on_note)
            runs = Continuing(self._own("continual"), settings).train(launching)
        try:
            basis = basis_of(self.config, settings, runs)
            found = self._artefacts.cached(
                CONTINUAL, basis, lambda: answer(self.config, settings, runs).to_dict()
            )
        except StudyError as error:
            raise StudyError(f"{self.file}: {error}") from error
        return ContinualAnswer.from_dict(found)

    def continual_answer(self) -> ContinualAnswer | None:
        """The stored answer, if it is of the present runs and settings; trains nothing."""
        settings = self.config.continual
        if settings is None or not (self.folder / CONTINUAL).exists():
            return None
        if self.from_table:
            runs = self.runs()
        else:
            runs = Continuing(self._own("continual"), settings).trained()
        if runs is None:
            return None
        stored = self._artefacts.current(CONTINUAL, basis_of(self.config, settings, runs))
        return None if stored is None else ContinualAnswer.from_dict(stored)

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
        files = [SCHEDULE] if self.from_table else [SCHEDULE, STAGED_TABLE]
        if not all((self.folder / name).exists() for name in files):
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

    # Facts

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

    def status(self) -> dict[str, Any]:
        """What is done and what is next; `steps` maps each step to a line for people, or None."""
        if self.config.table is not None:
            runs = RunsStatus.of_table(self.folder, self.config.table)
        else:
            specs = self._own("status").stored_design()
            runs = RunsStatus.of_swarm(self.folder, specs, self.store)
        steps = dict.fromkeys(STEPS) | runs.steps
        if self.from_table:
            del steps["verify"]
        # What was made from other settings or runs than the present ones is not done.
        if steps["train"] and self._artefacts.current(FIT, self._fit_basis()) is not None:
            steps["fit"] = FIT
            basis = self._deciding(self._scale_if_known()).basis()
            if self._artefacts.current(DECISION, basis) is not None:
                steps["optimize"] = DECISION
                if "verify" in steps and self.verification() is not None:
                    steps["verify"] = VERIFICATION
                if self._artefacts.is_newest(REPORT):
                    steps["report"] = REPORT
        if self.config.schedule is not None:
            report, decided = steps.pop("report"), steps["fit"] and self.schedule_decision()
            steps |= {"schedule": SCHEDULE if decided else None, "report": report}
        if self.config.continual is not None:
            answered = CONTINUAL if self.continual_answer() is not None else None
            steps = with_continual(steps, answered, alone=self.only_continual)
            if self.only_continual and answered and self._artefacts.is_newest(REPORT):
                steps["report"] = REPORT
        following = next((step for step, line in steps.items() if line is None), None)
        if self.from_table and following == "train":
            following = "design --next 1"
        return {"folder": str(self.folder), "steps": steps, "runs": runs.counts, "next": following}

    # How it is done

    @property
    def _artefacts(self) -> Artefacts:
        return Artefacts(self.folder, self.config.seed)

    @cached_property
    def _own_runs(self) -> OwnRuns:
        return OwnRuns(self.config, self.file)

    def _own(self, step: str) -> OwnRuns:
        """What a step of training works on. Raises: StudyError: the runs came as a table."""
        if self.from_table:
            raise StudyError(
                f"{self.file} works from the table {self.config.table}; `{step}` needs domains "
                "with text, sizes and a training section"
            )
        return self._own_runs

    @property
    def _continual_settings(self) -> ContinualConfig:
        if self.config.continual is None:
            raise StudyError(
                f"{self.file} continues no model; say which domains are new, for instance "
                "continual: {new: [code]}"
            )
        return self.config.continual

    def _verify_specs(self, decision: Decision) -> list[RunSpec]:
        try:
            return self._own("verify").training.verify_specs(
                {RECOMMENDED: decision.recommended, **distinct(self.baselines())}
            )
        except StudyError as error:
            raise StudyError(f"{self.file}: {error}") from error

    def _fitted_runs(self) -> RunTable:
        """What the laws of static mixtures learn from."""
        runs = self.runs().trained().static()
        return runs.select(runs.role != VERIFY)

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
