"""litgpt: a data module that mixes folders of litdata by weight, which litgpt itself has none for.
RegMix, which stands on its ancestor, is in tinyllama.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from mixlaw.interop.handover import SAMPLE, Exported, Handover, refuse_schedule
from mixlaw.interop.read_back import gather, reading
from mixlaw.interop.snippet import Part, Snippet, realised_shares, whole
from mixlaw.schedule import Schedule


class LitGpt:
    """litdata's `CombinedStreamingDataset` draws the domain of every sample by its weight: the
    realised shares are expected ones. Samples are blocks of the model's context plus one.

    Source: litgpt 0.5.13, data/tinyllama.py; litdata 0.2.76, streaming/combined.py.
    """

    name = "litgpt"
    what = "litgpt: a data module over folders of litdata"
    schedules = False
    checked = "litgpt 0.5.13 with litdata 0.2.76"

    def export(self, handover: Handover) -> Exported:
        """Raises: ExportError: no paths, a schedule, or a run shorter than a step."""
        mixture = refuse_schedule(
            handover, "litgpt", "train each stage's mixture from the checkpoint of the one before"
        )
        snippet = self.snippet(handover)
        module = resources.files("mixlaw.interop.exporters") / "modules" / "litgpt_mixture.py"
        return Exported(
            files={
                snippet.file: snippet.text(mixture),
                "litgpt_mixture.py": module.read_text(encoding="utf-8"),
            },
            realised=Schedule.static(realised_shares(snippet, mixture)),
            unit=SAMPLE,
            how=_how(handover),
            notes=_NOTES,
        )

    def snippet(self, handover: Handover) -> Snippet:
        """The plan, which litgpt_mixture.py reads. Raises: ExportError: as `export`."""
        paths = handover.paths_of("litgpt", "a folder of tokens that litdata wrote")
        head = f'{{\n  "unit": "{SAMPLE}",\n  "seed": {handover.seed},\n  "domains": {{\n'
        lines = [
            (f'    {json.dumps(name)}: {{"weight": ', f', "paths": {json.dumps(places)}}}')
            for name, places in paths.items()
        ]
        return Snippet(
            file="mixture.json",
            entries=whole(list(paths)),
            parts=(Part(head, tuple(lines), ",\n"),),
            after="\n  }\n}\n",
            unit=SAMPLE,
            total=10**9,
            digits=9,
            notes=("litgpt_mixture.py, which reads this file, comes with mixlaw export",),
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The weights of a mixture.json. Raises: ExportError: it is none of ours."""
        with reading(path, "a mixture.json of an export to litgpt"):
            known = json.loads(path.read_text(encoding="utf-8"))["domains"]
            weights = [(name, domain["weight"]) for name, domain in known.items()]
        return Schedule.static(gather(weights, domains, str(path)))


def _how(handover: Handover) -> str:
    options = {
        "--seed": handover.seed,
        "--train.max_tokens": handover.train_tokens,
        "--train.max_seq_length": handover.sequence_length,
        "--train.global_batch_size": handover.batch_sequences,
    }
    known = [f"{option} {value}" for option, value in options.items() if value is not None]
    return (
        "# in the folder of mixture.json and litgpt_mixture.py\n"
        "PYTHONPATH=. litgpt pretrain MODEL --data litgpt_mixture.Mixture --data.val_path FOLDER "
        + " ".join(known)
    )


_NOTES = (
    "the domain of each sample is drawn by lot, by each rank and loader worker for itself: the "
    "realised shares are expected ones",
    "the data end when the first domain is used up, and begin anew in another order: of a domain "
    "that is never used up, some samples may come again before others have come once",
    "litgpt's own data modules cannot take a mixture: LitData reads one folder, and TinyLlama has "
    "its two weights in the source",
)
