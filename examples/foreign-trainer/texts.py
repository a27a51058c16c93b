"""The team's data: `python texts.py FOLDER` makes FOLDER/<domain>/{train,valid}, datasets of blocks
of 64 tokens, from text that the running Python environment holds already (no download).

Documents are freed of duplicates and split before they are packed, and every domain is cut to the
tokens that study.yaml says it has. cython is for validation only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import datasets
import numpy as np

from mixlaw.corpus import DomainSource, TokenizerSpec, build_corpus

TRAIN_TOKENS = {
    "docs": 400_000,
    "python": 1_600_000,
    "tests": 800_000,
    "cpp": 600_000,
    "data": 400_000,
}
VALID_TOKENS = 24_000
BLOCK_TOKENS = 64
VOCAB_SIZE = 1_024


def write_blocks(tokens, num_tokens: int, folder: Path) -> None:
    whole = num_tokens // BLOCK_TOKENS * BLOCK_TOKENS
    if len(tokens) < whole:
        raise SystemExit(
            f"{folder} needs {whole:,} tokens, and this Python environment has {len(tokens):,} "
            "of its kind; install a few more packages, or lower texts.py and study.yaml"
        )
    blocks = np.asarray(tokens[:whole], np.int32).reshape(-1, BLOCK_TOKENS)
    datasets.Dataset.from_dict({"input_ids": blocks}).save_to_disk(folder)


def main(folder: Path) -> None:
    datasets.disable_progress_bars()
    sources = [
        DomainSource(name, environment=name, max_bytes=4 * num_tokens)
        for name, num_tokens in TRAIN_TOKENS.items()
    ]
    corpus = build_corpus(
        [*sources, DomainSource("cython", environment="cython", trained=False)],
        folder / "corpus",
        tokenizer=TokenizerSpec("bpe", VOCAB_SIZE),
        sequence_length=BLOCK_TOKENS,
        seed=0,
        validation_bytes=4 * VALID_TOKENS,
    )
    for name, num_tokens in TRAIN_TOKENS.items():
        write_blocks(corpus.train_tokens(name), num_tokens, folder / name / "train")
    for name in corpus.targets:
        write_blocks(corpus.valid_tokens(name), VALID_TOKENS, folder / name / "valid")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
