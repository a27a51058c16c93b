"""Loads the mixture of the mixture.json that lies beside this file, with Hugging Face `datasets`:

    from load_mixture import load
    train_dataset = load()

Written by mixlaw, of which it needs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import (  # pyright: ignore[reportMissingImports]
    Dataset,
    IterableDataset,
    concatenate_datasets,
    interleave_datasets,
    load_dataset,
    load_from_disk,
)

PLAN = Path(__file__).with_name("mixture.json")


def load(
    *,
    split: str = "train",
    streaming: bool = False,
    prepare: Callable[[Any], Any] | None = None,
    plan: Path = PLAN,
) -> Any:
    """The mixed training data: a `Dataset`, or an `IterableDataset` where streamed or staged.

    Args:
        split: of datasets that have several; files have one.
        streaming: read as the training goes.
        prepare: done to each domain's dataset before it is mixed: choose columns, tokenise, and
            pack into blocks if the plan's unit is "sample".
    """
    known = json.loads(plan.read_text(encoding="utf-8"))
    domains = {
        name: (prepare or _as_it_is)(_open(sources, split, streaming))
        for name, sources in known["domains"].items()
    }
    if "stages" in known:
        return _staged(domains, known["stages"], known["seed"])
    shares = known["probabilities"]
    return interleave_datasets(
        [domains[name] for name in shares],
        probabilities=list(shares.values()),
        seed=known["seed"],
        stopping_strategy=known["stopping_strategy"],
    )


def _staged(domains: dict[str, Any], stages: list[dict[str, int]], seed: int) -> Any:
    """Stages one after the other. Never map-style, for trainers shuffle that; and of one shard, for
    of several each loader worker would take some."""
    kwargs = {"domains": domains, "stages": tuple(stages), "seed": seed}  # lists would be shards
    features = concatenate_datasets(list(domains.values())).features
    return IterableDataset.from_generator(_examples, features=features, gen_kwargs=kwargs)


def _examples(
    domains: dict[str, Any], stages: tuple[dict[str, int], ...], seed: int
) -> Iterator[dict[str, Any]]:
    """Of each stage exactly so many of each domain, in random order; a domain goes on where the
    stage before left it, and from its beginning when it is used up."""
    rng = np.random.default_rng(seed)
    sources = {name: _endless(name, data) for name, data in domains.items()}
    for stage in stages:
        names, counts = list(stage), list(stage.values())
        for drawn in rng.permutation(np.repeat(np.arange(len(names), dtype=np.uint16), counts)):
            yield next(sources[names[drawn]])


def _endless(name: str, data: Any) -> Iterator[dict[str, Any]]:
    """Its examples, again and again; all of them, whichever loader worker asks."""
    empty = False
    while not empty:
        empty = True
        for batch in data.iter(batch_size=100):
            for values in zip(*batch.values(), strict=True):
                empty = False
                yield dict(zip(batch, values, strict=True))
    raise ValueError(f"the domain {name!r} has no examples")


def _open(sources: list[dict[str, Any]], split: str, streaming: bool) -> Any:
    """The data of one domain: what `load_dataset` is to be given, once or several times."""
    return concatenate_datasets([_open_one(source, split, streaming) for source in sources])


def _open_one(source: dict[str, Any], split: str, streaming: bool) -> Any:
    folder = Path(source["path"])
    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        saved = load_from_disk(folder)
        data = saved if isinstance(saved, Dataset) else saved[split]
        return data.to_iterable_dataset() if streaming else data
    chosen = "train" if "data_files" in source else split  # files have no other
    return load_dataset(**source, split=chosen, streaming=streaming)


def _as_it_is(data: Any) -> Any:
    return data
