"""Mixture to batches: a pure function of (seed, step, schedule) with common random numbers.

Slot i of a run (i = step * batch_size + row) draws a number u_i in [0, 1), the same for every
mixture; the domain whose interval of the cumulated proportions holds u_i gives its next window.
The n-th window drawn from a domain is the same for every mixture, too: two mixtures see different
amounts of the same text in the same order, so their losses differ by mixture and not by luck.
Where a schedule changes the proportions, counting goes on: no window comes twice in an epoch.

The u_i come in blocks of 64, one per stratum s/64, in bit-reversed order under a random shift, so
that a batch, too, is spread evenly over [0, 1); within a block all share one offset, which walks
over the blocks in steps of the golden ratio. Every domain so gets its share of every block to
within a slot, and of any run to within a few (van der Corput 1935; Kronecker's sequence).

A domain may be cut to a pool: the first windows of one random order of all it has, so that a
smaller pool is part of a larger one, and equal seeds draw from the same text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlaw.corpus.segments import Segments
from mixlaw.errors import CorpusError, MixtureError

BLOCK = 64
_BIT_REVERSED = np.array([int(f"{slot:06b}"[::-1], 2) for slot in range(BLOCK)])

ONE = 1 << 32
"""Fixed point: a stratum is 2^32 units wide, so that counts of slots are exact integers."""

GOLDEN = 2654435769  # 2^32 / golden ratio

POOL = -1
"""Stands for the epoch in the key of the order in which windows join a pool."""

ROUNDS = 3
"""Of the Feistel network, two half-rounds each."""

SCAN_BLOCKS = 1 << 14
"""Blocks counted at once when a rank is computed from the start of a run."""

Proportions = np.ndarray | Segments
"""Of K members and M domains: (K, M) throughout, or by step."""


class BatchSampler:
    """Draws batches of token windows for K members at once.

    Args:
        streams: M arrays of token ids, one per domain.
        sequence_length: L; a window has L + 1 tokens, inputs and targets overlapping.
        batch_size: B sequences per step and member.
        seed: of data order; members with equal seeds share all random numbers.
        seeds: one per member, instead of `seed` (replicates have another data order).
        pools: M counts of tokens to draw from, rounded down to whole windows of L; None: all.
    Attributes:
        windows: (M,) windows in an epoch of each domain.
    Raises: CorpusError: a stream or pool shorter than one window, or a pool larger than its stream.
    """

    def __init__(
        self,
        streams: Sequence[np.ndarray],
        *,
        sequence_length: int,
        batch_size: int,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        pools: Sequence[int] | None = None,
    ):
        for j, stream in enumerate(streams):
            if len(stream) < sequence_length + 1:
                raise CorpusError(
                    f"stream {j} has {len(stream):,} tokens, fewer than one sequence of "
                    f"{sequence_length:,} + 1; add text or shorten the sequence"
                )
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self._held = np.array([(len(s) - 1) // sequence_length for s in streams])  # (M,)
        self.windows = self._held if pools is None else self._pool_windows(pools)
        self._streams = [np.asarray(stream) for stream in streams]
        self._seeds = (seed,) if seeds is None else tuple(seeds)
        self._counted: dict[tuple[int, bytes, int], tuple[int, np.ndarray]] = {}
        self._begun: tuple[Segments | None, int, np.ndarray] = (None, 0, np.zeros(0))

    def batch(self, step: int, proportions: Proportions) -> np.ndarray:
        """Token ids (K, B, L + 1), int64, of one step.

        Windows of a domain come without replacement within an epoch and in a new order in each.
        Raises: MixtureError: proportions of the wrong shape, negative, or not summing to one.
        """
        return self.batches(step, 1, proportions)[0]

    def batches(self, first_step: int, num_steps: int, proportions: Proportions) -> np.ndarray:
        """Token ids (num_steps, K, B, L + 1) of some steps, as `batch` gives each."""
        domain, start = self.windows_of(first_step, proportions, num_steps=num_steps)
        inside = np.arange(self.sequence_length + 1)
        out = np.empty((*domain.shape, len(inside)), dtype=np.int64)
        for j, stream in enumerate(self._streams):
            mine = domain == j
            if mine.any():
                out[mine] = stream[start[mine][:, None] + inside]
        steps = out.reshape(len(out), num_steps, self.batch_size, -1)
        return np.ascontiguousarray(steps.swapaxes(0, 1))

    def windows_of(
        self, step: int, proportions: Proportions, *, num_steps: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Domain (K, B num_steps) and index of the first token of each sequence of some steps."""
        segments = self._segments(proportions)
        before = self.domain_counts(step, segments)  # (K, M)
        domains, ranks = [], []
        for first, stop, shares in segments.within(step, step + num_steps):
            domain, rank = self._drawn(first, stop, _edges(shares), before)
            domains.append(domain)
            ranks.append(rank)
        domain, rank = np.concatenate(domains, axis=1), np.concatenate(ranks, axis=1)
        windows, held = self.windows[domain], self._held[domain]
        by_row = np.array(self._member_seeds(len(domain)))[:, None]
        index = _permute(rank % windows, windows, _key(by_row, domain, rank // windows))
        if (cut := windows < held).any():
            of_all = _permute(index, held, _key(by_row, domain, np.array(POOL)))
            index = np.where(cut, of_all, index)
        return domain, index * self.sequence_length

    def domain_counts(self, num_steps: int, proportions: Proportions) -> np.ndarray:
        """Sequences (K, M) that the first `num_steps` steps draw from each domain.

        Times `sequence_length` they are tokens; divided by `windows`, epochs.
        """
        segments, B = self._segments(proportions), self.batch_size
        seeds = self._member_seeds(segments.proportions.shape[1])
        # The segments before the one that was last asked for need no second counting.
        asked, begun, counts = self._begun
        if asked is not segments or begun > num_steps:
            begun, counts = 0, np.zeros(segments.proportions.shape[1:], dtype=np.int64)
        for first, stop, shares in segments.within(begun, num_steps):
            self._begun = segments, first, counts
            found = [
                self._counts(seed, edges, first * B, stop * B)
                for seed, edges in zip(seeds, _edges(shares), strict=True)
            ]
            counts = counts + np.stack(found)
        return counts.copy()

    def _drawn(
        self, first_step: int, stop_step: int, edges: np.ndarray, before: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Domain and rank (K, slots) of steps with edges (K, M).

        The rank tells how often the slot's domain was drawn before; `before` (K, M) does so at the
        first step and is moved on to the last.
        """
        first, stop = first_step * self.batch_size, stop_step * self.batch_size
        seeds = self._member_seeds(len(edges))
        slots = {seed: _slots(seed, first, stop) for seed in set(seeds)}
        domain = np.empty((len(edges), stop - first), dtype=np.int64)
        rank = np.empty_like(domain)
        for k, seed in enumerate(seeds):
            drawn = np.searchsorted(edges[k], slots[seed], side="right")
            so_far = (drawn[:, None] == np.arange(edges.shape[1])).cumsum(axis=0)
            domain[k] = drawn
            rank[k] = before[k, drawn] + so_far[np.arange(len(drawn)), drawn] - 1
            before[k] += so_far[-1]
        return domain, rank

    def _pool_windows(self, pools: Sequence[int]) -> np.ndarray:
        """Windows (M,) of the pools, none empty and none larger than what there is."""
        windows = np.asarray(pools) // self.sequence_length
        if windows.shape != self._held.shape:
            raise CorpusError(f"{len(pools)} pools for {len(self._held)} streams; give one each")
        wrong = np.flatnonzero((windows < 1) | (windows > self._held))
        if len(wrong):
            j = wrong[0]
            raise CorpusError(
                f"the pool of stream {j} is {pools[j]:,} tokens; it must hold one sequence of "
                f"{self.sequence_length:,} and at most the {self._held[j]:,} sequences of its "
                "stream; add text or choose another pool"
            )
        return windows

    def _member_seeds(self, num_members: int) -> tuple[int, ...]:
        if len(self._seeds) == 1:
            return self._seeds * num_members
        if len(self._seeds) != num_members:
            raise MixtureError(f"{num_members} mixtures for {len(self._seeds)} member seeds")
        return self._seeds

    def _segments(self, proportions: Proportions) -> Segments:
        shares = proportions.proportions if isinstance(proportions, Segments) else proportions
        shape = np.shape(shares)[1 if isinstance(proportions, Segments) else 0 :]
        if len(shape) != 2 or shape[1] != len(self._streams):
            raise MixtureError(
                f"proportions have shape {shape}; they must be (members, "
                f"{len(self._streams)} domains)"
            )
        return proportions if isinstance(proportions, Segments) else Segments.static(proportions)

    def _counts(self, seed: int, edges: np.ndarray, first: int, stop: int) -> np.ndarray:
        """Slots (M,) of each domain among the slots `first` to `stop` - 1."""
        whole, last = -(-first // BLOCK), stop // BLOCK
        if whole >= last:
            return _tally(seed, edges, first, stop)
        counts = self._blocks(seed, edges, whole, last)
        if first < whole * BLOCK:
            counts = counts + _tally(seed, edges, first, whole * BLOCK)
        if last * BLOCK < stop:
            counts = counts + _tally(seed, edges, last * BLOCK, stop)
        return counts

    def _blocks(self, seed: int, edges: np.ndarray, first: int, stop: int) -> np.ndarray:
        """Slots (M,) of each domain in the blocks `first` to `stop` - 1.

        A function of its arguments alone; the cache only spares counting the same blocks again.
        """
        key = (seed, edges.tobytes(), first)
        done, below = self._counted.get(key, (first, np.zeros(len(edges), dtype=np.int64)))
        if done > stop:
            done, below = first, np.zeros(len(edges), dtype=np.int64)
        while done < stop:
            until = min(stop, done + SCAN_BLOCKS)
            offsets = _offsets(seed, np.arange(done, until))
            # Strata s with s * ONE + offset < edge, for each block; a ceiling division.
            strata = -((offsets[:, None] - edges) // ONE)
            below = below + np.clip(strata, 0, BLOCK).sum(axis=0)
            done = until
        self._counted[key] = (done, below)
        return np.diff(below, prepend=0)


def _edges(proportions: np.ndarray) -> np.ndarray:
    """Upper ends (K, M) of the domains' intervals, in units of 1 / (64 * 2^32)."""
    # Dividing by the last cumulated sum gives trailing domains of proportion 0 no sliver.
    cumulated = proportions.cumsum(axis=1)
    return np.rint(cumulated / cumulated[:, -1:] * (BLOCK * ONE)).astype(np.int64)


def _tally(seed: int, edges: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Slots (M,) of each domain among a few slots, one by one."""
    drawn = np.searchsorted(edges, _slots(seed, first, stop), side="right")
    return np.bincount(drawn, minlength=len(edges))


def _offsets(seed: int, blocks: np.ndarray) -> np.ndarray:
    """Offset within a stratum (blocks,), in [0, 2^32): a Kronecker sequence."""
    start = int(_key(np.array([seed]), np.array([0]), np.array([0]))[0]) % ONE
    return (start + blocks * GOLDEN) % ONE


def _slots(seed: int, first: int, stop: int) -> np.ndarray:
    """u of the slots `first` to `stop` - 1, in units of 1 / (64 * 2^32)."""
    blocks = np.arange(first // BLOCK, -(-stop // BLOCK))
    shifts = _key(np.array([seed]), np.array([-1]), blocks) >> np.uint64(58)  # 6 bits: 0 to 63
    strata = _BIT_REVERSED ^ shifts[:, None].astype(np.int64)
    slots = (strata * ONE + _offsets(seed, blocks)[:, None]).reshape(-1)
    return slots[first % BLOCK :][: stop - first]


def _key(seed: np.ndarray, stream: np.ndarray, epoch: np.ndarray) -> np.ndarray:
    """A 64-bit key per (seed, stream, epoch)."""
    mixed = _mix(seed.astype(np.uint64))
    mixed = _mix(mixed + stream.astype(np.uint64))
    return _mix(mixed + epoch.astype(np.uint64))


def _mix(values: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele et al. 2014): 64-bit words to well scattered 64-bit words."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _permute(index: np.ndarray, size: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Image of each index under a keyed permutation of range(size), without making the whole.

    A Feistel network on Z_a x Z_b with a * b just above `size`, walked until it falls inside
    (Black and Rogaway 2002): a bijection for every key, in constant memory for any size.
    """
    a = np.ceil(np.sqrt(size)).astype(np.int64)
    b = -(-size // a)
    out = _feistel(index, a, b, keys)
    while (outside := out >= size).any():
        out = np.where(outside, _feistel(out, a, b, keys), out)
    return out


def _feistel(index: np.ndarray, a: np.ndarray, b: np.ndarray, keys: np.ndarray) -> np.ndarray:
    left, right = index // b, index % b
    for turn in range(ROUNDS):
        left = (left + _round(right, keys, 2 * turn)) % a
        right = (right + _round(left, keys, 2 * turn + 1)) % b
    return left * b + right


def _round(half: np.ndarray, keys: np.ndarray, turn: int) -> np.ndarray:
    """A 31-bit hash of one half, so that adding to it stays within int64."""
    mixed = _mix(keys + (half.astype(np.uint64) << np.uint64(8)) + np.uint64(turn))
    return (mixed >> np.uint64(33)).astype(np.int64)
