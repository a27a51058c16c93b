"""What subcommands share: arguments that several have, and how an answer is printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixlaw.cli import terminal
from mixlaw.cli.names import launchers, one_of, studies, trackers
from mixlaw.cli.pages import EVERYWHERE, JSON
from mixlaw.errors import MixtureError, StudyError

if TYPE_CHECKING:
    from mixlaw.mixture import Mixture
    from mixlaw.study import Study
    from mixlaw.study.launch_config import LaunchConfig


def a_path(text: str) -> Path:
    """Raises: typer.BadParameter: no text, as of a shell variable that is not set; it would be the
    working directory."""
    if not text:
        raise typer.BadParameter("it is empty; name a folder ('.' for this one)")
    return Path(text)


WHERE = "Where it is trained"

StudyPath = Annotated[
    Path,
    typer.Argument(
        metavar="STUDY",
        parser=a_path,
        autocompletion=studies,
        help="Folder or YAML file of a study.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help=JSON, rich_help_panel=EVERYWHERE)]
LauncherName = Annotated[
    str | None,
    typer.Option(
        "--launcher",
        metavar="NAME",
        autocompletion=one_of(launchers),
        rich_help_panel=WHERE,
        help="One of {launchers}; default: as the study says.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        rich_help_panel=WHERE,
        help="Processes on this machine; default: one a core or GPU.",
    ),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TOOL",
        autocompletion=one_of(trackers),
        rich_help_panel=WHERE,
        help="Show curves in {trackers}; repeatable.",
    ),
]


def answer(data: Any, as_json: bool, human: Callable[[], object]) -> None:
    """JSON alone, or a picture for people."""
    if as_json:
        terminal.data(data)
    else:
        human()


def launch_of(
    study: Study, launcher: str | None, workers: int | None, track: list[str] | None
) -> LaunchConfig:
    """The study's launch section with what the command line says instead.

    Raises: StudyError: what it says makes no sense.
    """
    from pydantic import ValidationError

    from mixlaw.study.launch_config import LaunchConfig

    given = {"launcher": launcher, "workers": workers, "track": track}
    try:
        return LaunchConfig(
            **{**study.config.launch.model_dump(), **{k: v for k, v in given.items() if v}}
        )
    except ValidationError as wrong:
        told = [f"--{e['loc'][0]} {e['input']}: {e['msg']}" for e in wrong.errors()]
        raise StudyError("; ".join(told)) from None


def parse_mixture(text: str) -> Mixture:
    """Of "web=0.6,code=0.4". Raises: MixtureError: text of another form."""
    from mixlaw.mixture import Mixture

    shares = {}
    for part in text.split(","):
        name, equals, share = part.partition("=")
        try:
            value = float(share)
        except ValueError:
            equals = ""
            value = 0.0
        if not equals:
            raise MixtureError(f"{part!r} in --mixture {text!r} is not of the form domain=0.5")
        if name.strip() in shares:
            raise MixtureError(f"domain {name.strip()!r} is named twice in --mixture {text!r}")
        shares[name.strip()] = value
    return Mixture(shares)
