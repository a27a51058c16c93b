"""How good the decisions are, and how well mixlaw knows it, beside the decisions of others.

    python -m benchmarks decide                   every part, about an hour on one core
    python -m benchmarks decide regret            this part
    python -m benchmarks decide --quick           all, few rows, minutes; writes no table

Each part writes `benchmarks/results/decide-<part>.md`. Tables and packages: as for
`python -m benchmarks laws`.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.parts import run

PARTS = {
    "regret": "regret:regret",
    "reliability": "reliability:reliability",
    "planner": "planner:planner",
    "edits": "edits:edits",
    "optimum": "optimum:optimum",
}
"""Part -> module:function."""


def main(arguments: Sequence[str] = ()) -> None:
    """Run the parts named in the arguments, or all."""
    run("decide", PARTS, __doc__, arguments, seeds=10)
