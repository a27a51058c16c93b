"""All benchmarks, one after another; or the laws alone: `python -m benchmarks laws --help`."""

import sys
from importlib import import_module

if sys.argv[1:2] == ["laws"]:
    import_module("benchmarks.laws").main(sys.argv[2:])
else:
    for name in ("startup", "throughput", "demo", "laws"):
        import_module(f"benchmarks.{name}").main()
