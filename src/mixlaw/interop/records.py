"""The records of TensorBoard's event files and of W&B's .wandb files: framing and checksums.

Both readers hold one record at a time, give all records that are whole, and say in `damage` what
else there was: a file that is still written, that was cut by a full disk, or has a bad sector.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO

import numpy as np

from mixlaw.interop.wire import BYTES, varint


class EventRecords:
    """The records of an event file: a length with its checksum, the data, and theirs.

    Records that are large and hold no summary (graphs) are passed over; the checksum of data is
    left to `sound`, for whoever takes something out of them.

    Attributes:
        end: byte after the last whole record.
        damage: what could not be read, in words; whole after the iteration.
    Source: tensorflow/core/lib/io/record_writer.h.
    """

    HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
    SHORT = 4096
    LARGE = 65536
    """Bytes from which on it pays to look at the kind of an event before it is read."""
    LARGEST = 1 << 28
    """Bytes of a record that are held in memory."""

    def __init__(self, handle: BinaryIO):
        self.handle, self.end = handle, 0
        self.damage: list[str] = []

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """Data and checksum of each record."""
        read, header, footer = self.handle.read, self.HEADER, self.FOOTER
        seen: set[bytes] = set()  # of short records, whose lengths come again and again
        while head := read(header.size):
            if len(head) < header.size:
                return self._cut()
            length, check = header.unpack(head)
            if head not in seen and not sound(head[:8], check):
                self.damage.append(f"nothing after byte {self.end:,} can be read: no record there")
                return None
            if length < self.SHORT:
                seen.add(head)
            if length > self.LARGE and not self._wanted(length):
                if not self._skip(length + footer.size):
                    return self._cut()
            else:
                data, tail = read(length), read(footer.size)
                if len(data) + len(tail) < length + footer.size:
                    return self._cut()
                yield data, footer.unpack(tail)[0]
            self.end += header.size + length + footer.size
        return None

    def _cut(self) -> None:
        self.damage.append(f"it is cut within the record at byte {self.end:,}")

    def _wanted(self, length: int) -> bool:
        """Whether the record that lies ahead is a summary that fits."""
        start = self.handle.tell()
        summary = _is_summary(self.handle.read(64))
        self.handle.seek(start)
        if summary and length > self.LARGEST:
            self.damage.append(f"a summary of {length:,} bytes at byte {self.end:,} was left out")
        return summary and length <= self.LARGEST

    def _skip(self, size: int) -> bool:
        self.handle.seek(size - 1, 1)
        return bool(self.handle.read(1))


def _is_summary(start: bytes) -> bool:
    """By the first bytes of an event: after time and step comes what it holds."""
    at = 0
    try:
        while True:
            key, at = varint(start, at)
            if key >> 3 > 2:
                return key == 5 << 3 | BYTES
            at = at + 8 if key >> 3 == 1 else varint(start, at)[1]
    except ValueError:
        return False


def sound(data: bytes, check: int) -> bool:
    """Whether data of an event file have this checksum (masked CRC-32C)."""
    table, crc, odd = _crc_table(), 0xFFFFFFFF, len(data) & 1
    words = struct.unpack(f"<{len(data) >> 1}H{'B' * odd}", data)
    for word in words[: len(words) - odd]:
        crc = table[(crc ^ word) & 0xFFFF] ^ crc >> 16
    for byte in words[len(words) - odd :]:
        # A byte of zero before it lets the table of two bytes do for one.
        crc = table[((crc ^ byte) & 0xFF) << 8] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF == check


@cache
def _crc_table() -> list[int]:
    """(65536,) remainders of CRC-32C after two bytes."""
    crc = np.arange(65536, dtype=np.uint32)
    for _ in range(16):
        crc = np.where(crc & 1, crc >> 1 ^ np.uint32(0x82F63B78), crc >> 1)
    return crc.tolist()


class WandbRecords:
    """The records of a .wandb file, which has the format of LevelDB's log: blocks of 32 KiB, in
    which a record lies whole or in parts.

    After damage, reading goes on at the next record where that is found, else at the next block.

    Attributes:
        damage: as of `EventRecords`.
    Source: https://github.com/google/leveldb/blob/main/doc/log_format.md; the checksum of W&B is
        the CRC-32 of zlib.
    """

    IDENTITY, FILE_HEADER, BLOCK = b":W&B", 7, 32768
    HEADER = struct.Struct("<IHB")
    WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4

    def __init__(self, handle: BinaryIO):
        self.handle = handle
        self.damage: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        start = self.handle.read(self.FILE_HEADER)
        if len(start) < self.FILE_HEADER or not start.startswith(self.IDENTITY):
            self.damage.append("it is cut within its first bytes, or no .wandb file")
            return
        parts: list[bytes] = []
        for kind, data in self._parts():
            if kind in (self.WHOLE, self.FIRST):
                parts = [data]
            elif parts and kind in (self.MIDDLE, self.LAST):
                parts.append(data)
            else:  # what lies before or after is lost
                parts = []
            if parts and kind in (self.WHOLE, self.LAST):
                yield b"".join(parts)
                parts = []
        if parts and not self.damage:
            self.damage.append("it is cut within its last record")

    def _parts(self) -> Iterator[tuple[int, bytes]]:
        """Kind and data of each part of a record; kind 0 for damage."""
        at = self.FILE_HEADER
        while block := self.handle.read(self.BLOCK - at % self.BLOCK):
            size, offset = len(block), 0
            cut = (at + size) % self.BLOCK > 0
            # At the end of a whole block, what can hold no header is padding.
            while offset < size - (0 if cut else self.HEADER.size - 1):
                kind, data, after = self._part(block, offset)
                if kind == 0:
                    ends = after > size and cut
                    if after >= size or self._part(block, after)[0] == 0:
                        after = size
                    what = "are cut" if ends else "fail their checksum"
                    self.damage.append(f"bytes {at + offset:,} to {at + after:,} {what}")
                yield kind, data
                offset = after
            at += size

    def _part(self, block: bytes, offset: int) -> tuple[int, bytes, int]:
        """Kind, data and end of the part at a place in a block; kind 0: it is not whole."""
        start = offset + self.HEADER.size
        if start > len(block):
            return 0, b"", start
        check, length, kind = self.HEADER.unpack_from(block, offset)
        data = block[start : start + length]
        found = zlib.crc32(data, zlib.crc32(block[start - 1 : start]))
        if len(data) < length or found != check:
            return 0, b"", start + length
        return kind, data, start + length
