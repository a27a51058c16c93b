"""torchtitan: a dataloader that interleaves datasets of text."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixlaw.errors import ExportError
from mixlaw.interop.exporters.huggingface import sources
from mixlaw.interop.handover import SAMPLE, Exported, Handover, refuse_schedule
from mixlaw.interop.read_back import gather, reading
from mixlaw.interop.snippet import Part, Snippet, realised_shares, whole
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

DATA_FILE, PREFIX = "mixlaw_data.py", "mix:"

_DATA = '''\
"""A data mixture for torchtitan; written by mixlaw."""

from functools import partial

from datasets import concatenate_datasets, load_dataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import (
    DATASETS,
    HFDataSource,
    InterleavedHuggingFaceTextDataLoader,
)

# Name -> what datasets.load_dataset is given for each of its parts.
PARTS = {
@@}


def load(path, parts):
    found = [load_dataset(**part, split="train").select_columns("text") for part in parts]
    return concatenate_datasets(found)


def text(sample):
    return sample["text"]


for name, parts in PARTS.items():
    DATASETS[name] = DatasetConfig(name, partial(load, parts=parts), text)


def dataloader(**options):
    return InterleavedHuggingFaceTextDataLoader.Config(
        sources=[
@@        ],
        seed=@@,
        **options,
    )
'''


class Torchtitan:
    """A Python module that registers the domains' datasets and weighs them.

    Each source packs its documents into samples of the sequence length first; a sample's source is
    then drawn at random by the weights, which therefore are shares of tokens. Source:
    torchtitan/hf_datasets/interleaved.py and text_datasets.py of 0.3.0.
    """

    name = "torchtitan"
    what = "torchtitan: an interleaved dataloader of text datasets"
    schedules = False
    checked = "torchtitan 0.3.0"

    def export(self, handover: Handover) -> Exported:
        """The module. Raises: ExportError: a schedule, a domain without a path, a run shorter than
        a step, or two domains whose names differ in case only, which torchtitan does not tell
        apart."""
        mixture = refuse_schedule(
            handover,
            "torchtitan",
            "export each stage's mixture, train the first to its end (--training.steps), and go on "
            "from that checkpoint with the next module",
        )
        snippet = self.snippet(handover)
        handover.stage_samples("torchtitan")  # refuses a run of no step
        realised = realised_shares(snippet, mixture)
        return Exported(
            {DATA_FILE: snippet.text(mixture)},
            Schedule.static(realised),
            SAMPLE,
            _how(handover),
            (_spread(realised, handover.num_samples), *snippet.notes),
        )

    def snippet(self, handover: Handover) -> Snippet:
        """The module. Raises: ExportError: as `export`."""
        paths = handover.paths_of("torchtitan", "files, a folder of them or the name of a dataset")
        keys, (head, middle, tail, end) = _keys(list(paths)), _DATA.split("@@")
        known = tuple((f"    {keys[n]!r}: {sources(places)!r},\n",) for n, places in paths.items())
        weighed = tuple(
            (f"            HFDataSource(dataset={keys[name]!r}, weight=", "),\n") for name in paths
        )
        return Snippet(
            file=DATA_FILE,
            entries=whole(list(paths)),
            parts=(Part(head, known), Part(middle, weighed)),
            after=f"{tail}{handover.seed}{end}",
            unit=SAMPLE,
            notes=(
                "all data-parallel ranks draw with one seed: a step's samples of one place come "
                "from one domain on every rank",
                "the first pass over a domain is in the order of its files; shuffle these once",
                "texts are read from the column `text`; all data are downloaded before training "
                "begins",
            ),
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The weights of each `HFDataSource` in a Python file, which is not run.

        Raises: ExportError: it has none, or some that are no plain values.
        """
        with reading(path, "a module with HFDataSource(dataset=..., weight=...)"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found = [
                {str(given.arg): ast.literal_eval(given.value) for given in call.keywords}
                for call in ast.walk(tree)
                if isinstance(call, ast.Call)
                and ast.unparse(call.func).rpartition(".")[2] == "HFDataSource"
            ]
            pairs = [(_shown(source), source.get("weight", 1)) for source in found]
            return Schedule.static(gather(pairs, domains, str(path)))


def _shown(source: Mapping[str, object]) -> str:
    """What tells the domain of a source: its dataset, as here, or its path."""
    name = str(source.get("dataset", ""))
    return name.removeprefix(PREFIX) if name else str(source.get("dataset_path", ""))


def _keys(names: Sequence[str]) -> dict[str, str]:
    """Domain -> its name in torchtitan's registry, where names are lowered before the look-up."""
    keys = {name: PREFIX + name.lower() for name in names}
    for name, key in keys.items():
        twins = [other for other in names if keys[other] == key]
        if len(twins) > 1:
            raise ExportError(
                f"torchtitan lowers the names of datasets, and {twins} are then the same; rename "
                f"{name!r}"
            )
    return keys


def _spread(realised: Mixture, num_samples: int | None) -> str:
    share = max(realised.values(), key=lambda share: share * (1 - share))
    if num_samples is None:
        return "sources are drawn at random: a run's shares spread around the realised ones"
    sigma = math.sqrt(share * (1 - share) / max(1, num_samples))
    return (
        "sources are drawn at random: a run's shares spread around the realised ones, by up to "
        f"{sigma:.1e} (a standard deviation) on one data-parallel rank, sqrt(ranks) times that on "
        "several"
    )


def _how(handover: Handover) -> str:
    settings = {
        "seq_len": handover.sequence_length,
        "global_batch_size": handover.batch_sequences,
        "steps": handover.num_steps,
    }
    return "\n".join(
        [
            f"# with {DATA_FILE} on PYTHONPATH, in a function of your config_registry.py:",
            f"from {DATA_FILE.removesuffix('.py')} import dataloader",
            "config.dataloader = dataloader()",
            *(f"config.training.{n} = {value}" for n, value in settings.items() if value),
        ]
    )
