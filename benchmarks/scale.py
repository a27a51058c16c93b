"""500 mixtures x 5 sizes x 100 domains: what they cost on paper, and where the machinery bends.

    python -m benchmarks.scale

On paper: FLOPs from the swarm's own count, cut into stacks by the swarm and given to GPUs in the
driver's order, the costliest first. The rate of a GPU is ASSUMED, a share of its stated peak; none
of it was measured on a GPU. Measured here: what a driver, a store, a table and a sampler take at
that size, the least of several tries, since other work on the machine only adds; what goes over
thousands of files is done once.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.roofline import DENSE_BF16_FLOPS
from benchmarks.table import markdown, publish
from mixlaw.claims import Heartbeat, RunStatus, Watch, Worker, WorkStatus
from mixlaw.corpus import BatchSampler, DomainSource, TokenizerSpec, build_corpus, load_corpus
from mixlaw.launch.driver import SWARM_FILE, read_swarm, write_swarm
from mixlaw.mixture import Mixture
from mixlaw.runs import DONE, SWARM, RunResult, RunSpec, RunTable
from mixlaw.store import RunStore
from mixlaw.train.byhand import MemberStep
from mixlaw.train.checkpoint import load_checkpoint, save_checkpoint
from mixlaw.train.feed import CHUNK_BYTES, MAX_CHUNK_STEPS
from mixlaw.train.hardware import Hardware
from mixlaw.train.recipe import ModelConfig, Recipe, Size
from mixlaw.train.sizes import NAMED_SIZES, default_learning_rate
from mixlaw.train.state import TrainState
from mixlaw.train.swarm import Swarm

MIXTURES, DOMAINS, TARGETS, VOCAB_SIZE = 500, 100, 100, 50_304
SIZES = ("15M", "30M", "pythia-70m", "pythia-160m", "pythia-410m")
TOKENS_PER_PARAM = {"20 tokens a parameter": (5, 10, 20), "100 a parameter": (20, 50, 100)}
GPUS, UTILISATIONS = (8, 64, 512), (0.1, 0.2, 0.4)
PEAK_FLOPS = DENSE_BF16_FLOPS["H100"]
WORKERS = 512
LATE_STEP = 5000

CHECKPOINT_COLUMNS = ("size", "vocabulary", "MB", "saves a second", "MB/s saved", "MB/s loaded")
SAMPLER_COLUMNS = (
    *("size", "batch", "members", "ms a step", "M tokens/s"),
    *(f"ms of a GPU at {share:.0%}" for share in UTILISATIONS),
    "ms to begin there",
)
CORE_COLUMNS = (
    *("size", "precision", "tokens/s", "GFLOP/s"),
    f"core hours for {MIXTURES} runs of 20 tokens a parameter",
)


def named(name: str, *, vocab_size: int = VOCAB_SIZE, **recipe: Any) -> Size:
    """A size as a study would build it, in bf16."""
    size = NAMED_SIZES[name]
    config = ModelConfig(vocab_size, size.width, size.layers, size.head_width, size.mlp_ratio)
    rate = size.learning_rate or default_learning_rate(size.width)
    batch = (size.batch_size, size.sequence_length, size.warmup_steps)
    return Size(config, Recipe(rate, *batch, **{"precision": "bf16", **recipe}))


def mixtures(count: int) -> list[Mixture]:
    shares = np.random.default_rng(0).dirichlet(np.ones(DOMAINS), count)
    names = [f"d{j:02d}" for j in range(DOMAINS)]
    return [Mixture(dict(zip(names, row.tolist(), strict=True))) for row in shares]


def specs_of(
    sizes: dict[str, Size], per_param: Sequence[int], count: int = MIXTURES
) -> list[RunSpec]:
    """Every mixture at every size, with horizons of so many tokens per parameter."""
    specs = []
    for name, size in sizes.items():
        step, params = size.recipe.tokens_per_step, size.config.num_params
        horizons = tuple(round(ratio * params / step) * step for ratio in per_param)
        specs += [
            RunSpec(mixture, f"m{i}", SWARM, name, params, horizons, 0, "paper")
            for i, mixture in enumerate(mixtures(count))
        ]
    return specs


def finish_seconds(work: Sequence[float], gpus: int) -> float:
    """When the last of these (seconds of one GPU each) ends, if each free GPU takes the next."""
    free = [0.0] * gpus
    for seconds in work:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def paper(folder: str) -> str:
    """What the swarm costs, if a GPU reached the assumed shares of its peak."""
    parts = [f"{MIXTURES} mixtures at each size, vocabulary {VOCAB_SIZE:,}, bf16."]
    waits = []
    for title, per_param in TOKENS_PER_PARAM.items():
        sizes = {name: named(name) for name in SIZES}
        specs = specs_of(sizes, per_param)
        swarm = Swarm("", sizes, folder, Hardware(device="cuda"))
        rows, total = [], 0.0
        for name, size in sizes.items():
            spec = next(spec for spec in specs if spec.size == name)
            flops = swarm.flops([spec])
            cosine = replace(size, recipe=replace(size.recipe, schedule="cosine"))
            apart = replace(swarm, sizes={name: cosine}).flops([spec])
            evaluated = len(per_param) * TARGETS * size.recipe.evaluation_tokens / 3
            steps = swarm.steps([spec]) * size.recipe.tokens_per_step
            hours = [MIXTURES * flops / PEAK_FLOPS / share / 3600 for share in UTILISATIONS]
            total += MIXTURES * flops
            rows.append(
                [
                    name,
                    f"{size.config.num_params / 1e6:.1f}",
                    f"{spec.horizon_tokens[-1] / 1e9:.2f}",
                ]
                + [f"{flops:.1e}", f"{apart / flops:.2f}", f"{evaluated / steps:.1%}"]
                + [f"{each:,.0f}" for each in hours]
            )
        hours = [total / PEAK_FLOPS / share / 3600 for share in UTILISATIONS]
        rows.append(["all", "", "", f"{total:.1e}", "", "", *(f"{each:,.0f}" for each in hours)])
        columns = ["size", "M parameters", "B tokens a run", "FLOPs a run", "cosine / wsd"]
        columns += [f"evaluation of {TARGETS} targets"]
        columns += [f"GPU h at {share:.0%}" for share in UTILISATIONS]
        of = ", ".join(map(str, per_param))
        parts += [f"### {title} (horizons at {of})", markdown(columns, rows)]
        for gpus in GPUS:
            stacks = swarm.unfinished(specs, workers=gpus)
            work = [swarm.flops(stack) / PEAK_FLOPS for stack in stacks]
            seconds, even = finish_seconds(work, gpus), sum(work) / gpus
            worse = finish_seconds(work[::-1], gpus)
            days = [seconds / share / 86400 for share in UTILISATIONS]
            row = [short(each) for each in days]
            row += [f"{1 - even / seconds:.1%}", f"{1 - even / worse:.1%}"]
            waits.append([title, gpus, len(stacks), *row])
    columns = ["tokens", "GPUs", "stacks", *(f"days at {share:.0%}" for share in UTILISATIONS)]
    columns += ["GPUs idle at the end", "if the cheapest began"]
    parts += ["### Wall clock", markdown(columns, waits)]
    return "\n\n".join(parts)


def least(function: Callable[..., object], *arguments: Any, tries: int = 5) -> float:
    """Least seconds of a call."""
    found = []
    for _ in range(tries):
        started = time.perf_counter()
        function(*arguments)
        found.append(time.perf_counter() - started)
    return min(found)


def once(function: Callable[..., object], *arguments: Any) -> float:
    return least(function, *arguments, tries=1)


def short(value: float) -> str:
    """Two figures, or a whole number."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"


