"""Tables of runs at several sizes, with their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mixlaw.datasets.layouts import ROUNDED, Row, measures, number, read_csv

KNOWN_SIZES = (1.22e8, 3.1e8, 6.8e8, 9.37e8)
"""Those whose checksum is known; the source has larger ones."""


@dataclass(frozen=True)
class Dmsl:
    """Apple's runs on SlimPajama: `weight_<domain>`, `model_size`, `n_tokens`, `<target>_loss`."""

    tolerance: ClassVar[float] = ROUNDED

    def parse(self, files: Sequence[Path]) -> list[Row]:
        records, mixtures = [], {}
        for row in read_csv(files[0]):
            if (size := float(row["model_size"])) not in KNOWN_SIZES:
                continue
            record: Row = {"params": size, "tokens": float(row["n_tokens"])}
            for column, cell in row.items():
                if column.startswith("weight_"):
                    record[f"weight/{column.removeprefix('weight_')}"] = float(cell)
                elif column.endswith("_loss"):
                    record[f"loss/{column.removesuffix('_loss')}"] = number(cell)
            shares = tuple(v for k, v in record.items() if k.startswith("weight/"))
            record["mixture"] = mixtures.setdefault(shares, len(mixtures))
            records.append(record)
        return records

    def rows(self, records: Sequence[Mapping[str, Any]]) -> list[Row]:
        rows = []
        for record in records:
            scale = {"num_params": record["params"], "train_tokens": record["tokens"]}
            run = f"{record['mixture']}-{record['params'] / 1e6:.0f}M"
            names = {"run": run, "label": str(record["mixture"])}
            rows.append(names | scale | measures(record))
        return rows


@dataclass(frozen=True)
class TinyEnv:
    """mixlaw's own swarm; hosted nowhere, hence of no files."""

    tolerance: ClassVar[float] = ROUNDED

    def parse(self, files: Sequence[Path]) -> list[Row]:
        return []

    def rows(self, records: Sequence[Mapping[str, Any]]) -> list[Row]:
        rows = []
        for record in records:
            scale = {
                "num_params": record["num_params_non_embedding"],
                "train_tokens": record["train_tokens"],
            }
            run = f"{record['size']}-{record['mixture']}-{record['seed']}"
            names = {"run": run, "label": record["mixture"], "seed": record["seed"]}
            rows.append(names | scale | measures(record))
        return rows
