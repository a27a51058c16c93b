"""The steps of a study, each resumable and idempotent, each one call of the library.

The folder of a study holds

    study.yaml          what the user decided
    corpus/             token files, documents.jsonl, corpus.json
    design.json         the run specs of the swarm
    runs/<run id>/      one finished run each
    checkpoints/        resume state of unfinished stacks
    runs.csv            the table of finished runs
    asked.json          runs that were asked for
    fit.json            laws, held-out errors
    decision.json       the mixture and its evidence
    pareto.json         what the objectives cost each other
    verification.json   the larger model trained on it, predicted against observed
    report.html
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize import Decision, Objective, optimize
from mixlaw.optimize.decide import outside_support
from mixlaw.optimize.decision import FORMAT_VERSION as DECISION_FORMAT
from mixlaw.optimize.pareto import FORMAT_VERSION as PARETO_FORMAT
from mixlaw.optimize.pareto import ParetoFront, pareto
from mixlaw.plan.budget import BudgetPlan, plan_budget
from mixlaw.plan.edit_plan import EditPlan, plan_edit
from mixlaw.plan.edits import Edit, shared_mixtures
from mixlaw.plan.proposals import Plan, Proposal
from mixlaw.plan.question import RunScale
from mixlaw.plan.reuse import MOVED, Carried, carry_runs
from mixlaw.runs import FAILED, VERIFY, RunSpec, RunStore, RunTable, higher_is_better
from mixlaw.study.artefacts import (
    DECISION,
    DESIGN,
    FIT,
    PARETO,
    REPORT,
    VERIFICATION,
    Artefacts,
    differences,
)
from mixlaw.study.config import DomainConfig, StudyConfig, load_config
from mixlaw.study.deciding import Deciding, baselines, named_targets
from mixlaw.study.planning import (
    Planning,
    read_asked,
    run_scales,
    still_pending,
    told,
    write_asked,
)
from mixlaw.study.training import Training
from mixlaw.study.verification import FORMAT_VERSION as VERIFICATION_FORMAT
from mixlaw.study.verification import RECOMMENDED, Verification, verify

if TYPE_CHECKING:
    from mixlaw.corpus import Corpus
    from mixlaw.launch.local import Progress

STEPS = ("corpus", "design", "train", "fit", "optimize", "verify", "report")


@dataclass(frozen=True)
class Scale:
    """Where a forecast is made; None when the study's table does not vary it."""

    num_params: int | None
    train_tokens: int | None


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
        return RunStore(self.folder / "runs")

    @property
    def from_table(self) -> bool:
        """True when the runs came as a table and nothing is trained here."""
        return self.config.table is not None

    @property
    def objective(self) -> Objective:
        """What is minimised. One that is relative to a baseline gets its reference when it is
        optimised: see `Decision.objective`."""
        return self.config.objective.build()

    @property
    def scale(self) -> Scale:
        """The target scale. Raises: StudyError: the runs vary in what the study leaves open."""
        target, num_params = self.config.target, self.config.target.num_params
        if target.size is not None:
            num_params = self.config.sizes[target.size].num_params
        runs = self.runs()
        for name, value in (("num_params", num_params), ("train_tokens", target.train_tokens)):
            if value is None and len(np.unique(getattr(runs, name))) > 1:
                raise StudyError(
                    f"{self.file}: the runs differ in {name}; say at which scale to decide, "
                    f"with target: {{{name}: ...}}"
                )
        return Scale(num_params, target.train_tokens)

    # Steps

    def corpus(self) -> Corpus:
        """Build (or open) the token files."""
        self._needs_training("corpus")
        return self._corpus

    @cached_property
    def _corpus(self) -> Corpus:
        from mixlaw.corpus import DomainSource, TokenizerSpec, build_corpus

        config = self.config
        assert config.training is not None, "checked by _needs_training"

        def source(name: str, domain: DomainConfig, trained: bool) -> DomainSource:
            def at_home(paths: Sequence[str | None]) -> tuple[str, ...]:
                return tuple(str(self.folder / path) for path in paths if path is not None)

            tokens, valid = at_home([]), at_home(domain.validation_paths)
            if domain.tokens is not None and trained:
                tokens, valid = at_home([domain.tokens.train]), at_home([domain.tokens.valid])
            elif domain.tokens is not None:  # its one file is the validation set
                tokens = at_home([domain.tokens.valid])
            return DomainSource(
                name=name,
                paths=at_home(domain.paths),
                environment=domain.environment,
                token_files=tokens,
                trained=trained,
                validation_paths=valid,
                max_bytes=domain.max_bytes,
            )

        sources = [source(name, d, True) for name, d in config.domains.items()]
        sources += [source(name, d, False) for name, d in config.validation_only.items()]
        tokenizer = config.tokenizer
        path = None if tokenizer.path is None else self.folder / tokenizer.path
        return build_corpus(
            sources,
            self.folder / "corpus",
            tokenizer=TokenizerSpec(tokenizer.kind, tokenizer.vocab_size, path),
            sequence_length=config.training.sequence_length,
            seed=config.seed,
            validation_bytes=config.validation_bytes,
        )

    def design(self) -> list[RunSpec]:
        """The run specs of the swarm; fixed from its first training step on.

        Raises: StudyError: the study was edited under a swarm that has begun.
        """
        from mixlaw.design import design

        self._needs_training("design")
        basis = self._design_basis()
        stored = self._stored_design()
        if stored is not None:
            made_with, specs = stored
            changed = differences(made_with, basis)
            if not changed:
                return specs
            begun = any(self.store.has(spec) for spec in specs)
            if begun or any((self.folder / "checkpoints").glob("*")):
                raise StudyError(
                    f"{self.file} was edited under its swarm: {'; '.join(changed)}. Restore these "
                    "settings to go on with it, or copy the study file to a new folder and start "
                    "there (nothing here is lost)"
                )
        corpus, config = self.corpus(), self.config.design
        limits = Constraints(config.lower, config.upper, config.max_epochs)
        names = [domain.name for domain in corpus.domains]
        mixtures = design(
            names,
            config.mixtures,
            method=config.method,
            bounds=limits.bounds(self._training.proxy_domains(), self._training.longest_tokens),
            prior=Mixture.natural(self.domains()),
            temperature=config.temperature,
            min_share=config.min_share,
            seed=self.config.seed,
        )
        specs = self._training.swarm_specs(mixtures)
        self._artefacts.write(DESIGN, basis, [spec.to_dict() for spec in specs])
        return specs

    def train(self, on_progress: Callable[[Progress], None] | None = None) -> RunTable:
        """Train what is missing of the swarm; interrupt and call again at will."""
        self._train(self.design(), on_progress)
        return self._write_table(self._verified_specs())

    def runs(self) -> RunTable:
        """The table of finished runs. Raises: StudyError: there is none yet."""
        if self.config.table is not None:
            return RunTable.read(self.folder / self.config.table)
        path = self.folder / "runs.csv"
        if not path.exists():
            raise StudyError(
                f"no finished runs in {self.folder}; first: mixlaw train {self.folder}"
            )
        return RunTable.read(path)

    def ask(self, count: int = 1) -> Plan:
        """The next runs worth doing, or the advice to stop; `mixlaw.plan.propose`.

        What is asked for is remembered until the table has it, so that asking again, or from
        several workers, gives other runs. A study that trains adds the runs to its design.

        Raises: StudyError: nothing says what a run may be, or the objective is on scores.
        """
        if not self.from_table:
            return self._ask_swarm(count)
        runs, asked = self._runs_so_far(), read_asked(self.folder)
        pending = still_pending(asked, runs)
        plan = self._planning(runs, pending).plan(count)
        if not plan.stop:
            write_asked(self.folder, [*pending, *plan.proposals])
        return plan

    def _ask_swarm(self, count: int) -> Plan:
        """As `ask`, from runs that this study trains itself."""
        specs = self.design()
        pending = [
            Proposal(s.mixture, s.num_params, s.horizon_tokens[-1], None, None, "planned")
            for s in specs
            if not self.store.has(s)
        ]
        plan = self._planning(self._runs_so_far(), pending).plan(count)
        if not plan.stop:
            more = [
                self._training.next_spec(proposal.mixture, proposal.num_params, len(specs) + k)
                for k, proposal in enumerate(plan.proposals)
            ]
            new = [spec for spec in more if spec.run_id not in {s.run_id for s in specs}]
            basis = self._design_basis()
            self._artefacts.write(DESIGN, basis, [s.to_dict() for s in (*specs, *new)])
        return plan

    def tell(
        self,
        mixture: Mixture,
        targets: Mapping[str, float],
        *,
        num_params: float | None = None,
        train_tokens: float | None = None,
        seed: int = 0,
    ) -> RunTable:
        """Add a finished run to the study's table.

        Args: targets: "metric/name" -> value.
        Raises: StudyError: a study that trains its runs itself. RunTableError, MixtureError: what
            is told makes no sense.
        """
        if self.config.table is None:
            raise StudyError(
                f"{self.file} trains its runs itself: mixlaw train {self.folder}; only a study of "
                "a table can be told of others"
            )
        runs = told(
            self._runs_so_far(),
            mixture,
            targets,
            num_params=num_params,
            train_tokens=train_tokens,
            seed=seed,
            domains=[domain.name for domain in self.domains()],
        )
        runs.write(self.folder / self.config.table)
        write_asked(self.folder, still_pending(read_asked(self.folder), runs))
        return runs

    def plan_budget(self, flops: float) -> BudgetPlan:
        """What a budget of FLOPs buys for this study; see `mixlaw.plan.budget`.

        Raises: StudyError: the target scale or that of the proxies is not known.
        """
        runs = self._runs_so_far()
        planning = self._planning(runs, [])
        known = [scale for scale in planning.scales if scale.flops]
        return plan_budget(
            flops,
            num_domains=len(planning.domains),
            target=planning.target,
            scales=known or None,
            runs=runs if known else None,
            objective=self.objective.shares if runs is not None and known else None,
        )

    def plan_edit(self, edits: Sequence[Edit]) -> EditPlan:
        """What a change of domains makes of the runs and of the decision; `mixlaw.plan.reuse`."""
        scale = self.scale
        return plan_edit(
            self.fit(),
            self.optimize().recommended,
            edits,
            domains=self.domains(),
            objective=self.objective,
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
        path = self.folder / (self.config.table or "runs.csv")
        return self._fitted_runs() if path.exists() else None

    def _planning(self, runs: RunTable | None, pending: Sequence[Proposal]) -> Planning:
        scales, config = run_scales(self.config, runs), self.config
        size = config.sizes[config.target.size].num_params if config.target.size else None
        target = RunScale(config.target.num_params or size, config.target.train_tokens)
        if all(scale == RunScale() for scale in scales):
            target = RunScale()
        return Planning(config, self.domains(), runs, scales, target, pending)

    def fit(self) -> FittedLaws:
        """Choose a law by cross-validation and fit it to every target."""

        def make() -> dict[str, Any]:
            runs = self._fitted_runs()
            also, laws = self._fit_targets(runs), self.config.fit.laws
            wanted = [t for t in named_targets(self.config) if not higher_is_better(t)]
            fitted = fit_laws(runs, wanted, also=also, candidates=laws, seed=self.config.seed)
            return fitted.to_dict()

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
        fitted, scale = self.fit(), self._scale_if_known()
        weights = np.unique(fitted.cross_validation.runs.weights, axis=0)
        largest = {a: None if np.isnan(v) else v for a, v in fitted.within.largest.items()}
        given = {axis: vars(scale)[axis] or count for axis, count in largest.items()}
        level = self.config.fit.level

        def typical(one: np.ndarray, at: dict[str, float | None]) -> float:
            return float(np.median(fitted.half_width(one, weights, **at, level=level)))

        each = zip(fitted.targets, np.eye(len(fitted.targets)), strict=True)
        return {target: (typical(one, largest), typical(one, given)) for target, one in each}

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
        laws, scale = self._deciding().forecaster(), scale or self.scale
        weights = np.stack([mixture.array(laws.domains) for mixture in mixtures])
        at = (scale.num_params, scale.train_tokens)
        available = np.array([float(d.available_tokens or np.inf) for d in self.domains()])
        values = laws.predict(weights, *at, available_tokens=available if at[1] else None)
        level = self.config.fit.level
        half = np.stack(
            [laws.half_width(one, weights, *at, level=level) for one in np.eye(values.shape[1])],
            axis=1,
        )
        return [
            {
                target: (float(value), float(width))
                for target, value, width in zip(laws.targets, *row, strict=True)
            }
            for row in zip(values, half, strict=True)
        ]

    def extrapolates(self, mixture: Mixture) -> list[str]:
        """Domains whose share no trained mixture had, one phrase each: a forecast is a guess."""
        runs = self._fitted_runs().done()
        return list(outside_support(mixture, runs.domains, runs.weights))

    def optimize(self) -> Decision:
        """The mixture to train the target scale on, with its evidence."""
        config = self.config

        def make() -> dict[str, Any]:
            deciding = self._deciding()
            asked = dict(vars(deciding.question()))
            laws = asked["fitted"]
            decision = optimize(
                asked.pop("fitted"),
                asked.pop("objective"),
                **asked,
                robust=deciding.robust(),
                scales=deciding.other_scales(),
                level=config.fit.level,
                seed=config.seed,
            )
            if isinstance(laws, LinkedLaws):
                weights = decision.recommended.array(laws.domains)[None]
                beyond = laws.extrapolations(weights, *deciding.target)
                known = (*decision.warnings, *laws.warnings)
                decision = replace(decision, warnings=(*known, *beyond))
            return decision.to_dict()

        basis = self._decision_basis(self.fit())
        return Decision.from_dict(self._artefacts.cached(DECISION, basis, make))

    def pareto(self, count: int = 11) -> ParetoFront:
        """What the study's objective and its trade-offs cost each other.

        Raises: StudyError: the study names no trade-off.
        """
        config = self.config
        if not config.tradeoffs:
            raise StudyError(
                f"{self.file} names no trade-off; add for instance "
                "tradeoffs: {code: {loss/code: 1}} to see what code costs the objective"
            )

        def make() -> dict[str, Any]:
            others = {name: other.build() for name, other in config.tradeoffs.items()}
            objectives = {"objective": self.objective, **others}
            question = self._deciding().question()
            return pareto(question, objectives, count=count, seed=config.seed).to_dict()

        basis = self._decision_basis(self.fit()) | {"count": count, "format": PARETO_FORMAT}
        basis |= {"tradeoffs": {n: other.model_dump() for n, other in config.tradeoffs.items()}}
        return ParetoFront.from_dict(self._artefacts.cached(PARETO, basis, make))

    def forecaster(self) -> FittedLaws | LinkedLaws:
        """The laws, with links to the scores that the study names, if it does."""
        return self._deciding().forecaster()

    def _deciding(self) -> Deciding:
        scale = self.scale
        at = (scale.num_params, scale.train_tokens)
        return Deciding(self.config, self.fit(), self._fitted_runs(), self.domains(), at)

    def verify(self, on_progress: Callable[[Progress], None] | None = None) -> Verification:
        """Train the target size on the recommended mixture and the baselines; compare."""
        self._needs_training("verify")
        decision = self.optimize()
        specs = self._verify_specs(decision)
        self._train(specs, on_progress)
        runs = self._write_table(specs)
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

    # Facts

    def domains(self) -> list[Domain]:
        """Trained domains with their tokens: from the corpus, or as the study file gives them."""
        given = self.config.domains
        if not self.from_table:
            # What the study claims of the big run's data stands above what lies on this disk.
            return [
                Domain(d.name, claimed, claimed)
                if (claimed := given[d.name].available_tokens)
                else d
                for d in self.corpus().domains
            ]
        runs = self._runs_so_far()
        names = runs.domains if runs is not None else tuple(given)
        if not names:
            raise StudyError(
                f"{self.file}: there is no table at {self.config.table} yet; name the domains, for "
                "instance domains: {web: {}, code: {}}, to ask what to run first"
            )
        strangers = sorted(set(self.config.domains) - set(names))
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
        steps: dict[str, str | None] = dict.fromkeys(STEPS)
        counts = {"done": 0, "failed": 0, "planned": 0}
        if self.from_table:
            steps |= dict.fromkeys(("corpus", "design", "train"), f"from {self.config.table}")
            del steps["verify"]
        else:
            if (self.folder / "corpus" / "corpus.json").exists():
                steps["corpus"] = "built"
            stored = self._stored_design()
            if stored is not None:
                specs = stored[1]
                results = [self.store.load(spec) for spec in specs if self.store.has(spec)]
                counts["planned"], counts["done"] = len(specs), len(results)
                counts["failed"] = sum(result.status == FAILED for result in results)
                steps["design"] = f"{len(specs)} runs"
                if len(results) == len(specs) and (self.folder / "runs.csv").exists():
                    steps["train"] = f"{len(results)} runs, {counts['failed']} failed"
        # What was made from other settings or runs than the present ones is not done.
        if steps["train"] and self._artefacts.current(FIT, self._fit_basis()) is not None:
            steps["fit"] = FIT
            basis = self._decision_basis(self.fit())
            if self._artefacts.current(DECISION, basis) is not None:
                steps["optimize"] = DECISION
                if "verify" in steps and self.verification() is not None:
                    steps["verify"] = VERIFICATION
                if self._artefacts.is_newest(REPORT):
                    steps["report"] = REPORT
        following = next((step for step, line in steps.items() if line is None), None)
        return {"folder": str(self.folder), "steps": steps, "runs": counts, "next": following}

    # How it is done

    @property
    def _artefacts(self) -> Artefacts:
        return Artefacts(self.folder, self.config.seed)

    @cached_property
    def _training(self) -> Training:
        return Training(self.config, self.corpus())

    def _needs_training(self, step: str) -> None:
        if self.from_table or self.config.training is None:
            raise StudyError(
                f"{self.file} works from the table {self.config.table}; `{step}` needs domains "
                "with text, sizes and a training section"
            )

    def _train(
        self, specs: Sequence[RunSpec], on_progress: Callable[[Progress], None] | None
    ) -> None:
        from mixlaw.launch.local import train_local

        swarm, workers = self._training.swarm(self.folder), self._training.settings.workers
        train_local(swarm, specs, workers=workers, on_progress=on_progress)

    def _verify_specs(self, decision: Decision) -> list[RunSpec]:
        try:
            return self._training.verify_specs(
                {RECOMMENDED: decision.recommended, **self.baselines()}
            )
        except StudyError as error:
            raise StudyError(f"{self.file}: {error}") from error

    def _write_table(self, verify_specs: Sequence[RunSpec]) -> RunTable:
        """Write runs.csv from the store: the swarm and the verification runs there are.

        Raises: RunTableError: every run diverged.
        """
        specs = [*self.design(), *verify_specs]
        domains = self.corpus().domains
        unique = {d.name: d.available_tokens for d in domains if d.available_tokens}
        table = self.store.table(specs, list(self.config.domains), available_tokens=unique)
        table.write(self.folder / "runs.csv")
        return table

    def _stored_design(self) -> tuple[dict[str, Any], list[RunSpec]] | None:
        """What the design was made with, and its specs; None when there is none."""
        data = self._artefacts.read(DESIGN)
        if data is None:
            return None
        return data["basis"], [RunSpec.from_dict(spec) for spec in data["result"]]

    def _verified_specs(self) -> list[RunSpec]:
        """Specs of the last verification, whatever has been decided since."""
        data = self._artefacts.read(VERIFICATION)
        return [RunSpec.from_dict(spec) for spec in data["basis"]["runs"]] if data else []

    def _fit_targets(self, runs: RunTable) -> list[str]:
        """Every target measured in the objective's metrics."""
        named = named_targets(self.config)
        unknown = [t for t in named if t not in runs.targets]
        if unknown:
            near = difflib.get_close_matches(unknown[0], runs.targets, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise StudyError(
                f"{self.file}: the objective names {unknown}, not measured by the runs "
                f"(they have {list(runs.targets)}){hint}"
            )
        losses = [t for t in runs.targets if not higher_is_better(t)]
        if any(map(higher_is_better, named)):  # a link may start from any loss
            return losses
        metrics = {target.partition("/")[0] for target in named}
        return [t for t in losses if t.partition("/")[0] in metrics]

    def _design_basis(self) -> dict[str, Any]:
        """What the runs of the swarm depend on; speed settings do not count."""
        config = self.config.model_dump(include={"seed"})
        config["corpus"] = self.corpus().digest  # of its tokens: edited text counts, too
        config["domains"] = list(self.config.domains)
        config["design"] = self.config.design.model_dump(exclude={"match_repetition"})
        config["pools"] = self._training.pools(self._training.longest_tokens)  # None: all text
        training = self._training.settings
        config["training"] = training.model_dump(
            exclude={"stack_size", "workers", "checkpoint_steps"}
        )
        config["sizes"] = {name: self.config.sizes[name].model_dump() for name in training.sizes}
        return config

    def _fitted_runs(self) -> RunTable:
        runs = self.runs()
        return runs.select(runs.role != "verify")

    def _fit_basis(self) -> dict[str, Any]:
        """What fit.json is made from."""
        metrics = sorted({t.partition("/")[0] for t in named_targets(self.config)})
        basis = {"runs": digest(self._fitted_runs().rows()), "metrics": metrics}
        basis |= {"format": FIT_FORMAT, "seed": self.config.seed}
        return basis | {"fit": self.config.fit.model_dump()}

    def _decision_basis(self, fitted: FittedLaws) -> dict[str, Any]:
        """What decision.json is made from."""
        config = self.config
        basis = {"fit": digest(fitted.to_dict()), "scale": vars(self.scale), "seed": config.seed}
        sections = {"objective", "constraints", "baselines", "optimize"}
        basis |= config.model_dump(include=sections) | {"chance": config.fit.chance}
        basis |= {"format": DECISION_FORMAT, "level": config.fit.level}
        return basis | {"domains": [vars(domain) for domain in self.domains()]}

    def _verification_basis(self, decision: Decision, specs: Sequence[RunSpec]) -> dict[str, Any]:
        """What verification.json is made from."""
        basis = {"decision": digest(decision.to_dict()), "format": VERIFICATION_FORMAT}
        return basis | {"runs": [spec.to_dict() for spec in specs]}
