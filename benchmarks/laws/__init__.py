"""How well the laws forecast published runs, beside the recipes of others.

    python -m benchmarks laws                    every part, about an hour on one core
    python -m benchmarks laws regmix coverage    these parts
    python -m benchmarks laws --quick            all, few rows, two minutes; writes no table

Each part writes `benchmarks/results/laws-<part>.md`, so a part can be run again alone. The run
tables are those of `../shared/data`, or of the folder in MIXLAW_DATA. Peers need `pip install
lightgbm scikit-learn`, the recipe of the paper's authors (part `speed`) torch as well. Timings mean
most with OMP_NUM_THREADS=1 on a quiet machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from importlib import import_module

from benchmarks.laws.common import Settings

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
"""Part -> module:function; loaded when asked for, since not every part needs every package."""


def part(name: str) -> Callable[[Settings], None]:
    """The function that measures a part and publishes its table."""
    module, _, function = PARTS[name].partition(":")
    return getattr(import_module(f"benchmarks.laws.{module}"), function)


def main(arguments: Sequence[str] = ()) -> None:
    """Run the parts named in the arguments, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks laws", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="smoke test: few rows, prints only")
    parser.add_argument("--seeds", type=int, default=5, help="draws of the training rows")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.parts) - set(PARTS))
    if unknown:
        parser.error(f"no part is called {unknown}; there are {list(PARTS)}")
    settings = Settings(seeds=1 if given.quick else given.seeds, quick=given.quick)
    for name in given.parts or PARTS:
        started = time.perf_counter()
        part(name)(settings)
        print(f"[{name}: {time.perf_counter() - started:.0f} s]\n", flush=True)
