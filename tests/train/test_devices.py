"""What fits on a device, and that nothing of a step is left on another."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from mixlaw.errors import TrainError  # noqa: E402
from mixlaw.train import devices, model  # noqa: E402
from mixlaw.train.byhand import MemberStep  # noqa: E402
from mixlaw.train.recipe import ModelConfig, Recipe, Size  # noqa: E402
from mixlaw.train.sizes import NAMED_SIZES  # noqa: E402
from mixlaw.train.state import TrainState  # noqa: E402
from mixlaw.train.step import StackStep  # noqa: E402

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
GIB = 1 << 30


def size(name: str, precision: str = "bf16", vocab_size: int = 50_432) -> Size:
    named = NAMED_SIZES[name]
    config = ModelConfig(vocab_size, named.width, named.layers, named.head_width, named.mlp_ratio)
    recipe = Recipe(
        1e-3, named.batch_size, named.sequence_length, precision=precision, warmup_steps=10
    )
    return Size(config, recipe)


@pytest.mark.parametrize("precision", ["float32", "bf16", "float64"])
def test_one_step_makes_nothing_on_another_device(monkeypatch, precision):
    """On the device without content, which mixes with no other: a tensor that is left on the CPU is
    an error, as it would be on a GPU."""
    monkeypatch.setitem(model.LOGIT_BYTES, "meta", 1 << 16)
    small = replace(size("regmix-1m", precision, 512), recipe=Recipe(1e-3, precision=precision))
    state = TrainState.fresh(small, [0, 1, 2], "meta")
    tokens = torch.empty(3, 8, 65, device="meta", dtype=torch.int64)
    loss, norm = StackStep(small, sequences_at_once=4)(state, tokens, 0.01)
    assert loss.device.type == norm.device.type == "meta"
    assert loss.shape == norm.shape == (3,)


def test_more_memory_holds_more_and_a_large_model_goes_alone():
    found = [devices.members_at_once(size("regmix-1m"), CUDA, g * GIB) for g in (4, 16, 80)]
    assert found == sorted(found)
    assert found[0] >= 1
    assert found[-1] > 8
    assert devices.members_at_once(size("pythia-1b"), CUDA, 80 * GIB) == 1
    tiny = size("25k", vocab_size=1024)
    assert devices.members_at_once(tiny, CUDA, 80 * GIB) == devices.MOST_MEMBERS
    assert devices.members_at_once(size("pythia-1b"), CPU) == devices.CPU_STACK


@pytest.mark.parametrize("name", ["regmix-1m", "30M", "pythia-160m", "pythia-1b"])
def test_a_batch_that_does_not_fit_is_taken_in_parts(name):
    chosen = size(name)
    batch = chosen.recipe.batch_size
    few = devices.sequences_at_once(chosen, 1, CUDA, 40 * GIB)
    many = devices.sequences_at_once(chosen, 1, CUDA, 80 * GIB)
    assert 1 <= few <= many <= batch
    assert devices.sequences_at_once(chosen, 1, CUDA, GIB // 8) == 1
    assert devices.sequences_at_once(chosen, 1, CPU) == batch
    if few < batch:
        assert few * devices.activation_bytes(chosen) < 40 * GIB


@pytest.mark.parametrize(("width", "layers"), [(64, 2), (128, 4)])
@pytest.mark.parametrize("mlp_ratio", [2, 4])
def test_the_estimate_of_activations_holds_for_what_is_kept(width, layers, mlp_ratio):
    """Bytes that autograd keeps for the backward pass, counted."""
    config = ModelConfig(256, width, layers, 16, mlp_ratio)
    chosen = Size(config, Recipe(1e-3, batch_size=4, sequence_length=64))
    state = TrainState.fresh(chosen, [0], "cpu")
    weights = {w.untyped_storage().data_ptr() for w in state.parameters.values()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        StackStep(chosen)(state, torch.randint(0, 256, (1, 4, 65)), 1e-3)
    counted = sum(kept.values()) - 256 * width * 4  # the gradient of the embedding
    estimate = 4 * devices.activation_bytes(chosen)
    assert 0.8 * counted < estimate < 1.3 * counted


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.pick_device("auto") == CPU
    with pytest.raises(TrainError, match="no GPU here"):
        devices.pick_device("cuda")


def test_a_core_trains_by_hand_and_compiles_nothing():
    small = size("25k", "float32", 256)
    assert isinstance(devices.training_step(small, 8, CPU), MemberStep)
    with pytest.raises(TrainError, match="compile is for GPUs"):
        devices.training_step(small, 8, CPU, compiled=True)
