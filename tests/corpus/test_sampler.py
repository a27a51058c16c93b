import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.corpus.sampler import BatchSampler, _permute
from mixlaw.corpus.segments import Segments
from mixlaw.errors import CorpusError, MixtureError
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

LENGTH = 4
SIZES = (401, 201, 41, 9)
# The value tells domain and place, so that a batch can be traced back.
STREAMS = [1000 * j + np.arange(size, dtype=np.uint16) for j, size in enumerate(SIZES)]


def sampler(batch_size=8, **options):
    return BatchSampler(STREAMS, sequence_length=LENGTH, batch_size=batch_size, **options)


def run(sampler, steps, proportions):
    """Sequences (steps * B, L + 1) of one member."""
    mixture = proportions if isinstance(proportions, Segments) else np.atleast_2d(proportions)
    return np.concatenate([sampler.batch(step, mixture)[0] for step in range(steps)])


@st.composite
def mixtures(draw, most=4):
    """Proportions (K, 4) of 1 to `most` members; some are 0."""
    weights = st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any)
    rows = draw(st.lists(weights, min_size=1, max_size=most))
    return np.array([np.array(row) / sum(row) for row in rows])


@st.composite
def staged(draw, most=3):
    """Segments of 1 to `most` members, with boundaries within 60 steps."""
    first = draw(mixtures(most))
    steps = [0, *sorted(draw(st.sets(st.integers(1, 60), max_size=4)))]
    rows = [first, *(draw(mixtures(1)).repeat(len(first), axis=0) for _ in steps[1:])]
    return Segments(np.array(steps), np.stack(rows))


