"""The mixture of a study as a trainer wants it, and configs of runs that a trainer is to do."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw import __version__
from mixlaw.corpus import load_corpus
from mixlaw.errors import ExportError, MixtureError, StudyError
from mixlaw.files import digest
from mixlaw.interop.exporters import exporter
from mixlaw.interop.handover import DOCUMENT, Exported, Handover, in_tokens
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule, Stage
from mixlaw.study.export_config import ExportConfig
from mixlaw.study.exported_files import EXPORT, replace_files

if TYPE_CHECKING:
    from mixlaw.study.study import Study

EXPORTS = "export"
FORMAT_VERSION = 1

READS = {"megatron": ".bin", "olmo-core": ".npy"}
"""Trainer -> the kind of token files of a corpus that it reads as they are."""


@dataclass(frozen=True)
class Choice:
    """What is handed over.

    Attributes:
        source: where it is from: "decision", "baseline natural", "schedule", "given".
        inputs: digest of the decision that it is of; None: of none.
        notes: what there is to say of the choice.
        stage: its number, where one stage of a schedule is handed over; `part`: of the run's
            tokens.
    """

    schedule: Schedule
    source: str
    inputs: str | None = None
    notes: tuple[str, ...] = ()
    stage: int | None = None
    part: float = 1.0

    def only(self, stage: int) -> Choice:
        """One of its stages, by number from 1, for its part of the run.

        Raises: StudyError: it has no such stage.
        """
        stages = self.schedule.stages
        if not 1 <= stage <= len(stages):
            raise StudyError(f"the schedule has no stage {stage}; name one of 1 to {len(stages)}")
        chosen = stages[stage - 1]
        return replace(
            self,
            schedule=Schedule.static(chosen.mixture),
            source=f"{self.source}, stage {stage} of {len(stages)}",
            stage=stage,
            part=chosen.share,
        )


def decided(study: Study) -> Choice:
    """The mixture of the decision on the present runs, which is made where it is not."""
    decision = study.optimize()
    return Choice(Schedule.static(decision.recommended), "decision", digest(decision.to_dict()))


def scheduled(study: Study, *, staged: bool = False) -> Choice:
    """The schedule that the study recommends; staged: its best one of stages, recommended or not.

    Raises: StudyError: nothing is decided on schedules of the present runs; as `Study.schedule`.
    """
    decision = study.schedule() if study.from_table else study.schedule_decision()
    if decision is None:
        raise StudyError(
            f"{study.file}: no schedule is decided for the present runs; first: mixlaw schedule "
            f"{shlex.quote(str(study.folder))}"
        )
    chosen = decision.staged.schedule if staged else decision.recommended
    notes = ()
    if not staged and not decision.worthwhile:
        notes = (f"{decision.reason}; --staged exports the stages nevertheless",)
    source = "schedule, staged" if staged else "schedule"
    return Choice(chosen, source, digest(decision.to_dict()), notes)


def baseline(study: Study, name: str) -> Choice:
    """One of the study's baselines. Raises: StudyError: it has none of this name."""
    found = study.baselines()
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise StudyError(f"{study.file}: no baseline {name!r}; {hint}there are {list(found)}")
    return Choice(Schedule.static(found[name]), f"baseline {name}")


def given(study: Study, mixture: Mixture | Schedule) -> Choice:
    """A mixture of the user's. Raises: MixtureError: a domain that is none of the study's."""
    schedule = mixture if isinstance(mixture, Schedule) else Schedule.static(mixture)
    names = [domain.name for domain in study.domains()]
    _refuse_unknown(schedule.domains, names, "the mixture")
    return Choice(schedule, "given")


@dataclass(frozen=True)
class DomainShare:
    """A line of what is exported.

    Attributes:
        wanted: share of the run's tokens.
        realised: what the trainer draws, in its unit.
        tokens, epochs: of the run, by what the trainer draws; None where unknown.
    """

    domain: str
    wanted: float
    realised: float
    tokens: float | None
    epochs: float | None


