"""Training tokens per second on a CPU: mixlaw's swarm, transformers' Trainer, nanoGPT's loop.

    python -m benchmarks.train_cpu [--quick] [--rounds 5] [--seconds 2]

Everyone trains models of the same non-embedding parameters (vocabulary 1,024, sequences of 64,
batches of 8, float32, no compilation), draws batches with their own data pipeline and keeps their
own books. Each way has processes of its own, which wait while others train; the ways take turns
within each round, so a busy machine slows them alike, and ratios are of medians over rounds. The
processes of one way are timed over one common window, after a warm-up in every round.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.peers import On, Shape, Train, write_tokens
from benchmarks.peers.huggingface import trainer
from benchmarks.peers.nanogpt import nanogpt
from benchmarks.peers.ours import stack
from benchmarks.table import machine, markdown, publish
from mixlaw.launch.local import available_cores

SIZES = {"50k": (48, 2), "150k": (80, 2), "500k": (144, 2), "1.5M": (256, 2)}
"""Name -> width, layers."""

STACK = 8
WARM_SECONDS = 0.7
TIMEOUT_SECONDS = 300
QUIET_CORES = 0.2


@dataclass(frozen=True)
class Way:
    """A way to train on all cores.

    Attributes:
        train: ours, Trainer or nanoGPT, with the members of a stack for ours.
        per_core: one single-threaded process per core, or one process with a thread per core.
    """

    train: str
    per_core: bool
    members: int = 1


WAYS = {
    f"mixlaw, stacks of {STACK}": Way("ours", True, STACK),
    "mixlaw, one by one": Way("ours", True),
    "Trainer": Way("trainer", False),
    "Trainer per core": Way("trainer", True),
    "nanoGPT": Way("nanogpt", False),
    "nanoGPT per core": Way("nanogpt", True),
}
OURS = next(iter(WAYS))


def make(way: Way, shape: Shape, tokens: Path) -> Train:
    if way.train == "ours":
        return stack(shape, way.members, tokens, On())
    return trainer(shape, On()) if way.train == "trainer" else nanogpt(shape, tokens, On())


@dataclass(frozen=True)
class Rate:
    """Of one process in one window: tokens per second of the clock, and of the processor."""

    wall: float
    cpu: float


class Window:
    """An `OnStep` that counts the steps between two times of the monotonic clock."""

    def __init__(self, start: float, stop: float):
        self.start, self.stop = start, stop
        self.marks: list[tuple[float, float]] = []

    def __call__(self) -> bool:
        now = time.monotonic()
        if now >= self.start:
            self.marks.append((now, time.process_time()))
        return now < self.stop or len(self.marks) < 2  # a step longer than the window, too

    def rate(self, tokens_per_step: int) -> Rate:
        wall, cpu = (
            last - first for first, last in zip(self.marks[0], self.marks[-1], strict=True)
        )
        tokens = tokens_per_step * (len(self.marks) - 1)
        return Rate(tokens / wall, tokens / cpu)


def work(way: Way, shape: Shape, tokens: Path, pipe: Connection) -> None:
    """A process of one way: trains whenever a window comes through the pipe, until None."""
    torch.set_num_threads(1 if way.per_core else available_cores())
    train = make(way, shape, tokens)
    pipe.send("ready")
    while (window := pipe.recv()) is not None:
        clock = Window(*window)
        train(clock)
        pipe.send(clock.rate(shape.tokens_per_step * way.members))


class Processes:
    """The processes of one way."""

    def __init__(self, way: Way, shape: Shape, tokens: Path):
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for _ in range(available_cores() if way.per_core else 1):
            ours, theirs = context.Pipe()
            arguments = (way, shape, tokens, theirs)
            self.processes.append(context.Process(target=work, args=arguments, daemon=True))
            self.processes[-1].start()
            theirs.close()
            self.pipes.append(ours)
        self._answers()

    def rate(self, seconds: float) -> tuple[Rate, float]:
        """All processes together over one window; and the cores that others used meanwhile."""
        load = Load([process.pid for process in self.processes])
        start = time.monotonic() + WARM_SECONDS
        for pipe in self.pipes:
            pipe.send((start, start + seconds))
        rates = self._answers()
        wall = sum(rate.wall for rate in rates)
        return Rate(wall, statistics.mean(rate.cpu for rate in rates)), load.others()

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()

    def _answers(self) -> list:
        for pipe in self.pipes:
            if not pipe.poll(TIMEOUT_SECONDS):
                raise TimeoutError(f"a process said nothing for {TIMEOUT_SECONDS} s")
        return [pipe.recv() for pipe in self.pipes]


class Load:
    """Cores that other processes keep busy, since the making of this object; 0 off Linux."""

    def __init__(self, pids: Sequence[int | None]):
        self.files = [Path(f"/proc/{pid}/stat") for pid in pids]
        self.since, self.before = time.monotonic(), self._others_ticks()

    def others(self) -> float:
        ticks = self._others_ticks() - self.before
        return ticks / os.sysconf("SC_CLK_TCK") / (time.monotonic() - self.since)

    def _others_ticks(self) -> int:
        machine_file = Path("/proc/stat")
        if not machine_file.exists():
            return 0
        user, nice, system, _, _, *rest = map(int, machine_file.read_text().split()[1:9])
        mine = 0
        for file in self.files:
            fields = file.read_text().rpartition(")")[2].split()  # the name may hold anything
            mine += int(fields[11]) + int(fields[12])
        return user + nice + system + sum(rest) - mine


def measure(shape: Shape, folder: Path, rounds: int, seconds: float) -> dict[str, dict]:
    """Medians for each way: wall, cpu (`Rate`), and cores used by others."""
    tokens = write_tokens(folder / "tokens.bin", shape)
    # One after another: all importing at once would swamp the machine.
    ways = {name: Processes(way, shape, tokens) for name, way in WAYS.items()}
    for processes in ways.values():
        processes.rate(0)
    seen: dict[str, list[tuple[Rate, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, processes in ways.items():
            rate, others = processes.rate(seconds)
            if others > QUIET_CORES:
                rate, others = processes.rate(seconds)
            seen[name].append((rate, others))
    for processes in ways.values():
        processes.close()
    return {
        name: {
            "wall": statistics.median(rate.wall for rate, _ in found),
            "cpu": statistics.median(rate.cpu for rate, _ in found),
            "others": statistics.median(others for _, others in found),
        }
        for name, found in seen.items()
    }


def report(found: dict[str, dict[str, dict]], rounds: int, seconds: float) -> str:
    """Ratios and rates as Markdown."""
    peers = [name for name in WAYS if name != OURS]
    single = [name for name, way in WAYS.items() if way.per_core]

    def table(what: str, names: Sequence[str], cell) -> str:
        rows = [[size, *(cell(ways, name, what) for name in names)] for size, ways in found.items()]
        return markdown(["size", *names], rows)

    def ratio(ways: dict, name: str, what: str) -> str:
        return f"{ways[OURS][what] / ways[name][what]:.2f}"

    def plain(ways: dict, name: str, what: str) -> str:
        return f"{ways[name][what]:,.0f}"

    busy = [ways[name]["others"] for ways in found.values() for name in ways]
    parts = [
        f"Medians of {rounds} rounds of {seconds:g} s; a window in which other programs used "
        f"more than {QUIET_CORES} of a core was measured again, once. Others used "
        f"{statistics.median(busy):.2f} cores (median over ways and sizes), {max(busy):.2f} at "
        "most; where that is not near zero, trust the last two tables alone.",
        f"How many times as many tokens per second as the others the swarm trains ({OURS}, one "
        "single-threaded process per core; the others: one process with all cores, or one "
        "single-threaded process per core):",
        table("wall", peers, ratio),
        "Training tokens per second, the whole machine:",
        table("wall", list(WAYS), plain),
        "Single-threaded processes, tokens per second of processor time, which other programs "
        "disturb less; the ratio:",
        table("cpu", single[1:], ratio),
        "and the rate of one process:",
        table("cpu", single, plain),
    ]
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="smoke test: one size, prints only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each window")
    given = parser.parse_args(arguments)
    rounds, seconds = (1, 0.3) if given.quick else (given.rounds, given.seconds)
    found = {}
    for name, (width, layers) in list(SIZES.items())[: 1 if given.quick else None]:
        shape = Shape(width, layers, 16, vocab_size=1024, sequence_length=64, batch_size=8)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(shape, Path(folder), rounds, seconds)
        print(name, found[name], flush=True)
    body = report(found, rounds, seconds)
    if given.quick:
        print(f"{machine()}\n\n{body}")
    else:
        publish("train-cpu", "Training on a CPU", "python -m benchmarks.train_cpu", body)


if __name__ == "__main__":
    main()
