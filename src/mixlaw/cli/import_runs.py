"""`mixlaw import`: runs from where others keep them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixlaw.cli.arguments import Json, a_path, answer, number_in
from mixlaw.cli.names import checkpoints as which_rows
from mixlaw.cli.names import kinds, one_of, studies, units
from mixlaw.cli.terminal import working
from mixlaw.errors import StudyError

if TYPE_CHECKING:
    from mixlaw.interop import Hints
    from mixlaw.study.importing import Request

MEANING = "What its columns mean, where their names do not tell"


def import_runs(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCES]...",
            help="Files, folders or addresses (wandb://entity/project); none: all that the study "
            "imported before, again.",
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            parser=a_path,
            metavar="STUDY",
            autocompletion=studies,
            help="A study, or a folder for a new one; else only look.",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            autocompletion=one_of(kinds),
            help="Of the sources, if not by their looks: {kinds}.",
        ),
    ] = None,
    design: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of `mixlaw design --export-to`: results of these runs.",
        ),
    ] = None,
    mixture: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS",
            rich_help_panel=MEANING,
            help="Where it lies: 'config.mixture.*' (* is the domain), or one column.",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=TARGET",
            rich_help_panel=MEANING,
            help="'eval/*/loss=loss/*': metric in the source = target; repeatable.",
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            rich_help_panel=MEANING,
            help="Column of run ids; several as a+b.",
        ),
    ] = None,
    num_params: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            rich_help_panel=MEANING,
            help="Non-embedding parameters: a column, or a number.",
        ),
    ] = None,
    train_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            rich_help_panel=MEANING,
            help="Training tokens: a column, or a number.",
        ),
    ] = None,
    tokens_per_step: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            rich_help_panel=MEANING,
            help="Tokens of a step, where steps are logged: a column, or a number.",
        ),
    ] = None,
    seed_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", rich_help_panel=MEANING, help="Column of seeds."),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="UNIT",
            autocompletion=one_of(units),
            rich_help_panel=MEANING,
            help="Of the mixture: shares, percent or relative.",
        ),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH",
            autocompletion=one_of(which_rows),
            rich_help_panel=MEANING,
            help="last (one row a run) or all of them.",
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=HERE",
            rich_help_panel=MEANING,
            help="Web=web: domain or target in the source = its name here; repeatable.",
        ),
    ] = None,
    columns: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=MEANING,
            help="YAML file that says what every column means, as import.yaml does.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take runs that you have: tables, W&B, TensorBoard, ...

    Also MLflow, Trackio, lm-eval, Olmix and RegMix. Without --into it shows what would be read, and
    writes nothing. With it the runs go into the study's table: rows of runs that it has are
    replaced, target by target, and other runs stay. How they were read stands in import.yaml, which
    may be edited.
    """
    from mixlaw.cli import show_interop
    from mixlaw.interop import Hints
    from mixlaw.study.importing import import_again, import_into

    hints = Hints(
        mixture=mixture,
        targets=tuple(target or ()),
        run=run,
        num_params=_column_or_number("--num-params", num_params),
        train_tokens=_column_or_number("--train-tokens", train_tokens),
        tokens_per_step=_column_or_number("--tokens-per-step", tokens_per_step),
        seed=seed_column,
        unit=unit,
        checkpoints=checkpoints,
        rename=_renames(rename or []),
    )
    request = _request(sources or [], hints, kind=kind, columns=columns, design=design)
    if into is not None and request is None:
        with working("reading the sources again"):
            repeated = import_again(into)
        data = [show_interop.import_json(done) for done in repeated]
        answer(data, as_json, lambda: show_interop.repeated(repeated))
        return
    if request is None:
        raise StudyError("nothing to import: name the sources, or --into STUDY to repeat an import")
    if into is not None:
        with working("reading the sources"):
            done = import_into(into, request)
        answer(show_interop.import_json(done), as_json, lambda: show_interop.taken(done))
        return
    with working("reading the sources"):
        found = request.read()
    answer(show_interop.look_json(found), as_json, lambda: show_interop.look(found))


def _request(
    sources: list[str],
    hints: Hints,
    *,
    kind: str | None,
    columns: Path | None,
    design: Path | None,
) -> Request | None:
    """None to repeat what was imported. Raises: StudyError: options that would do nothing."""
    from mixlaw.interop import Hints
    from mixlaw.study.import_config import read_columns
    from mixlaw.study.importing import Request

    if "" in sources:
        raise StudyError("a source is empty; name a file, a folder or an address")
    said = hints != Hints()
    if not sources:
        if said or kind or columns or design:
            raise StudyError(
                "an import is repeated as its import.yaml says; change that file, or name the "
                "sources again beside the options"
            )
        return None
    if columns is not None and said:
        raise StudyError(
            f"--columns {columns} says what every column means; say the rest there, too, or leave "
            "it out"
        )
    given = None if columns is None else read_columns(columns)
    return Request(tuple(sources), kind, given, hints, design)


def _column_or_number(option: str, text: str | None) -> str | float | None:
    """Raises: StudyError: a number that counts nothing."""
    if text is None:
        return None
    number = number_in(text)
    if text == "" or (number is not None and not 0 < number < math.inf):
        raise StudyError(f"{option} {text!r} is neither a column nor a finite number above 0")
    return text if number is None else number


def _renames(given: list[str]) -> dict[str, str]:
    """Raises: StudyError: text of another form, or a name that is given twice."""
    found: dict[str, str] = {}
    for text in given:
        old, equals, new = text.partition("=")
        old, new = old.strip(), new.strip()
        if not (old and equals and new):
            raise StudyError(f"--rename {text!r} is not of the form 'name in the source=name here'")
        if old in found:
            raise StudyError(f"--rename names {old!r} twice; give it one name")
        found[old] = new
    return found
