"""The terminal: lines, notes, tables that fit its width; the only way text of users reaches it.

Names come from users and files, so no text here is markup, and control characters in it are shown
as escapes: a domain name cannot colour, move or clear the terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from traceback import format_exception
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mixlaw.names import JOINERS

FIRST_COLUMN = 24
"""What the first column of a table may always have, in characters; longer names are folded."""
GAP = 2
_NUMBER = re.compile(r"[+\-±]? ?\.?\d")
_WORD = re.compile(r"\s*\S+\s*")


class ReaderGone(Exception):
    """Who read the output has left, as `head` does."""


class Terminal(Console):
    """A console that shows no styles where NO_COLOR is set, and ends quietly without a reader."""

    def __init__(self, *, stderr: bool = False):
        # rich drops colours for NO_COLOR, but not bold: an escape code is an escape code.
        styles = None if os.environ.get("NO_COLOR") else "auto"
        super().__init__(stderr=stderr, highlight=False, color_system=styles)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _gone()


def _gone() -> None:
    """Leave standard output, so that nothing is written at exit. Raises: ReaderGone."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    raise ReaderGone


out = Terminal()
err = Terminal(stderr=True)


def moves(console: Console) -> bool:
    """Whether a line may be drawn over: it takes escape codes, as colours do."""
    return console.is_terminal and not console.is_dumb_terminal and console.color_system is not None


def data(found: Any) -> None:
    """One JSON document, and nothing else, on standard output."""
    plain(json.dumps(found, indent=1, allow_nan=False))


def plain(text: str) -> None:
    """Text for other programs, whatever the width: as it is, but for escapes in a terminal."""
    try:
        sys.stdout.write((shown(text) if out.is_terminal else text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _gone()


def shown(text: object) -> str:
    """Text of which every character has its place: others are shown as escapes."""
    return "".join(
        c if c.isprintable() or c in _KEPT else " " if c in "\xa0\u3000" else _escaped(c)
        for c in str(text)
    )


_KEPT = "\n" + JOINERS


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def error(message: str) -> None:
    say(Text.assemble(("error: ", "bold red"), shown(message)), err)


def traceback(failed: BaseException) -> None:
    """Where an error was raised."""
    err.print(Text(shown("".join(format_exception(failed)))), soft_wrap=True)


def note(text: str) -> None:
    """Beside an answer that other programs read."""
    say(Text.assemble(("note: ", "yellow"), shown(text)), err)


def line(text: str) -> None:
    say(Text(shown(text)))


def command(text: str) -> None:
    """A line to copy: the terminal may break it, we do not."""
    out.print(Text(f"  {shown(text)}"), soft_wrap=True)


def say(text: Text, console: Console = out, *, indent: int = 0) -> None:
    """A line of words, wrapped at spaces in a terminal; whole where other programs read it.

    Args:
        indent: cells that all lines but the first are moved by.
    """
    if not console.is_terminal:
        console.print(text, soft_wrap=True)
        return
    # Unlike rich we leave a word whole that no line holds: the terminal breaks it, a copy has all.
    for k, part in enumerate(text.divide(_breaks(text.plain, console.width, indent))):
        part.rstrip()
        console.print(Text.assemble(" " * indent if k else "", part), soft_wrap=True)


def _breaks(text: str, width: int, indent: int) -> list[int]:
    """Where lines after the first begin."""
    found, used = [], 0
    for word in _WORD.finditer(text):
        if used and used + cell_len(word[0].rstrip()) > width:
            found.append(word.start())
            used = indent
        last = word[0].rpartition("\n")[-1]
        used = cell_len(last) + (used if last == word[0] else 0)
    return found


def step(number: int, title: str) -> None:
    out.print()
    say(Text.assemble((f"{number}.", "bold cyan"), " ", (shown(title), "bold")))


def notes(warnings: Sequence[str]) -> None:
    for warning in dict.fromkeys(warnings):
        marked("note", warning)


def marked(mark: str, text: str) -> None:
    """A line that begins with a coloured word."""
    say(Text.assemble((f"{shown(mark)}:", "yellow"), " ", shown(text)))


def heading(text: str) -> None:
    say(Text(shown(text), "bold"))


def headed(text: str, points: Mapping[str, Sequence[str]], following: Mapping[str, str]) -> None:
    """An answer: its sentence, what there is to say of it, and what to do next.

    Args:
        points: word -> one or more sentences, each wrapped beside it.
        following: command -> what it gives.
    """
    heading(text)
    out.print()
    width = max(map(cell_len, [*points, _NEXT])) + GAP
    for word, sentences in points.items():
        for k, sentence in enumerate(sentences):
            label = (" " * GAP + (word if k == 0 else "").ljust(width), "cyan")
            say(Text.assemble(label, shown(sentence)), indent=GAP + width)
    longest = max(map(cell_len, following), default=0)
    for k, (typed, gives) in enumerate(following.items()):
        label = (" " * GAP + (_NEXT if k == 0 else "").ljust(width), "cyan")
        typed = shown(typed)
        pad = " " * (longest - cell_len(typed))
        found = Text.assemble(label, typed, (f"{pad}  # {gives}", "dim"))
        if cell_len(found.plain) > out.width:  # the command alone, to be copied whole
            found = Text.assemble(label, typed)
        out.print(found, soft_wrap=True)
    out.print()


_NEXT = "next"


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """Says in a terminal what takes a while, until it is done; nothing elsewhere."""
    with err.status(Text(f"{shown(text)} ...")) if moves(err) else contextlib.nullcontext():
        yield


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """Print a table of which no number is ever cut; columns of words are set left, others right.

    Names in the first column are folded and headers broken at spaces where it would be too wide;
    columns that still find no place follow below, beside the first column again.
    """
    if title:
        say(Text(shown(title), "italic"))
    columns = [_cell(column) for column in columns]
    cells = [[_cell(cell) for cell in row] for row in rows]
    for chosen in _blocks(columns, cells):
        table = Table(header_style="bold", box=None)
        for i, width in chosen.items():
            in_words = not any(_NUMBER.match(row[i]) for row in cells)
            justify = "left" if i == 0 or in_words else "right"
            table.add_column(Text(columns[i]), justify=justify, width=width, overflow="fold")
        for row in cells:
            table.add_row(*(Text(row[i]) for i in chosen))
        out.print(table)


def _cell(value: object) -> str:
    return shown(value).replace("\n", r"\n")


def _blocks(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[dict[int, int]]:
    """For each block of columns: column -> its width, the first column in every block."""
    most = max(out.width // 2, 1)
    full = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    held = [max((cell_len(row[i]) for row in cells), default=0) for i in range(len(columns))]
    least = [
        min(max([held[i], *map(cell_len, name.split())]), most) for i, name in enumerate(columns)
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
