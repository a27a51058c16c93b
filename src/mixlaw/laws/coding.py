"""Arrays as text for a page, and the rounding of refits to one character a number.

The page reads them back with `mixlaw.array` (portable.js), which gives the very same doubles.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixlaw.errors import FitError

DTYPES: Mapping[str, str] = {"f64": "<f8", "f32": "<f4", "i8": "i1", "u8": "u1", "u16": "<u2"}
"""Name in a page -> little-endian numpy type."""

STEPS, MOST_STEPS = 60, 70
"""A refit's number is at most so many steps from the middle, and so many after compensation."""

PLAIN = "".join(chr(code) for code in range(35, 127) if chr(code) not in "&<>\\")
"""The ASCII that neither JSON nor a page must escape: one byte each in a file."""

RARE = "".join(map(chr, range(0xC0, 0xC0 + 2 * MOST_STEPS + 1 - len(PLAIN))))
"""Letters of two bytes, for the few steps that are farther than 44 from the middle."""

LETTERS = (RARE[:26] + PLAIN + RARE[26:]).encode("utf-16-le")
"""What stands for -70, -69 ... 70 steps."""

RIDGE = 1e-5
"""What a step in any direction costs at least, as a share of what one costs on average."""

Block = tuple[slice, np.ndarray]
"""Columns of the numbers, and the slopes (R, n, columns) of n values in them; (1, n, columns) where
they are alike."""


def coded(array: np.ndarray, dtype: str = "f64") -> dict[str, str]:
    """An array, row by row, as {dtype: base64}; see `DTYPES`."""
    return {dtype: base64.b64encode(np.asarray(array, DTYPES[dtype]).tobytes()).decode()}


def shortened(numbers: np.ndarray) -> tuple[dict[str, str], np.ndarray]:
    """Doubles without their last 16 bits, some 1e-11 of their size: coded for the page, and what
    that gives back."""
    bits = np.asarray(numbers, "<f8").view("<u8") + 0x8000 & ~np.uint64(0xFFFF)
    top = np.ascontiguousarray(bits)[..., None].view("u1").reshape(*np.shape(numbers), 8)[..., 2:]
    return {"f48": base64.b64encode(top.tobytes()).decode()}, bits.view("<f8")


def rounded(numbers: np.ndarray, blocks: Sequence[Block] = ()) -> tuple[dict[str, Any], np.ndarray]:
    """R refits (R, p) as `middle + step * integer`: coded for the page, and what that gives back.

    Middle and step are each number's own: the steps span the refits' range. Where values are known
    to hang on numbers together (`blocks`), those are rounded together: parameters of a law vary a
    hundred times more than its values do, since they make up for each other, and rounded one by
    one they would no longer (docs/decisions.md has figures).

    Raises: FitError: slopes that are not finite.
    """
    low, high = numbers.min(axis=0), numbers.max(axis=0)
    middle = ((low + high) / 2).astype("f4").astype(float)
    # The middle is rounded, too, so that the farther end decides.
    reach = np.maximum(high - middle, middle - low)
    step = np.nextafter((reach / STEPS).astype("f4"), np.float32(np.inf)).astype(float)
    wanted = (numbers - middle) / step
    integers = np.rint(wanted)
    for columns, slopes in blocks:
        if not np.isfinite(slopes).all():
            raise FitError(
                "refits cannot be rounded around points where their slopes are unknown; "
                "give points with every count that the laws read"
            )
        integers[:, columns] = _together(wanted[:, columns], slopes * step[columns])
    letters = np.frombuffer(LETTERS, "<u2")[integers.astype(int) + MOST_STEPS]
    data: dict[str, Any] = {"letters": letters.tobytes().decode("utf-16-le")}
    data |= {
        "middle": coded(middle, "f32"),
        "step": coded(step, "f32"),
    }
    return data, middle + step * integers


def _together(wanted: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Integers near `wanted` (R, k) that move values of these slopes (R or 1, n, k) little, one
    after another, each making up for the errors of those before, by successive least squares
    (Babai, "On Lovasz' lattice reduction and the nearest lattice point problem", 1986)."""
    cost = slopes.transpose(0, 2, 1) @ slopes
    k = wanted.shape[1]
    # Those that matter most go first, while the others can still make up for them.
    order = np.argsort(-np.einsum("rkk->k", cost), kind="stable")
    cost = cost[:, order[::-1]][:, :, order[::-1]]
    least = RIDGE * np.einsum("rkk->r", cost) / k + np.finfo(float).tiny
    factor = np.linalg.cholesky(cost + least[:, None, None] * np.eye(k))[:, ::-1, ::-1]
    integers, missed = np.zeros_like(wanted), np.zeros((len(wanted), k))
    for i, column in enumerate(order):
        push = (missed[:, :i] * factor[:, :i, i]).sum(axis=1) / factor[:, i, i]
        whole = np.rint(wanted[:, column] + push)
        integers[:, column] = np.clip(whole, -MOST_STEPS, MOST_STEPS)
        missed[:, i] = wanted[:, column] - integers[:, column]
    return integers