@dataclass(frozen=True)
class Export:
    """A mixture as it was written for a trainer.

    Attributes:
        to: name of the trainer's format; `checked`: against what that was tested.
        folder: of the files.
    """

    to: str
    checked: str
    choice: Choice
    handover: Handover
    exported: Exported
    folder: Path

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.choice.notes, *self.exported.notes)

    @property
    def shares(self) -> list[DomainShare]:
        """Every domain of the handover, also those without a share."""
        wanted, realised = self.handover.schedule.dose, self.exported.realised.dose
        seen = drawn_tokens(self.exported, self.handover)
        total, available = self.handover.train_tokens, self.handover.available_tokens
        out = []
        for name in self.handover.schedule.domains:
            tokens = None if seen is None or not total else seen.dose.get(name, 0.0) * total
            unique = available.get(name)
            epochs = None if tokens is None or not unique else tokens / unique
            drawn = realised.get(name, 0.0)
            out.append(DomainShare(name, wanted[name], drawn, tokens, epochs))
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: export.json, and what --json prints."""
        return {
            "mixlaw": __version__,
            "version": FORMAT_VERSION,
            "to": self.to,
            "checked": self.checked,
            "source": self.choice.source,
            "inputs": self.choice.inputs,
            "seed": self.handover.seed,
            "train_tokens": self.handover.train_tokens,
            "wanted": self.handover.schedule.to_list(),
            **self.exported.to_dict(),
            "notes": list(self.notes),
            "domains": {
                share.domain: {k: v for k, v in vars(share).items() if k != "domain"}
                for share in self.shares
            },
        }


def drawn_tokens(exported: Exported, handover: Handover) -> Schedule | None:
    """The shares of tokens that the trainer draws; None where it counts documents of unknown
    lengths."""
    if exported.unit != DOCUMENT:
        return exported.realised
    lengths = handover.mean_document_tokens
    if not all(name in lengths for name in handover.domains):
        return None
    stages = exported.realised.stages
    tokens = [s.share * sum(m * lengths[n] for n, m in s.mixture.items() if m) for s in stages]
    return Schedule.of(
        (part / sum(tokens), in_tokens(stage.mixture, lengths))
        for part, stage in zip(tokens, stages, strict=True)
    )


def export(
    study: Study,
    choice: Choice,
    to: str | None = None,
    *,
    out: Path | None = None,
    train_tokens: int | None = None,
    settings: ExportConfig | None = None,
) -> Export:
    """As `Study.export`, of a choice."""
    settings = settings_of(study).with_(settings or ExportConfig())
    to = trainer_of(study, to, settings)
    target = study.config.target.train_tokens
    if choice.inputs and train_tokens and target and train_tokens != target:
        other = (
            f"decided for a run of {target:,} tokens, exported for one of {train_tokens:,}: set "
        )
        other += "target: {train_tokens: ...} and decide again, for the best mixture may be another"
        choice = replace(choice, notes=(*choice.notes, other))
    tokens = train_tokens or target
    handover = handover_of(
        study,
        choice.schedule,
        to,
        settings,
        train_tokens=tokens and round(tokens * choice.part),
        name=study.folder.resolve().name or "mixlaw",
    )
    trainer = exporter(to)
    exported = trainer.export(handover)
    name = to if choice.stage is None else f"{to}-stage-{choice.stage}"
    folder = _own_folder(study, name) if out is None else Path(out)
    found = Export(to, trainer.checked, choice, handover, exported, folder)
    told = json.dumps(found.to_dict(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    replace_files(folder, {**exported.files, EXPORT: told})
    return found


def _own_folder(study: Study, name: str) -> Path:
    """In the study's folder. Raises: ExportError: a link there leads out of it."""
    folder = study.folder / EXPORTS / name
    if not folder.resolve().is_relative_to(study.folder.resolve()):
        raise ExportError(
            f"{folder} leads by a link to {folder.resolve()}, out of the study's folder; if the "
            "configs are to be there, name it with --out"
        )
    return folder


def settings_of(study: Study) -> ExportConfig:
    """How the study's target is trained, and what its export section says."""
    config = study.config
    if config.training is None or config.target.size is None:
        return config.export
    recipe = config.recipe(config.target.size)
    trained = ExportConfig(
        sequence_length=recipe.sequence_length, batch_sequences=recipe.batch_size
    )
    return trained.with_(config.export)


def trainer_of(study: Study, to: str | None, settings: ExportConfig) -> str:
    """The name of the trainer's format. Raises: StudyError: neither says it."""
    if to is None and settings.to is None:
        raise StudyError(
            f"{study.file} does not say which trainer gets the mixture; give --to, or in the study "
            "export: {to: ...}; mixlaw export --help lists the trainers"
        )
    return to or settings.to or ""


def over_all(schedule: Schedule, names: Sequence[str]) -> Schedule:
    """The same, every domain named in every stage."""
    return Schedule(
        tuple(
            Stage(s.share, Mixture({name: s.mixture.get(name, 0.0) for name in names}))
            for s in schedule.stages
        )
    )


def handover_of(
    study: Study,
    schedule: Schedule,
    to: str,
    settings: ExportConfig,
    *,
    train_tokens: int | None,
    name: str,
) -> Handover:
    """What a trainer is told, of the study's domains and settings.

    Raises: MixtureError: a setting of a domain that is none.
    """
    domains = study.domains()
    names = [domain.name for domain in domains]
    for key, said in (
        ("paths", settings.paths.by_domain),
        ("mean_document_tokens", settings.mean_document_tokens),
    ):
        _refuse_unknown(said, names, f"{study.file}: export.{key}")
    paths = {name: found for name in names if (found := settings.paths.of(name))}
    return Handover(
        over_all(schedule, names),
        paths=own_paths(study, to) | paths,
        train_tokens=train_tokens,
        sequence_length=settings.sequence_length,
        batch_sequences=settings.batch_sequences,
        available_tokens={d.name: d.available_tokens for d in domains if d.available_tokens},
        mean_document_tokens=settings.mean_document_tokens,
        seed=study.config.seed,
        name=name,
    )


def own_paths(study: Study, to: str) -> dict[str, tuple[str, ...]]:
    """Domain -> token file of the study's own corpus, where the trainer reads its kind; a Megatron
    one by its prefix."""
    if study.from_table or to not in READS or not (study.folder / "corpus/corpus.json").exists():
        return {}
    corpus = load_corpus(study.folder / "corpus")
    files = {name: r.train_file for name, r in corpus.records.items() if r.train_file}
    return {
        name: (str((corpus.root / file).resolve()).removesuffix(".bin"),)
        for name, file in files.items()
        if file.endswith(READS[to])
    }


def _refuse_unknown(found: Collection[str], known: Sequence[str], where: str) -> None:
    """Raises: MixtureError: names the nearest domain."""
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise MixtureError(f"{where} names {name!r}, which is no domain of the study{hint}")