def fill(store: RunStore, specs: Sequence[RunSpec], heartbeats: int) -> None:
    """A run folder half-way: results of every second run, and living workers elsewhere."""
    rng = np.random.default_rng(1)
    for spec in specs[::2]:
        values = rng.uniform(2, 4, (len(spec.horizon_tokens), TARGETS)).round(6).tolist()
        targets = [{f"loss/t{t:02d}": v for t, v in enumerate(row)} for row in values]
        result = {**vars(RunResult(DONE)), "targets": targets}
        text = json.dumps({"spec": spec.to_dict(), "result": result})
        store.storage.write(f"{spec.run_id}/run.json", text.encode(), sync=False)
    for number, run in enumerate(specs[1::2][:heartbeats]):
        work = WorkStatus((RunStatus(run.run_id, run.label, run.size, 2.5),), 5, 10, 1e5)
        beat = Heartbeat(f"w{number}", "elsewhere", "", 1, "", 1, 60, work)
        name = f"workers/{beat.worker}.json"
        store.storage.write(name, json.dumps(asdict(beat)).encode(), sync=False)


def driver(folder: Path) -> list[list[str]]:
    """Folders of 2,500 and 25,000 runs, half done, 512 workers."""
    sizes = {name: named(name) for name in SIZES}
    found: dict[str, list[str]] = {}
    for factor in (1, 10):
        specs = specs_of(sizes, (5, 10, 20), MIXTURES * factor)
        swarm = Swarm("", sizes, str(folder / f"runs-{factor}"), Hardware(device="cuda"))
        watch, store = Watch(swarm.store), swarm.store
        fill(store, specs, WORKERS)
        names = [f"d{j:02d}" for j in range(DOMAINS)]
        done = specs[::2]
        cut = functools.partial(swarm.unfinished, specs, workers=WORKERS)
        table, file = store.table(done, names), folder / "runs.csv"
        for what, seconds in {
            "a look: which runs have results": least(store.finished),
            f"a look: heartbeats of {WORKERS} workers": least(watch.heartbeats),
            "begin: cut into stacks": once(cut),
            "begin: write swarm.json": once(write_swarm, swarm, specs),
            "`mixlaw work`: read swarm.json": once(read_swarm, swarm.runs),
            "table: gather the done half": once(store.table, done, names),
            "table: write runs.csv": once(table.write, file),
            "table: read runs.csv": once(RunTable.read, file),
        }.items():
            found.setdefault(what, []).append(f"{short(seconds)} s")
        described = Path(swarm.runs, SWARM_FILE).stat().st_size
        found.setdefault("size of swarm.json", []).append(f"{described / 1e6:.0f} MB")
        found.setdefault("size of runs.csv", []).append(f"{file.stat().st_size / 1e6:.0f} MB")
    return [[what, *values] for what, values in found.items()]


