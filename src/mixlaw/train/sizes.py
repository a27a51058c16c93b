"""Named sizes: one dial, the name; it sets architecture, batch, sequence and learning rate.

Names of plain counts are non-embedding parameters. Pythia's names count the embeddings, too: its
70M has 18.9 million others (Biderman et al., arXiv 2304.01373, table 1), as the runs of Data Mixing
Laws have (Ye et al., arXiv 2403.16952). Ours are theirs in width, depth and heads; without biases
and gains their counts are .1 to .3 % lower.

Learning rates. Up to 30M: 0.32 / width, tuned on 20 k to 1.2 M parameters (docs/decisions.md) and
carried up as 1 / width, the rule for Adam on hidden matrices (Yang et al., arXiv 2203.03466); above
1.2 M it is not tuned here. Pythia's sizes: those of its table 1.

Batches. The tokens of a batch that still pay grow with the tokens of the run (Zhang et al., arXiv
2410.21676), so short proxies want small ones: 512 tokens won at 20 k to 1.2 M parameters
(docs/decisions.md), half a million to a million tokens are those of 350 M to 1.3 B parameters
(Brown et al., arXiv 2005.14165, table 2.1); between them about a doubling per doubling of the
parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

LEARNING_RATE_TIMES_WIDTH = 0.32


@dataclass(frozen=True)
class NamedSize:
    """What a name stands for; `learning_rate` None: by the width."""

    width: int
    layers: int
    head_width: int = 16
    mlp_ratio: int = 4
    batch_size: int = 8
    sequence_length: int = 64
    warmup_steps: int = 30
    learning_rate: float | None = None


def default_learning_rate(width: int) -> float:
    """Peak rate of a width that no table names."""
    return LEARNING_RATE_TIMES_WIDTH / width


NAMED_SIZES = {
    "25k": NamedSize(32, 2),
    "50k": NamedSize(48, 2),
    "100k": NamedSize(64, 2),
    "150k": NamedSize(80, 2),
    "300k": NamedSize(112, 2),
    "500k": NamedSize(144, 2),
    "1M": NamedSize(208, 2, 16, 4, 16, 128, 50),
    "2M": NamedSize(288, 2, 32, 4, 16, 128, 50),
    # Hidden 256, two layers, inner 512: the shape of RegMix's 1M (Liu et al., arXiv 2407.01492).
    "regmix-1m": NamedSize(256, 2, 32, 2, 32, 256, 100),
    "5M": NamedSize(320, 4, 64, 4, 32, 256, 100),
    "15M": NamedSize(448, 6, 64, 4, 64, 512, 100),
    "30M": NamedSize(640, 6, 64, 4, 128, 512, 200),
    "pythia-70m": NamedSize(512, 6, 64, 4, 128, 1024, 200, 1e-3),
    "pythia-160m": NamedSize(768, 12, 64, 4, 256, 1024, 200, 6e-4),
    "pythia-305m": NamedSize(1024, 16, 64, 4, 256, 2048, 300, 3e-4),
    "pythia-410m": NamedSize(1024, 24, 64, 4, 256, 2048, 300, 3e-4),
    "pythia-1b": NamedSize(2048, 16, 256, 4, 512, 2048, 300, 3e-4),
}
