"""The training benchmarks count what they say they count, and run from end to end."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed")

ROOT = str(Path(__file__).parent.parent)
if ROOT not in sys.path:
    sys.path.append(ROOT)

from benchmarks import gpu_report, train_cpu, train_gpu  # noqa: E402
from benchmarks.peers import On, Shape, random_batch, write_tokens  # noqa: E402
from benchmarks.peers.huggingface import llama, llama_loop, non_embedding_params, trainer  # noqa: E402
from benchmarks.peers.nanogpt import GPT, nanogpt  # noqa: E402
from benchmarks.peers.ours import size_of, stack  # noqa: E402
from benchmarks.roofline import Ceilings, floor, flops_per_token  # noqa: E402

SHAPE = Shape(48, 2, 16, vocab_size=64, sequence_length=16, batch_size=2)


@pytest.fixture
def tokens(tmp_path) -> Path:
    return write_tokens(tmp_path / "tokens.bin", SHAPE, 4096)


def test_everyone_has_the_same_parameters():
    ours = size_of(SHAPE, "float32").config.num_params
    assert ours == SHAPE.num_params == 12 * 48**2 * 2
    norms = (2 * SHAPE.num_layers + 1) * SHAPE.width  # ours have no gains
    assert non_embedding_params(llama(SHAPE)) == ours + norms
    gpt = GPT(SHAPE)
    embeddings = (SHAPE.vocab_size + SHAPE.sequence_length) * SHAPE.width
    assert sum(p.numel() for p in gpt.parameters()) == ours + norms + embeddings


def test_targets_are_the_next_tokens():
    inputs, targets = random_batch(np.arange(1000), SHAPE, np.random.default_rng(0))
    assert inputs.shape == (2, 16)
    assert (targets == inputs + 1).all()


@pytest.mark.parametrize("way", ["ours", "trainer", "nanogpt", "transformers", "bfloat16"])
def test_a_way_trains_until_it_is_stopped(way, tokens):
    makers = {
        "ours": lambda: stack(SHAPE, 2, tokens, On()),
        "trainer": lambda: trainer(SHAPE, On()),
        "nanogpt": lambda: nanogpt(SHAPE, tokens, On()),
        "transformers": lambda: llama_loop(SHAPE, tokens, On()),
        "bfloat16": lambda: nanogpt(SHAPE, tokens, On(bfloat16=True)),
    }
    steps = []

    def on_step() -> bool:
        steps.append(time.perf_counter())
        return len(steps) < 12

    makers[way]()(on_step)
    assert len(steps) == 12


def test_a_window_counts_whole_steps_within_it(monkeypatch):
    times = iter([9.0, 10.0, 10.5, 11.0, 12.1])
    monkeypatch.setattr(train_cpu.time, "monotonic", lambda: next(times))
    window = train_cpu.Window(9.5, 12.0)
    assert [window() for _ in range(5)] == [True, True, True, True, False]
    assert window.rate(21).wall == pytest.approx(3 * 21 / 2.1)


def test_a_step_clock_leaves_warm_up_out(monkeypatch):
    now, slow = [0.0], train_gpu.WARM_STEPS + 1
    monkeypatch.setattr(train_gpu.time, "perf_counter", lambda: now[0])
    clock, steps = train_gpu.StepClock(1.0, lambda: None), 0
    while True:
        steps += 1
        now[0] += 100.0 if steps <= slow else 0.25
        if not clock():
            break
    assert clock.first_step_seconds == 100
    assert clock.step_seconds == [0.25] * train_gpu.WINDOWS
    assert steps == slow + train_gpu.PILOT_STEPS + 4 * train_gpu.WINDOWS


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the load is read from /proc")
def test_own_work_is_not_others_load():
    apart, together = train_cpu.Load([os.getpid()]), train_cpu.Load([])
    began = time.process_time()
    while time.process_time() - began < 0.3:
        pass
    seconds = time.monotonic() - apart.since
    assert (together.others() - apart.others()) * seconds > 0.2


def test_the_floor_of_a_step():
    shape = Shape(256, 2, 32, 50_432, 512, 16, mlp_ratio=2)
    weights = 2 * 8 * 256**2 + 50_432 * 256
    per_token = 6 * weights + 6 * 2 * 256 * 512
    assert flops_per_token(shape) == per_token
    least = floor(shape, Ceilings(flops=8e14, bytes=3e12))
    assert least.compute == pytest.approx(16 * 512 * per_token / 8e14)
    assert least.state == pytest.approx(32 * weights / 3e12)
    assert least.activations == pytest.approx(16 * 512 * 2 * 256 * 8 * 10 / 3e12)
    assert (least.bound, least.seconds) == ("compute", least.compute)


def test_one_failure_costs_one_cell(tmp_path):
    ways = {"nobody's": train_gpu.Way("nobody", False), "nanoGPT": train_gpu.Way("nanogpt", False)}
    tokens = write_tokens(tmp_path / "tokens.bin", train_gpu.TOYS["1M"], 4096)
    setting = train_gpu.Setting("cpu", train_gpu.TOYS, tokens, 0.001, "eager")
    server = train_gpu.Server(setting, time.monotonic() + 300)
    first, second = (server.ask(train_gpu.Task("training", "1M", way)) for way in ways.values())
    server.close()
    assert first == {"failed": "KeyError: 'nobody'"}
    assert second["tokens_per_second"] > 0
    late = train_gpu.Server(setting, time.monotonic() + 1)
    assert late.ask(train_gpu.Task("ceilings")) == {"failed": "not run: the minutes were over"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of its own compiler
def test_the_gpu_benchmark_runs_from_end_to_end(tmp_path, monkeypatch, capsys):
    # In this process and without the waits for others: the lines are the same.
    monkeypatch.setattr(train_gpu.Server, "ask", lambda self, task: _now(task, self.setting))
    monkeypatch.setattr(train_gpu, "WARM_STEPS", 1)
    train_gpu.main([str(tmp_path), "--cpu"])
    text = (tmp_path / "train-gpu.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.endswith(text + "\n")
    assert "failed" not in text
    assert "not measured" not in text
    assert "| NO |" not in text
    data = json.loads((tmp_path / "train-gpu.json").read_text(encoding="utf-8"))
    for entry in data["found"]:
        if entry["task"]["kind"] == "ceilings":
            entry["result"] = {"failed": "no reason"}
    assert "Ceilings: failed: no reason" in gpu_report.report(data)


def _now(task, setting):
    return train_gpu.KINDS[task.kind](task, setting)


def test_the_cpu_benchmark_measures_and_reports(tmp_path, monkeypatch):
    ways = {name: train_cpu.WAYS[name] for name in (train_cpu.OURS, "nanoGPT per core")}
    monkeypatch.setattr(train_cpu, "WAYS", ways)
    monkeypatch.setattr(train_cpu, "available_cores", lambda: 1)
    monkeypatch.setattr(train_cpu, "WARM_SECONDS", 0.05)
    monkeypatch.setattr(train_cpu, "QUIET_CORES", 99)
    found = train_cpu.measure(replace(SHAPE, vocab_size=100), tmp_path, 1, 0.1)
    assert found[train_cpu.OURS]["wall"] > 0
    ratio = found[train_cpu.OURS]["wall"] / found["nanoGPT per core"]["wall"]
    assert f"| 50k | {ratio:.2f} |" in train_cpu.report({"50k": found}, 1, 0.1)


def test_the_end_of_a_swarm_is_that_of_its_last_stack():
    from benchmarks.scale import finish_seconds

    assert finish_seconds([3, 2, 2], 2) == 4
    assert finish_seconds([3, 2, 2], 8) == 3
