"""A built corpus on the disk: where its files are, what is in them, and what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mixlaw.corpus.tokens import TokenFile, open_token_file
from mixlaw.errors import CorpusError
from mixlaw.files import is_altered, read_json
from mixlaw.mixture import Domain

MANIFEST = "corpus.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class DomainRecord:
    """What a corpus holds of one domain.

    Attributes:
        name: of the domain.
        trained: False for a domain that is a validation target only.
        train_file: token file, relative to the corpus unless absolute; None when not trained.
        valid_file: the same for validation.
        train_tokens, valid_tokens: ids in the files, end-of-text tokens included.
        valid_text_tokens, valid_bytes: ids without end-of-text, and the UTF-8 bytes that they
            encode; None where the text is unknown (ready token files).
        found_tokens: `train_tokens` scaled from the text kept to the text found before any cap,
            so that the natural mixture does not depend on the caps; None when not trained.
        details: counts for people: documents, bytes, duplicates removed, licenses.
    """

    name: str
    trained: bool
    train_file: str | None
    valid_file: str
    train_tokens: int
    valid_tokens: int
    valid_text_tokens: int | None
    valid_bytes: int | None
    found_tokens: int | None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokenised domains with their validation sets.

    Attributes:
        root: folder of the corpus.
        records: domain name -> what there is of it, in the order asked for.
        vocab_size: every token id is below it.
        tokenizer: name of the tokenizer.
        digest: equal for corpora with the same tokens; not changed by where they lie.
        manifest: all of `corpus.json`.
    """

    root: Path
    records: Mapping[str, DomainRecord]
    vocab_size: int
    tokenizer: str
    digest: str
    manifest: Mapping[str, Any]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{r.name}: {r.train_tokens:,}" for r in self.records.values())
        return f"Corpus({self.root}, {self.tokenizer}, {self.vocab_size:,} ids; {sizes})"

    @property
    def domains(self) -> list[Domain]:
        """The trained domains: available are the training tokens on disk."""
        return [
            Domain(record.name, record.train_tokens, record.found_tokens)
            for record in self.records.values()
            if record.trained
        ]

    @property
    def targets(self) -> list[str]:
        """Names with a validation set, trained or not."""
        return list(self.records)

    def summary(self) -> dict[str, Any]:
        """Counts per domain, for people and for JSON; natural shares sum to one."""
        found = sum(domain.found_tokens or 0 for domain in self.domains)
        return {
            "folder": str(self.root),
            "tokenizer": self.tokenizer,
            "vocab_size": self.vocab_size,
            "digest": self.digest,
            "domains": [
                {
                    "name": record.name,
                    "trained": record.trained,
                    "train_tokens": record.train_tokens,
                    "valid_tokens": record.valid_tokens,
                    "found_tokens": record.found_tokens,
                    "natural_share": (record.found_tokens or 0) / found if found else 0.0,
                    **record.details,
                }
                for record in self.records.values()
            ],
        }

    def train_tokens(self, name: str) -> np.memmap:
        """Training ids (n,). Raises: CorpusError: no such domain, or one that is not trained."""
        record = self._record(name)
        if record.train_file is None:
            raise CorpusError(f"domain {name!r} is a validation target only; nothing trains on it")
        return self._open(record.train_file).tokens

    def valid_tokens(self, name: str) -> np.memmap:
        """Validation ids (n,), an end-of-text id after each document."""
        return self._open(self._record(name).valid_file).tokens

    def bytes_per_token(self, name: str) -> float | None:
        """UTF-8 bytes of validation text per token, for bits per byte.

            bits per byte = nats per token / ln 2 / bytes_per_token

        End-of-text ids encode no byte and are left out of the count, so this holds for the mean
        loss over text tokens; a mean that also predicts the end of each document differs by the
        share of documents in tokens (one in hundreds). None for ready token files, whose text is
        unknown.
        """
        record = self._record(name)
        if record.valid_bytes is None or record.valid_text_tokens is None:
            return None
        return record.valid_bytes / record.valid_text_tokens

    def _record(self, name: str) -> DomainRecord:
        if name not in self.records:
            raise CorpusError(f"no domain {name!r} in {self.root}; there are {list(self.records)}")
        return self.records[name]

    def _open(self, file: str) -> TokenFile:
        return open_token_file(self.root / file, vocab_size=self.vocab_size)


def load_corpus(root: str | Path) -> Corpus:
    """Open a corpus that `build_corpus` finished.

    Raises:
        CorpusError: nothing was finished there, or another version of mixlaw wrote it.
        TokenFileError: a token file is missing, or not of the size the manifest records.
    """
    root = Path(root)
    manifest = read_manifest(root)
    if manifest is None:
        raise CorpusError(f"no finished corpus in {root} (no {MANIFEST}); run: mixlaw corpus")
    records = {data["name"]: DomainRecord(**data) for data in manifest["domains"]}
    corpus = Corpus(
        root=root,
        records=records,
        vocab_size=manifest["vocab_size"],
        tokenizer=manifest["tokenizer"]["name"],
        digest=manifest["digest"],
        manifest=manifest,
    )
    for record in records.values():
        expected = [(record.valid_file, record.valid_tokens)]
        if record.train_file is not None:
            expected.append((record.train_file, record.train_tokens))
        for file, num_tokens in expected:
            found = len(corpus._open(file))
            if found != num_tokens:
                raise CorpusError(
                    f"{root / file} has {found:,} tokens, {MANIFEST} records {num_tokens:,}; "
                    f"delete {root} and build the corpus again"
                )
    return corpus


def read_manifest(root: Path) -> dict[str, Any] | None:
    """`corpus.json`, None when absent. Raises: CorpusError: damaged, altered by hand, or of another
    version."""
    path = root / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = read_json(path)
        version = manifest["format_version"]
        altered = is_altered(manifest)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorpusError(f"{path} is damaged ({error!r}); delete it and build again") from error
    if altered:
        raise CorpusError(f"{path} was changed since it was written; delete it and build again")
    if version != FORMAT_VERSION:
        raise CorpusError(
            f"{path} has format version {version}, this mixlaw reads {FORMAT_VERSION}; "
            f"delete {root} and build the corpus again"
        )
    return manifest
