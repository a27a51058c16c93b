"""The runs of a study that others do: asked for, told, imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mixlaw.errors import StudyError
from mixlaw.interop import Columns, Hints
from mixlaw.mixture import Mixture
from mixlaw.plan.budget import BudgetPlan
from mixlaw.plan.proposals import Plan
from mixlaw.runs import RunTable, higher_is_better
from mixlaw.schedule import Schedule
from mixlaw.study.deciding import named_targets
from mixlaw.study.folder import StudyFolder
from mixlaw.study.importing import Outcome, Request, import_again, import_into
from mixlaw.study.locking import locked
from mixlaw.study.planning import Planning, told
from mixlaw.study.taking import Taken, table_of, take


class StudyRuns(StudyFolder):
    """A study that says which runs it wants next, and takes those that others did."""

    def ask(self, count: int = 1) -> Plan:
        """The next runs worth doing, or the advice to stop; `mixlaw.plan.propose`.

        What is asked for is remembered until the table has it, so that asking again, or from
        several workers, gives other runs. A study that trains adds the runs to its design.

        Raises: StudyError: neither runs nor the study name the domains, or the objective is on
            scores; and as `mixlaw.plan.propose`.
        """
        with locked(self.folder):
            plan = self.next_runs(count)
            if not plan.stop:
                self.accept(plan)
            return plan

    def next_runs(self, count: int = 1) -> Plan:
        """As `ask`, without remembering what is asked for."""
        if self.from_table:
            return self._planning.next(count, self.folder)
        return self._own("ask").next(self._planning, count)

    def accept(self, plan: Plan) -> None:
        """The runs of a plan will be done: they are not asked for again."""
        if self.from_table:
            self._planning.remember(plan, self.folder)
        else:
            self._own("ask").join(plan)

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
        path = table_of(self)
        named = [target for target in named_targets(self.config) if not higher_is_better(target)]
        missing = [target for target in named if target not in targets]
        if missing:
            raise StudyError(
                f"{self.file} names {missing}, and the run that is told has {list(targets)}; a law "
                "needs all of them of every run"
            )
        with locked(self.folder):
            run = told(
                mixture,
                targets,
                num_params=num_params,
                train_tokens=train_tokens,
                seed=seed,
                so_far=RunTable.read(path) if path.exists() else None,
                domains=[domain.name for domain in self.domains()],
            )
            return take(self, run).runs

    def take(self, runs: RunTable) -> Taken:
        """Add finished runs to the study's table; what was asked for and is among them is pending
        no more.

        Rows of a run that the table has are replaced; of the same mixture and tokens, target by
        target: what is not given stays. Columns of the table that are no columns of a `RunTable`
        are kept in a copy of the file.

        Raises: StudyError: a study that trains its runs itself, domains that are none of the
            study's, or a loss that the study names and no run has.
        """
        with locked(self.folder):
            return take(self, runs)

    def import_runs(
        self,
        *sources: str | Path,
        kind: str | None = None,
        columns: Columns | None = None,
        hints: Hints | None = None,
        design: str | Path | None = None,
    ) -> Outcome:
        """Import runs from where others keep them, and keep in import.yaml how; `mixlaw import`.

        Args:
            sources: files, folders, addresses.
            kind: of the sources; None: by their looks.
            columns: what means what; None: guessed, with the hints.
            design: the folder of `export_design` whose runs these are.
        Raises: RunTableError: what cannot be read. StudyError: as `take`.
        """
        planned = None if design is None else Path(design)
        request = Request(tuple(map(str, sources)), kind, columns, hints or Hints(), planned)
        return import_into(self.file, request)

    def import_again(self) -> list[Outcome]:
        """Import all that was imported before, as import.yaml says: after an edit, or when the
        sources have grown.

        Raises: StudyError: nothing was, or it cannot be read any more; as `take`.
        """
        return import_again(self.file)

    def plan_budget(self, flops: float) -> BudgetPlan:
        """What a budget of FLOPs buys for this study; see `mixlaw.plan.budget`.

        Raises: StudyError: the target scale or that of the proxies is not known.
        """
        return self._planning.budget(flops)

    @property
    def _planning(self) -> Planning:
        return Planning(self.config, self.domains(), self._runs_so_far())
