"""The dial: what names stand for."""

from __future__ import annotations

import pytest

from mixlaw.train.recipe import ModelConfig, non_embedding_params
from mixlaw.train.sizes import NAMED_SIZES, default_learning_rate

PUBLISHED = {  # non-embedding parameters, of the models of Data Mixing Laws (arXiv 2403.16952)
    "pythia-70m": 18_915_328,
    "pythia-160m": 85_056_000,
    "pythia-305m": 201_541_632,
    "pythia-410m": 302_311_424,
    "pythia-1b": 805_736_448,
}


@pytest.mark.parametrize("name", NAMED_SIZES)
def test_every_size_is_whole(name):
    size = NAMED_SIZES[name]
    assert size.width % size.head_width == 0
    assert size.head_width % 8 == 0  # what fused attention takes
    assert size.batch_size & (size.batch_size - 1) == 0  # divides among processes


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_pythias_sizes_are_theirs_but_for_biases_and_gains(name, published):
    size = NAMED_SIZES[name]
    ours = non_embedding_params(size.width, size.layers, size.mlp_ratio)
    assert ours == pytest.approx(published, rel=3e-3)
    assert ours < published


def test_plain_names_are_counts():
    unit = {"k": 1e3, "M": 1e6}
    for name, size in NAMED_SIZES.items():
        count = non_embedding_params(size.width, size.layers, size.mlp_ratio)
        if name[-1] in unit:
            assert count == pytest.approx(float(name[:-1]) * unit[name[-1]], rel=0.13)
    regmix = NAMED_SIZES["regmix-1m"]
    assert non_embedding_params(regmix.width, regmix.layers, regmix.mlp_ratio) == 1 << 20


def test_sizes_grow_and_rates_fall():
    plain = [size for name, size in NAMED_SIZES.items() if name[-1] in "kM"]
    counts = [non_embedding_params(s.width, s.layers, s.mlp_ratio) for s in plain]
    assert counts == sorted(counts)
    tokens = [s.batch_size * s.sequence_length for s in plain]
    assert tokens == sorted(tokens)
    rates = [s.learning_rate or default_learning_rate(s.width) for s in plain]
    assert rates == sorted(rates, reverse=True)


def test_flops_per_token_count_every_matrix_once():
    config = ModelConfig(vocab_size=100, width=32, num_layers=2)
    weights = sum(a * b for a, b in config.shapes.values())
    # Causal attention: scores and sums over T / 2 positions, forward and twice backward.
    attention = 2 * (2 * 2 * 32) * 64 / 2 * 3
    assert config.flops_per_token(64) == 6 * weights + attention
