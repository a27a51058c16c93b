"""What mkdocs is told beyond mkdocs.yml: pages that are written elsewhere, or by the code.

- benchmarks/results/*.md are pages below `results/`, with a list of them; CHANGELOG.md is
  `changelog.md`. The pages link to them where they lie, so that links hold in the repository, too.
- cli.md gets a section for each command of the app and its exit codes, so that no word of it can be
  out of date.
- example-report.html is the report of examples/tiny-env, made anew.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

import typer
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
EXAMPLE = ROOT / "examples" / "tiny-env"
COMMANDS, EXIT_CODES = "<!-- the commands -->", "<!-- the exit codes -->"

LINKS = (
    ("../benchmarks/results)", "results/index.md)"),
    ("../benchmarks/results/", "results/"),
    ("../CHANGELOG.md", "changelog.md"),
)
"""Start of a link in the repository -> in the site."""


def on_files(files, config):
    """Add the pages that lie outside docs/."""
    from mkdocs.structure.files import File

    pages = {f"results/{path.name}": path.read_text() for path in sorted(RESULTS.glob("*.md"))}
    pages["results/index.md"] = list_of_results()
    pages["changelog.md"] = (ROOT / "CHANGELOG.md").read_text()
    pages["example-report.html"] = example_report()
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links of the repository become those of the site; cli.md is filled."""
    for there, here in LINKS:
        markdown = markdown.replace(f"]({there}", f"]({here}")
    if page.file.src_uri == "cli.md":
        markdown = markdown.replace(COMMANDS, commands()).replace(EXIT_CODES, exit_codes())
    return markdown


@cache
def example_report() -> str:
    """The report of the example, made in a folder of its own."""
    from mixlaw import Study
    from mixlaw.report import write_report

    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / EXAMPLE.name
        study.mkdir()
        for name in ("study.yaml", "runs.csv"):
            shutil.copy(EXAMPLE / name, study)
        return write_report(Study(study)).read_text()


def list_of_results() -> str:
    """The page of measurements: title and command of each table."""
    rows = []
    for path in sorted(RESULTS.glob("*.md")):
        text = path.read_text()
        title = text.partition("\n")[0].removeprefix("# ")
        command = re.search(r"`(python -m [^`]+)`", text)
        rows.append(f"| [{title}]({path.name}) | {f'`{command[1]}`' if command else ''} |\n")
    return (
        "# Measurements\n\nEvery figure of these pages, with the command that measured it and the "
        "machine it ran on.\n\n| table | by |\n|---|---|\n" + "".join(rows)
    )


def exit_codes() -> str:
    """A table of what the command line returns."""
    from mixlaw.cli.entry import EXIT_CODES

    rows = [f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items()]
    return "| code | means |\n|---|---|\n" + "".join(rows)


def commands() -> str:
    """The help of the app and of every command, as a terminal of 80 columns shows it."""
    from mixlaw.cli.app import app

    names = [info.name or info.callback.__name__ for info in app.registered_commands]
    lines = [[], *([name] for name in names)]
    helps = {" ".join(["mixlaw", *line]): _help(app, line) for line in lines}
    return "\n".join(f"## {name}\n\n```text\n{text}\n```\n" for name, text in helps.items())


def _help(app: typer.Typer, command: list[str]) -> str:
    terminal = {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1", "TERM": "dumb"}
    shown = CliRunner(env=terminal).invoke(app, [*command, "--help"], prog_name="mixlaw")
    if shown.exit_code != 0:
        raise RuntimeError(f"mixlaw {' '.join(command)} --help failed: {shown.output}")
    return "\n".join(line.rstrip() for line in shown.output.strip("\n").splitlines())
