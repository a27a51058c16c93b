"""The mixture of the mixture.json that lies beside this file, as a data module of litgpt:

    PYTHONPATH=. litgpt pretrain MODEL --data litgpt_mixture.Mixture --data.val_path FOLDER

Written by mixlaw, of which it needs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
from torch.utils.data import get_worker_info  # pyright: ignore[reportMissingImports]

PLAN = Path(__file__).with_name("mixture.json")


class Mixed(CombinedStreamingDataset):
    """Draws with a seed of its own in each rank and loader worker: with one seed all of them would
    draw the same domain at the same time, and a step would hold few draws, many times each."""

    def __init__(self, datasets: Sequence[Any], *, seed: int, weights: Sequence[float]):
        super().__init__(datasets, seed=seed, weights=weights, iterate_over_all=False)
        self.seed = seed

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        rank = self._datasets[0].distributed_env.global_rank
        self._seed = f"{self.seed}, rank {rank}, worker {worker.id if worker else 0}"
        return super().__iter__()


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
        return self._loader(Mixed(datasets, seed=self.known["seed"], weights=weights))

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