def claims(folder: Path) -> list[list[str]]:
    """One process against the store; each run is another."""
    store, runs = RunStore(folder / "claims"), [f"{number:024x}" for number in range(1000)]
    line = [
        {"step": 10, "horizon": None, "tokens": 100, "loss": 2.5, "rate": 1.0, "grad_norm": 1.0}
    ]

    def each(function: Callable[..., object], *arguments: Any) -> None:
        for run in runs:
            function(run, *arguments)

    with Worker(store) as worker:
        claim, hold = once(worker.claim, runs), once(each, worker.holds)
        append, release = once(each, store.append_metrics, line), once(worker.release, runs)
    found = {"claims": claim, "looks whether it is still held": hold}
    found |= {"appends to metrics.jsonl": append, "releases": release}
    return [[what, f"{len(runs) / seconds:,.0f}"] for what, seconds in found.items()]


def checkpoints(folder: Path) -> list[list[str]]:
    rows: list[list[str]] = []
    store, numbers = RunStore(folder / "checkpoints"), itertools.count(1)

    def save(name: str, tensors: dict[str, torch.Tensor]) -> None:
        with store.save_checkpoint(name, next(numbers)) as path:
            save_checkpoint(path, tensors, {"trunk_step": 1})

    def load(name: str) -> None:
        with store.read_checkpoint(name, store.checkpoints(name)[0]) as path:
            load_checkpoint(path, str(path))

    for name, vocab_size, tries in (
        ("150k", 2048, 20),
        ("5M", VOCAB_SIZE, 3),
        ("15M", VOCAB_SIZE, 3),
    ):
        size = named(name, vocab_size=vocab_size)
        tensors = TrainState.fresh(size, [0], "cpu").member("trunk", 0)
        megabytes = sum(t.numel() * t.element_size() for t in tensors.values()) / 1e6
        saving, loading = least(save, name, tensors, tries=tries), least(load, name, tries=tries)
        rows.append(
            [name, f"{vocab_size:,}", f"{megabytes:,.0f}", short(1 / saving)]
            + [f"{megabytes / each:,.0f}" for each in (saving, loading)]
        )
        store.delete_checkpoints(name)
    return rows


