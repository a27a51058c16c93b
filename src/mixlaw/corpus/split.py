"""Train and validation by document: what is measured is never trained on."""

from __future__ import annotations

from collections.abc import Sequence

from mixlaw.corpus.sources import Document, order_key
from mixlaw.errors import CorpusError

MAX_VALIDATION_SHARE = 0.1
"""A small domain gives at most this share of its bytes to validation."""


def split_documents(
    documents: Sequence[Document], *, domain: str, validation_bytes: int, seed: int
) -> tuple[list[Document], list[Document]]:
    """Split into (train, validation), both in a seeded order that depends on content only.

    Validation gets `validation_bytes` or a tenth of the domain, whichever is less.
    Raises: CorpusError: fewer than two documents, so that one split would be empty.
    """
    if len(documents) < 2:
        raise CorpusError(
            f"domain {domain!r} has {len(documents)} document(s) after duplicates were removed: "
            "missing validation split; give it validation_paths, or cut its text into several "
            "documents (files, or lines of a .jsonl)"
        )
    total = sum(document.num_bytes for document in documents)
    target = min(validation_bytes, MAX_VALIDATION_SHARE * total)
    validation, train = take_bytes(documents, target, seed=seed)
    return train, validation


def take_bytes(
    documents: Sequence[Document], target: float, *, seed: int
) -> tuple[list[Document], list[Document]]:
    """(taken, rest) in seeded order: documents are taken until they hold `target` bytes.

    One that would overshoot to twice that is passed over; if all would, the smallest is taken.
    """
    ordered = sorted(documents, key=lambda document: order_key(seed, document.text))
    taken, rest, filled = [], [], 0
    for document in ordered:
        if filled < target and filled + document.num_bytes <= 2 * target:
            taken.append(document)
            filled += document.num_bytes
        else:
            rest.append(document)
    if rest and not taken:
        smallest = min(rest, key=lambda document: document.num_bytes)
        rest.remove(smallest)
        taken.append(smallest)
    return taken, rest
