"""Pools against what they are for: a proxy that repeats each domain as the target run will."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mixlaw.design.repetition import matched_pools
from mixlaw.errors import DesignError
from mixlaw.mixture import Domain, Mixture

LENGTH = 16
PLENTY = 10**12


def pools_of(available, *, proxy, target, on_disk=None, length=LENGTH):
    """Pools of domains named a, b, ... with these unique tokens in the target run."""
    names = "abcdefgh"[: len(available)]
    held = (
        dict.fromkeys(names, PLENTY) if on_disk is None else dict(zip(names, on_disk, strict=True))
    )
    return matched_pools(
        [Domain(*each) for each in zip(names, available, strict=True)],
        proxy_tokens=proxy,
        target_tokens=target,
        sequence_length=length,
        tokens_on_disk=held,
    )


def test_a_pool_shrinks_with_the_run():
    assert pools_of([8_000, 800_000], proxy=16_000, target=1_600_000, length=4) == {
        "a": 80,
        "b": 8_000,
    }


@given(
    st.lists(st.integers(10_000, 10**9), min_size=1, max_size=6),
    st.integers(10_000, 10**9),
    st.floats(0.01, 1),
    st.integers(0, 10**6),
)
def test_proxies_repeat_every_domain_as_the_target_does(available, target, scale, seed):
    proxy = max(1, round(target * scale))
    assume(min(available) * proxy >= LENGTH * target)  # less is refused
    pools = pools_of(available, proxy=proxy, target=target)
    mixture = Mixture.from_array(
        list(pools), np.random.default_rng(seed).dirichlet([0.5] * len(pools))
    )
    there = mixture.epochs(target, [Domain(*e) for e in zip(pools, available, strict=True)])
    here = mixture.epochs(proxy, [Domain(*each) for each in pools.items()])
    for name, pool in pools.items():
        assert pool % LENGTH == 0
        assert here[name] == pytest.approx(there[name], rel=LENGTH / pool / 2 * 1.001)


def test_the_target_itself_draws_from_all_that_it_has():
    assert pools_of([3_200, 48_000], proxy=9_600, target=9_600) == {"a": 3_200, "b": 48_000}


def test_of_text_that_nobody_repeats_what_is_here_will_do():
    # A sequence needs the token after its last, so 4,001 tokens are 250 sequences.
    assert pools_of([10**9], proxy=3_200, target=10**6, on_disk=[4_001]) == {"a": 4_000}
    with pytest.raises(DesignError, match="this disk holds 3,000"):
        pools_of([10**9], proxy=3_200, target=10**6, on_disk=[3_000])


def test_the_last_sequence_of_a_whole_corpus_may_lack_its_next_token():
    assert pools_of([3_200], proxy=9_600, target=9_600, on_disk=[3_200]) == {"a": 3_184}


def test_a_disk_with_less_than_the_pool_is_refused():
    message = (
        r"'b' has 50,000 tokens for a target run of 100,000, so a run of 10,000 must draw from "
        r"5,000; this disk holds 4,900, and would be repeated more often.*add text"
    )
    with pytest.raises(DesignError, match=message):
        pools_of([50_000, 50_000], proxy=10_000, target=100_000, on_disk=[9_000, 4_900])


def test_a_pool_of_less_than_one_sequence_is_refused():
    message = r"'a' has 1,000 .* must draw from 10, less than one sequence of 16; train .* longer"
    with pytest.raises(DesignError, match=message):
        pools_of([1_000], proxy=1_000, target=100_000)


def test_what_is_unknown_of_the_target_is_asked_for():
    with pytest.raises(DesignError, match=r"set target\.train_tokens"):
        pools_of([1_000], proxy=1_000, target=None)
    with pytest.raises(DesignError, match=r"available_tokens of \['b'\] are unknown"):
        pools_of([1_000, None], proxy=1_000, target=2_000)
