"""All benchmarks, one after another; or one group: `python -m benchmarks laws --help`, `decide`."""

import sys
from importlib import import_module

if sys.argv[1:2] in (["laws"], ["decide"]):
    import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])
else:
    for name in ("startup", "train_cpu", "chaos", "scale", "demo", "laws", "decide"):
        import_module(f"benchmarks.{name}").main()
