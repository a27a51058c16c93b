"""The explorer as parts of the report's page."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment
from markupsafe import Markup

from mixlaw.report.explorer.payload import Explorer, escaped_json

SCRIPTS = ("texts.js", "page.js")
"""What stands behind the laws and the engine, in this order."""


NOTHING, NO_SCRIPT = Markup(""), Markup("'none'")


@dataclass(frozen=True)
class Embedded:
    """HTML for the page. Where there is no explorer, the section says why; where a study has no
    mixture to decide, there is none.

    Attributes:
        section: its own section.
        style: the rules of its look.
        script: the JavaScript, for one inline element; empty: none.
        data: JSON that the script reads.
        policy: the script in a Content-Security-Policy, by its digest.
    """

    section: Markup = NOTHING
    style: Markup = NOTHING
    script: Markup = NOTHING
    data: Markup = NOTHING
    policy: Markup = NO_SCRIPT


def embed(found: Explorer | str, environment: Environment) -> Embedded:
    """The explorer, or in a sentence why there is none, as parts of a page."""
    part = environment.from_string(_text("part.html"))
    if isinstance(found, str):
        return Embedded(Markup(part.render(why=f"{found[0].upper()}{found[1:]}.")))
    script = "\n".join([found.script, *map(_text, SCRIPTS)])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Embedded(
        section=Markup(part.render(why=None, law=found.payload["law"])),
        style=Markup(_text("page.css")),
        script=Markup(script),
        data=Markup(escaped_json(found.payload)),
        policy=Markup(f"'sha256-{digest}'"),
    )


def _text(name: str) -> str:
    return (files("mixlaw.report.explorer") / name).read_text(encoding="utf-8")
