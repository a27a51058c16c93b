"""Exact and near-duplicate removal over all domains at once.

Near duplicates are found by MinHash over word 5-shingles (Broder 1997) with banded locality-
sensitive hashing, and confirmed by the exact Jaccard similarity of the shingle sets, so that a
chance collision never removes a document. Words are what white space divides: in scripts written
without it only exact duplicates are found.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SHINGLE_WORDS = 5
BANDS, ROWS = 20, 5
"""A pair at similarity .8 shares a band with probability 1 - (1 - .8^5)^20 = .9996; at .5, .47."""

CHUNK_SHINGLES = 1 << 16
"""Shingles hashed at once: the working set of a pass then stays in the processor's cache."""


@dataclass(frozen=True)
class Duplicates:
    """Which texts to keep, aligned with the texts given.

    Attributes:
        kept: (n,) whether the text stays.
        exact: (n,) removed: the same words, but for case and white space, as a kept text.
        near: (n,) removed: shingle similarity with a kept text at or above the threshold.
    """

    kept: np.ndarray
    exact: np.ndarray
    near: np.ndarray


def find_duplicates(
    texts: Sequence[str], priority: Sequence[bytes | str], *, threshold: float = 0.8
) -> Duplicates:
    """Keep each text once: walking in order of `priority`, drop what resembles a text kept before.

    Args:
        texts: n texts.
        priority: n sort keys. Keys made from content make the outcome independent of file order.
        threshold: Jaccard similarity of word 5-shingles from which two texts are duplicates.
    Returns: Duplicates; no two kept texts are at or above `threshold`, but for the 4 pairs in
        10,000 (fewer when more alike) that the hashing overlooks.
    """
    order = sorted(range(len(texts)), key=lambda i: (priority[i], i))
    kept, exact, near = np.zeros((3, len(texts)), dtype=bool)
    seen: set[bytes] = set()
    distinct: list[int] = []
    shingles: list[np.ndarray] = []
    for i in order:
        words = texts[i].lower().split()
        fingerprint = hashlib.blake2b(" ".join(words).encode(), digest_size=16).digest()
        exact[i] = fingerprint in seen
        if not exact[i]:
            seen.add(fingerprint)
            distinct.append(i)
            shingles.append(_shingles(words))
    keep = _keep_dissimilar(shingles, threshold)
    kept[distinct], near[distinct] = keep, ~keep
    return Duplicates(kept, exact, near)


def _keep_dissimilar(shingles: Sequence[np.ndarray], threshold: float) -> np.ndarray:
    """(n,) bool: greedily keep each set that is not similar to one kept before it.

    Only kept sets enter the buckets, so a family of a thousand copies costs a thousand
    comparisons and not a million.
    """
    keep = np.zeros(len(shingles), dtype=bool)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    i = 0
    for block in _signatures(shingles):
        for signature in block:
            bands = [
                (band, signature[band * ROWS : (band + 1) * ROWS].tobytes())
                for band in range(BANDS)
            ]
            rivals = {j for band in bands for j in buckets.get(band, ())}
            keep[i] = all(_jaccard(shingles[i], shingles[j]) < threshold for j in rivals)
            if keep[i]:
                for band in bands:
                    buckets[band].append(i)
            i += 1
    return keep


def _shingles(words: Sequence[str]) -> np.ndarray:
    """Sorted unique 64-bit hashes of all runs of 5 words (of the whole text when shorter)."""
    # crc32 and not hash(): the latter differs between processes.
    hashes = np.fromiter((zlib.crc32(w.encode()) for w in words), np.uint64, len(words))
    length = min(SHINGLE_WORDS, len(words))
    rolled = np.zeros(len(words) - length + 1, dtype=np.uint64)
    for offset in range(length):
        rolled = _mix(rolled + hashes[offset : offset + len(rolled)])
    return np.unique(rolled)


def _mix(values: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser: a bijection of 64-bit words that scatters nearby values."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _signatures(shingles: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """MinHash values, blocks of (documents, BANDS * ROWS); bounded memory."""
    salts = _mix(np.arange(1, BANDS * ROWS + 1, dtype=np.uint64))
    start = 0
    while start < len(shingles):
        stop, count = start, 0
        while stop < len(shingles) and (stop == start or count < CHUNK_SHINGLES):
            count += len(shingles[stop])
            stop += 1
        block = shingles[start:stop]
        values = np.concatenate(block)
        offsets = np.cumsum([0, *(len(part) for part in block[:-1])])
        out = np.empty((len(block), len(salts)), dtype=np.uint64)
        for column, salt in enumerate(salts):
            hashed = (values ^ salt) * (salt | np.uint64(1))
            hashed ^= hashed >> np.uint64(32)
            out[:, column] = np.minimum.reduceat(hashed * np.uint64(0x9E3779B97F4A7C15), offsets)
        yield out
        start = stop


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)
