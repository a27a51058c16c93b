"""Batches arrive in order, whoever makes them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from mixlaw.corpus import BatchSampler  # noqa: E402
from mixlaw.train.feed import Feed, _Ahead  # noqa: E402

CPU = torch.device("cpu")


def sampler() -> BatchSampler:
    streams = [np.arange(900), np.arange(1000, 1500)]
    return BatchSampler(streams, sequence_length=8, batch_size=4, seeds=[0, 1, 0])


SHARES = np.array([[0.3, 0.7], [1.0, 0.0], [0.5, 0.5]])


@pytest.mark.parametrize("order", [range(40), [0, 1, 2, 30, 31, 10, 11, 39]])
def test_every_step_gets_its_own_batch(order):
    drawn = sampler()
    feed = Feed(
        lambda first, count: drawn.batches(first, count, SHARES),
        step_bytes=1 << 19,
        last_step=40,
        device=CPU,
    )
    alone = sampler()
    for step in order:
        np.testing.assert_array_equal(feed(step).numpy(), alone.batch(step, SHARES))


def test_nothing_is_drawn_beyond_the_last_step():
    asked = []

    def draw(first: int, count: int) -> np.ndarray:
        asked.append((first, count))
        return np.zeros((count, 1, 1, 9), dtype=np.int64)

    feed = Feed(draw, step_bytes=72, last_step=20, device=CPU)
    for step in range(20):
        feed(step)
    assert asked == [(0, 16), (16, 4)]


def test_a_thread_makes_them_ahead_in_order_and_starts_anew_after_a_jump():
    def make(first: int):
        return torch.arange(first, first + 4)

    ahead = _Ahead(make, 108)
    assert [ahead.get(step).tolist()[0] for step in (0, 4, 8, 100, 104, 0)] == [
        0,
        4,
        8,
        100,
        104,
        0,
    ]


def test_an_error_of_the_thread_is_raised_where_batches_are_wanted():
    def make(first: int):
        if first >= 4:
            raise OSError("the file is gone")
        return torch.arange(first, first + 4)

    ahead = _Ahead(make, 108)
    ahead.get(0)
    with pytest.raises(OSError, match="gone"):
        ahead.get(4)


def test_it_makes_nothing_beyond_the_last_step_and_ends_when_it_is_closed():
    made = []

    def make(first: int):
        made.append(first)
        return torch.arange(first, min(first + 4, 10))

    ahead = _Ahead(make, 10)
    assert [len(ahead.get(step)) for step in (0, 4, 8)] == [4, 4, 2]
    ahead.thread.join(10)
    assert made == [0, 4, 8]
    endless = _Ahead(make, 1 << 40)
    endless.get(0)
    endless.stop.set()
    endless.thread.join(10)
    assert not endless.thread.is_alive()


@pytest.mark.parametrize("threaded", [False, True])
def test_what_was_drawn_is_forgotten_when_other_batches_are_to_come(threaded):
    asked, what = [], [0]

    def draw(first: int, count: int) -> np.ndarray:
        asked.append((first, count))
        return np.full((count, 1, 1, 9), what[0])

    feed = Feed(draw, step_bytes=72, last_step=20, device=CPU)
    if threaded:
        feed.ahead = _Ahead(feed._make, 20)
    assert [feed(step)[0, 0, 0].item() for step in range(5)] == [0] * 5
    what[0] = 1
    feed.renew(12)
    assert [feed(step)[0, 0, 0].item() for step in range(5, 12)] == [1] * 7
    what[0] = 2
    feed.renew(8)
    assert [feed(step)[0, 0, 0].item() for step in (6, 7)] == [2, 2]
    feed.close()
    assert asked[-1] == (6, 2)
    assert (5, 7) in asked
