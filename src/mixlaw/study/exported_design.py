"""Runs to do in a trainer of the user's: one config for each, and a list by which their results are
found again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import ExportError, StudyError
from mixlaw.files import digest, write_text
from mixlaw.interop.exporters import exporter
from mixlaw.interop.handover import Exported, Handover
from mixlaw.plan.proposals import Plan, Proposal
from mixlaw.runs import RunSpec
from mixlaw.schedule import Schedule
from mixlaw.study.export_config import ExportConfig
from mixlaw.study.exported_files import write_files
from mixlaw.study.exporting import drawn_tokens, handover_of, over_all, trainer_of
from mixlaw.study.locking import locked
from mixlaw.study.new_study import draft
from mixlaw.study.planned import PlannedRun, add_planned, run_name

if TYPE_CHECKING:
    from mixlaw.study.study import Study


@dataclass(frozen=True)
class ExportedDesign:
    """Configs of runs.

    Attributes:
        to: name of the trainer's format.
        folder: of one folder a run, and of runs.jsonl.
        into: the study that takes the results.
        runs: that were written; none where asking stops.
        plan: why these runs, or why none; None for a design that the study has.
        how: to give the first run's config to the trainer.
        notes: of the configs, each once.
    """

    to: str
    folder: Path
    into: Path
    runs: tuple[PlannedRun, ...]
    plan: Plan | None = None
    how: str = ""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "to": self.to,
            "folder": str(self.folder),
            "into": str(self.into),
            "runs": [run.to_dict() for run in self.runs],
            "plan": self.plan and self.plan.to_dict(),
            "how": self.how,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class _Wanted:
    """A run as it was asked for."""

    run_id: str
    label: str
    schedule: Schedule
    num_params: float | None
    train_tokens: float | None
    seed: int
    recipe: ExportConfig = field(default_factory=ExportConfig)
    """What the study itself says of how the run is trained."""


def export_design(
    study: Study,
    out: Path,
    to: str | None = None,
    *,
    count: int | None = None,
    settings: ExportConfig | None = None,
) -> ExportedDesign:
    """As `Study.export_design`."""
    settings = study.config.export.with_(settings or ExportConfig())
    to = trainer_of(study, to, settings)
    if out.resolve() == study.folder.resolve():
        raise StudyError(f"--out {out} is the study itself; name a folder of its own")
    with locked(study.folder):
        if count is None:
            found = _write(study, out, to, _of_design(study), settings)
            return replace(found, into=_study_of_results(study, out))
        if not study.from_table:
            raise StudyError(
                f"{study.file} trains the runs that it asks for. For another trainer export the "
                "design that it has, without --next; its results make a study of a table, and this "
                "is asked for more"
            )
        plan = study.next_runs(count)
        if plan.stop:
            return ExportedDesign(to, out, study.home, (), plan)
        wanted = [_of_proposal(proposal, study.config.seed) for proposal in plan.proposals]
        found = _write(study, out, to, wanted, settings)
        study.accept(plan)  # only now: runs without a config are not waited for
        return replace(found, plan=plan)


def _study_of_results(study: Study, out: Path) -> Path:
    """The folder of the configs as a study that takes the results: the one that wrote them trains
    its own runs. It stays as it is where it is there."""
    if not (out / "study.yaml").exists():
        write_text(out / "study.yaml", draft(study))
    return out


def _of_design(study: Study) -> list[_Wanted]:
    if study.from_table:
        raise StudyError(
            f"{study.file} works from the table {study.config.table} and has no design of its own; "
            "ask for the runs that are worth doing next: --next 8"
        )
    return [_of_spec(study, spec) for spec in study.design()]


def _of_spec(study: Study, spec: RunSpec) -> _Wanted:
    recipe = study.config.recipe(spec.size)
    return _Wanted(
        spec.run_id,
        f"{spec.label}-{spec.size}",
        spec.schedule or Schedule.static(spec.mixture),
        spec.num_params,
        spec.horizon_tokens[-1],
        spec.seed,
        ExportConfig(sequence_length=recipe.sequence_length, batch_sequences=recipe.batch_size),
    )


def _of_proposal(proposal: Proposal, seed: int) -> _Wanted:
    counts = (proposal.num_params, proposal.train_tokens)
    run_id = digest([dict(proposal.mixture), *counts, seed])
    return _Wanted(run_id, "ask", Schedule.static(proposal.mixture), *counts, seed)


def _write(
    study: Study, out: Path, to: str, wanted: Sequence[_Wanted], settings: ExportConfig
) -> ExportedDesign:
    """Write a folder for each run, and then the list of them."""
    trainer = exporter(to)
    files: dict[str, str] = {}
    runs, made = [], []
    for run in wanted:
        name = run_name(run.label, run.run_id)
        handover = _handover(study, run, to, run.recipe.with_(settings), name)
        try:
            exported = trainer.export(handover)
        except ExportError as error:
            raise ExportError(
                f"run {name}: {error} (for configs of runs: in the export section of {study.file})"
            ) from error
        files |= {f"{name}/{file}": text for file, text in exported.files.items()}
        files[f"{name}/how.txt"] = f"{exported.how}\n"  # seeds and lengths are in it, too
        config = f"{name}/{next(iter(exported.files))}"
        runs.append(_planned(run, name, config, to, exported, handover))
        made.append(exported)
    write_files(out, files)
    add_planned(out, runs)
    how = made[0].how if made else ""
    return ExportedDesign(to, out, study.home, tuple(runs), how=how, notes=_once(made, runs))


def _once(made: Sequence[Exported], runs: Sequence[PlannedRun]) -> tuple[str, ...]:
    """Each note once; of those that differ in numbers and names alone the first, and of how many
    runs it is."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for exported, run in zip(made, runs, strict=True):
        for note in exported.notes:
            alike.setdefault(_form(note, run), []).append((note, run.name))
    out = []
    for notes in alike.values():
        note, name = notes[0]
        if len({text for text, _ in notes}) > 1:
            note += f" (so of {name}; {len(notes) - 1} others alike)"
        out.append(note)
    return tuple(out)


def _form(note: str, run: PlannedRun) -> str:
    """A note without its names and numbers."""
    for name in (run.name, *sorted(run.schedule.domains, key=len, reverse=True)):
        note = note.replace(repr(name), "'?'")
    return re.sub(r"\d[\d,.]*(e[+-]?\d+)?", "#", note)


def _handover(study: Study, run: _Wanted, to: str, settings: ExportConfig, name: str) -> Handover:
    tokens = None if run.train_tokens is None else round(run.train_tokens)
    handover = handover_of(study, run.schedule, to, settings, train_tokens=tokens, name=name)
    return replace(handover, seed=run.seed)


def _planned(
    run: _Wanted, name: str, config: str, to: str, exported: Exported, handover: Handover
) -> PlannedRun:
    """With the mixture that the trainer draws, where it is known in tokens: this is what the run
    will have been trained on."""
    drawn = drawn_tokens(exported, handover) or run.schedule
    schedule = over_all(drawn, handover.schedule.domains)
    counts = (run.num_params, run.train_tokens)
    return PlannedRun(name, run.run_id, schedule, *counts, run.seed, config, to)
