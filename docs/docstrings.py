"""Docstrings of this project as Markdown, for the page on Python.

Their sections (`Args:`, `Returns: the path.`, `Raises: FitError: too few runs.`) may stand in one
line, which the parsers that the site could use do not take for sections.
"""

from __future__ import annotations

import re

import griffe

SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Source|Yields): ?(.*)")
ENTRY = re.compile(r"([\w*.,` ]+?): (.*)")


class Markdown(griffe.Extension):
    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(docstring: str) -> str:
    """Sections become a word in bold and a list of their entries; prompts become code."""
    blocks = [_block(block.split("\n")) for block in re.split(r"\n\s*\n", docstring)]
    return "\n\n".join(blocks)


def _block(lines: list[str]) -> str:
    if lines[0].startswith(">>>"):
        return "\n".join(["```pycon", *lines, "```"])
    done: list[str] = []
    while lines:
        line, *lines = lines
        found = SECTION.fullmatch(line)
        if found is None:
            done.append(line)
            continue
        inside = [found[2]] if found[2] else []
        while lines and not SECTION.fullmatch(lines[0]):
            inside.append(lines.pop(0))
        done += ["", f"**{found[1]}**", "", *_entries(inside), ""]
    return "\n".join(done).strip("\n")


def _entries(lines: list[str]) -> list[str]:
    """One item for each line that is not indented further than the first of its kind."""
    least = min((len(line) - len(line.lstrip()) for line in lines[1:]), default=0)
    one_line = not lines[0].startswith(" ")
    items: list[str] = []
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if number == 0 or (not one_line and indent == least):
            items.append(line.strip())
        else:
            items[-1] += f" {line.strip()}"
    return [f"- {_named(item)}" for item in items]


def _named(item: str) -> str:
    found = ENTRY.fullmatch(item)
    return f"`{found[1]}`: {found[2]}" if found and "`" not in found[1] else item
