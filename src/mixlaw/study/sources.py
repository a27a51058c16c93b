"""From a study file to its corpus: where each domain's text or tokens lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixlaw.corpus import Corpus, DomainSource, TokenizerSpec, build_corpus
from mixlaw.errors import StudyError
from mixlaw.study.config import DomainConfig, StudyConfig


def corpus_of(config: StudyConfig, folder: Path) -> Corpus:
    """Build, or open, the corpus of a study in its folder; paths are relative to that.

    Raises: StudyError: a study without training. CorpusError: as `build_corpus`.
    """
    if config.training is None:
        raise StudyError("a corpus is for training; the study has no training section")
    sources = [_source(name, d, folder, trained=True) for name, d in config.domains.items()]
    sources += [
        _source(name, d, folder, trained=False) for name, d in config.validation_only.items()
    ]
    tokenizer = config.tokenizer
    path = None if tokenizer.path is None else folder / tokenizer.path
    return build_corpus(
        sources,
        folder / "corpus",
        tokenizer=TokenizerSpec(tokenizer.kind, tokenizer.vocab_size, path),
        sequence_length=max(config.recipe(size).sequence_length for size in config.sizes),
        seed=config.seed,
        validation_bytes=config.validation_bytes,
    )


def _source(name: str, domain: DomainConfig, folder: Path, *, trained: bool) -> DomainSource:
    def at_home(paths: Sequence[str | None]) -> tuple[str, ...]:
        return tuple(str(folder / path) for path in paths if path is not None)

    tokens, valid = at_home([]), at_home(domain.validation_paths)
    if domain.tokens is not None and trained:
        tokens, valid = at_home([domain.tokens.train]), at_home([domain.tokens.valid])
    elif domain.tokens is not None:  # its one file is the validation set
        tokens = at_home([domain.tokens.valid])
    return DomainSource(
        name=name,
        paths=at_home(domain.paths),
        environment=domain.environment,
        token_files=tokens,
        trained=trained,
        validation_paths=valid,
        max_bytes=domain.max_bytes,
    )
