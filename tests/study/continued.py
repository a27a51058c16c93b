"""Made-up runs that continue a model, with a known critical share."""

from __future__ import annotations

import numpy as np

from mixlaw.runs import RunTable

SHARES = (0.0, 0.1, 0.25, 0.4, 0.6, 0.8)
HORIZONS = ((1e6, 0.6), (4e6, 1.0))
"""Training tokens, and how far a run has come by then."""
BASE = {"loss/web": 2.3, "loss/books": 2.5, "loss/code": 2.0}
CRITICAL = 0.3
"""Where loss/web rises above its base; loss/books does later, at .5."""


def true_losses(share: float, pace: float) -> dict[str, float]:
    """Losses of a run of so much new data; `pace` in (0, 1] is how far it has come."""
    bend = np.expm1(1.2 * share)
    web = 0.2 * (bend - np.expm1(1.2 * CRITICAL))
    books = 0.1 * (bend - np.expm1(1.2 * 0.5))
    code = -0.9 * (1 - np.exp(-(3 * share + 0.2)))
    moved = {"loss/web": web, "loss/books": books, "loss/code": code}
    return {target: BASE[target] + pace * change for target, change in moved.items()}


def continued_rows(*, horizons: int = 1, start: bool = True, noise: float = 0.001) -> list[dict]:
    """Rows over web, books (old, 7 to 3) and code (new) at the last horizons."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(2):
        for share in SHARES:
            for train_tokens, pace in HORIZONS[-horizons:]:
                row = {"run": f"{share:g}-{seed}", "seed": seed, "num_params": 1e6}
                row |= {"train_tokens": train_tokens, "rewarm": 1.0}
                row |= {"weight/web": 0.7 * (1 - share), "weight/books": 0.3 * (1 - share)}
                row |= {"weight/code": share}
                losses = true_losses(share, pace)
                row |= {t: loss + rng.normal(0, noise) for t, loss in losses.items()}
                row |= {f"start/{t}": loss for t, loss in BASE.items()} if start else {}
                rows.append(row)
    return rows


def continued_table(**given) -> RunTable:
    return RunTable.from_rows(continued_rows(**given))
