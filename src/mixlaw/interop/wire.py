"""The wire format of protocol buffers, as far as reading it needs no schema.

TensorBoard's and W&B's files are read by the numbers of their fields, which never change, so that
neither package has to be installed, nor its version to fit.

Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Value = int | memoryview
"""Of a field: an integer, or the bytes of anything else."""


def fields(message: bytes | memoryview) -> Iterator[tuple[int, Value]]:
    """The fields of a message, in their order: number and value; nothing is copied.

    Raises: ValueError: this is no message, or it is cut.
    """
    data, end, at = memoryview(message), len(message), 0
    while at < end:
        key, at = varint(data, at)
        kind = key & 7
        if kind == VARINT:
            value, at = varint(data, at)
            yield key >> 3, value
            continue
        if kind == BYTES:
            length, at = varint(data, at)
        elif kind == FIXED64:
            length = 8
        elif kind == FIXED32:
            length = 4
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + length > end:
            raise ValueError(f"a field of {length} bytes at byte {at} of {end}")
        yield key >> 3, data[at : at + length]
        at += length


def varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """An integer of 64 bits, and where it ends. Raises: ValueError: it is cut, or too long."""
    value = shift = 0
    try:
        while (byte := data[at]) > 127:
            value |= (byte & 127) << shift
            shift += 7
            at += 1
    except IndexError:
        raise ValueError("cut within an integer") from None
    if shift > 63:
        raise ValueError("an integer of more than 64 bits")
    return value | byte << shift, at + 1


def signed(value: Value) -> int:
    """An int32 or int64. Raises: ValueError: the field is of another type."""
    number = integer(value)
    return number - (1 << 64) if number >> 63 else number


def integer(value: Value) -> int:
    """A varint. Raises: ValueError: the field is of another type."""
    if not isinstance(value, int):
        raise ValueError("bytes where an integer should be")
    return value


def raw(value: Value) -> memoryview:
    """The bytes of a field. Raises: ValueError: it is an integer."""
    if isinstance(value, int):
        raise ValueError("an integer where bytes should be")
    return value


def text(value: Value) -> str:
    """Raises: ValueError: no text."""
    return str(raw(value), "utf-8")


def float32(value: Value) -> float:
    """Raises: ValueError: of another type."""
    return _unpacked("<f", value)


def float64(value: Value) -> float:
    """Raises: ValueError: of another type."""
    return _unpacked("<d", value)


def _unpacked(form: str, value: Value) -> float:
    try:
        return struct.unpack(form, raw(value))[0]
    except struct.error as error:
        raise ValueError(str(error)) from error