@settings(deadline=None)
@given(mixtures(), st.integers(0, 10_000), st.integers(-3, 3), st.integers(1, 100))
def test_batches_are_whole_windows_of_their_domains(proportions, step, seed, batch_size):
    batch = sampler(batch_size, seed=seed).batch(step, proportions)
    assert batch.shape == (len(proportions), batch_size, LENGTH + 1)
    assert batch.dtype == np.int64
    assert (np.diff(batch) == 1).all()
    assert (batch[..., 0] % 1000 % LENGTH == 0).all()
    for k, row in enumerate(proportions):
        assert set(np.unique(batch[k] // 1000)) <= set(np.flatnonzero(row))


@settings(max_examples=30, deadline=None)
@given(mixtures(), st.lists(st.integers(0, 300), min_size=1, max_size=8), st.integers(0, 5))
def test_a_batch_depends_on_seed_step_and_mixture_alone(proportions, steps, seed):
    used = sampler(seed=seed)
    for step in steps:  # in any order, with any history
        batch = used.batch(step, proportions)
        np.testing.assert_array_equal(batch, sampler(seed=seed).batch(step, proportions))
        for k in range(len(proportions)):  # and whoever else is in the stack
            alone = sampler(seed=seed).batch(step, proportions[k : k + 1])
            np.testing.assert_array_equal(batch[k], alone[0])


@settings(max_examples=30, deadline=None)
@given(mixtures(most=1), mixtures(most=1), st.integers(0, 5))
def test_the_nth_window_of_a_domain_is_the_same_for_every_mixture(one, other, seed):
    first, second = (run(sampler(seed=seed), 30, row) for row in (one, other))
    for j in range(4):
        a = first[first[:, 0] // 1000 == j]
        b = second[second[:, 0] // 1000 == j]
        shared = min(len(a), len(b))
        np.testing.assert_array_equal(a[:shared], b[:shared])


@settings(max_examples=30, deadline=None)
@given(mixtures(), st.integers(1, 2000), st.integers(1, 40), st.integers(0, 9))
def test_realised_proportions_are_exact_to_a_few_sequences(proportions, steps, batch_size, seed):
    counts = sampler(batch_size, seed=seed).domain_counts(steps, proportions)
    assert (counts.sum(axis=1) == steps * batch_size).all()
    assert np.abs(counts - proportions * steps * batch_size).max() < 4
    assert (counts[proportions == 0] == 0).all()


@settings(max_examples=20, deadline=None)
@given(mixtures(most=1), st.integers(1, 30), st.integers(1, 100))
def test_domain_counts_are_what_the_batches_hold(proportions, steps, batch_size):
    drawn = run(sampler(batch_size, seed=2), steps, proportions)[:, 0] // 1000
    counts = sampler(batch_size, seed=2).domain_counts(steps, proportions)[0]
    np.testing.assert_array_equal(np.bincount(drawn, minlength=4), counts)


def test_an_epoch_shows_each_window_once_and_the_next_in_another_order():
    small = sampler(batch_size=10)
    assert small.windows.tolist() == [100, 50, 10, 2]
    drawn = run(small, 10, [0, 0, 1, 0])[:, 0] - 2000
    epochs = drawn.reshape(10, 10)
    assert all(sorted(epoch) == list(range(0, 40, LENGTH)) for epoch in epochs.tolist())
    assert len(set(map(tuple, epochs.tolist()))) > 8


def test_seeds_per_member():
    proportions = np.array([[0.4, 0.3, 0.2, 0.1]] * 3)
    batch = sampler(seeds=[7, 8, 7]).batch(5, proportions)
    np.testing.assert_array_equal(batch[0], batch[2])
    assert (batch[0] != batch[1]).any()
    np.testing.assert_array_equal(batch[1], sampler(seed=8).batch(5, proportions)[1])


def test_every_batch_is_spread_evenly():
    for step in range(50):
        batch = sampler(8).batch(step, np.array([[0.5, 0.25, 0.25, 0]]))[0, :, 0] // 1000
        counts = np.bincount(batch, minlength=4)
        assert np.abs(counts - [4, 2, 2, 0]).max() <= 1


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_the_permutation_is_one(size, key):
    index = np.arange(size)
    out = _permute(index, np.full(size, size), np.full(size, key, dtype=np.uint64))
    np.testing.assert_array_equal(np.sort(out), index)


def test_the_permutations_are_uniform_enough():
    """Where each of 12 items goes, over 6,000 keys: chi-square with 121 degrees of freedom."""
    keys = np.arange(6000, dtype=np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
    out = _permute(np.arange(12)[None, :].repeat(6000, 0), np.full((6000, 12), 12), keys)
    counts = np.stack([np.bincount(out[:, i], minlength=12) for i in range(12)])
    assert ((counts - 500) ** 2 / 500).sum() < 200


def test_without_pools_nothing_has_changed_since_swarms_were_trained():
    drawn, seen = sampler(seeds=[0, 7]), hashlib.sha256()
    mixtures = np.array([[0.4, 0.3, 0.2, 0.1], [0, 0.25, 0, 0.75]])
    for step in range(300):
        seen.update(drawn.batch(step, mixtures).astype("<i8").tobytes())
    assert seen.hexdigest().startswith("c36a707cc6417807b91f768a65dd766a")


@settings(max_examples=40, deadline=None)
@given(
    mixtures(),
    st.sets(st.integers(1, 90), max_size=6),
    st.lists(st.tuples(st.integers(0, 99), st.integers(1, 40)), min_size=1, max_size=6),
    st.integers(1, 40),
    st.integers(0, 5),
)
def test_equal_segments_are_the_static_mixture_to_the_bit(
    proportions, boundaries, chunks, batch_size, seed
):
    steps = np.array([0, *sorted(boundaries)])
    cut_up = Segments(steps, np.stack([proportions] * len(steps)))
    static, used = (sampler(batch_size, seed=seed) for _ in range(2))
    for first, count in chunks:
        np.testing.assert_array_equal(
            used.batches(first, count, cut_up), static.batches(first, count, proportions)
        )
        np.testing.assert_array_equal(
            used.domain_counts(first, cut_up), static.domain_counts(first, proportions)
        )


@settings(max_examples=30, deadline=None)
@given(staged(), st.lists(st.integers(0, 80), min_size=1, max_size=8), st.integers(0, 5))
def test_a_batch_depends_on_seed_step_and_schedule_alone(segments, steps, seed):
    used = sampler(seed=seed)
    for step in steps:
        batches = used.batches(step, 3, segments)
        for i in range(3):
            np.testing.assert_array_equal(batches[i], sampler(seed=seed).batch(step + i, segments))
        for k in range(segments.proportions.shape[1]):
            alone = Segments(segments.first_steps, segments.proportions[:, k : k + 1])
            np.testing.assert_array_equal(
                batches[:, k], sampler(seed=seed).batches(step, 3, alone)[:, 0]
            )


@settings(max_examples=30, deadline=None)
@given(staged(), mixtures(most=1), st.integers(1, 20), st.integers(0, 5))
def test_the_nth_window_of_a_domain_is_the_same_in_every_schedule(segments, one, batch, seed):
    staged = Segments(segments.first_steps, segments.proportions[:, :1])
    first, second = (run(sampler(batch, seed=seed), 70, what) for what in (staged, one))
    for j in range(4):
        a, b = (drawn[drawn[:, 0] // 1000 == j] for drawn in (first, second))
        shared = min(len(a), len(b))
        np.testing.assert_array_equal(a[:shared], b[:shared])


@settings(max_examples=40, deadline=None)
@given(staged(), st.integers(1, 70), st.integers(1, 40), st.integers(0, 9))
def test_realised_proportions_within_each_stage(segments, steps, batch_size, seed):
    """Of a stage as of a run: exact to a few sequences at either end."""
    drawn = sampler(batch_size, seed=seed)
    total = np.zeros(segments.proportions.shape[1:], dtype=int)
    for first, stop, shares in segments.within(0, steps):
        counts = drawn.domain_counts(stop, segments) - drawn.domain_counts(first, segments)
        assert (counts.sum(axis=1) == (stop - first) * batch_size).all()
        assert np.abs(counts - shares * (stop - first) * batch_size).max() < 8
        assert (counts[shares == 0] == 0).all()
        total = total + counts
    np.testing.assert_array_equal(total, drawn.domain_counts(steps, segments))
    whole = run(sampler(batch_size, seed=seed), steps, _member(segments, 0))[:, 0] // 1000
    np.testing.assert_array_equal(np.bincount(whole, minlength=4), total[0])


def _member(segments, k):
    return Segments(segments.first_steps, segments.proportions[:, k : k + 1])


def test_a_schedule_begins_its_stages_at_the_nearest_steps():
    a, b = Mixture({"w": 1.0}), Mixture({"w": 0.5, "x": 0.5})
    schedules = [
        Schedule.static(b),
        Schedule.of([(0.8, a), (0.2, b)]),
        Schedule.of([(0.5, b), (0.48, a), (0.02, b)]),
    ]
    segments = Segments.of(schedules, ["x", "w"], num_steps=44)
    assert segments.first_steps.tolist() == [0, 22, 35, 43]
    assert segments.proportions[:, :, 0].tolist() == [
        [0.5, 0, 0.5],
        [0.5, 0, 0],
        [0.5, 0.5, 0],
        [0.5, 0.5, 0.5],
    ]
    with pytest.raises(MixtureError, match=r"40 steps would give .* \[20, 20, 0\] of them"):
        Segments.of([Schedule.of([(0.5, b), (0.49, a), (0.01, b)])], ["x", "w"], num_steps=40)
    parts = [(first, stop) for first, stop, _ in segments.within(10, 40)]
    assert parts == [(10, 22), (22, 35), (35, 40)]


@pytest.mark.parametrize(
    ("steps", "shape", "message"),
    [
        ([1], (1, 1, 4), r"begin at steps \[1\]"),
        ([0, 5, 5], (3, 1, 4), "ascend from 0"),
        ([0, 5], (1, 1, 4), r"shape \(1, 1, 4\); they must be \(2 segments"),
    ],
)
def test_segments_that_make_no_sense(steps, shape, message):
    with pytest.raises(MixtureError, match=message):
        Segments(np.array(steps), np.full(shape, 0.25))


def test_segments_of_other_domains():
    with pytest.raises(MixtureError, match=r"shape \(1, 2\)"):
        sampler().batch(0, Segments.static(np.array([[0.5, 0.5]])))


POOLS = st.tuples(*(st.integers(LENGTH, (size - 1) // LENGTH * LENGTH) for size in SIZES))


def draws_per_window(drawn, domain):
    """How often each window of a domain was drawn, and in all."""
    starts = drawn[drawn[:, 0] // 1000 == domain, 0]
    return np.unique(starts, return_counts=True)[1], len(starts)


@settings(max_examples=30, deadline=None)
@given(mixtures(most=1), POOLS, st.integers(1, 60), st.integers(0, 5))
def test_epochs_over_a_pool_are_exact(proportions, pools, steps, seed):
    pooled = sampler(seed=seed, pools=pools)
    assert pooled.windows.tolist() == [pool // LENGTH for pool in pools]
    drawn = run(pooled, steps, proportions)
    assert (np.diff(drawn) == 1).all()
    for domain, size in enumerate(pooled.windows):
        counts, total = draws_per_window(drawn, domain)
        epochs, rest = divmod(total, size)
        assert len(counts) == (size if epochs else rest)
        assert sorted(counts) == sorted([epochs] * (len(counts) - rest) + [epochs + 1] * rest)


@settings(max_examples=30, deadline=None)
@given(staged(most=1), POOLS, st.integers(1, 60), st.integers(0, 5))
def test_no_window_comes_twice_in_an_epoch_across_stages(segments, pools, steps, seed):
    """Every epoch over a pool is whole before the next begins, wherever the stages change."""
    pooled = sampler(seed=seed, pools=pools)
    drawn = run(pooled, steps, segments)
    for domain, size in enumerate(pooled.windows):
        starts = drawn[drawn[:, 0] // 1000 == domain, 0]
        for first in range(0, len(starts), size):
            epoch = starts[first : first + size]
            assert len(set(epoch.tolist())) == len(epoch)
            assert first == 0 or set(epoch.tolist()) <= set(starts[:size].tolist())


@settings(max_examples=30, deadline=None)
@given(POOLS, POOLS, st.integers(0, 5))
def test_a_smaller_pool_is_part_of_a_larger_one(one, other, seed):
    small, large = (tuple(map(pick, one, other)) for pick in (min, max))
    for domain in range(4):
        alone = np.eye(4)[domain]
        inside, outside = (
            set(run(sampler(seed=seed, pools=pools), 13, alone)[:, 0].tolist())
            for pools in (small, large)
        )
        assert inside <= outside
        assert len(inside) == min(13 * 8, small[domain] // LENGTH)


@settings(max_examples=30, deadline=None)
@given(mixtures(most=1), mixtures(most=1), POOLS, st.integers(0, 5))
def test_the_nth_window_of_a_pool_is_the_same_for_every_mixture(one, other, pools, seed):
    first, second = (run(sampler(seed=seed, pools=pools), 30, row) for row in (one, other))
    for j in range(4):
        a, b = (drawn[drawn[:, 0] // 1000 == j] for drawn in (first, second))
        shared = min(len(a), len(b))
        np.testing.assert_array_equal(a[:shared], b[:shared])


def test_a_pool_of_all_is_no_pool():
    proportions = [0.4, 0.3, 0.2, 0.1]
    whole = sampler(pools=[size - 1 for size in SIZES])
    np.testing.assert_array_equal(run(whole, 40, proportions), run(sampler(), 40, proportions))
    cut = sampler(pools=[40, *(size - 1 for size in SIZES[1:])])
    drawn, free = run(cut, 40, proportions), run(sampler(), 40, proportions)
    others = free[:, 0] >= 1000
    np.testing.assert_array_equal(drawn[others], free[others])
    assert len(np.unique(drawn[~others, 0])) == 10


def test_every_window_joins_a_pool_alike():
    """A tenth of 100 windows over 2,000 seeds: chi-square with 99 degrees of freedom."""
    seeds = list(range(2000))
    pooled = sampler(10, seeds=seeds, pools=[40, 200, 40, 8])
    _, starts = pooled.windows_of(0, np.tile([1.0, 0, 0, 0], (2000, 1)))
    assert all(len(set(row)) == 10 for row in starts.tolist())
    counts = np.bincount(starts.reshape(-1) // LENGTH, minlength=100)
    assert ((counts - 200) ** 2 / 200).sum() < 150


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ((400, 200, 40), "3 pools for 4 streams"),
        ((400, 200, 3, 8), "pool of stream 2 is 3 tokens; it must hold one sequence of 4"),
        ((404, 200, 40, 8), "pool of stream 0 is 404 tokens; .* at most the 100 sequences"),
    ],
)
def test_pools_that_cannot_be_drawn_from(pools, message):
    with pytest.raises(CorpusError, match=message):
        sampler(pools=pools)


def test_a_stream_shorter_than_a_sequence():
    with pytest.raises(
        CorpusError, match=r"stream 1 has 4 tokens, fewer than one sequence of 4 \+ 1"
    ):
        BatchSampler([np.arange(9), np.arange(4)], sequence_length=4, batch_size=1)


@pytest.mark.parametrize(
    ("proportions", "message"),
    [
        ([0.25] * 4, r"shape \(4,\)"),
        ([[0.5, 0.5]], r"shape \(1, 2\)"),
        ([[0.5, 0.5, 0.5, 0]], "sum to 1"),
        ([[1.5, -0.5, 0, 0]], ">= 0"),
        ([[np.nan, 1, 0, 0]], "finite"),
    ],
)
def test_proportions_that_make_no_sense(proportions, message):
    with pytest.raises(MixtureError, match=message):
        sampler().batch(0, np.array(proportions))


def test_as_many_seeds_as_members():
    with pytest.raises(MixtureError, match="1 mixtures for 2 member seeds"):
        sampler(seeds=[1, 2]).batch(0, np.array([[1.0, 0, 0, 0]]))
