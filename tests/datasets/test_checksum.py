"""What a checksum sees, and what it does not."""

from __future__ import annotations

import hashlib

import pytest

from mixlaw.datasets.checksum import checksum, verify
from mixlaw.errors import RunTableError

ROWS = [
    {"run": "a", "seed": 0, "weight/x": 1 / 3, "loss/x": 2.5},
    {"run": "b", "seed": 1, "weight/x": 1.0, "loss/x": None},
]


def test_as_it_is_described():
    text = (
        "loss/x=\trun=b\tseed=1.000000000\tweight/x=1.000000000\n"
        "loss/x=2.500000000\trun=a\tseed=0.000000000\tweight/x=0.333333333"
    )
    assert checksum(ROWS) == hashlib.sha256(text.encode()).hexdigest()


def test_order_does_not_count():
    turned = [dict(reversed(row.items())) for row in reversed(ROWS)]
    assert checksum(turned) == checksum(ROWS)


@pytest.mark.parametrize(
    "change", [{"run": "c"}, {"loss/x": 2.500000001}, {"loss/x": None}, {"loss/y": 1.0}]
)
def test_values_and_names_count(change):
    assert checksum([ROWS[0] | change, ROWS[1]]) != checksum(ROWS)
    assert checksum(ROWS[:1]) != checksum(ROWS)


def test_both_checksums_are_named():
    found = checksum(ROWS)
    verify(ROWS, found)
    with pytest.raises(RunTableError, match=f"checksum {found}, .* {'0' * 64}$"):
        verify(ROWS, "0" * 64)
