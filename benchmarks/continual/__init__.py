"""Continued pretraining: critical shares of new data, on published, made and own runs.

    python -m benchmarks continual                both parts, about forty minutes on two cores
    python -m benchmarks continual published      this part; needs the published tables
    python -m benchmarks continual --quick        both as a smoke test; writes no table

Each part writes `benchmarks/results/continual-<part>.md`. `--seeds` are the repeats of made swarms.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.parts import run

PARTS = {"published": "published:published", "own": "own:own"}
"""Part -> module:function."""


def main(arguments: Sequence[str] = ()) -> None:
    """Run the parts named in the arguments, or all."""
    run("continual", PARTS, __doc__, arguments, seeds=20)
