"""Seconds that a user waits: importing mixlaw, and fit + optimize on the example table.

Each figure is a fresh process; minimum and median of several, since a busy machine only adds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import markdown, publish

EXAMPLE = Path(__file__).parent.parent / "examples" / "tiny-env"
ROUNDS = 7
MAIN = "from mixlaw.cli import main; main()"


def seconds(*commands: list[str]) -> list[float]:
    """Wall seconds of the commands one after another, per round."""
    found = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
        found.append(time.perf_counter() - started)
    return found


def fit_and_optimize() -> list[float]:
    found = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            for file in ("study.yaml", "runs.csv"):
                (Path(folder) / file).write_bytes((EXAMPLE / file).read_bytes())
            started = time.perf_counter()
            for step in ("fit", "optimize"):
                command = [sys.executable, "-c", MAIN, step, folder]
                subprocess.run(command, check=True, capture_output=True)
            found.append(time.perf_counter() - started)
    return found


def main() -> None:
    bare = seconds([sys.executable, "-c", "pass"])
    cases = {
        "python itself": bare,
        "import mixlaw": seconds([sys.executable, "-c", "import mixlaw"]),
        "mixlaw --help": seconds([sys.executable, "-c", MAIN, "--help"]),
        "mixlaw fit + mixlaw optimize, examples/tiny-env": fit_and_optimize(),
    }
    rows = [[n, f"{min(s):.2f}", f"{statistics.median(s):.2f}"] for n, s in cases.items()]
    code = "import sys, mixlaw.study, mixlaw.cli.app; print('torch' in sys.modules)"
    loads = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    body = markdown(["", "least seconds", "median seconds"], rows)
    body += f"\n\ntorch loaded by the command line: {loads.stdout.strip()}"
    publish("startup", "Start-up", "python -m benchmarks.startup", body)


if __name__ == "__main__":
    main()
