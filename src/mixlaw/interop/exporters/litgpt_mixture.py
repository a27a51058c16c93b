"""The mixture of the mixture.json that lies beside this file, as a data module of litgpt:

    PYTHONPATH=. litgpt pretrain MODEL --data litgpt_mixture.Mixture --data.val_path FOLDER

Written by mixlaw, of which it needs nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litdata.streaming import (  # pyright: ignore[reportMissingImports]
    CombinedStreamingDataset,
    StreamingDataLoader,
    StreamingDataset,
    TokensLoader,
)
from litgpt.data import DataModule  # pyright: ignore[reportMissingImports]

PLAN = Path(__file__).with_name("mixture.json")


@dataclass
class Mixture(DataModule):
    """Draws the domain of every sample with its weight.

    Attributes:
        val_path: a folder that litdata wrote, to validate on.
        num_workers: processes of each loader.
        plan: the mixture.
    """

    val_path: str | Path
    num_workers: int = 8
    plan: str | Path = PLAN

    batch_size: int = field(init=False, repr=False, default=1)
    seq_length: int = field(init=False, repr=False, default=2048)

    def __post_init__(self) -> None:
        super().__init__()
        self.known = json.loads(Path(self.plan).read_text(encoding="utf-8"))

    def connect(
        self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None
    ) -> None:
        self.batch_size = batch_size
        if max_seq_length is not None:
            self.seq_length = max_seq_length + 1  # the last token's target is one more

    def train_dataloader(self) -> Any:
        datasets, weights = [], []
        for domain in self.known["domains"].values():
            parts = [self._samples(path) for path in domain["paths"]]
            samples = [len(part) for part in parts]
            datasets += parts
            weights += [domain["weight"] * count / sum(samples) for count in samples]
        mixed = CombinedStreamingDataset(
            datasets, seed=self.known["seed"], weights=weights, iterate_over_all=False
        )
        return self._loader(mixed)

    def val_dataloader(self) -> Any:
        return self._loader(self._samples(str(self.val_path)))

    def _samples(self, folder: str) -> Any:
        return StreamingDataset(
            input_dir=folder,
            item_loader=TokensLoader(block_size=self.seq_length),
            shuffle=True,
            drop_last=True,
            seed=self.known["seed"],
        )

    def _loader(self, data: Any) -> Any:
        return StreamingDataLoader(
            data,
            batch_size=self.batch_size,
            pin_memory=True,
            num_workers=self.num_workers,
            drop_last=True,
        )
