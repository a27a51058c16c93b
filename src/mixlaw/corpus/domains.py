"""What a user asks for: domains, where their text is, and a fingerprint of it all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixlaw.corpus.environment import ENVIRONMENT_DOMAINS
from mixlaw.corpus.sources import list_files
from mixlaw.corpus.tokenizers import TokenizerSpec
from mixlaw.corpus.tokens import token_parts
from mixlaw.errors import CorpusError, MixtureError
from mixlaw.files import digest
from mixlaw.mixture import check_names

SAMPLED_BLOCKS, BLOCK_BYTES = 16, 1 << 18
"""A file above 4 MiB is fingerprinted by its size and 16 blocks spread over it."""


@dataclass(frozen=True)
class DomainSource:
    """One domain and where its text is: `paths`, `environment` or `token_files`, exactly one.

    Attributes:
        name: names the domain's files, too, so it has letters, digits, `.`, `_` and `-` only.
        paths: files or folders of text.
        environment: a built-in domain, see `ENVIRONMENT_DOMAINS`.
        token_files: one ready token file, used in place; its validation set is another, the only
            one of `validation_paths` (of a domain that is not trained, it is the validation set).
        trained: False for a domain that is measured and never trained on.
        validation_paths: text of the validation set; by default it is split off.
        max_bytes: cap on the text taken, instead of the corpus' own cap.
    Raises: CorpusError: a name or a combination that makes no sense.
    """

    name: str
    paths: Sequence[str | Path] = ()
    environment: str | None = None
    token_files: Sequence[str | Path] = ()
    trained: bool = True
    validation_paths: Sequence[str | Path] = ()
    max_bytes: int | None = None

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", self.name):
            raise CorpusError(
                f"domain name {self.name!r} cannot name a file; use letters, digits, '.', '_', '-'"
            )
        given = [k for k in ("paths", "environment", "token_files") if getattr(self, k)]
        if len(given) != 1 and not (self.is_only_validation_text and not given):
            raise CorpusError(
                f"domain {self.name!r} has {' and '.join(given) or 'no source of text'}; "
                "give exactly one of paths, environment, token_files"
            )
        if given and self.is_only_validation_text:
            raise CorpusError(
                f"domain {self.name!r} is not trained and has {given[0]} and validation_paths; "
                "give one of them"
            )
        if self.environment and self.environment not in ENVIRONMENT_DOMAINS:
            raise CorpusError(
                f"domain {self.name!r} asks for the built-in domain {self.environment!r}; "
                f"there are {sorted(ENVIRONMENT_DOMAINS)}"
            )
        self._check_token_files()
        if self.max_bytes is not None and self.max_bytes <= 0:
            raise CorpusError(
                f"domain {self.name!r} has max_bytes = {self.max_bytes}; it must be > 0"
            )

    @property
    def is_only_validation_text(self) -> bool:
        """An untrained domain whose validation text is named."""
        return not self.trained and bool(self.validation_paths)

    def _check_token_files(self) -> None:
        if not self.token_files:
            return
        if self.trained and not self.validation_paths:
            raise CorpusError(
                f"domain {self.name!r} has token files and a missing validation split; "
                "name its validation token file in validation_paths"
            )
        if len(self.token_files) > 1 or len(self.validation_paths) > 1:
            raise CorpusError(
                f"domain {self.name!r} has {len(self.token_files)} training and "
                f"{len(self.validation_paths)} validation token files; at most one of each is "
                "used in place: merge them first"
            )
        if self.max_bytes is not None:
            raise CorpusError(
                f"domain {self.name!r} has token files, which max_bytes cannot cap; leave it out"
            )


def check_sources(domains: Sequence[DomainSource], tokenizer: TokenizerSpec) -> None:
    """Raises: CorpusError: no domain, none trained, one named twice, or a tokenizer that cannot
    match ready token files."""
    try:
        check_names([source.name for source in domains])
    except MixtureError as error:
        raise CorpusError(str(error)) from error
    if not any(source.trained for source in domains):
        raise CorpusError("no domain is trained; at least one must be")
    ready = [source.name for source in domains if source.token_files]
    texts = [source.name for source in domains if not source.token_files]
    if ready and tokenizer.kind == "bpe":
        raise CorpusError(
            f"domains {ready} are token files, which a BPE trained here cannot match; "
            "give the tokenizer.json that they were made with"
        )
    if texts and tokenizer.kind == "ids":
        raise CorpusError(f"domains {texts} are text and need a tokenizer; kind 'ids' has none")


def describe_inputs(
    domains: Sequence[DomainSource], tokenizer: TokenizerSpec, options: Mapping[str, Any]
) -> dict[str, Any]:
    """All that decides a corpus, as JSON; equal for equal requests over equal files.

    Files count by name and content, not by folder, so a study can be moved. A built-in domain
    counts by name: installing a package later does not invalidate a corpus.
    """
    described: dict[str, Any] = {}
    for source in domains:
        entry = asdict(source) | {"paths": _fingerprint(source.paths)}
        entry["token_files"] = _fingerprint(source.token_files, tokens=True)
        is_tokens = bool(source.token_files)
        entry["validation_paths"] = _fingerprint(source.validation_paths, tokens=is_tokens)
        described[source.name] = entry
    chosen = {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size}
    chosen["file"] = _fingerprint([tokenizer.path] if tokenizer.path else [])
    return {**options, "order": list(described), "tokenizer": chosen, "domains": described}


def changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Lines `domains.web.max_bytes: 100 -> 200` for whatever differs."""
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from changes(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {_brief(before)} -> {_brief(after)}"


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return "present"
    return "absent" if value is None else str(value)


def _fingerprint(paths: Sequence[str | Path], *, tokens: bool = False) -> dict[str, Any]:
    found = []
    for path in map(Path, paths):
        parts = [part for part in token_parts(path) if part.is_file()] if tokens else None
        for file in list_files(path) if parts is None else parts:
            name = file.relative_to(path.parent).as_posix()
            found.append((name, file.stat().st_size, file_fingerprint(file)))
    num_bytes = sum(size for _, size, _ in found)
    return {"files": len(found), "bytes": num_bytes, "content": digest(sorted(found))}


def file_fingerprint(path: Path) -> str:
    """A hash of a file's size and content, of spread blocks only when it is large: a terabyte of
    tokens must not be read to learn that nothing changed."""
    size = path.stat().st_size
    hashed = hashlib.sha256(str(size).encode())
    with open(path, "rb") as handle:
        if size <= SAMPLED_BLOCKS * BLOCK_BYTES:
            hashed.update(handle.read())
        else:
            for block in range(SAMPLED_BLOCKS):
                handle.seek(block * (size - BLOCK_BYTES) // (SAMPLED_BLOCKS - 1))
                hashed.update(handle.read(BLOCK_BYTES))
    return hashed.hexdigest()[:16]
