"""The decoder against plain definitions."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from mixlaw.train import model  # noqa: E402
from mixlaw.train.model import (  # noqa: E402
    LinearCrossEntropy,
    initial_parameters,
    losses,
)
from mixlaw.train.recipe import ModelConfig  # noqa: E402

CONFIG = ModelConfig(vocab_size=50, width=32, num_layers=2)


def hidden_states(config, parameters, tokens):
    return model.hidden_states(config, parameters, tokens, torch.float32)


def random_parameters(seeds=(0, 1, 2)):
    generator = torch.Generator().manual_seed(5)
    parameters = initial_parameters(CONFIG, list(seeds))
    return {  # no matrix left at zero
        name: p + 0.05 * torch.randn(p.shape, generator=generator) for name, p in parameters.items()
    }


@pytest.mark.parametrize("logit_bytes", [1 << 21, 20 * 50 * 8 * 2, 7 * 50 * 8])
def test_linear_cross_entropy_equals_torch_with_gradients(monkeypatch, logit_bytes):
    """All at once, two members at a time, and a member in parts."""
    monkeypatch.setitem(model.LOGIT_BYTES, "cpu", logit_bytes)
    torch.manual_seed(0)
    hidden = torch.randn(3, 20, 8, dtype=torch.float64, requires_grad=True)
    embedding = torch.randn(3, 50, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 50, (3, 20))
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    ours = LinearCrossEntropy.apply(hidden, embedding, targets)
    logits = torch.bmm(hidden, embedding.transpose(1, 2))
    plain = torch.nn.functional.cross_entropy(
        logits.reshape(-1, 50), targets.reshape(-1), reduction="none"
    )
    plain = plain.view(3, -1).mean(1)
    torch.testing.assert_close(ours, plain)
    for mine, theirs in zip(
        torch.autograd.grad((ours * weights).sum(), [hidden, embedding]),
        torch.autograd.grad((plain * weights).sum(), [hidden, embedding]),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_members_exchange_nothing():
    parameters = random_parameters()
    tokens = torch.randint(0, 50, (3, 2, 12), generator=torch.Generator().manual_seed(1))
    together = hidden_states(CONFIG, parameters, tokens)
    for k in range(3):
        one = {name: p[k : k + 1] for name, p in parameters.items()}
        torch.testing.assert_close(hidden_states(CONFIG, one, tokens[k : k + 1])[0], together[k])


def test_the_future_is_not_seen():
    parameters = random_parameters()
    tokens = torch.randint(0, 50, (3, 1, 12), generator=torch.Generator().manual_seed(2))
    changed = tokens.clone()
    changed[..., 7:] = (changed[..., 7:] + 1) % 50
    before = hidden_states(CONFIG, parameters, tokens)
    after = hidden_states(CONFIG, parameters, changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_order_matters():
    """Without positions a bag of tokens would give the last token the same state."""
    parameters = random_parameters()
    tokens = torch.arange(12).expand(3, 1, 12)
    swapped = tokens.clone()
    swapped[..., [2, 5]] = tokens[..., [5, 2]]
    one, two = (hidden_states(CONFIG, parameters, t)[:, -1] for t in (tokens, swapped))
    assert not torch.allclose(one, two, atol=1e-4)


def test_num_params_counts_the_matrices():
    per_member = initial_parameters(CONFIG, [0])
    total = sum(p.numel() for name, p in per_member.items() if name != "embedding")
    assert CONFIG.num_params == total


def test_equal_seeds_start_equal_and_a_fresh_model_is_near_uniform():
    parameters = initial_parameters(CONFIG, [4, 4, 5])
    assert torch.equal(parameters["0.qkv"][0], parameters["0.qkv"][1])
    assert not torch.equal(parameters["0.qkv"][0], parameters["0.qkv"][2])
    sequences = torch.randint(0, 50, (3, 4, 13), generator=torch.Generator().manual_seed(3))
    found = losses(CONFIG, parameters, sequences)
    assert (found - torch.log(torch.tensor(50.0))).abs().max() < 0.2


@pytest.mark.parametrize(("head_width", "mlp_ratio"), [(16, 4), (8, 2), (32, 3)])
def test_other_heads_and_inner_widths_learn_too(head_width, mlp_ratio):
    config = ModelConfig(50, 32, 1, head_width, mlp_ratio)
    parameters = {k: v.requires_grad_() for k, v in initial_parameters(config, [0]).items()}
    sequences = torch.randint(0, 50, (1, 2, 13), generator=torch.Generator().manual_seed(3))
    before = losses(config, parameters, sequences).sum()
    grads = torch.autograd.grad(before, list(parameters.values()))
    stepped = {k: p - 0.1 * g for (k, p), g in zip(parameters.items(), grads, strict=True)}
    assert losses(config, stepped, sequences).sum() < before


def test_products_in_bf16_are_near():
    parameters = random_parameters()
    sequences = torch.randint(0, 50, (3, 4, 13), generator=torch.Generator().manual_seed(3))
    exact = losses(CONFIG, {k: v.double() for k, v in parameters.items()}, sequences)
    rounded = losses(CONFIG, parameters, sequences, torch.bfloat16)
    torch.testing.assert_close(rounded.double(), exact, rtol=5e-3, atol=0)
    assert rounded.dtype == torch.float32
