"""Time and memory of the default fit as runs, domains and targets grow.

Each point is a process of its own, so that its peak memory is its own and a limit can end it.
The runs are made by a saturating law with 1 % of noise: what matters here is their number.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.laws.common import Settings, report
from benchmarks.table import markdown
from mixlaw.laws import fit_laws
from mixlaw.runs import RunTable

GROWTH = {
    "runs": (100, 1_000, 10_000, 100_000),
    "domains": (5, 10, 20, 50, 100, 200),
    "targets": (10, 30, 100, 300, 1_000),
}
BASE = {"runs": 300, "domains": 10, "targets": 3}
"""What the other two are while one grows."""

MOST_SECONDS, MOST_BYTES = 300, 6 * 2**30


def synthetic(num_runs: int, num_domains: int, num_targets: int) -> RunTable:
    """Losses of about 3 nats; the first targets are the domains' own."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(num_domains, 0.5), num_runs)
    worth = rng.lognormal(-2, 1, (num_domains, num_targets))
    own = np.arange(min(num_domains, num_targets))
    worth[own, own] += 1
    values = 1.5 + 1.5 * (0.02 + np.sqrt(weights) @ worth) ** -0.2
    values *= 1 + 0.01 * rng.normal(size=values.shape)
    domains = [f"d{j}" for j in range(num_domains)]
    names = [f"weight/{domain}" for domain in domains]
    names += [f"loss/d{t}" if t < num_domains else f"loss/t{t}" for t in range(num_targets)]
    table = np.hstack([weights, values])
    return RunTable.from_rows(dict(zip(names, line, strict=True)) for line in table.tolist())


def resident_bytes(line: str) -> int:
    """Resident memory of this process: "VmRSS" now, "VmHWM" at its peak. Linux only.

    (Not `getrusage`: its peak of a child begins at that of the parent.)
    """
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(line):
            return int(text.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {line}")


def measure(num_runs: int, num_domains: int, num_targets: int) -> None:
    """One point, in this process: print seconds and peak bytes above those of the table."""
    runs = synthetic(num_runs, num_domains, num_targets)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the table
    before = resident_bytes("VmRSS")
    began = time.perf_counter()
    fit_laws(runs)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "bytes": resident_bytes("VmHWM") - before}))


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


def in_a_process(sizes: dict[str, int]) -> dict[str, float] | str:
    """Seconds and bytes of one point, or why there are none."""
    command = [sys.executable, "-m", "benchmarks.laws.growth"]
    command += [str(sizes[axis]) for axis in GROWTH]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_limit)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        return f"more than {MOST_SECONDS} s of processor time"
    return (done.stderr.strip().splitlines() or ["no message"])[-1][:200]


def slope(x: list[float], y: list[float]) -> str:
    """Of log y against log x, from the upper half of the points: the start is overhead."""
    half = slice(len(x) // 2 - (len(x) < 4), None)
    if len(x) < 2 or min(y[half]) <= 0:
        return "–"
    return f"{np.polyfit(np.log(x[half]), np.log(y[half]), 1)[0]:.2f}"


def growth(settings: Settings) -> None:
    """Every axis in turn."""
    parts = []
    for axis, counts in GROWTH.items():
        lines, x, seconds, memory = [], [], [], []
        for count in settings.few(counts, 2):
            found = in_a_process(BASE | {axis: count})
            if isinstance(found, str):
                lines.append([f"{count:,}", found, ""])
                break
            x.append(count)
            seconds.append(found["seconds"])
            memory.append(found["bytes"])
            lines.append([f"{count:,}", f"{seconds[-1]:.2f}", f"{memory[-1] / 2**20:,.0f}"])
        lines.append(["slope", slope(x, seconds), slope(x, memory)])
        rest = ", ".join(f"{count} {name}" for name, count in BASE.items() if name != axis)
        parts.append(f"With {rest}.\n\n{markdown([axis, 'seconds', 'MiB'], lines)}")
    about = (
        "Default `fit_laws` at one scale, each point in its own process: wall seconds, and peak "
        "memory above that of the table. Slope: of the logs, upper half of the points.\n\n"
    )
    report(settings, "growth", "How the default fit grows", about + "\n\n".join(parts))


if __name__ == "__main__":
    measure(*(int(argument) for argument in sys.argv[1:]))
