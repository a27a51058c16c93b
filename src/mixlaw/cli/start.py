"""Commands to begin with: `mixlaw demo`, `init` and `status`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from mixlaw.cli import terminal
from mixlaw.cli.arguments import Json, StudyPath, a_path, answer
from mixlaw.errors import StudyError


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", parser=a_path, help="New folder for the study.")
    ],
    as_json: Json = False,
) -> None:
    """Write a commented study.yaml to fill in.

    It names your domains and where their text lies, the sizes of proxies, the objective, the
    constraints and the target scale. Writes FOLDER/study.yaml, and never over one that is there.
    """
    from mixlaw.cli.demo import template
    from mixlaw.files import write_text

    path = folder / "study.yaml"
    if path.exists():
        raise StudyError(f"{path} exists already; edit it, or name another folder")
    write_text(path, template("study.yaml"))

    def shown() -> None:
        terminal.line(f"wrote {path}: name your domains and paths in it, then:")
        terminal.command(f"mixlaw status {shlex.quote(str(folder))}")

    answer({"study": str(path), "next": "status"}, as_json, shown)


def status(study: StudyPath, as_json: Json = False) -> None:
    """What is done, and what is next.

    Reads the study's folder and changes nothing. A step is done when its result is of the present
    settings and runs.
    """
    from mixlaw.cli import show
    from mixlaw.study import Study

    found = Study(study).status()
    answer(found, as_json, lambda: show.status(found))


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="For the demo study; default: demo-study.")
    ] = Path("demo-study"),
    short: Annotated[bool, typer.Option("--short", help="About a minute, less exact.")] = False,
    continual: Annotated[
        bool, typer.Option("--continual", help="Continue a model on new text instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The whole job on text of this Python environment, in minutes.

    Corpus, design, swarm, laws, decision, verification and report, told as they go. Writes a study
    into FOLDER that every other command reads. Needs the extra: pip install 'mixlaw[train]'.
    """
    from mixlaw.cli.demo import run_demo

    terminal.out.quiet = as_json  # the steps are told for people alone
    found = run_demo(folder, short=short, continual=continual)
    if as_json:
        terminal.data(found)
