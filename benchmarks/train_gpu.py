"""Training tokens per second on one GPU: stacked proxies, one at a time, and what peers reach.

    python -m benchmarks.train_gpu FOLDER [--minutes 7.5] [--sizes 1M 15M ...] [--cpu]

Writes FOLDER/train-gpu.md and .json, anew after every measurement. First the two ceilings of the
device and the correctness of our losses; then the ways at every size, in bfloat16 products with
float32 weights, each with its own data pipeline; then stacks of several sizes at the smallest
shape; then what takes long to compile. Measurements run one after another in a process that is
replaced when one fails: its cell says why and the others go on. What no longer fits the minutes is
said so; two calls with half of the sizes each fit more. `--cpu` runs every line on toys, as a test.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_report import TOLERANCE, report
from benchmarks.peers import On, Shape, Train, write_tokens
from benchmarks.peers.huggingface import llama_loop
from benchmarks.peers.nanogpt import nanogpt
from benchmarks.peers.ours import largest_stack, loss_curves, stack
from benchmarks.roofline import measure_ceilings

VOCABULARY = 50_432  # RegMix's, and GPT-NeoX's rounded up
SHAPES = {
    # width, layers, head width, vocabulary, tokens of a sequence, sequences of a batch
    "1M": Shape(256, 2, 32, VOCABULARY, 512, 16, mlp_ratio=2),  # RegMix's TinyLlama-1M
    "15M": Shape(448, 6, 64, VOCABULARY, 512, 64),
    "30M": Shape(640, 6, 64, VOCABULARY, 512, 64),
    "70M": Shape(512, 6, 64, VOCABULARY, 1024, 32),  # Pythia's
    "160M": Shape(768, 12, 64, VOCABULARY, 1024, 32),  # Pythia's
}
TOYS = {"1M": Shape(32, 1, 16, 128, 16, 2, mlp_ratio=2), "15M": Shape(48, 2, 16, 128, 16, 2)}
SWEEP = (1, 2, 4, 8, 16, 32, 64, 128)
WARM_STEPS, PILOT_STEPS, WINDOWS, LEAST_STEPS = 8, 3, 5, 3
LESSONS = 20


@dataclass(frozen=True)
class Way:
    """Who trains; `members` 0: as many as mixlaw puts into the free memory."""

    train: str
    compiled: bool
    members: int = 1


# In order of interest: time may run out.
WAYS = {
    "mixlaw, stacked": Way("ours", False, 0),
    "mixlaw, one": Way("ours", False),
    "nanoGPT, compiled": Way("nanogpt", True),
    "transformers": Way("transformers", False),
    "mixlaw, stacked, compiled": Way("ours", True, 0),
    "mixlaw, one, compiled": Way("ours", True),
    "transformers, compiled": Way("transformers", True),
}


@dataclass(frozen=True)
class Task:
    """One measurement. Its kind is a function of this module."""

    kind: str
    size: str = ""
    way: Way | None = None


@dataclass(frozen=True)
class Setting:
    """Where it is measured.

    Attributes:
        seconds: of one timed window, at least.
        backend: of torch.compile.
    """

    device: str
    shapes: dict[str, Shape]
    tokens: Path
    seconds: float
    backend: str


class StepClock:
    """An `OnStep` that times windows of steps between synchronisations of the device.

    The first step (compilation), `WARM_STEPS` and a pilot that tells how many steps a window needs
    stay out. Afterwards `step_seconds` has a value per window.
    """

    def __init__(self, seconds: float, synchronize: Callable[[], None]):
        self.seconds, self.synchronize = seconds, synchronize
        self.created, self.first_step_seconds = time.perf_counter(), math.nan
        self.step_seconds: list[float] = []
        self._steps = self._run()

    def __call__(self) -> bool:
        return next(self._steps, False)

    def _run(self) -> Generator[bool]:
        self.synchronize()
        self.first_step_seconds = time.perf_counter() - self.created
        for _ in range(WARM_STEPS):
            yield True
        pilot = yield from self._lap(PILOT_STEPS)
        steps = max(LEAST_STEPS, math.ceil(self.seconds / pilot))
        for _ in range(WINDOWS):
            self.step_seconds.append((yield from self._lap(steps)))

    def _lap(self, steps: int) -> Generator[bool, None, float]:
        """Seconds of a step, over so many."""
        self.synchronize()
        started = time.perf_counter()
        for _ in range(steps):
            yield True
        self.synchronize()
        return (time.perf_counter() - started) / steps


def ceilings(task: Task, setting: Setting) -> dict[str, Any]:
    small = {"side": 256, "copy_bytes": 1 << 22} if setting.device == "cpu" else {}
    found: dict[str, Any] = asdict(measure_ceilings(setting.device, **small))
    if setting.device == "cpu":
        return found | {"device": "no GPU: a test of the lines, the rates mean nothing"}
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return found | {"device": f"{torch.cuda.get_device_name()}, {memory:.0f} GiB"}


def correctness(task: Task, setting: Setting) -> dict[str, Any]:
    """Largest relative difference of losses over some steps that learn something.

    Against float64 on the CPU at a toy shape, and of a stack against its members one by one.
    """
    members, found, device = 3, {}, setting.device
    toy, real = TOYS["15M"], replace(setting.shapes[task.size], batch_size=4)
    seeds, toys, batches = range(members), lessons(toy, members), lessons(real, members)
    truth = loss_curves(toy, seeds, toys, "float64")
    for precision in TOLERANCE:
        mine = loss_curves(toy, seeds, toys, precision, device)
        found[f"{precision}, against float64"] = worst(mine, truth)
    together = truth
    for precision in TOLERANCE:
        together = loss_curves(real, seeds, batches, precision, device)
        apart = [
            loss_curves(real, [k], [batch[k : k + 1] for batch in batches], precision, device)[:, 0]
            for k in seeds
        ]
        found[f"{precision}, stacked against one by one"] = worst(together, np.stack(apart, axis=1))
    losses = [float(together[0].mean()), float(together[-1].mean())]
    return {"differences": found, "steps": len(batches), "losses": losses}


def lessons(shape: Shape, members: int) -> list[torch.Tensor]:
    """Batches (K, B, T + 1) that can be learned: counting in steps of some size modulo a prime."""
    generator = torch.Generator().manual_seed(time.time_ns() % (1 << 32))  # fresh each time
    size = (LESSONS, members, shape.batch_size, 1)
    start, stride = torch.randint(1, 97, (2, *size), generator=generator)
    return list((start + stride * torch.arange(shape.sequence_length + 1)) % 97)


def worst(a: np.ndarray, b: np.ndarray) -> float:
    """NaN where a loss is not finite: it is within no tolerance."""
    return float(np.abs(a / b - 1).max())


def training(task: Task, setting: Setting) -> dict[str, Any]:
    """Tokens per second, median over windows, and their spread."""
    way, shape = task.way, setting.shapes[task.size]
    assert way is not None
    on = On(setting.device, bfloat16=True, backend=setting.backend if way.compiled else None)
    members = way.members or largest_stack(shape, on)
    while True:
        try:
            return rates(make(way.train, members, shape, on, setting), members, shape, setting)
        except torch.OutOfMemoryError:
            if way.members or members == 1:
                raise
        members //= 2  # as the swarm does, out here where the failed training holds no memory
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()


def make(train: str, members: int, shape: Shape, on: On, setting: Setting) -> Train:
    if train == "ours":
        return stack(shape, members, setting.tokens, on)
    peer = {"transformers": llama_loop, "nanogpt": nanogpt}[train]
    return peer(shape, setting.tokens, on)


def rates(train: Train, members: int, shape: Shape, setting: Setting) -> dict[str, Any]:
    on_gpu = setting.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    clock = StepClock(setting.seconds, torch.cuda.synchronize if on_gpu else lambda: None)
    train(clock)
    tokens = shape.tokens_per_step * members
    return {
        "members": members,
        "tokens_per_second": tokens / statistics.median(clock.step_seconds),
        "slowest": tokens / max(clock.step_seconds),
        "fastest": tokens / min(clock.step_seconds),
        "first_step_seconds": clock.first_step_seconds,
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else 0,
    }


KINDS = {function.__name__: function for function in (ceilings, correctness, training)}


def serve(pipe, setting: Setting) -> None:
    """Does the tasks that come through the pipe, until None; a failure is told and ends it."""
    while (task := pipe.recv()) is not None:
        try:
            pipe.send(KINDS[task.kind](task, setting))
        except Exception as error:  # whatever it is, it is this cell's and not the table's
            lines = str(error).strip().splitlines() or ["no message"]
            pipe.send({"failed": f"{type(error).__name__}: {lines[0][:160]}"})
            raise  # into the log; a new process has no memory and no device in a broken state
        torch.compiler.reset()
        gc.collect()
        if setting.device == "cuda":
            torch.cuda.empty_cache()


class Server:
    """The process that measures, replaced when it dies or hangs."""

    def __init__(self, setting: Setting, deadline: float):
        self.setting, self.deadline = setting, deadline
        self.process = None

    def ask(self, task: Task, *, limit: float = 150) -> dict[str, Any]:
        """The result, or {"failed": reason}. Nothing is begun in the last ten seconds."""
        seconds = min(limit, self.deadline - time.monotonic())
        if seconds < 10:
            return {"failed": "not run: the minutes were over"}
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=serve, args=(theirs, self.setting), daemon=True)
            self.process.start()
            theirs.close()
        try:
            self.pipe.send(task)
            found = self.pipe.recv() if self.pipe.poll(seconds) else {}
            found = found or {"failed": f"no result in {seconds:.0f} s"}
        except (EOFError, OSError):
            self.process.join(5)
            found = {"failed": f"the process died, exit code {self.process.exitcode}"}
        if "failed" in found:
            self.close(0)
        return found

    def close(self, patience: float = 10) -> None:
        """End the process, by force when it does not end by itself."""
        if self.process is None:
            return
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join(patience)
        self.process.kill()
        self.process.join()
        self.process = None


def tasks(sizes: Sequence[str], sweep: Sequence[int]) -> list[Task]:
    """What is measured, in order of interest; the sweep is of the first size."""
    late = [name for name, way in WAYS.items() if way.compiled and way.train != "nanogpt"]
    first = [Task("training", s, way) for s in sizes for n, way in WAYS.items() if n not in late]
    stacks = [Task("training", sizes[0], Way("ours", False, members)) for members in sweep]
    last = [Task("training", size, WAYS[name]) for name in late for size in sizes]
    wanted = [Task("ceilings"), Task("correctness", sizes[0]), *first, *stacks, *last]
    return list(dict.fromkeys(wanted))  # one at a time is part of the sweep, too


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--cpu", action="store_true", help="smoke test on shapes of a toy")
    given = parser.parse_args(arguments)
    started = time.monotonic()
    given.folder.mkdir(parents=True, exist_ok=True)
    shapes = TOYS if given.cpu else {size: SHAPES[size] for size in given.sizes}
    sweep = SWEEP[:2] if given.cpu else SWEEP
    found: dict[Task, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tokens = write_tokens(Path(folder) / "tokens.bin", next(iter(shapes.values())))
        place = ("cpu", "eager", 0.01) if given.cpu else ("cuda", "inductor", 0.4)
        device, backend, seconds = place
        setting = Setting(device, shapes, tokens, seconds, backend)
        server = Server(setting, started + 60 * given.minutes)
        for task in tasks(list(shapes), sweep):
            found[task] = server.ask(task)
            print(f"{time.monotonic() - started:.0f} s", task, found[task], flush=True)
            write(given.folder, shapes, sweep, found)
        server.close()
    print((given.folder / "train-gpu.md").read_text(encoding="utf-8"))


def write(
    folder: Path, shapes: dict[str, Shape], sweep: Sequence[int], found: dict[Task, dict[str, Any]]
) -> None:
    """The tables so far."""
    data = {
        "shapes": {name: asdict(shape) for name, shape in shapes.items()},
        "ways": {name: asdict(way) for name, way in WAYS.items()},
        "sweep": [asdict(Way("ours", False, members)) for members in sweep],
        "found": [{"task": asdict(task), "result": result} for task, result in found.items()],
    }
    (folder / "train-gpu.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    (folder / "train-gpu.md").write_text(report(data), encoding="utf-8")


if __name__ == "__main__":
    main()
