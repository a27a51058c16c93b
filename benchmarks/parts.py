"""A group of benchmarks as a command: which parts to run, how thoroughly."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from importlib import import_module


def run(
    group: str, parts: Mapping[str, str], about: str | None, arguments: Sequence[str], *, seeds: int
) -> None:
    """Run the parts named in the arguments, or all.

    Args:
        group: a package of `benchmarks`.
        parts: name -> module:function; loaded when asked for, since not every part needs every
            package.
        about: the help text.
        seeds: draws of the training rows, unless the arguments say otherwise.
    """
    from benchmarks.laws.common import Settings  # that package is a group, and imports this one

    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {group}", description=about)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(parts))
    parser.add_argument("--quick", action="store_true", help="smoke test: few rows, prints only")
    parser.add_argument("--seeds", type=int, default=seeds, help="draws of the training rows")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.parts) - set(parts))
    if unknown:
        parser.error(f"no part is called {unknown}; there are {list(parts)}")
    settings = Settings(seeds=1 if given.quick else given.seeds, quick=given.quick)
    for name in given.parts or parts:
        module, _, function = parts[name].partition(":")
        measure = getattr(import_module(f"benchmarks.{group}.{module}"), function)
        started = time.perf_counter()
        measure(settings)
        print(f"[{name}: {time.perf_counter() - started:.0f} s]\n", flush=True)
