"""All benchmarks, one after another; or one group: `python -m benchmarks laws --help`, `decide`,
`continual`."""

import sys
from importlib import import_module

GROUPS = ("laws", "decide", "continual")

if sys.argv[1:2] and sys.argv[1] in GROUPS:
    import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])
else:
    for name in ("startup", "train_cpu", "chaos", "scale", "demo", "schedule", "explorer", *GROUPS):
        import_module(f"benchmarks.{name}").main()
