"""Text to token ids: bytes, a BPE trained on the spot, or any Hugging Face `tokenizer.json`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from mixlaw.corpus.sources import order_key
from mixlaw.errors import CorpusError, MissingExtraError
from mixlaw.files import write_text

END_OF_TEXT = "<|endoftext|>"

_KNOWN_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "<|im_end|>", "[SEP]")

BPE_SAMPLE_BYTES = 3_000_000
"""Merges hardly change with more text than this at the small vocabularies of proxies."""


class Tokenizer(Protocol):
    """Text to token ids.

    Attributes:
        name: for people.
        vocab_size: every id is below it.
        eot: the id that ends a document; `encode` never gives it, whatever the text says.
        digest: equal for tokenizers that encode alike.
    """

    @property
    def name(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def eot(self) -> int: ...
    @property
    def digest(self) -> str: ...

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids (tokens,) of each text, without `eot`."""
        ...

    def save(self, path: Path) -> None:
        """Write what `load_tokenizer` reads back; nothing for the byte tokenizer."""
        ...


@dataclass(frozen=True)
class TokenizerSpec:
    """Which tokenizer a corpus uses.

    Attributes:
        kind: "byte"; "bpe", trained on the corpus; "file", a `tokenizer.json`; or "ids", when all
            domains are ready token files.
        vocab_size: of "bpe" and "ids".
        path: of "file".
    """

    kind: Literal["byte", "bpe", "file", "ids"] = "byte"
    vocab_size: int | None = None
    path: Path | None = None

    def __post_init__(self):
        if self.kind not in ("byte", "bpe", "file", "ids"):
            raise CorpusError(
                f"tokenizer kind {self.kind!r} is unknown; use byte, bpe, file or ids"
            )
        if (self.vocab_size is None) == (self.kind in ("bpe", "ids")):
            raise CorpusError(
                f"tokenizer kind {self.kind!r} with vocab_size = {self.vocab_size}; "
                "kinds bpe and ids need one, the others take none"
            )
        if (self.path is None) == (self.kind == "file"):
            raise CorpusError(
                f"tokenizer kind {self.kind!r} with path = {self.path}; "
                "kind file needs one, the others take none"
            )


class ByteTokenizer:
    """UTF-8 bytes as ids 0 to 255, end of text as 256."""

    name = "byte"
    vocab_size = 257
    eot = 256
    digest = "byte"

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]

    def save(self, path: Path) -> None:
        """Nothing to write: the byte tokenizer has no state."""


class HuggingFaceTokenizer:
    """A `tokenizers.Tokenizer`: text only, no special tokens, no truncation.

    Args:
        inner: the tokenizer; changed in place to encode special tokens in a text as plain text.
        name: for people.
    Raises: CorpusError: its vocabulary has no end-of-text token.
    """

    def __init__(self, inner: Any, *, name: str):
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True  # "<|endoftext|>" inside a document is just text
        ends = [inner.token_to_id(token) for token in _KNOWN_ENDS]
        ends = [end for end in ends if end is not None]
        if not ends:
            raise CorpusError(
                f"tokenizer {name} has no end-of-text token, one of {list(_KNOWN_ENDS)}; "
                "add one to its added_tokens"
            )
        self._inner = inner
        self.name = name
        self.eot: int = ends[0]
        self.vocab_size: int = 1 + max(inner.get_vocab(with_added_tokens=True).values())
        self.digest = hashlib.sha256(inner.to_str().encode()).hexdigest()[:16]

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        encoded = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encoded]

    def save(self, path: Path) -> None:
        write_text(path, self._inner.to_str(pretty=True))


def train_bpe(
    documents: Sequence[str],
    *,
    vocab_size: int,
    seed: int,
    sample_bytes: int = BPE_SAMPLE_BYTES,
) -> HuggingFaceTokenizer:
    """Train a byte-level BPE on a seeded sample of documents; any text can be encoded with it.

    Raises:
        CorpusError: a vocabulary below the 256 bytes and the end-of-text token, or more than the
            text has merges for.
        MissingExtraError: tokenizers is not installed.
    """
    if vocab_size < 257:
        raise CorpusError(f"vocab_size = {vocab_size}; a byte-level BPE needs at least 257")
    hf = _import_tokenizers()
    sample, taken = [], 0
    for text in sorted(documents, key=lambda text: order_key(seed, text)):
        if taken >= sample_bytes:
            break
        sample.append(text)
        taken += len(text)
    inner = hf.Tokenizer(hf.models.BPE())
    inner.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = hf.decoders.ByteLevel()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(sample, trainer)
    tokenizer = HuggingFaceTokenizer(inner, name=f"bpe-{vocab_size}")
    if tokenizer.vocab_size < vocab_size:
        raise CorpusError(
            f"the text has merges for a vocabulary of {tokenizer.vocab_size} only, "
            f"{vocab_size} were asked for; ask for fewer or add text"
        )
    return tokenizer


def load_tokenizer(path: str | Path) -> HuggingFaceTokenizer:
    """Read a Hugging Face `tokenizer.json`.

    Raises:
        CorpusError: no such file, not a tokenizer, or one without an end-of-text token.
        MissingExtraError: tokenizers is not installed.
    """
    path, hf = Path(path), _import_tokenizers()
    if not path.is_file():
        raise CorpusError(f"no tokenizer file at {path}; give the path of a tokenizer.json")
    try:
        inner = hf.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise CorpusError(f"{path} is not a tokenizer.json of Hugging Face: {error}") from error
    return HuggingFaceTokenizer(inner, name=path.stem)


def _import_tokenizers():
    try:
        import tokenizers
    except ImportError:
        raise MissingExtraError("tokenizers", "train") from None
    return tokenizers
