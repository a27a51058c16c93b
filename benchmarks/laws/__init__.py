"""How well the laws forecast published runs, beside the recipes of others.

    python -m benchmarks laws                    every part, about an hour on one core
    python -m benchmarks laws regmix coverage    these parts
    python -m benchmarks laws --quick            all, few rows, two minutes; writes no table

Each part writes `benchmarks/results/laws-<part>.md`, so a part can be run again alone. The run
tables are those of `mixlaw.datasets`. Peers need `pip install lightgbm scikit-learn`, the recipe
of the paper's authors (part `speed`) torch as well. Timings mean most with OMP_NUM_THREADS=1 on a
quiet machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.parts import run

PARTS = {
    "regmix": "one_scale:regmix",
    "olmix": "one_scale:olmix",
    "slimpajama": "one_scale:slimpajama",
    "dmsl-122m": "one_scale:dmsl_122m",
    "mixinglaws": "scales:mixinglaws",
    "forecast-1b": "scales:forecast_1b",
    "dmsl": "scales:dmsl",
    "dmsl-mixtures": "scales:dmsl_mixtures",
    "few-shot": "few_shot:few_shot",
    "coverage": "coverage:one_scale",
    "coverage-scales": "coverage:scales",
    "speed": "speed:speed",
    "growth": "growth:growth",
}
"""Part -> module:function."""


def main(arguments: Sequence[str] = ()) -> None:
    """Run the parts named in the arguments, or all."""
    run("laws", PARTS, __doc__, arguments, seeds=5)
