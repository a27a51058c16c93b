"""What subcommands share: arguments that several have, and how an answer is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mixlaw.errors import MixtureError
from mixlaw.mixture import Mixture


def a_path(text: str) -> Path:
    """Raises: typer.BadParameter: no text, as of a shell variable that is not set; it would be the
    working directory."""
    if not text:
        raise typer.BadParameter("it is empty; name a folder ('.' for this one)")
    return Path(text)


StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder or YAML file of a study.")]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON only.")]


def answer(data: Any, as_json: bool, human: Callable[[], None]) -> None:
    """JSON alone, or a picture for people."""
    if as_json:
        typer.echo(json.dumps(data, indent=1, allow_nan=False))
    else:
        human()


def parse_mixture(text: str) -> Mixture:
    """Of "web=0.6,code=0.4". Raises: MixtureError: text of another form."""
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
