"""The suites of "Data Mixing Laws": one line for each run, step and validation set.

A line is `.../<run>-<share>-<share>.../<step>`, `.../pythia-pile.valid.<set>.bin` and a loss,
separated by tabs; files are called by the model. Lines that occur twice have the same loss. What
the shares are of is not in the files (see `mixlaw.datasets.catalogue`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from mixlaw.datasets.layouts import ROUNDED, Row
from mixlaw.errors import RunTableError

NUM_PARAMS = {
    "70M": 18_915_328,
    "160M": 85_056_000,
    "305M": 201_541_632,
    "410M": 302_311_424,
    "1B": 805_736_448,
}
"""Non-embedding parameters, the authors' MODEL_SIZES."""

TOKENS_PER_STEP = 4096 * 256

TYPO = ("c4", 0.168375, 0.1484375)
"""A share of RedPajama's default mixture, and what makes its sum exactly one."""


@dataclass(frozen=True)
class Suite:
    """One folder of the source.

    Attributes:
        models: its files, by their stems.
        domains: of the shares, in the order of the source.
        tokens_per_step: None where it is unknown; labels then name the step.
    """

    models: tuple[str, ...]
    domains: tuple[str, ...]
    tokens_per_step: int | None = TOKENS_PER_STEP
    tolerance: ClassVar[float] = ROUNDED

    def parse(self, files: Sequence[Path]) -> list[Row]:
        records: dict[tuple[str, str, str, str], Row] = {}
        for file in files:
            for line in file.read_text("utf-8").splitlines():
                record = _record(file.stem, line)
                key = file.stem, record["run_id"], record["step_label"], record["valid_domain"]
                if records.setdefault(key, record) != record:
                    raise RunTableError(f"{file.name} has two losses for {key}")
        return list(records.values())

    def rows(self, records: Sequence[Mapping[str, Any]]) -> list[Row]:
        parts = sorted({record["valid_domain"] for record in records})
        unmeasured = dict.fromkeys(map(target_of, parts))
        rows, base = [], {}
        for (model, run, _), group in groupby(sorted(records, key=_order), lambda r: _order(r)[:3]):
            found = list(group)
            losses = {target_of(record["valid_domain"]): record["loss"] for record in found}
            if found[0]["mixture_raw"] is None:
                base = {f"start/{target}": loss for target, loss in losses.items()}
            else:
                columns = self._columns(model, run, found[0])
                rows.append(columns | unmeasured | losses)
        return [row | base for row in rows]

    def _columns(self, model: str, run: str, record: Mapping[str, Any]) -> Row:
        shares = map(float, record["mixture_raw"].split("-"))
        weights = dict(zip(self.domains, shares, strict=True))
        domain, wrong, right = TYPO
        if weights.get(domain) == wrong:
            weights[domain] = right
        label, tokens = run.rpartition("_")[2], None
        if self.tokens_per_step is None:
            label = f"{label} at step {record['step_label']}"
        else:
            tokens = record["step"] * self.tokens_per_step
        return {
            "run": run if run.startswith(model) else f"{model}_{run}",
            "label": label,
            "num_params": NUM_PARAMS[model],
            "train_tokens": tokens,
            **{f"weight/{name}": share for name, share in weights.items()},
        }


def target_of(valid_domain: str) -> str:
    """In the spelling of training domains, so that a target finds its own: "loss/pile_cc"."""
    return "loss/" + valid_domain.lower().replace("-", "_")


@dataclass(frozen=True)
class PileShares:
    """The weight of each part of the Pile in its overall validation loss, as one row of weights."""

    tolerance: ClassVar[float] = ROUNDED

    def parse(self, files: Sequence[Path]) -> list[Row]:
        shares = json.loads(files[0].read_text("utf-8"))
        return [{"valid_domain": part, "weight": float(share)} for part, share in shares.items()]

    def rows(self, records: Sequence[Mapping[str, Any]]) -> list[Row]:
        return [{target_of(record["valid_domain"]): record["weight"] for record in records}]


def _record(model: str, line: str) -> Row:
    checkpoint, valid, loss = line.split("\t")
    parts = PurePosixPath(checkpoint).parts
    # A run's folder has its checkpoints; the base model of `ct` is a folder itself.
    run, step = (parts[-1], "0") if "-" not in parts[-2] else parts[-2:]
    run_id, _, shares = run.partition("-")
    name = PurePosixPath(valid).name.removesuffix(".bin")
    starcoder = name.startswith("starcoder.")
    return {
        "model": model,
        "run_id": run_id,
        "step": int(step) if step.isdigit() else None,
        "step_label": step,
        "mixture_raw": shares or None,
        "valid_domain": "starcoder_python" if starcoder else name.rpartition(".")[2],
        "loss": float(loss),
    }


def _order(record: Mapping[str, Any]) -> tuple:
    step = float("inf") if record["step"] is None else record["step"]
    return record["model"], record["run_id"], step, record["valid_domain"]
