"""What a domain, target, run or baseline may be called: one line, seen whole, unlike others."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

JOINERS = "\u200c\u200d"
"""Unseen, and part of how some scripts and emoji are written."""

_UNSEEN = {
    "Cc": "a control character",
    "Cf": "an invisible character",
    "Cs": "half of a surrogate pair",
    "Zl": "a line break",
    "Zp": "a line break",
}
"""By Unicode category. In a terminal such characters move the cursor or turn the text around, in a
table of text they end the row."""


def fault(names: Iterable[str]) -> str | None:
    """What is wrong with names that stand side by side, in words; None where nothing is.

    None may hold a control character, a line break or an invisible mark, and no two may look alike
    (equal in Unicode's composed form, with all spaces alike) without being the same. Anything else
    is a name, also markup, paths, formulas and commands: they are text wherever they are written.
    """
    seen: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if name.isascii() and name.isprintable():
            seen[name] = name
            continue
        for character in name:
            category = unicodedata.category(character)
            if category in _UNSEEN and character not in JOINERS:
                return (
                    f"the name {name!a} holds {_UNSEEN[category]} (U+{ord(character):04X}); "
                    "a name is one line of characters that can be seen: rename it"
                )
        looks = unicodedata.normalize("NFC", name).translate(dict.fromkeys(map(ord, JOINERS)))
        looks = "".join(" " if unicodedata.category(c) == "Zs" else c for c in looks)
        if looks in seen:
            return (
                f"the names {seen[looks]!a} and {name!a} look alike and are spelled "
                "differently; make them one, or tell them apart"
            )
        seen[looks] = name
    return None
