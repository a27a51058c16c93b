"""Measurements behind every claim of speed or accuracy; `python -m benchmarks` runs them all."""

import os
from pathlib import Path

# Where this repository's developers keep the published run tables, beside the checkout. Elsewhere
# `mixlaw.datasets` finds them in the reader's own MIXLAW_DATA, or downloads them.
_TABLES = Path(__file__).parents[2] / "shared" / "data"
if _TABLES.is_dir():
    os.environ.setdefault("MIXLAW_DATA", str(_TABLES))
