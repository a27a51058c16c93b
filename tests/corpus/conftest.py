from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in ("", "n", "r", "st", "x")]


@pytest.fixture(scope="session")
def prose() -> Callable[[int, int], str]:
    """Words at random by (seed, number of words): two seeds share hardly any run of five."""
    return lambda seed, num_words: " ".join(np.random.default_rng(seed).choice(WORDS, num_words))


@pytest.fixture
def write_folder(tmp_path: Path, prose) -> Callable[..., Path]:
    """Makes a folder of text files, `count` documents of about 300 words."""

    def write(name: str, count: int, *, seed: int = 0, num_words: int = 300) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for i in range(count):
            (folder / f"{i:03d}.txt").write_text(prose(1000 * seed + i, num_words))
        return folder

    return write
