"""Runs of a known law, as others keep them."""

from __future__ import annotations

import csv

import numpy as np

from mixlaw.runs import RunTable

OBJECTIVE = "objective: {loss/web: 1, loss/code: 1}\n"
NAMES = ("web", "code", "books")
TOKENS = "domains: {web: {available_tokens: 4e9}, code: {available_tokens: 1e9}}\n"
TARGET = "target: {train_tokens: 1_024_000}\n"
EXPORT = "export: {to: megatron, paths: '/data/{domain}', sequence_length: 1024}\n"


def table(count: int = 10, *, first: int = 0, names=NAMES, **more) -> RunTable:
    """Runs r<first>, ... of a known law."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(len(names)), first + count)[first:]
    rows = []
    for i, shares in enumerate(weights.tolist(), start=first):
        row = {f"weight/{name}": share for name, share in zip(names, shares, strict=True)}
        row |= {"loss/web": 3 - 0.8 * shares[0] ** 0.5, "loss/code": 2.5 - shares[1] ** 0.5}
        rows.append({"run": f"r{i}", **row, **more})
    return RunTable.from_rows(rows)


def write_csv(path, rows) -> str:
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)
