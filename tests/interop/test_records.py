"""Records: what is whole is read, whatever was cut or damaged, and what was not is said."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib

import pytest

from mixlaw.interop.records import EventRecords, WandbRecords, sound
from mixlaw.interop.wire import fields, signed, varint


def event_file(*records: bytes) -> bytes:
    record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    handle = io.BytesIO()
    for record in records:
        record_writer.RecordWriter(handle).write(record)
    return handle.getvalue()


def wandb_file(*records: bytes) -> bytes:
    """A .wandb file, by the description of LevelDB's log."""
    made = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for record in records:
        rest, begun = record, False
        while rest or not begun:
            if (room := 32768 - len(made) % 32768) < 7:
                made += bytes(room)
                room = 32768
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = (3 if begun else 2) if rest else (4 if begun else 1)
            check = zlib.crc32(part, zlib.crc32(bytes([kind])))
            made += struct.pack("<IHB", check, len(part), kind) + part
            begun = True
    return bytes(made)


def some(count: int, seed: int = 0, longest: int = 300) -> list[bytes]:
    draw = random.Random(seed)
    return [draw.randbytes(draw.randrange(1, longest)) for _ in range(count)]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 8, 61, 1000])
def test_the_checksum_is_that_of_tensorboard(length):
    crc = pytest.importorskip("tensorboard.compat.tensorflow_stub.pywrap_tensorflow")
    data = os.urandom(length)
    assert sound(data, crc.masked_crc32c(data))
    assert not sound(data + b"x", crc.masked_crc32c(data))


def test_a_cut_event_file_gives_its_whole_records():
    records = some(5)
    content = event_file(*records)
    ends = [len(event_file(*records[:n])) for n in range(6)]
    for cut in range(len(content) + 1):
        found = EventRecords(io.BytesIO(content[:cut]))
        whole = sum(end <= cut for end in ends) - 1
        assert [data for data, check in found if sound(data, check)] == records[:whole]
        assert found.end == ends[whole]
        assert bool(found.damage) == (cut not in ends)


def test_a_length_that_is_damaged_ends_an_event_file():
    content = bytearray(event_file(*some(5)))
    second = len(event_file(*some(1)))
    content[second + 2] ^= 4
    found = EventRecords(io.BytesIO(content))
    assert len(list(found)) == 1
    assert found.damage == [f"nothing after byte {second:,} can be read: no record there"]


class Counting(io.BytesIO):
    """Counts what is read of it."""

    taken = 0

    def read(self, size=-1, /):
        data = super().read(size)
        self.taken += len(data)
        return data


def test_large_graphs_are_passed_over_and_large_summaries_are_not():
    time = b"\x09" + struct.pack("<d", 1.0)
    graph = time + b"\x22" + b"\x80\x80\x40" + bytes(1 << 20)
    summary = time + b"\x10\x07\x2a" + b"\x80\x80\x40" + bytes(1 << 20)
    handle = Counting(event_file(graph, b"small", summary))
    assert [data for data, _ in EventRecords(handle)] == [b"small", summary]
    assert handle.taken < 1.1 * len(summary)
    cut = EventRecords(io.BytesIO(event_file(graph)[:-1]))
    assert list(cut) == []
    assert cut.damage


@pytest.mark.parametrize("longest", [300, 100_000])
def test_a_cut_wandb_file_gives_its_whole_records(longest):
    records = some(12, longest=longest)
    content = wandb_file(*records)
    assert list(WandbRecords(io.BytesIO(content))) == records
    # A record that ends a block is followed by padding, which is as good as not there.
    ends = [len(wandb_file(*records[:n])) for n in range(13)]
    draw = random.Random(1)
    for cut in [*range(9), *ends, *(draw.randrange(len(content)) for _ in range(300))]:
        found = WandbRecords(io.BytesIO(content[:cut]))
        whole = max(sum(end <= cut for end in ends) - 1, 0)
        assert list(found) == records[:whole]
        padding = 0 < -cut % 32768 < 7 or cut % 32768 == 0
        assert bool(found.damage) == (cut not in ends) or padding


def test_damage_in_a_wandb_file_takes_the_record_that_it_is_in():
    records = some(1000)
    content = bytearray(wandb_file(*records))
    content[40_000] ^= 1
    found = WandbRecords(io.BytesIO(content))
    whole = list(found)
    lost = next(n for n in range(1000) if len(wandb_file(*records[: n + 1])) > 40_000)
    assert whole == records[:lost] + records[lost + 1 :]
    assert len(found.damage) == 1
    assert "fail their checksum" in found.damage[0]


def test_damage_over_records_of_a_wandb_file_takes_their_block():
    records = some(1000)
    content = bytearray(wandb_file(*records))
    content[40_000:41_000] = bytes(1000)
    found = WandbRecords(io.BytesIO(content))
    whole = list(found)
    lost = next(n for n in range(1000) if len(wandb_file(*records[: n + 1])) > 40_000)
    next_block = next(n for n in range(1000) if len(wandb_file(*records[:n])) >= 65_536)
    assert whole == records[:lost] + records[next_block:]
    assert found.damage[0].endswith("to 65,536 fail their checksum")


def test_a_record_that_lost_a_part_of_it_is_left_out():
    records = [b"a", os.urandom(100_000), b"b"]
    content = bytearray(wandb_file(*records))
    content[50_000] ^= 1
    found = WandbRecords(io.BytesIO(content))
    assert list(found) == [b"a", b"b"]
    assert found.damage == ["bytes 32,768 to 65,536 fail their checksum"]


def test_no_bytes_whatever_stop_a_reader():
    draw = random.Random(3)
    for _ in range(200):
        noise = draw.randbytes(draw.randrange(200))
        list(EventRecords(io.BytesIO(noise)))
        list(WandbRecords(io.BytesIO(b":W&B" + noise)))
        try:
            list(fields(noise))
        except ValueError:
            continue


def test_integers_of_the_wire():
    assert varint(b"\xac\x02", 0) == (300, 2)
    assert signed(varint(b"\xff" * 9 + b"\x01", 0)[0]) == -1
    for broken in (b"", b"\x80", b"\xff" * 11 + b"\x01"):
        with pytest.raises(ValueError, match="integer"):
            varint(broken, 0)
