"""Validation losses per domain, for every member of a stack."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from mixlaw.train.model import Parameters, losses
from mixlaw.train.ranks import ALONE, Ranks
from mixlaw.train.recipe import Size

TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 1 << 16}


class Evaluator:
    """Mean next-token loss on fixed validation sequences, in the precision of the weights.

    Args:
        streams: domain -> validation token ids, cut into windows of `sequence_length` + 1 that
            overlap by the one token which is only predicted; the unfilled last window is dropped.
            No more than the recipe's evaluation tokens of each domain, in windows spread evenly
            over it, so that many documents are heard at little cost.
        bytes_per_token: domain -> bytes of text per validation token; None where the text behind
            ready token files is unknown, which then have no bits per byte.
    """

    def __init__(
        self,
        size: Size,
        streams: Mapping[str, np.ndarray],
        bytes_per_token: Mapping[str, float | None],
        *,
        device: torch.device | str = "cpu",
        ranks: Ranks = ALONE,
    ):
        self.size, self.bytes_per_token = size, bytes_per_token
        self.device, self.ranks = torch.device(device), ranks
        self.windows = {name: self._cut(np.asarray(tokens)) for name, tokens in streams.items()}

    def _cut(self, tokens: np.ndarray) -> torch.Tensor:
        T = self.size.recipe.sequence_length
        most = max(1, self.size.recipe.evaluation_tokens // T)
        starts = np.arange(0, len(tokens) - T, T)
        if len(starts) > most:
            starts = starts[np.linspace(0, len(starts) - 1, most).round().astype(int)]
        return torch.from_numpy(tokens[starts[:, None] + np.arange(T + 1)].astype(np.int64))

    @torch.no_grad()
    def __call__(self, parameters: Parameters) -> list[dict[str, float]]:
        """One mapping per member: `loss/<domain>` nats per token, `bpb/<domain>` bits per byte."""
        if self.device.type == "cuda":
            return self._together(parameters)
        members = next(iter(parameters.values())).shape[0]
        # One after the other: then no bit can depend on the stack.
        alone = ({n: p[k : k + 1] for n, p in parameters.items()} for k in range(members))
        return [self._together(one)[0] for one in alone]

    def _together(self, parameters: Parameters) -> list[dict[str, float]]:
        members = next(iter(parameters.values())).shape[0]
        at_once = TOKENS_AT_ONCE[self.device.type] // self.size.recipe.sequence_length // members
        out: list[dict[str, float]] = [{} for _ in range(members)]
        for name, windows in self.windows.items():
            total = torch.zeros(members, dtype=torch.float64, device=self.device)
            for chunk in windows[self.ranks.rank :: self.ranks.count].split(max(1, at_once)):
                if len(chunk) == 0:  # fewer windows than ranks
                    continue
                stacked = chunk.to(self.device).expand(members, *chunk.shape)
                found = losses(self.size.config, parameters, stacked)
                total += found.double() * len(chunk)
            self.ranks.sum_(total)
            bytes_per_token = self.bytes_per_token[name]
            for member, nats in zip(out, (total / len(windows)).tolist(), strict=True):
                member[f"loss/{name}"] = nats
                if bytes_per_token is not None:
                    member[f"bpb/{name}"] = nats / math.log(2) / bytes_per_token
        return out
