"""`mixlaw export`: the mixture as a trainer wants it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixlaw.cli.arguments import Json, StudyPath, a_count, a_path, answer, parse_mixture
from mixlaw.cli.names import baselines, one_of, shares, trainers
from mixlaw.errors import StudyError

if TYPE_CHECKING:
    from mixlaw.study import Study
    from mixlaw.study.export_config import ExportConfig
    from mixlaw.study.exporting import Choice

WHICH = "Which mixture (default: the decision's)"
LENGTHS = "What the trainer has to know"


def export(
    study: StudyPath,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="TRAINER",
            autocompletion=one_of(trainers),
            help="One of {trainers}; default: as the study says.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=a_path,
            metavar="FOLDER",
            help="Folder of the files; default: export/TRAINER in the study.",
        ),
    ] = None,
    mixture: Annotated[
        str | None,
        typer.Option(
            "--mixture",
            "-m",
            metavar="SHARES",
            autocompletion=shares,
            rich_help_panel=WHICH,
            help="For instance web=0.6,code=0.4.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=baselines,
            rich_help_panel=WHICH,
            help="A baseline: natural, uniform or one of the study's own.",
        ),
    ] = None,
    schedule: Annotated[
        bool,
        typer.Option(
            "--schedule", rich_help_panel=WHICH, help="The schedule that the study recommends."
        ),
    ] = False,
    staged: Annotated[
        bool,
        typer.Option(
            "--staged",
            rich_help_panel=WHICH,
            help="Its best one of stages, recommended or not.",
        ),
    ] = False,
    stage: Annotated[
        int | None,
        typer.Option(
            parser=a_count,
            metavar="N",
            rich_help_panel=WHICH,
            help="With --schedule or --staged: one stage, from 1, as the mixture of its part of "
            "the run, for trainers without schedules.",
        ),
    ] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=PATH",
            rich_help_panel=LENGTHS,
            help="Where a domain's data lie, repeatable; or one pattern, '/data/{domain}'.",
        ),
    ] = None,
    train_tokens: Annotated[
        int | None,
        typer.Option(
            parser=a_count,
            metavar="N",
            rich_help_panel=LENGTHS,
            help="Of the run; default: the target's.",
        ),
    ] = None,
    sequence_length: Annotated[
        int | None,
        typer.Option(
            parser=a_count, metavar="N", rich_help_panel=LENGTHS, help="Tokens of a sample."
        ),
    ] = None,
    batch_sequences: Annotated[
        int | None,
        typer.Option(
            parser=a_count,
            metavar="N",
            rich_help_panel=LENGTHS,
            help="Samples of an optimiser step, over all ranks.",
        ),
    ] = None,
    document_tokens: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=TOKENS",
            rich_help_panel=LENGTHS,
            help="Mean tokens of a document, for trainers that count documents; repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the mixture as a trainer's own config.

    Shows what the trainer will make of it: whole samples, rounded weights, epochs. Reads the
    decision (or the mixture named here); writes the config and export.json.
    """
    from mixlaw.cli import show_interop
    from mixlaw.study import Study, exporting

    opened = Study(study)
    names = [domain.name for domain in opened.domains()]
    settings = _settings(
        names,
        paths=path or [],
        sequence_length=sequence_length,
        batch_sequences=batch_sequences,
        documents=document_tokens or [],
    )
    choice = _choice(opened, mixture, baseline, schedule=schedule, staged=staged)
    if stage is not None:
        if not (schedule or staged):
            raise StudyError("--stage is one of a schedule; give --schedule or --staged beside it")
        choice = choice.only(stage)
    found = exporting.export(
        opened, choice, to, out=out, train_tokens=train_tokens, settings=settings
    )
    data = {"folder": str(found.folder), **found.to_dict()}
    answer(data, as_json, lambda: show_interop.exported(found))


def _choice(
    study: Study, mixture: str | None, baseline: str | None, *, schedule: bool, staged: bool
) -> Choice:
    """Raises: StudyError: several were asked for."""
    from mixlaw.study import exporting

    asked = {"--mixture": mixture, "--baseline": baseline, "--schedule": schedule}
    asked |= {"--staged": staged}
    given = [option for option, value in asked.items() if value is not None and value is not False]
    if len(given) > 1:
        raise StudyError(f"{' and '.join(given)} name different mixtures; give one of them")
    if mixture is not None:
        return exporting.given(study, parse_mixture(mixture))
    if baseline is not None:
        return exporting.baseline(study, baseline)
    if schedule or staged:
        return exporting.scheduled(study, staged=staged)
    return exporting.decided(study)


def _settings(
    domains: Sequence[str],
    *,
    paths: Sequence[str],
    sequence_length: int | None,
    batch_sequences: int | None,
    documents: Sequence[str],
) -> ExportConfig:
    """What the command line says of the export section. Raises: StudyError: text that makes no
    sense."""
    from pydantic import ValidationError

    from mixlaw.study.export_config import DOMAIN, ExportConfig, PathsConfig

    by_domain: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    for text in paths:
        name, found = _sides(text, domains)
        if name is not None and not found:
            raise StudyError(f"--path {text!r} gives no path")
        if name is not None:
            by_domain.setdefault(name, []).append(found)
        elif DOMAIN in text and "pattern" in given:
            raise StudyError(
                f"--path {text!r} is a second pattern for all domains, beside "
                f"{given['pattern']!r}; give one, and DOMAIN=PATH for the others"
            )
        elif DOMAIN in text:
            given["pattern"] = text
        else:
            raise StudyError(
                f"--path {text!r} is neither DOMAIN=PATH, with one of {list(domains)}, nor the one "
                f"pattern for all, with {DOMAIN} in it"
            )
    lengths = {}
    for text in documents:
        name, found = _sides(text, domains)
        if name is None:
            raise StudyError(
                f"--document-tokens {text!r} is not DOMAIN=TOKENS, with one of {list(domains)}"
            )
        if name in lengths:
            raise StudyError(f"--document-tokens names {name!r} twice; give it one number")
        lengths[name] = found
    try:
        return ExportConfig(
            paths=PathsConfig(**given, by_domain=by_domain),
            sequence_length=sequence_length,
            batch_sequences=batch_sequences,
            mean_document_tokens=lengths,  # pyright: ignore[reportArgumentType]  # text is checked
        )
    except ValidationError as wrong:
        told = [
            f"--document-tokens {e['loc'][-1]}={e['input']}: {e['msg']}" for e in wrong.errors()
        ]
        raise StudyError("; ".join(told)) from None


def _sides(text: str, domains: Sequence[str]) -> tuple[str | None, str]:
    """Domain and value of "domain=value"; a domain's own name may have an equals sign."""
    named = [name for name in domains if text.startswith(f"{name}=")]
    if not named:
        return None, text
    name = max(named, key=len)
    return name, text[len(name) + 1 :]