def sampler() -> list[list[str]]:
    """Drawn in the chunks in which the feed draws them, late in a run."""
    streams, rows = [np.zeros(1_000_000, dtype=np.uint16) for _ in range(DOMAINS)], []
    for name, vocab_size in (("500k", 2048), ("15M", VOCAB_SIZE)):
        size = named(name, vocab_size=vocab_size)
        recipe = size.recipe
        for members in (1, 8, 64):
            drawn = BatchSampler(
                streams, sequence_length=recipe.sequence_length, batch_size=recipe.batch_size
            )
            shares = np.array([list(mixture.values()) for mixture in mixtures(members)])
            chunk = max(
                1, min(MAX_CHUNK_STEPS, CHUNK_BYTES // (8 * members * recipe.tokens_per_step))
            )
            steps = itertools.count(LATE_STEP, chunk)

            def draw(drawn=drawn, steps=steps, chunk=chunk, shares=shares) -> None:
                drawn.batches(next(steps), chunk, shares)

            jump, seconds = once(draw), least(draw, tries=20) / chunk
            tokens = members * recipe.tokens_per_step
            flops = size.config.flops_per_token(recipe.sequence_length) * tokens
            row = [f"{recipe.batch_size} x {recipe.sequence_length}", str(members)]
            row += [short(seconds * 1e3), short(tokens / seconds / 1e6)]
            row += [short(flops / PEAK_FLOPS / share * 1e3) for share in UTILISATIONS]
            rows.append([name, *row, f"{jump * 1e3:.0f}"])
    return rows


def corpus(folder: Path) -> list[list[str]]:
    """100 domains of ready token files."""
    sources = []
    for number in range(DOMAINS):
        files = [folder / f"tokens-{number}-{split}.npy" for split in ("train", "valid")]
        for file in files:
            file.write_bytes(np.zeros(100_000, dtype="<u2").tobytes())
        train, valid = ((str(file),) for file in files)
        source = DomainSource(name=f"d{number:02d}", token_files=train, validation_paths=valid)
        sources.append(source)
    tokenizer = TokenizerSpec("ids", VOCAB_SIZE, None)
    root = folder / "corpus"
    build_corpus(sources, root, tokenizer=tokenizer, sequence_length=512, seed=0)
    opened = load_corpus(root)
    names = [domain.name for domain in opened.domains]
    rows = {
        "open it, as every stack does": least(load_corpus, root),
        "map the training tokens": least(lambda: list(map(opened.train_tokens, names))),
    }
    return [[what, short(seconds)] for what, seconds in rows.items()]


def core() -> list[list[str]]:
    """What one core does, by the gradients written by hand."""
    rows: list[list[str]] = []
    torch.set_num_threads(1)
    for name in ("150k", "1M"):
        for precision in ("float32", "bf16"):
            size = named(name, vocab_size=2048, precision=precision)
            recipe, step = size.recipe, MemberStep(size)
            state = TrainState.fresh(size, [0], "cpu")
            shape = (1, recipe.batch_size, recipe.sequence_length + 1)
            tokens = torch.randint(0, 2048, shape)
            seconds = least(step, state, tokens, 1e-3, tries=40)
            flops = size.config.flops_per_token(recipe.sequence_length) * recipe.tokens_per_step
            run = 20 * size.config.num_params / recipe.tokens_per_step * seconds
            rates = [f"{recipe.tokens_per_step / seconds:,.0f}", f"{flops / seconds / 1e9:.0f}"]
            rows.append([name, precision, *rates, f"{MIXTURES * run / 3600:,.1f}"])
    return rows


def main() -> None:
    shares = ", ".join(f"{share:.0%}" for share in UTILISATIONS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parts = [
            "## On paper",
            f"ASSUMED, not measured: {shares} of the {PEAK_FLOPS / 1e12:.0f} TFLOP/s that the "
            "maker states for dense bf16 on an H100, the same at all sizes; no GPU could be had.",
            paper(str(folder / "none")),
            "## Measured on this machine, on its local disk, beside other work",
            f"### Driver, folder, table: {DOMAINS} domains, {TARGETS} targets, 3 horizons",
            markdown(["run folder, half done", "2,500 runs", "25,000 runs"], driver(folder)),
            "### One worker and the store",
            markdown(["", "runs per second"], claims(folder)),
            "### Checkpoints of one run (checksum, synced)",
            markdown(CHECKPOINT_COLUMNS, checkpoints(folder)),
            f"### Sampler: {DOMAINS} domains, at step {LATE_STEP:,}",
            markdown(SAMPLER_COLUMNS, sampler()),
            f"### Corpus of {DOMAINS} domains",
            markdown(["", "seconds"], corpus(folder)),
            "### One core: vocabulary 2,048, one member",
            markdown(CORE_COLUMNS, core()),
        ]
    publish("scale", "Scale", "python -m benchmarks.scale", "\n\n".join(parts))


if __name__ == "__main__":
    main()
