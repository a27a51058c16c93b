"""What subcommands share: arguments that several have, and how an answer is printed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
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


UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_IN_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")


def number_in(text: str) -> float | None:
    """Of "0.5", "1e6", "1_000_000", "1,000,000", "80M" or "1.4B"; None where it is no number."""
    text = text.strip()
    text = text.replace(",", "") if _IN_THOUSANDS.fullmatch(text) else text
    unit = text[-1:] if text[-1:] in UNITS else ""
    try:  # in decimals, so that 1.1B is a whole number
        return float(Decimal(text.removesuffix(unit)) * UNITS[unit])
    except ArithmeticError:
        return None


def a_number(text: str) -> float:
    """Raises: typer.BadParameter: no number."""
    if (number := number_in(text)) is None:
        raise typer.BadParameter(f"{text!r} is no number; give one such as 1e20, 5_000_000 or 80M")
    return number


def count_from(least: int) -> Callable[[str | int], int]:
    """What reads a whole number of at least so many, for options."""

    def a_count(text: str | int) -> int:
        number = number_in(str(text))
        if number is None or not number.is_integer() or number < least:
            raise typer.BadParameter(
                f"{str(text)!r} is no whole number of at least {least}; give one such as 8, 1e6 or "
                "80M"
            )
        return int(number)

    return a_count


a_count = count_from(1)

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
        parser=a_count,
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
    """Of "web=0.6,code=0.4"; or of JSON, for names with a comma or an equals sign.

    Raises: MixtureError: text of another form.
    """
    from mixlaw.mixture import Mixture

    if text.lstrip().startswith("{"):
        return Mixture(_of_json(text))
    shares = {}
    for part in text.split(","):
        name, equals, share = part.partition("=")
        value = number_in(share)
        if not equals or value is None:
            raise MixtureError(
                f"{part!r} in --mixture {text!r} is not of the form domain=0.5; with a comma or an "
                f"equals sign in a name, give JSON: --mixture {_JSON_MIXTURE}"
            )
        if name.strip() in shares:
            raise MixtureError(f"domain {name.strip()!r} is named twice in --mixture {text!r}")
        shares[name.strip()] = value
    return Mixture(shares)


_JSON_MIXTURE = """'{"a,b": 0.6, "c": 0.4}'"""


def _of_json(text: str) -> dict[str, float]:
    """Raises: MixtureError: no object of shares, or a name twice in it."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if twice := [name for name in names if names.count(name) > 1]:
            raise MixtureError(f"domain {twice[0]!r} is named twice in --mixture {text!r}")
        return dict(pairs)

    try:
        shares = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise MixtureError(
            f"--mixture {text!r} is no JSON ({error}); give for instance {_JSON_MIXTURE}"
        ) from None
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float):
            raise MixtureError(
                f"the share of {name!r} in --mixture {text!r} is no number; give for instance "
                f"{_JSON_MIXTURE}"
            )
    return shares
