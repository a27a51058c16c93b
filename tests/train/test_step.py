"""One step, two ways: by autograd and by hand, held to plain definitions and to each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from mixlaw.train.byhand import MemberGradients, MemberStep  # noqa: E402
from mixlaw.train.devices import compiled_losses  # noqa: E402
from mixlaw.train.model import losses  # noqa: E402
from mixlaw.train.recipe import ModelConfig, Recipe, Size  # noqa: E402
from mixlaw.train.state import TrainState  # noqa: E402
from mixlaw.train.step import StackStep  # noqa: E402

RECIPE = Recipe(0.01, batch_size=3, sequence_length=12, precision="float64")
SIZES = [
    Size(ModelConfig(40, 32, 2), RECIPE),
    Size(ModelConfig(40, 32, 1, 8, 2), RECIPE),
    Size(ModelConfig(23, 64, 3, 32, 3), RECIPE),
    Size(ModelConfig(40, 32, 0), RECIPE),
]


def state_of(size: Size, members: int = 3) -> TrainState:
    """No matrix left at zero."""
    state = TrainState.fresh(size, list(range(members)), "cpu")
    generator = torch.Generator().manual_seed(5)
    for weight in state.parameters.values():
        weight += 0.05 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return state


def tokens(size: Size, members: int = 3, seed: int = 0):
    shape = (members, size.recipe.batch_size, size.recipe.sequence_length + 1)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, size.config.vocab_size, shape, generator=generator)


@pytest.mark.parametrize("size", SIZES)
def test_gradients_by_hand_are_those_of_autograd(size):
    state, sequences = state_of(size, 1), tokens(size, 1)
    leaves = {k: v.clone().requires_grad_() for k, v in state.parameters.items()}
    expected = losses(size.config, leaves, sequences)
    grads = torch.autograd.grad(expected.sum(), list(leaves.values()))
    found = {k: torch.full_like(v[0], float("nan")) for k, v in leaves.items()}
    weights = {k: v[0] for k, v in state.parameters.items()}
    by_hand = MemberGradients(size)
    for _ in range(2):  # nothing is left in the workspace from the time before
        with torch.no_grad():
            loss = by_hand(weights, found, sequences[0])
        torch.testing.assert_close(loss, expected[0].detach(), rtol=1e-12, atol=0)
        for mine, theirs in zip(found.values(), grads, strict=True):
            torch.testing.assert_close(mine, theirs[0], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("step", [MemberStep, StackStep])
@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_a_step_is_clipped_adamw_as_published(step, clip):
    """Against torch.optim.AdamW and clip_grad_norm_, member by member."""
    size = replace(SIZES[0], recipe=replace(RECIPE, clip=clip))
    state, advance = state_of(size), step(size)
    plain = [
        {k: v[m].clone().requires_grad_() for k, v in state.parameters.items()} for m in range(3)
    ]
    optimizers = [
        torch.optim.AdamW(p.values(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.1) for p in plain
    ]
    for i in range(4):
        sequences = tokens(size, seed=i)
        found, norms = advance(state, sequences, 0.01)
        for m, (parameters, optimizer) in enumerate(zip(plain, optimizers, strict=True)):
            stacked = {k: v[None] for k, v in parameters.items()}
            loss = losses(size.config, stacked, sequences[m : m + 1]).sum()
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
            optimizer.step()
            torch.testing.assert_close(found[m], loss.detach(), rtol=1e-9, atol=0)
            torch.testing.assert_close(norms[m], norm, rtol=1e-8, atol=0)
    for m, parameters in enumerate(plain):
        for name, weight in parameters.items():
            ours = state.parameters[name][m]
            torch.testing.assert_close(ours, weight.detach(), rtol=1e-5, atol=1e-7)
    assert state.step == 4


@pytest.mark.parametrize(("precision", "rtol"), [("float32", 1e-4), ("bf16", 3e-2)])
def test_the_two_ways_train_alike(precision, rtol):
    size = replace(SIZES[0], recipe=replace(RECIPE, precision=precision))
    states = state_of(size), state_of(size)
    steps = MemberStep(size), StackStep(size)
    for i in range(30):
        found = [
            step(state, tokens(size, seed=i % 3), 0.003)[0]
            for step, state in zip(steps, states, strict=True)
        ]
    torch.testing.assert_close(*found, rtol=rtol, atol=0)


def test_a_member_that_is_lost_harms_no_other():
    size = SIZES[0]
    expected, state = state_of(size), state_of(size)
    state.parameters["0.up"][1] = float("nan")
    for step in (MemberStep(size), StackStep(size)):
        step(expected, tokens(size), 0.01)
        loss, norm = step(state, tokens(size), 0.01)
        assert torch.isnan(loss).tolist() == torch.isnan(norm).tolist() == [False, True, False]
        for name, weight in expected.parameters.items():
            assert torch.equal(state.parameters[name][[0, 2]], weight[[0, 2]])


@pytest.mark.parametrize("step", [MemberStep, StackStep])
def test_clipping_is_per_member(step):
    """A member with huge gradients does not change how another is clipped."""
    size = SIZES[0]
    state, alone = state_of(size, 2), state_of(size, 2)
    state.parameters["embedding"][1] *= 50
    sequences = tokens(size, 2)
    step(size)(state, sequences, 0.1)
    step(size)(alone, sequences, 0.1)
    for name, weight in alone.parameters.items():
        assert torch.equal(state.parameters[name][0], weight[0])


def test_a_batch_in_parts_is_the_same_batch():
    size = SIZES[0]
    whole, parts = state_of(size), state_of(size)
    one = StackStep(size)(whole, tokens(size), 0.1)
    two = StackStep(size, sequences_at_once=2)(parts, tokens(size), 0.1)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)
    for name, weight in whole.parameters.items():
        torch.testing.assert_close(parts.parameters[name], weight, rtol=1e-6, atol=1e-9)


def test_products_in_bf16_leave_the_machine_as_it_was():
    size = replace(SIZES[0], recipe=replace(RECIPE, precision="bf16"))
    before = torch.backends.mkldnn.matmul.fp32_precision
    MemberStep(size)(state_of(size), tokens(size), 0.01)
    assert torch.backends.mkldnn.matmul.fp32_precision == before


# PyTorch's own deprecations, met when its compiler is imported and at work.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_is_the_same_model():
    size = Size(ModelConfig(40, 32, 1), RECIPE)
    one, two = state_of(size), state_of(size)
    steps = StackStep(size, compiled_losses()), StackStep(size)
    for i in range(3):
        found = steps[0](one, tokens(size, seed=i), 0.01)
        expected = steps[1](two, tokens(size, seed=i), 0.01)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)
