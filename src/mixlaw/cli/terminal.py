"""The terminal: lines, notes, tables that fit its width."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

FIRST_COLUMN = 24
"""What the first column of a table may always have, in characters; longer names are folded."""
GAP = 2
_NUMBER = re.compile(r"[+\-±]? ?\.?\d")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def error(message: str) -> None:
    err.print(f"[bold red]error:[/] {_plain(message)}", soft_wrap=True)


def line(text: str) -> None:
    out.print(_plain(text), soft_wrap=True)


def step(number: int, title: str) -> None:
    out.print(f"\n[bold cyan]{number}.[/] [bold]{_plain(title)}[/]")


def _plain(text: str) -> str:
    # Names come from users; square brackets in them are not markup.
    return text.replace("[", r"\[")


def notes(warnings: Sequence[str]) -> None:
    for warning in dict.fromkeys(warnings):
        marked("note", warning)


def marked(mark: str, text: str) -> None:
    """A line that begins with a coloured word."""
    out.print(f"[yellow]{mark}:[/] {_plain(text)}", soft_wrap=True)


def heading(text: str) -> None:
    out.print(f"[bold]{_plain(text)}[/]")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """Print a table of which no number is ever cut; columns of words are set left, others right.

    Names in the first column are folded and headers broken at spaces where it would be too wide;
    columns that still find no place follow below, beside the first column again.
    """
    if title:
        out.print(f"[italic]{_plain(title)}[/]", soft_wrap=True)
    cells = [[str(cell) for cell in row] for row in rows]
    for chosen in _blocks(columns, cells):
        table = Table(header_style="bold", box=None)
        for i, width in chosen.items():
            in_words = not any(_NUMBER.match(row[i]) for row in cells)
            justify = "left" if i == 0 or in_words else "right"
            table.add_column(_plain(columns[i]), justify=justify, width=width, overflow="fold")
        for row in cells:
            table.add_row(*(_plain(row[i]) for i in chosen))
        out.print(table)


def _blocks(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[dict[int, int]]:
    """For each block of columns: column -> its width, the first column in every block."""
    most = max(out.width // 2, 1)
    full = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    held = [max((cell_len(row[i]) for row in cells), default=0) for i in range(len(columns))]
    least = [
        min(max(held[i], *map(cell_len, name.split())), most) for i, name in enumerate(columns)
    ]
    least[0] = min(full[0], FIRST_COLUMN)
    blocks: list[dict[int, int]] = []
    for i in range(1, len(columns)):
        if not blocks or sum(blocks[-1].values()) + GAP * len(blocks[-1]) + least[i] + GAP > (
            out.width
        ):
            blocks.append({0: least[0]})
        blocks[-1][i] = least[i]
    for block in blocks or [{0: least[0]}]:
        for i in block:  # what is left over, the first column first
            room = out.width - sum(block.values()) - GAP * len(block)
            block[i] += max(0, min(full[i] - block[i], room))
    return blocks or [{0: least[0]}]
