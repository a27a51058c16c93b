"""UniMax against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlaw.errors import InfeasibleError, MixtureError
from mixlaw.mixture import Domain
from mixlaw.optimize.baselines import unimax

TOKENS = st.lists(st.integers(1, 10**9), min_size=1, max_size=8)


@given(TOKENS, st.floats(1e3, 1e10), st.floats(0.5, 8))
def test_unimax_is_uniform_but_for_the_caps(tokens, train_tokens, max_epochs):
    domains = [Domain(f"d{j}", count) for j, count in enumerate(tokens)]
    caps = max_epochs * np.array(tokens) / train_tokens
    if caps.sum() < 1 - 1e-9:
        with pytest.raises(InfeasibleError, match="raise max_epochs or train on fewer tokens"):
            unimax(domains, train_tokens, max_epochs)
        return
    shares = unimax(domains, train_tokens, max_epochs).array([d.name for d in domains])
    # Its definition: min(cap, level) with one level for all that are not at their cap.
    assert (shares <= caps * (1 + 1e-6) + 1e-9).all()
    free = shares < caps * (1 - 1e-6)
    if free.any():
        level = shares[free].max()
        np.testing.assert_allclose(shares, np.minimum(caps, level), rtol=1e-6, atol=1e-9)


def test_unimax_by_hand():
    domains = [Domain("small", 10), Domain("large", 1000), Domain("medium", 100)]
    mixture = unimax(domains, 400, 2)
    assert dict(mixture) == pytest.approx({"small": 0.05, "large": 0.475, "medium": 0.475})
    assert list(mixture) == ["small", "large", "medium"]


def test_unimax_needs_counts_and_a_cap():
    with pytest.raises(MixtureError, match=r"unknown for \['web'\]"):
        unimax([Domain("web")], 100, 4)
    with pytest.raises(MixtureError, match="max_epochs is 0"):
        unimax([Domain("web", 100)], 100, 0)
