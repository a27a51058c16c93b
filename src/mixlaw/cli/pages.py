"""The help of every command, as a terminal of 80 columns holds it.

Typer's own pages spend a third of the width on frames and types, and break examples; these show
what a command does, what it reads and writes, its options by group, and lines to copy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from mixlaw.cli.names import LISTS
from mixlaw.cli.terminal import GAP, Terminal

EVERYWHERE = "On every command"
DEBUG = "Show the traceback of an error; so does MIXLAW_DEBUG=1."
JSON = "Print one JSON document; an error is one on stderr."
MOST_NAMES = 30
"""Cells that the names of options may take; what they mean has the rest."""


class Page(TyperCommand):
    """A command whose epilog holds its examples, one a line."""

    def format_help(self, ctx: typer.Context, formatter) -> None:  # pyright: ignore
        formatter.write(_drawn(_page(self, ctx)))


class Story(TyperGroup):
    """The first page: what mixlaw is, ways to start, commands in the order of work."""

    def format_help(self, ctx: typer.Context, formatter) -> None:  # pyright: ignore
        formatter.write(_drawn(_story(self, ctx)))


def _drawn(page: RenderableType) -> str:
    console = Terminal()  # of now: tests and docs say how wide it is
    with console.capture() as captured:
        console.print(page, crop=False)
    text = captured.get()
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n")) + "\n"


def _page(command: TyperCommand, ctx: typer.Context) -> RenderableType:
    groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    usage = [ctx.command_path]
    for param in command.get_params(ctx):
        if param.name == "help":
            continue
        text = _with_lists(getattr(param, "help", None) or "")
        if param.param_type_name == "argument":
            name = param.metavar or (param.name or "").upper()
            usage.append(name)
            groups["Arguments"].append((name.strip("[]."), text))
            continue
        group = getattr(param, "rich_help_panel", None) or "Options"
        flag = getattr(param, "is_flag", False)
        names = ", ".join(sorted(param.opts, key=len))
        groups.setdefault(group, []).append((names if flag else f"{names} {param.metavar}", text))
        if param.required:
            usage.append(f"{param.opts[0]} {param.metavar}")
    common = groups.pop(EVERYWHERE, [])
    groups[EVERYWHERE] = [*common, ("--debug", DEBUG), ("--help", "Show this page.")]
    usage.append("[OPTIONS]")
    parts: list[RenderableType] = [Text(f"Usage: {' '.join(usage)}", "bold"), ""]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        parts += [Text(" ".join(paragraph.split())), ""]
    for title, rows in groups.items():
        if rows:
            parts += [_rows(title, rows), ""]
    if command.epilog:
        parts.append(_lines("Examples", command.epilog.split("\n")))
    return Group(*parts)


def _with_lists(text: str) -> str:
    for word, names in LISTS.items():
        if word in text:
            text = text.replace(word, ", ".join(names()))
    return text


def _rows(title: str, rows: Iterable[tuple[str, str]], least: int = 0) -> RenderableType:
    """A heading, and names beside what they mean; a name that is too long stands above it."""
    rows = list(rows)
    fitting = [len(name) for name, _ in rows if len(name) <= MOST_NAMES]
    table = Table.grid(padding=(0, GAP, 0, 0))
    table.add_column(width=max([least, *fitting]))
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(Text(name, "cyan"), Text(text))
    return Group(Text(title, "bold"), Padding(table, (0, 0, 0, GAP)))


def _lines(title: str, lines: Iterable[str]) -> RenderableType:
    """A heading, and lines to copy: whole, whatever the width."""
    whole = (Text(" " * GAP + line, no_wrap=True, overflow="ignore") for line in lines)
    return Group(Text(title, "bold"), *whole)


def _story(group: TyperGroup, ctx: typer.Context) -> RenderableType:
    about, start, *_ = inspect.cleandoc(group.help or "").split("\n\n")
    panels: dict[str, list[tuple[str, str]]] = {}
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is not None and not command.hidden:
            first = inspect.cleandoc(command.help or "").split("\n\n")[0]
            panel = getattr(command, "rich_help_panel", None) or "Commands"
            panels.setdefault(panel, []).append((name, _undotted(" ".join(first.split()))))
    width = max(len(name) for rows in panels.values() for name, _ in rows)
    title, *ways = start.split("\n")
    parts: list[RenderableType] = [Text(" ".join(about.split())), "", _lines(title, ways), ""]
    parts += [_rows(title, rows, width) for title, rows in panels.items()]
    parts += ["", *(Text(line) for line in inspect.cleandoc(group.epilog or "").split("\n"))]
    return Group(*parts)


def _undotted(text: str) -> str:
    return text if text.endswith("...") else text.removesuffix(".")


def adder(app: typer.Typer, panel: str) -> Callable[..., None]:
    """Adds commands to a panel: the function, then examples; `name` where it has another one."""

    def add(function: Callable[..., None], *examples: str, name: str | None = None) -> None:
        register = app.command(name, cls=Page, rich_help_panel=panel, epilog="\n".join(examples))
        register(function)

    return add
