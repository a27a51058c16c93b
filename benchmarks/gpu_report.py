"""The tables of `benchmarks.train_gpu`, from whatever has been measured so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.peers import Shape
from benchmarks.roofline import DENSE_BF16_FLOPS, Ceilings, floor, flops_per_token
from benchmarks.table import machine, markdown

TOLERANCE = {"float32": 1e-3, "bf16": 2e-2}
"""Largest relative difference of a loss; float32 products are TF32 on a GPU."""

FLOOR_ENDS = ("logits", "measured / floor")

WAITING = {"failed": "not measured yet"}

Result = Mapping[str, Any]


def report(data: Mapping[str, Any]) -> str:
    """Markdown. Args: data: see `train_gpu.write`."""
    shapes = {name: Shape(**shape) for name, shape in data["shapes"].items()}
    found = [(entry["task"], entry["result"]) for entry in data["found"]]

    def result(kind: str, size: str = "", way: Mapping | None = None) -> Result:
        wanted = {"kind": kind, "size": size, "way": way}
        return next((result for task, result in found if task == wanted), WAITING)

    smallest = next(iter(shapes))
    trained = {
        size: {name: result("training", size, way) for name, way in data["ways"].items()}
        for size in shapes
    }
    stacks = [(way["members"], result("training", smallest, way)) for way in data["sweep"]]
    ceilings = result("ceilings")
    parts = [
        "# Training on a GPU",
        f"`python -m benchmarks.train_gpu FOLDER` on {machine()}",
        _ceilings(ceilings),
        "## Are the losses right?",
        _correctness(result("correctness", smallest)),
        "## Training tokens per second",
        "Products in bfloat16, weights and moments in float32; every way with its own data "
        "pipeline and gradient clipping. Medians of windows between synchronisations; compilation "
        "and warm-up stay out. In brackets the models that train together.",
        markdown(
            ["size", *data["ways"]],
            [[size, *map(_rate, row.values())] for size, row in trained.items()],
        ),
        *([] if "failed" in ceilings else _against(ceilings, shapes, trained)),
        f"## Stacks at {smallest}, not compiled",
        markdown(
            ["members", "tokens/s", "slowest to fastest window", "peak memory, GB"],
            [[members, *_sweep_row(result)] for members, result in stacks],
        ),
        "## Shapes",
        markdown(
            ["size", "parameters", "with embedding", "width, layers", "sequences x tokens"],
            [[name, *_shape_row(shape)] for name, shape in shapes.items()],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _against(
    measured: Result, shapes: Mapping[str, Shape], trained: Mapping[str, Mapping[str, Result]]
) -> list[str]:
    """What was reached of what the device can do."""
    ceilings = Ceilings(measured["flops"], measured["bytes"])
    ways = next(iter(trained.values()))
    return [
        "## Share of the measured product rate",
        "Model FLOPs (6 per weight, output matrix included, and causal attention; recomputation "
        "not counted) per second over the measured rate of a large bfloat16 product.",
        markdown(
            ["size", *ways],
            [[size, *_shares(shapes[size], row, ceilings)] for size, row in trained.items()],
        ),
        "## Floor of a step",
        "Milliseconds of one step of one model at the measured ceilings. State: parameters, "
        "gradients and two moments, float32, each read and written once. Activations: what a "
        "layer's products and attention write, bfloat16, each written once and read twice, its "
        "gradient written and read. Bound by the larger of compute and memory (state + "
        "activations), the floor. Logits need not be written; their column says what writing and "
        "reading them and their gradient once would add. Last column: mixlaw's best over the "
        "floor.",
        markdown(
            ["size", "GFLOP/token", "compute", "state", "activations", "bound by", *FLOOR_ENDS],
            [[size, *_floor_row(shapes[size], row, ceilings)] for size, row in trained.items()],
        ),
    ]


def _ceilings(found: Result) -> str:
    if "failed" in found:
        return f"Ceilings: failed: {found['failed']}"
    known = (flops for part, flops in DENSE_BF16_FLOPS.items() if part in found["device"])
    stated = "".join(f" (its maker states {flops / 1e12:.0f})" for flops in known)
    return (
        f"{found['device']}. Ceilings, measured: {found['flops'] / 1e12:,.3g} TFLOP/s in a "
        f"bfloat16 product of random matrices{stated}, {found['bytes'] / 1e12:.3g} TB/s in a copy, "
        "bytes read and written."
    )


def _correctness(found: Result) -> str:
    if "failed" in found:
        return f"failed: {found['failed']}"
    rows = []
    for what, difference in found["differences"].items():
        allowed = TOLERANCE[what.partition(",")[0]]
        verdict = "yes" if difference <= allowed else "NO"
        rows.append([what, f"{difference:.1e}", f"{allowed:g}", verdict])
    table = markdown(["losses", "largest relative difference", "allowed", "holds"], rows)
    fell = "from {:.2f} to {:.2f}".format(*found["losses"])
    return f"{table}\n\nOver {found['steps']} steps, in which the mean loss fell {fell}."


def _rate(found: Result) -> str:
    if "failed" in found:
        return f"failed: {found['failed']}".replace("|", "/").replace("failed: not", "not")
    members = f" ({found['members']})" if found["members"] > 1 else ""
    return f"{found['tokens_per_second']:,.0f}{members}"


def _sweep_row(found: Result) -> list[str]:
    if "failed" in found:
        return [_rate(found), "", ""]
    spread = f"{found['slowest']:,.0f} to {found['fastest']:,.0f}"
    return [f"{found['tokens_per_second']:,.0f}", spread, f"{found['peak_bytes'] / 1e9:.1f}"]


def _shares(shape: Shape, row: Mapping[str, Result], ceilings: Ceilings) -> list[str]:
    scale = flops_per_token(shape) / ceilings.flops
    return [
        f"{f['tokens_per_second'] * scale:.1%}" if "failed" not in f else "" for f in row.values()
    ]


def _floor_row(shape: Shape, row: Mapping[str, Result], ceilings: Ceilings) -> list[str]:
    least = floor(shape, ceilings)
    times = [least.compute, least.state, least.activations, least.logits]
    compute, state, activations, logits = (f"{1e3 * seconds:.3g}" for seconds in times)
    ours = [
        found["tokens_per_second"]
        for name, found in row.items()
        if name.startswith("mixlaw") and "failed" not in found
    ]
    over = shape.tokens_per_step / max(ours) / least.seconds if ours else None
    return [
        f"{flops_per_token(shape) / 1e9:.3g}",
        *(compute, state, activations, least.bound, logits),
        "" if over is None else f"{over:.2f}",
    ]


def _shape_row(shape: Shape) -> list[str]:
    return [
        f"{shape.num_params / 1e6:,.2f}M",
        f"{(shape.num_params + shape.vocab_size * shape.width) / 1e6:,.1f}M",
        f"{shape.width}, {shape.num_layers}",
        f"{shape.batch_size} x {shape.sequence_length}",
    ]
