"""How a page works out a law: a script for each class that the law is made of, and numbers.

A class has its formula once more in JavaScript as the attribute `script`, beside `value`: a factory

    (theta, own, constants, parts) => (at) => value

called once when the page is loaded, so that it works out first what the numbers alone decide.

    theta      Float64Array of the part's own numbers (without those of its parts)
    own        index of the target's own domain, -1 without
    constants  `Form.constants` and `Form.arrays` (as Float64Array) in one object
    parts      the functions of the parts
    at         where: at.r, Float64Array (M) of the shares that repeated data is worth; at.shares,
               those asked for; at.num_params, at.train_tokens, NaN where unknown; at.log(eps),
               Float64Array (M) of log(r_j + eps); at.once(key, () => x), which works x out once
               however many laws ask by that key

It may use `exp`, which is `terms.bounded_exp`, and `dot(a, b)`. `portable` puts laws together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.points import Points

Scale = tuple[float | None, float | None]
"""Parameters and tokens; None where unknown."""


class NotPortable(FitError):
    """A law that a page cannot work out."""


@dataclass(frozen=True, eq=False)
class Form:
    """A law, or a part of one, as a page works it out.

    Attributes:
        name: of the script.
        script: JavaScript; see the module.
        numbers: (p,) its own, which differ from fit to fit.
        remake: gives the Python object of such a form back, from the form and its remade parts.
        parts: whose functions the script gets.
        constants: JSON-able; what the formula fixes.
        arrays: large ones, of floats or integers.
        places: (p, d): what each number belongs to, such as a run. Laws that differ in their places
            alone become one formula over all places, with zeros.
        reads_own: the first number is the index of the own domain, here and in the parts.
        slopes: the form, rows (R, k) of numbers of it and its parts, and n points -> slopes of the
            values in those numbers (R, n, k), or (1, n, k) where alike; None: not known.
    """

    name: str
    script: str
    numbers: np.ndarray
    remake: Callable[[Form, Sequence[Any]], Any]
    parts: tuple[Form, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    places: np.ndarray | None = None
    reads_own: bool = False
    slopes: Callable[[Form, np.ndarray, Points], np.ndarray] | None = None


def not_portable(what: object, missing: str) -> NotPortable:
    """The error of an object whose class lacks a `script`, or a method `form`."""
    name = type(what).__name__
    return NotPortable(
        f"{name} has no form for a page, so a page cannot work out laws made of it; give the class "
        f"{name} a `{missing}` (mixlaw.laws.page_form says how), or fit another law"
    )
