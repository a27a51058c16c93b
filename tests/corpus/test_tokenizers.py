import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.corpus.tokenizers import (
    END_OF_TEXT,
    ByteTokenizer,
    TokenizerSpec,
    load_tokenizer,
    train_bpe,
)
from mixlaw.errors import CorpusError, MissingExtraError


@pytest.fixture(scope="module")
def texts(prose):
    return [prose(seed, 500) for seed in range(8)]


@pytest.fixture(scope="module")
def bpe(texts):
    return train_bpe(texts, vocab_size=400, seed=0)


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_bytes_are_the_utf8(text):
    (ids,) = ByteTokenizer().encode([text])
    assert bytes(ids.tolist()) == text.encode()


def test_bpe_keeps_every_text_and_never_gives_the_end(bpe, texts):
    from tokenizers import Tokenizer

    odd = ["", "naïve ☃ 𝄞\r\n\t\x00 end", f"a {END_OF_TEXT} b", *texts]
    encoded = bpe.encode(odd)
    inner = Tokenizer.from_str(bpe._inner.to_str())
    for text, ids in zip(odd, encoded, strict=True):
        assert inner.decode(ids.tolist(), skip_special_tokens=False) == text
        assert bpe.eot not in ids
        assert (ids < bpe.vocab_size).all()
    assert bpe.vocab_size == 400
    assert len(encoded[-1]) < 0.6 * len(texts[-1])


def test_bpe_is_deterministic_and_survives_saving(bpe, texts, tmp_path):
    again = train_bpe(texts[::-1], vocab_size=400, seed=0)
    assert again.digest == bpe.digest
    assert train_bpe(texts, vocab_size=400, seed=1, sample_bytes=3000).digest != bpe.digest
    bpe.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded.digest == bpe.digest
    assert (loaded.eot, loaded.vocab_size) == (bpe.eot, bpe.vocab_size)
    np.testing.assert_array_equal(loaded.encode(texts)[3], bpe.encode(texts)[3])


@pytest.mark.parametrize(
    ("vocab_size", "message"),
    [(256, "vocab_size = 256; .* at least 257"), (50_000, "merges for a vocabulary of .* only")],
)
def test_impossible_vocabularies(texts, vocab_size, message):
    with pytest.raises(CorpusError, match=message):
        train_bpe(texts[:1], vocab_size=vocab_size, seed=0)


def test_files_that_are_no_tokenizer(tmp_path, bpe):
    with pytest.raises(CorpusError, match="no tokenizer file at"):
        load_tokenizer(tmp_path / "t.json")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(CorpusError, match=r"is not a tokenizer\.json"):
        load_tokenizer(tmp_path / "t.json")
    bpe.save(tmp_path / "t.json")
    data = json.loads((tmp_path / "t.json").read_text())
    data["added_tokens"][0]["content"] = "<stop>"
    data["model"]["vocab"] = {
        token.replace(END_OF_TEXT, "<stop>"): i for token, i in data["model"]["vocab"].items()
    }
    (tmp_path / "t.json").write_text(json.dumps(data))
    with pytest.raises(CorpusError, match="tokenizer t has no end-of-text token"):
        load_tokenizer(tmp_path / "t.json")


def test_missing_tokenizers(texts, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"mixlaw\[train\]"):
        train_bpe(texts, vocab_size=300, seed=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "words"},
        {"kind": "bpe"},
        {"kind": "byte", "vocab_size": 300},
        {"kind": "file"},
        {"kind": "ids", "vocab_size": 300, "path": "x"},
    ],
)
def test_specs_that_make_no_sense(arguments):
    with pytest.raises(CorpusError, match="tokenizer kind"):
        TokenizerSpec(**arguments)
