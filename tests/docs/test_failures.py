"""The messages that docs/faq.md explains are those of the code."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAQ = ROOT / "docs" / "faq.md"
GAP = "…"


def quoted() -> list[str]:
    """First cells of tables that are one message: a sentence, with gaps for names and figures."""
    cells = re.findall(r"^\| `([^`]+)` \|", FAQ.read_text(encoding="utf-8"), flags=re.M)
    return [cell for cell in cells if GAP in cell or ";" in cell]


@cache
def messages() -> tuple[str, ...]:
    """Every text of the source, with gaps for what is put in."""
    found = []
    for path in sorted((ROOT / "src" / "mixlaw").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else GAP for v in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def test_there_are_messages():
    assert len(quoted()) > 30


@pytest.mark.parametrize("message", quoted())
def test_message_is_of_the_code(message):
    assert any(holds(text, message.split(GAP)) for text in messages())


def holds(text: str, pieces: list[str]) -> bool:
    """Whether the pieces stand in a text, one after the other."""
    for piece in pieces:
        at = text.find(piece)
        if at < 0:
            return False
        text = text[at + len(piece) :]
    return True


def test_every_finding_is_explained():
    kinds = (ROOT / "src" / "mixlaw" / "laws" / "findings.py").read_text(encoding="utf-8")
    _, _, listed = kinds.partition("kind: ")
    listed, _, _ = listed.partition("names:")
    text = FAQ.read_text(encoding="utf-8")
    for kind in re.findall(r'"([^"]+)"', " ".join(listed.split())):
        assert f"`{kind}`" in text
