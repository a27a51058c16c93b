"""What a section of the report is made of; `template.html` draws it, nothing here is HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mixlaw.plots.marks import Key


@dataclass(frozen=True)
class Picture:
    """One or more drawings with one sentence that says what they show for this study.

    Attributes:
        says: the sentence.
        svgs: inline SVG; several are small multiples.
        wide: takes the whole width of the page.
    """

    says: str
    svgs: tuple[str, ...]
    legend: tuple[Key, ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of strings; the first cell of a row is its heading.

    Attributes:
        text: the columns that are not numbers.
        strong: rows that are emphasised.
        folded: shown when asked for.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: frozenset[int] = frozenset({0})
    strong: frozenset[int] = frozenset()
    note: str = ""
    wide: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Notes:
    """Sentences that stand on their own."""

    lines: tuple[str, ...]
    wide: bool = True


@dataclass(frozen=True)
class Code:
    """Something to copy."""

    title: str
    text: str
    wide: bool = True


@dataclass(frozen=True)
class Stack:
    """Parts that stand below each other, beside a tall picture."""

    parts: tuple[Picture | Table | Notes | Code, ...]
    wide: bool = False


Part = Picture | Table | Notes | Code | Stack


@dataclass(frozen=True)
class Section:
    """A headed part of the page.

    Attributes:
        anchor: unique id within the page.
        lead: the one thing to know, in a sentence or two.
    """

    anchor: str
    title: str
    lead: str
    parts: tuple[Part, ...] = field(default=())


def kind(part: Part) -> str:
    """Name of a part's type, for the template."""
    return type(part).__name__.lower()
