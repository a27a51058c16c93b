"""Training tokens per second: the stacked swarm, one proxy at a time, transformers.

All train the same shape (width, layers, heads, vocabulary, sequences of 64, batch of 8, float32,
AdamW, clipping at 1) and take turns within each round, so a busy machine slows them alike; ratios
are of medians over rounds. `transformers` is a Llama of the same non-embedding parameter count in
the standard loop (forward with labels, backward, clip_grad_norm_, AdamW.step), once with all cores,
as people run it, and once in one single-threaded process a core, as the swarm runs.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.table import markdown, publish
from mixlaw.train.loop import TrainState, advance
from mixlaw.train.recipe import ModelConfig, Recipe

SIZES = {"25k": (32, 2), "55k": (48, 2), "147k": (64, 3), "442k": (96, 4)}
STACK = 7
WORKERS = multiprocessing.cpu_count()
ROUNDS, SECONDS = 5, 2.0
VOCABULARY, RECIPE = 1024, Recipe()


def rate(step: Callable[[], int], seconds: float = SECONDS) -> float:
    """Tokens per second of a step that returns its tokens."""
    started, tokens = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        tokens += step()
    return tokens / (time.perf_counter() - started)


def ours(width: int, layers: int, members: int) -> Callable[[], int]:
    """One training step of a stack."""
    config = ModelConfig(VOCABULARY, width, layers, RECIPE.sequence_length)
    state = TrainState.fresh(config, [0] * members)
    shape = (members, RECIPE.batch_size, RECIPE.sequence_length + 1)
    sequences = torch.randint(0, VOCABULARY, shape)
    rates = torch.full((members,), 1e-3)

    def step() -> int:
        advance(state, config, RECIPE, sequences, rates)
        return members * RECIPE.tokens_per_step

    return step


def transformers_llama(width: int, layers: int) -> Callable[[], int]:
    """One step of the standard loop on a Llama of the same shape and parameter count."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=8 * width // 3,  # three matrices instead of two
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        max_position_embeddings=RECIPE.sequence_length,
        tie_word_embeddings=True,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    tokens = torch.randint(0, VOCABULARY, (RECIPE.batch_size, RECIPE.sequence_length))

    def step() -> int:
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return tokens.numel()

    return step


def _worker(make: Callable[..., Callable[[], int]], arguments: tuple, pipe) -> None:
    torch.set_num_threads(1)
    step = make(*arguments)
    step()
    pipe.send("ready")
    while pipe.recv():
        pipe.send(rate(step))


class PerCore:
    """A single-threaded process on each core, which train whenever asked."""

    def __init__(self, make: Callable[..., Callable[[], int]], *arguments: int):
        context = multiprocessing.get_context("spawn")
        self.pipes = []
        for _ in range(WORKERS):
            mine, theirs = context.Pipe()
            worker = context.Process(target=_worker, args=(make, arguments, theirs), daemon=True)
            worker.start()
            mine.recv()
            self.pipes.append(mine)

    def rate(self) -> float:
        for pipe in self.pipes:
            pipe.send(True)
        return sum(pipe.recv() for pipe in self.pipes)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(False)


def main() -> None:
    rows, ways = [], {}
    for name, (width, layers) in SIZES.items():
        torch.set_num_threads(WORKERS)
        shape = (width, layers)
        everywhere = [PerCore(ours, *shape, STACK), PerCore(ours, *shape, 1)]
        everywhere.append(PerCore(transformers_llama, *shape))
        one, theirs = ours(*shape, 1), transformers_llama(*shape)
        ways = {
            "swarm": everywhere[0].rate,
            "one per core": everywhere[1].rate,
            "one after another": lambda one=one: rate(one),
            "transformers": lambda theirs=theirs: rate(theirs),
            "transformers, one per core": everywhere[2].rate,
        }
        one(), theirs()
        seen: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, measure in ways.items():
                seen[way].append(measure())
        for processes in everywhere:
            processes.close()
        median = {way: statistics.median(found) for way, found in seen.items()}
        rows.append(
            [name]
            + [f"{median[way]:,.0f}" for way in ways]
            + [f"{median['swarm'] / median[way]:.2f}" for way in list(ways)[1:]]
        )
    names = [f"swarm ({WORKERS} x stack of {STACK})", *list(ways)[1:]]
    columns = ["size", *names, *(f"swarm / {name}" for name in names[1:])]
    body = "Training tokens per second, median of " + f"{ROUNDS} rounds.\n\n"
    publish(
        "throughput",
        "Training throughput",
        "python -m benchmarks.throughput",
        body + markdown(columns, rows),
    )


if __name__ == "__main__":
    main()
