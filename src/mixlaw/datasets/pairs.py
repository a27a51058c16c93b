"""Tables whose sources are pairs of CSV files: mixtures in one, what was measured in the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mixlaw.datasets.layouts import ROUNDED, Row, measures
from mixlaw.interop.importers import importer

SPLITS = {"train_1m": "train-1m", "test_1m": "test-1m", "extra_1m": "extra-1m"}
"""RegMix's, in Parquet -> in names and labels."""
FIRST_EXTRA = 513
"""Earlier rows of the files of `extra_1m` are those of `train_1m`."""


@dataclass(frozen=True)
class RegMix:
    """RegMix's runs on the Pile; the files of `extra_1m` have the Pile's own names.

    Attributes:
        splits: of the table, each with two files.
    """

    splits: tuple[str, ...] = tuple(SPLITS)
    tolerance: ClassVar[float] = ROUNDED

    def parse(self, files: Sequence[Path]) -> list[Row]:
        records = []
        for split, index, cells in _numbered(self.splits, files):
            is_extra = split == "extra_1m"
            if not is_extra or index >= FIRST_EXTRA:
                record = {"split": split, "run": index, "tokens": None if is_extra else 1e9}
                records.append(record | {_pile(name): cell for name, cell in cells.items()})
        return records

    def rows(self, records: Sequence[Mapping[str, Any]]) -> list[Row]:
        rows = []
        for record in records:
            if record["split"] in self.splits:
                label = SPLITS[record["split"]]
                scale = {"num_params": 1e6, "train_tokens": record["tokens"]}
                names = {"run": f"{label}-{record['run']}", "label": label}
                rows.append(names | scale | measures(record))
        return rows


def _pile(column: str) -> str:
    """ "weight/Gutenberg (PG-19)" -> "weight/gutenberg_pg_19"."""
    kind, _, name = column.partition("/")
    name = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return f"{kind}/{name.replace('stack_exchange', 'stackexchange')}"


@dataclass(frozen=True)
class Tasks:
    """Runs on SlimPajama by tasks, in files as RegMix's.

    Attributes:
        splits: "train" and "test", each with two files.
    """

    splits: tuple[str, ...] = ("train", "test")
    tolerance: ClassVar[float] = ROUNDED

    def parse(self, files: Sequence[Path]) -> list[Row]:
        return [
            {"split": split, "run": index, **cells}
            for split, index, cells in _numbered(self.splits, files)
        ]

    def rows(self, records: Sequence[Mapping[str, Any]]) -> list[Row]:
        return [
            {"run": f"{record['split']}-{record['run']}", "label": record["split"]}
            | measures(record)
            for record in records
            if record["split"] in self.splits
        ]


def _numbered(
    splits: Sequence[str], files: Sequence[Path]
) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """Split, number and cells of every run, of a pair of files for each split."""
    for split, *pair in zip(splits, files[::2], files[1::2], strict=True):
        for logged in importer("regmix").read([str(file) for file in pair]):
            yield split, int(logged.run.rpartition("-")[2]), logged.fields


@dataclass(frozen=True)
class Olmix:
    """A swarm of Olmix."""

    tolerance: ClassVar[float] = 1e-6

    def parse(self, files: Sequence[Path]) -> list[Row]:
        logged = importer("olmix").read([str(file) for file in files])
        return [{"run": run.run, "name": run.name, **run.fields} for run in logged]

    def rows(self, records: Sequence[Mapping[str, Any]]) -> list[Row]:
        scale = {"num_params": 3e7, "train_tokens": 3e9}
        return [
            {"run": record["run"], "label": record["name"]} | scale | measures(record)
            for record in records
        ]
