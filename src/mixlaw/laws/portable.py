"""Fitted laws for a page: worked out there by small scripts, to the digits of Python.

    page = portable(list(fitted.laws.values()))
    page.data                  JSON for the page
    javascript([page])         what works it out there

and in the page

    const laws = mixlaw.laws(data), out = new Float64Array(laws.size);
    laws.evaluate(mixlaw.at(shares, {num_params, train_tokens, available_tokens}), out);

How a law or a term gets its script: `page_form`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np

from mixlaw.laws.base import Fitted
from mixlaw.laws.coding import Block, coded, rounded, shortened
from mixlaw.laws.link_forms import CURVE_SCRIPTS, Link
from mixlaw.laws.page_form import Form, NotPortable, Scale
from mixlaw.laws.points import Points

__all__ = ["NotPortable", "Portable", "javascript", "portable", "portable_links"]


@dataclass(frozen=True, eq=False)
class Portable:
    """What a page needs of laws, or of links.

    Attributes:
        data: JSON-able; for `mixlaw.laws` (or `mixlaw.links`) in the page.
        scripts: name -> JavaScript of the parts that occur.
        laws: the laws that the page works out: those given, or with their numbers rounded.
    """

    data: Mapping[str, Any]
    scripts: Mapping[str, str]
    laws: tuple[Fitted, ...] = ()


def portable(
    laws: Sequence[Fitted],
    *,
    scales: Sequence[Scale] = (),
    around: Points | None = None,
    short: bool = False,
) -> Portable:
    """B fitted laws of the same M domains, for a page.

    Args:
        laws: of any targets, folds or refits; those of one formula share it.
        scales: where the page will ask, for laws that are worked out scale by scale (nested).
        around: for refits. Each number is kept as a letter, a step from the middle of the same
            target's laws, and rounded so that the values at these points are kept: give some of
            the trained mixtures at the scales that matter. None: numbers are doubles.
        short: without the last 16 bits of a double, for laws that need no more.
    Raises:
        NotPortable: a law that a page cannot work out; the message has the remedy.
        FitError: `around` lacks a count that a law reads.
    """
    forms = _on_common_places([fitted.form(scales) for fitted in laws])
    page = _Page()
    groups: dict[tuple[int, str], list[int]] = {}
    for b, form in enumerate(forms):
        groups.setdefault((page.add(form), "" if around is None else laws[b].target), []).append(b)
    given = list(laws)
    coded_groups = []
    for (index, _), rows in groups.items():
        numbers = np.stack([np.concatenate(list(_numbers(forms[b]))) for b in rows])
        data, kept = coded(numbers), None
        if around is not None and len(rows) > 1:
            data, kept = rounded(numbers, list(_blocks(forms[rows[0]], numbers, around)))
        elif short:
            data, kept = shortened(numbers)
        if kept is not None:
            for b, row in zip(rows, kept, strict=True):
                given[b] = _remade(forms[b], iter(row))
        coded_groups.append({"form": index, "rows": _rows(rows), "numbers": data})
    data = {"size": len(laws), "forms": page.forms, "arrays": page.arrays, "groups": coded_groups}
    return Portable(data, page.scripts, tuple(given))


def portable_links(links: Sequence[Link], targets: Sequence[str]) -> Portable:
    """S links for a page, which read the losses of `targets` in this order.

    In the page: `mixlaw.links(data).evaluate(losses, out)` with Float64Arrays (T) and (S).
    """
    used = list(dict.fromkeys(link.form for link in links))
    data = {
        "size": len(links),
        "curves": [link.form for link in links],
        "numbers": coded(np.array([[x.floor, x.span, x.rate, x.middle] for x in links])),
        "shares": [
            [[t, share] for t, share in enumerate(link.shares(targets).tolist()) if share]
            for link in links
        ],
    }
    return Portable(data, {form: CURVE_SCRIPTS[form] for form in used})


def javascript(pages: Iterable[Portable]) -> str:
    """The script that gives a page the object `mixlaw`, with what these laws and links use.

    Raises: NotPortable: two scripts of one name, or one that a page cannot hold.
    """
    scripts: dict[str, str] = {}
    for page in pages:
        for name, script in page.scripts.items():
            _agree(scripts, name, script)
    runtime = files("mixlaw.laws").joinpath("portable.js").read_text(encoding="utf-8")
    lines = [f"  scripts[{json.dumps(name)}] = {text};" for name, text in sorted(scripts.items())]
    head = '(() => {\n  "use strict";\n  const { scripts, exp, dot } = mixlaw;'
    return "\n".join([runtime, head, *lines, "})();\n"])


def _agree(scripts: dict[str, str], name: str, script: str) -> None:
    if scripts.setdefault(name, script) != script:
        raise NotPortable(f"two classes named {name!r} have different scripts; rename one")
    if "</" in name + script or "<!--" in name + script:
        raise NotPortable(
            f"the script of {name!r} has '</' or '<!--', which ends a page's script; "
            "put a space between"
        )


class _Page:
    """The structures of laws, each kept once: forms refer to their parts and arrays by index."""

    def __init__(self) -> None:
        self.forms: list[dict[str, Any]] = []
        self.arrays: list[dict[str, str]] = []
        self.scripts: dict[str, str] = {}
        self._indices: dict[str, int] = {}
        self._of_array: dict[int, int] = {}

    def add(self, form: Form) -> int:
        """Index of the structure of a form."""
        _agree(self.scripts, form.name, form.script.strip())
        arrays = dict(form.arrays)
        if form.places is not None:
            arrays["places"] = form.places
        data = {
            "script": form.name,
            "count": len(form.numbers) - form.reads_own,
            "own": form.reads_own,
            "constants": dict(form.constants),
            "arrays": {name: self._add_array(array) for name, array in arrays.items()},
            "parts": [self.add(part) for part in form.parts],
        }
        return self._index(data, self.forms)

    def _add_array(self, array: np.ndarray) -> int:
        """Index of an array; the forms of one call, which hold it, share many."""
        if id(array) not in self._of_array:
            kind, bits = array.dtype.kind, 8 * array.itemsize
            data = coded(array, f"{kind}{bits}")
            self._of_array[id(array)] = self._index(data, self.arrays)
        return self._of_array[id(array)]

    def _index(self, data: dict[str, Any], among: list[dict[str, Any]]) -> int:
        key = json.dumps(data, sort_keys=True)
        if key not in self._indices:
            self._indices[key] = len(among)
            among.append(data)
        return self._indices[key]


def _tree(form: Form) -> Iterator[Form]:
    yield form
    for part in form.parts:
        yield from _tree(part)


def _numbers(form: Form) -> Iterator[np.ndarray]:
    """The numbers of a form, then those of its parts."""
    return (part.numbers for part in _tree(form))


def _blocks(form: Form, numbers: np.ndarray, points: Points, first: int = 0) -> Iterator[Block]:
    """What is known of the slopes in numbers (R, p) of a form, which begin at column `first`."""
    last = first + sum(len(own) for own in _numbers(form))
    if form.slopes is not None:
        yield slice(first, last), form.slopes(form, numbers[:, first:last], points)
        return
    first += len(form.numbers)
    for part in form.parts:
        yield from _blocks(part, numbers, points, first)
        first += sum(len(own) for own in _numbers(part))


def _remade(form: Form, numbers: Iterator[float]) -> Any:
    """The Python object of a form with other numbers, taken from an iterator."""
    own = np.array([next(numbers) for _ in form.numbers])
    parts = [_remade(part, numbers) for part in form.parts]
    return form.remake(replace(form, numbers=own), parts)


def _on_common_places(forms: Sequence[Form]) -> list[Form]:
    """The forms with each number that has a place moved to its row among the places of all."""
    rows: dict[str, dict[bytes, int]] = {}
    for part in (part for form in forms for part in _tree(form)):
        if part.places is not None:
            row = rows.setdefault(part.name, {})
            for place in part.places:
                row.setdefault(place.tobytes(), len(row))
    common = {
        name: np.frombuffer(b"".join(row)).reshape(len(row), -1) for name, row in rows.items()
    }

    def moved(form: Form) -> Form:
        form = replace(form, parts=tuple(moved(part) for part in form.parts))
        if form.places is None:
            return form
        row, places = rows[form.name], common[form.name]
        numbers = np.zeros(len(places))
        np.add.at(numbers, [row[place.tobytes()] for place in form.places], form.numbers)
        return replace(form, numbers=numbers, places=places)

    return [moved(form) for form in forms]


def _rows(rows: list[int]) -> dict[str, Any]:
    """Indices as a range where they are one: refits of one target are equally far apart."""
    step = rows[1] - rows[0] if len(rows) > 1 else 1
    if rows == list(range(rows[0], rows[0] + step * len(rows), step)):
        return {"first": rows[0], "step": step, "count": len(rows)}
    return {"each": rows}
