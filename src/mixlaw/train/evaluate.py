"""Validation losses per domain, for every member of a stack."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from mixlaw.train.model import Parameters, losses
from mixlaw.train.recipe import ModelConfig

SEQUENCES_PER_CHUNK = 32


class Evaluator:
    """Mean next-token loss on fixed validation sequences.

    Args:
        streams: domain -> validation token ids, cut into windows of `sequence_length` + 1 that
            overlap by the one token which is only predicted; the unfilled last window is dropped.
        max_tokens: evaluate on no more than so many tokens of each domain, in windows spread
            evenly over it, so that many documents are heard at little cost.
        bytes_per_token: domain -> bytes of text per validation token; None where the text behind
            ready token files is unknown, which then have no bits per byte.
    """

    def __init__(
        self,
        config: ModelConfig,
        streams: Mapping[str, np.ndarray],
        bytes_per_token: Mapping[str, float | None],
        *,
        max_tokens: int,
    ):
        self.config = config
        self.bytes_per_token = bytes_per_token
        self.max_windows = max(1, max_tokens // config.sequence_length)
        self.windows = {name: self._cut(np.asarray(tokens)) for name, tokens in streams.items()}

    def _cut(self, tokens: np.ndarray) -> torch.Tensor:
        T = self.config.sequence_length
        starts = np.arange(0, len(tokens) - T, T)
        if len(starts) > self.max_windows:
            starts = starts[np.linspace(0, len(starts) - 1, self.max_windows).round().astype(int)]
        return torch.from_numpy(tokens[starts[:, None] + np.arange(T + 1)].astype(np.int64))

    @torch.no_grad()
    def __call__(self, parameters: Parameters) -> list[dict[str, float]]:
        """One mapping per member: `loss/<domain>` nats per token, `bpb/<domain>` bits per byte."""
        members = next(iter(parameters.values())).shape[0]
        out: list[dict[str, float]] = [{} for _ in range(members)]
        for name, windows in self.windows.items():
            total = torch.zeros(members, dtype=torch.float64)
            for chunk in windows.split(SEQUENCES_PER_CHUNK):
                stacked = chunk.expand(members, *chunk.shape)
                total += losses(self.config, parameters, stacked).double() * len(chunk)
            bytes_per_token = self.bytes_per_token[name]
            for member, nats in zip(out, (total / len(windows)).tolist(), strict=True):
                member[f"loss/{name}"] = nats
                if bytes_per_token is not None:
                    member[f"bpb/{name}"] = nats / math.log(2) / bytes_per_token
        return out
