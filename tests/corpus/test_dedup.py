import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.corpus.dedup import find_duplicates
from mixlaw.corpus.sources import Document
from mixlaw.corpus.split import split_documents
from mixlaw.errors import CorpusError


def edited(text: str, changes: int, seed: int) -> str:
    """Replace single words at random places."""
    words, rng = text.split(), np.random.default_rng(seed)
    for place in rng.choice(len(words), changes, replace=False):
        words[place] = "EDIT"
    return " ".join(words)


def test_exact_means_the_same_words():
    texts = ["A b\nc", "a  B c ", "a b d"]
    found = find_duplicates(texts, ["0", "1", "2"])
    assert found.kept.tolist() == [True, False, True]
    assert found.exact.tolist() == [False, True, False]
    assert not found.near.any()


def test_planted_near_duplicates_are_found_and_others_are_not(prose):
    originals = [prose(seed, 400) for seed in range(60)]
    near = [edited(text, 3, seed) for seed, text in enumerate(originals)]  # similarity about .93
    far = [edited(text, 60, seed) for seed, text in enumerate(originals)]  # about .3
    texts = [*originals, *near, *far]
    found = find_duplicates(texts, [f"{i:04d}" for i in range(len(texts))])
    assert found.kept.tolist() == [True] * 60 + [False] * 60 + [True] * 60
    assert found.near.sum() == 60


def test_long_texts_in_one_block_and_many_blocks(prose):
    long = prose(1, 100_000)
    found = find_duplicates([long, edited(long, 100, 0), prose(2, 9)], ["0", "1", "2"])
    assert found.kept.tolist() == [True, False, True]


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(12)))
def test_the_outcome_does_not_depend_on_order(prose, order):
    families = [prose(seed, 200) for seed in range(4)]
    texts = [text for f, text in enumerate(families) for text in (text, edited(text, 2, f), text)]
    keys = [f"{i:02d}" for i in range(12)]
    kept = find_duplicates([texts[i] for i in order], [keys[i] for i in order]).kept
    assert sorted(texts[i] for i, keep in zip(order, kept, strict=True) if keep) == sorted(families)


def test_nothing_given_nothing_removed():
    assert len(find_duplicates([], []).kept) == 0


def documents(*sizes: int) -> list[Document]:
    return [Document(f"{i:04d}" + "x" * (size - 4), f"d{i}") for i, size in enumerate(sizes)]


def test_split_is_by_document_seeded_and_independent_of_order():
    docs = documents(*[100] * 100)
    train, valid = split_documents(docs, domain="a", validation_bytes=500, seed=0)
    assert len(valid) == 5
    assert sorted(d.origin for d in train + valid) == sorted(d.origin for d in docs)
    assert split_documents(docs[::-1], domain="a", validation_bytes=500, seed=0) == (train, valid)
    assert split_documents(docs, domain="a", validation_bytes=500, seed=1) != (train, valid)


def test_a_small_domain_gives_a_tenth():
    train, valid = split_documents(
        documents(*[100] * 20), domain="a", validation_bytes=9999, seed=0
    )
    assert (len(train), len(valid)) == (18, 2)


def test_two_documents_give_the_smaller_one():
    train, valid = split_documents(documents(500, 400), domain="a", validation_bytes=10, seed=0)
    assert [len(train), len(valid)] == [1, 1]
    assert valid[0].num_bytes == 400


def test_one_document_cannot_be_split():
    with pytest.raises(CorpusError, match=r"'poems' has 1 document.*missing validation split"):
        split_documents(documents(500), domain="poems", validation_bytes=10, seed=0)
