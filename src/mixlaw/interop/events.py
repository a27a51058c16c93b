"""What an event of a TensorBoard file says about a run."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mixlaw.interop.logged import STEPS
from mixlaw.interop.wire import fields, float32, float64, integer, raw, signed, text, varint

FAILURE = 2
"""Status of a session that failed."""
_SHORT = 120
"""Bytes of a value whose lengths take one byte each."""
_FLOAT = struct.Struct("<f")
_STRING, _BFLOAT16 = 7, 14
_NUMBERS = {1: "<f", 2: "<d", 3: "<i", 9: "<q", 19: "<e", _BFLOAT16: "<f"}
"""Type of a tensor's elements -> what they are in bytes."""
_CONTENT, _FLOATS, _INTEGERS = 4, (5, 6), (7, 10, 13)
"""Fields of a tensor that may hold its elements."""


@dataclass
class Session:
    """A part of the plugin "hparams": how a run was set up, or how it ended."""

    hparams: dict[str, Any] = field(default_factory=dict)
    trial: str = ""
    status: int = 0


@dataclass
class Event:
    """What is of use in an event, at its step.

    Attributes:
        restarts: what came at this step or later, before this event, is void.
        counts: whether any scalar was logged here over steps, of use or not.
    """

    step: int = 0
    restarts: bool = False
    counts: bool = False
    scalars: list[tuple[str, float]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    session: Session | None = None


class EventReader:
    """Reads events, remembering how those with a single scalar look: nearly all of most files.

    Attributes:
        end: the last step of scalars over steps, of use or not, for the caller to keep.
    """

    def __init__(self, wants: Callable[[str], bool]):
        """wants: whether a scalar of this tag is of use."""
        self.end = 0
        self._wants = wants
        self._alone: dict[bytes, tuple[str, bool]] = {}  # "" if of no use; whether it counts

    def read(self, data: bytes) -> Event | None:
        """An event; None when it holds nothing of use, nor a scalar at a later step than `end`.
        Large values are stepped over, not read.

        Raises: ValueError: it is damaged.
        Source: the .proto files of tensorboard.compat.proto, and of its plugin "hparams".
        """
        if data[9:10] == b"\x10":  # the step, right after the time
            step, at = varint(data, 10)
            if (known := self._alone.get(data[at:-4])) is not None:
                tag, counts = known
                if tag:
                    number = _FLOAT.unpack(data[-4:])[0]
                    return Event(signed(step), counts=counts, scalars=[(tag, number)])
                later = counts and signed(step) > self.end
                return Event(signed(step), counts=True) if later else None
        event, useful = Event(), False
        for number, value in fields(data):
            if number == 2:
                event.step = signed(value)
            elif number == 7:  # session log, whose status 1 is START
                event.restarts = useful = any(n == v == 1 for n, v in fields(raw(value)))
            elif number == 5:
                for inner, part in fields(raw(value)):
                    useful |= inner == 1 and self._take(event, raw(part))
        return event if useful or (event.counts and event.step > self.end) else None

    def _take(self, event: Event, value: memoryview) -> bool:
        """Add a value of a summary to its event. Returns: whether it is of use."""
        tag, plugin, content, simple, tensor = "", "", b"", None, None
        for number, part in fields(value):
            if number == 1:
                tag = text(part)
            elif number == 2:
                simple = float32(part)
            elif number == 8:
                tensor = raw(part)
            elif number == 9:
                plugin, content = _plugin(raw(part))
        if plugin == "hparams":
            event.session = _session(content)
            return True
        if simple is None and tensor is not None:
            kind = next((integer(part) for number, part in fields(tensor) if number == 1), 0)
            if kind == _STRING:
                strings = [text(part) for number, part in fields(tensor) if number == 8]
                event.texts += [(tag, strings[0])] if len(strings) == 1 else []
                return len(strings) == 1
            if plugin in ("", "scalars") and kind in _NUMBERS:
                simple = _number(kind, tensor)
        wanted = simple is not None and self._wants(tag)
        counts = simple is not None and axis_of(tag) == STEPS
        event.counts |= counts
        if simple is not None and len(value) < _SHORT:
            self._alone[_before_number(tag)] = tag if wanted else "", counts
        if simple is None or not wanted:
            return False
        event.scalars.append((tag, simple))
        return True


def axis_of(tag: str) -> str:
    """What the steps of a tag are: Megatron-LM's "lm loss vs samples" lies over samples, and
    Keras's "evaluation_loss_vs_iterations" over iterations, while its others lie over epochs."""
    _, versus, axis = tag.replace("_vs_", " vs ").rpartition(" vs ")
    return axis if versus else STEPS


def _before_number(tag: str) -> bytes:
    """The bytes between step and number of an event with one plain scalar, by every writer."""
    name = tag.encode()
    value = bytes([10, len(name), *name, 21])
    summary = bytes([10, len(value) + 4]) + value
    return bytes([42, len(summary) + 4]) + summary


def _plugin(metadata: memoryview) -> tuple[str, bytes]:
    """Name of the plugin that a value is for, and what it is told."""
    name, content = "", b""
    for number, value in fields(metadata):
        for inner, part in fields(raw(value)) if number == 1 else ():
            if inner == 1:
                name = text(part)
            elif inner == 2:
                content = bytes(raw(part))
    return name, content


def _number(kind: int, tensor: memoryview) -> float | None:
    """The element of a tensor that has one; None for a larger one."""
    form, found = _NUMBERS[kind], []
    size = 2 if kind == _BFLOAT16 else struct.calcsize(form)
    for number, value in fields(tensor):
        if number in _INTEGERS:
            bits, end = (value, 0) if isinstance(value, int) else varint(value, 0)
            if end and end < len(raw(value)):
                return None
            data = bits.to_bytes(8, "little")[:size]
        elif number == _CONTENT or number in _FLOATS:
            data = bytes(raw(value)[: size + 1])
        else:
            continue
        if len(data) != size:
            return None
        # A bfloat16 is the upper half of a float.
        found.append(struct.unpack(form, data.rjust(struct.calcsize(form), b"\0"))[0])
    return float(found[0]) if len(found) == 1 else None


def _session(content: bytes) -> Session:
    """What a run told the plugin "hparams"."""
    session = Session()
    for number, value in fields(content):
        for inner, part in fields(raw(value)) if number in (3, 4) else ():
            if number == 3 and inner == 1:
                entry = dict(fields(raw(part)))
                session.hparams[text(entry.get(1, _EMPTY))] = _hparam(raw(entry.get(2, _EMPTY)))
            elif number == 3 and inner == 4:
                session.trial = text(part)
            elif number == 4 and inner == 1:
                session.status = integer(part)
    return session


_EMPTY = memoryview(b"")


def _hparam(value: memoryview) -> Any:
    """A google.protobuf.Value: a number, a text or a truth value; None for others."""
    for number, part in fields(value):
        if number == 2:
            return float64(part)
        if number in (3, 4):
            return text(part) if number == 3 else bool(integer(part))
    return None
