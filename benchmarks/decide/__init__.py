"""How good the decisions are, and how well mixlaw knows it, beside the decisions of others.

    python -m benchmarks decide                   every part, about an hour on one core
    python -m benchmarks decide regret            this part
    python -m benchmarks decide --quick           all, few rows, minutes; writes no table

Each part writes `benchmarks/results/decide-<part>.md`. Tables and packages: as for
`python -m benchmarks laws`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from importlib import import_module

from benchmarks.laws.common import Settings

PARTS = {
    "regret": "regret:regret",
    "reliability": "reliability:reliability",
    "planner": "planner:planner",
    "edits": "edits:edits",
    "optimum": "optimum:optimum",
}
"""Part -> module:function; loaded when asked for, since not every part needs every package."""


def part(name: str) -> Callable[[Settings], None]:
    """The function that measures a part and publishes its table."""
    module, _, function = PARTS[name].partition(":")
    return getattr(import_module(f"benchmarks.decide.{module}"), function)


def main(arguments: Sequence[str] = ()) -> None:
    """Run the parts named in the arguments, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks decide", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="smoke test: few rows, prints only")
    parser.add_argument("--seeds", type=int, default=10, help="draws of the training rows")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.parts) - set(PARTS))
    if unknown:
        parser.error(f"no part is called {unknown}; there are {list(PARTS)}")
    settings = Settings(seeds=1 if given.quick else given.seeds, quick=given.quick)
    for name in given.parts or PARTS:
        started = time.perf_counter()
        part(name)(settings)
        print(f"[{name}: {time.perf_counter() - started:.0f} s]\n", flush=True)
