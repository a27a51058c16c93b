"""Text to a corpus: read, remove duplicates, split, train a tokenizer, tokenise, write."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mixlaw import __version__
from mixlaw.corpus.dedup import find_duplicates
from mixlaw.corpus.domains import (
    DomainSource,
    changes,
    check_sources,
    describe_inputs,
    file_fingerprint,
)
from mixlaw.corpus.environment import Environment
from mixlaw.corpus.sources import Document, order_key, sample_paths
from mixlaw.corpus.split import split_documents, take_bytes
from mixlaw.corpus.store import (
    FORMAT_VERSION,
    MANIFEST,
    Corpus,
    DomainRecord,
    load_corpus,
    read_manifest,
)
from mixlaw.corpus.tokenizers import (
    ByteTokenizer,
    Tokenizer,
    TokenizerSpec,
    load_tokenizer,
    train_bpe,
)
from mixlaw.corpus.tokens import open_token_file, write_megatron
from mixlaw.errors import CorpusError
from mixlaw.files import atomic_path, digest, sealed, write_json

TOKENIZER, DOCUMENTS = "tokenizer.json", "documents.jsonl"

ENCODE_BATCH = 256
"""Documents tokenised at once; enough for the threads of `tokenizers`, little to hold."""

UNTRAINED_MARGIN = 4
"""An untrained domain is read up to so many times its validation bytes, to choose from."""


@dataclass
class _Gathered:
    """The text of one domain on its way: first all documents, then the two splits.

    Attributes:
        pool: documents to be split, or to become training text.
        validation: documents that are validation text whatever happens.
        sampled_bytes: of the pool as read, before duplicates were removed.
    """

    source: DomainSource
    pool: list[Document]
    validation: list[Document]
    sampled_bytes: int
    found_bytes: int
    found_exact: bool
    removed: Counter[str] = field(default_factory=Counter)


def build_corpus(
    domains: Sequence[DomainSource],
    out: str | Path,
    *,
    tokenizer: TokenizerSpec | None = None,
    sequence_length: int,
    seed: int,
    validation_bytes: int = 200_000,
    max_bytes: int | None = None,
    environment: Environment | None = None,
) -> Corpus:
    """Build the corpus in folder `out`, or open it when it was built from the same inputs.

    Text is held in memory until it is written: cap larger sources with `max_bytes`, or tokenise
    them elsewhere and give token files. `corpus.json` is written last; a build that was
    interrupted starts again.

    Args:
        domains: at least one is trained; their order is kept everywhere.
        tokenizer: bytes by default.
        sequence_length: tokens per training sequence; a domain must fill at least one.
        seed: of samples, split and tokenizer training.
        validation_bytes: text that each domain without `validation_paths` gives to validation.
        max_bytes: text taken from each domain, a uniform sample of its documents.
        environment: where built-in domains come from; the running interpreter's by default.
    Raises:
        CorpusError: a domain without documents, validation split or a whole sequence; one named
            twice; or `out` holds a corpus built from other inputs.
        TokenFileError: a ready token file that is damaged or beyond the vocabulary.
        StorageError: the disk refused; nothing half-written stays.
    """
    out, spec = Path(out), tokenizer or TokenizerSpec()
    check_sources(domains, spec)
    options = {"seed": seed, "validation_bytes": validation_bytes, "max_bytes": max_bytes}
    inputs = describe_inputs(domains, spec, options)
    manifest = read_manifest(out)
    if manifest is not None:
        _check_unchanged(manifest["inputs"], inputs, out)
        corpus = load_corpus(out)
        _check_lengths(corpus.records.values(), sequence_length)
        return corpus
    environment = environment or Environment()
    gathered = _gather(domains, environment, options)
    _remove_duplicates(gathered, seed)
    _split(gathered, validation_bytes, seed)
    encoder, vocab_size = _make_tokenizer(spec, gathered, seed)
    written = _write_texts(gathered, encoder, out) if encoder is not None else {}
    records = [
        written[source.name] if source.name in written else _open_ready(source, vocab_size)
        for source in domains
    ]
    _check_lengths(records, sequence_length)
    described = _describe_tokenizer(encoder, spec, vocab_size)
    if encoder is not None:
        encoder.save(out / TOKENIZER)
    manifest = {
        "format_version": FORMAT_VERSION,
        "mixlaw_version": __version__,
        "digest": _content_digest(records, out, described),
        "vocab_size": vocab_size,
        "tokenizer": described,
        "domains": [asdict(record) for record in records],
        "inputs": inputs,
    }
    if any(source.environment for source in domains):
        manifest["packages"] = environment.packages()
    write_json(out / MANIFEST, sealed(manifest))
    return load_corpus(out)


def _check_unchanged(old: dict[str, Any], new: dict[str, Any], out: Path) -> None:
    # Through JSON, as the manifest went: tuples become lists.
    differences = list(changes(old, json.loads(json.dumps(new))))
    if differences:
        shown = "; ".join(differences[:5]) + ("; ..." if len(differences) > 5 else "")
        raise CorpusError(
            f"the corpus in {out} was built from other inputs ({shown}); "
            "undo the change, build in another folder, or delete this one to build it again"
        )


def _gather(
    domains: Sequence[DomainSource], environment: Environment, options: dict[str, Any]
) -> list[_Gathered]:
    """Read the text of every domain that is not ready token files."""
    seed, gathered = options["seed"], []
    for source in domains:
        if source.token_files:
            continue
        max_bytes = source.max_bytes or options["max_bytes"]
        if not source.trained:
            limit = UNTRAINED_MARGIN * options["validation_bytes"]
            max_bytes = min(max_bytes or limit, limit)
        if source.environment:
            sample = environment.sample(source.environment, max_bytes=max_bytes, seed=seed)
        else:
            sample = sample_paths(source.paths, max_bytes=max_bytes, seed=seed)
        validation = sample_paths(source.validation_paths, max_bytes=None, seed=seed).documents
        if not sample.documents and not source.is_only_validation_text:
            raise _no_documents(source, "documents")
        if not validation and source.validation_paths:
            raise _no_documents(source, "validation documents")
        text = _Gathered(
            source=source,
            pool=sample.documents,
            validation=validation,
            sampled_bytes=sum(document.num_bytes for document in sample.documents),
            found_bytes=sample.found_bytes,
            found_exact=sample.exact,
        )
        gathered.append(text)
    return gathered


def _no_documents(source: DomainSource, what: str) -> CorpusError:
    where = ", ".join(map(str, [*source.paths, *source.validation_paths]))
    if source.environment:
        where = f"the Python environment (built-in domain {source.environment!r})"
    return CorpusError(
        f"domain {source.name!r} has no {what} in {where}; "
        "check its paths: text files, .jsonl[.gz|.zst] or .parquet"
    )


def _remove_duplicates(gathered: Sequence[_Gathered], seed: int) -> None:
    """Keep each document once over all domains; text named for validation is kept first."""
    entries: list[tuple[bytes, _Gathered, bool, Document]] = []
    for text in gathered:
        entries += [(b"0", text, True, document) for document in text.validation]
        entries += [(b"1", text, False, document) for document in text.pool]
        text.validation, text.pool = [], []
    texts = [document.text for *_, document in entries]
    priority = [rank + order_key(seed, document.text) for rank, *_, document in entries]
    duplicates = find_duplicates(texts, priority)
    for i, (_, text, is_validation, document) in enumerate(entries):
        if duplicates.kept[i]:
            (text.validation if is_validation else text.pool).append(document)
        else:
            text.removed["exact" if duplicates.exact[i] else "near"] += 1


def _split(gathered: Sequence[_Gathered], validation_bytes: int, seed: int) -> None:
    for text in gathered:
        name = text.source.name
        if not text.validation and not text.pool:
            raise CorpusError(
                f"domain {name!r}: all {sum(text.removed.values())} documents are duplicates of "
                "documents in other domains; give it text of its own"
            )
        if text.validation or not text.source.trained:
            if not text.validation:
                text.validation, _ = take_bytes(text.pool, validation_bytes, seed=seed)
            text.pool = text.pool if text.source.trained else []
        else:
            text.pool, text.validation = split_documents(
                text.pool, domain=name, validation_bytes=validation_bytes, seed=seed
            )


def _make_tokenizer(
    spec: TokenizerSpec, gathered: Sequence[_Gathered], seed: int
) -> tuple[Tokenizer | None, int]:
    """(tokenizer, vocabulary size); no tokenizer when all domains are token files."""
    if spec.kind == "ids":
        return None, spec.vocab_size or 0
    if spec.kind == "byte":
        tokenizer: Tokenizer = ByteTokenizer()
    elif spec.kind == "file":
        tokenizer = load_tokenizer(spec.path or "")
    else:
        texts = [document.text for text in gathered for document in text.pool]
        tokenizer = train_bpe(texts, vocab_size=spec.vocab_size or 0, seed=seed)
    return tokenizer, tokenizer.vocab_size


def _describe_tokenizer(
    tokenizer: Tokenizer | None, spec: TokenizerSpec, vocab_size: int
) -> dict[str, Any]:
    described = {"name": "ids", "digest": "ids", "file": None}
    if tokenizer is not None:
        file = TOKENIZER if spec.kind in ("bpe", "file") else None
        described = {"name": tokenizer.name, "digest": tokenizer.digest, "file": file}
    return {**described, "vocab_size": vocab_size}


def _write_texts(
    gathered: Sequence[_Gathered], tokenizer: Tokenizer, out: Path
) -> dict[str, DomainRecord]:
    """Write the token files of all text domains and `documents.jsonl`; records by domain."""
    records = {}
    with atomic_path(out / DOCUMENTS) as temporary, open(temporary, "w", encoding="utf-8") as log:
        for text in gathered:
            name, lengths = text.source.name, {}
            for split, documents in (("train", text.pool), ("valid", text.validation)):
                if split == "valid" or text.source.trained:
                    counts = _write_tokens(out / f"{name}.{split}", documents, tokenizer)
                    lengths[split] = counts
                    for document, count in zip(documents, counts, strict=True):
                        log.write(_log_line(name, split, document, count))
            records[name] = _record(text, lengths)
    return records


def _write_tokens(prefix: Path, documents: Sequence[Document], tokenizer: Tokenizer) -> list[int]:
    """Write one Megatron pair, an end-of-text id after each document; tokens of each, with it."""
    with write_megatron(prefix, vocab_size=tokenizer.vocab_size) as writer:
        for start in range(0, len(documents), ENCODE_BATCH):
            batch = documents[start : start + ENCODE_BATCH]
            for ids in tokenizer.encode([document.text for document in batch]):
                writer.add(np.append(ids.astype(np.int64), tokenizer.eot))
    return writer.lengths


def _log_line(domain: str, split: str, document: Document, tokens: int) -> str:
    row = {"domain": domain, "split": split, "origin": document.origin}
    row |= {"license": document.license, "bytes": document.num_bytes, "tokens": tokens}
    row |= {"sha256": hashlib.sha256(document.text.encode()).hexdigest()}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _record(text: _Gathered, lengths: Mapping[str, list[int]]) -> DomainRecord:
    source, train_tokens = text.source, sum(lengths.get("train", []))
    valid_bytes = sum(document.num_bytes for document in text.validation)
    found_tokens = round(train_tokens * text.found_bytes / max(text.sampled_bytes, 1))
    licenses = Counter(document.license for document in [*text.pool, *text.validation])
    return DomainRecord(
        name=source.name,
        trained=source.trained,
        train_file=f"{source.name}.train.bin" if source.trained else None,
        valid_file=f"{source.name}.valid.bin",
        train_tokens=train_tokens,
        valid_tokens=sum(lengths["valid"]),
        valid_text_tokens=sum(lengths["valid"]) - len(text.validation),
        valid_bytes=valid_bytes,
        found_tokens=found_tokens if source.trained else None,
        details={
            "train_documents": len(text.pool),
            "valid_documents": len(text.validation),
            "train_bytes": sum(document.num_bytes for document in text.pool),
            "found_bytes": text.found_bytes,
            "found_is_exact": text.found_exact,
            "sampled_bytes": text.sampled_bytes,
            "removed_exact": text.removed["exact"],
            "removed_near": text.removed["near"],
            "licenses": dict(licenses.most_common()),
        },
    )


def _open_ready(source: DomainSource, vocab_size: int) -> DomainRecord:
    """The record of a domain of ready token files, every id of them checked."""
    paths = [Path(path).absolute() for path in (*source.token_files, *source.validation_paths)]
    files = [open_token_file(path, vocab_size=vocab_size) for path in paths]
    for file in files:
        file.check_ids(vocab_size)
    train_tokens = len(files[0]) if source.trained else 0
    return DomainRecord(
        name=source.name,
        trained=source.trained,
        train_file=str(files[0].path) if source.trained else None,
        valid_file=str(files[-1].path),
        train_tokens=train_tokens,
        valid_tokens=len(files[-1]),
        valid_text_tokens=None,
        valid_bytes=None,
        found_tokens=train_tokens if source.trained else None,
    )


def _content_digest(records: Sequence[DomainRecord], out: Path, tokenizer: dict[str, Any]) -> str:
    """Of the tokens and the tokenizer, not of where they lie or what was asked for."""
    content = []
    for record in records:
        files = [file for file in (record.train_file, record.valid_file) if file is not None]
        content.append([record.name, record.trained, *(file_fingerprint(out / f) for f in files)])
    return digest([tokenizer["digest"], tokenizer["vocab_size"], content])


def _check_lengths(records: Iterable[DomainRecord], sequence_length: int) -> None:
    needed = sequence_length + 1  # inputs and their shifted targets
    for record in records:
        counts = [("validation", record.valid_tokens)]
        if record.trained:
            counts.insert(0, ("training", record.train_tokens))
        for split, count in counts:
            if count < needed:
                raise CorpusError(
                    f"domain {record.name!r} has {count:,} {split} tokens, fewer than one sequence "
                    f"of {sequence_length:,} + 1; add text or shorten the sequence"
                )
