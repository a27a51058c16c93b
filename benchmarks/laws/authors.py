"""The recipes of the paper's authors, reimplemented from their description, to be timed.

M4 by torch LBFGS from thousands of starts, and the mixing law by AdaBoost of small networks. Both
in float32 on the CPU, one start (or network) at a time, as their workers run them.

Source: Ye et al., arXiv 2403.16952; github.com/yegcjs/mixinglaws, law.py, mix_5_domains.ipynb and
pipeline/utils.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import huber_loss, l1_loss, softmax

NUM_STARTS = 6000
"""A grid of 10 values of log c and 20 of log k, 30 draws of t at each."""

LBFGS_STEPS = 50
"""Calls of the optimiser a start, of at most 20 iterations each."""

M4_DELTA = 0.05
MLP_UNITS, MLP_STEPS, MLP_DELTA = 30, 5000, 0.03
NUM_MLPS, NUM_BOOSTS = 30, 16
"""Networks in one AdaBoost, and AdaBoosts (seeds) of which the best is kept."""


@dataclass(frozen=True)
class M4Fit:
    """The best of the starts tried.

    Attributes:
        log_c, log_k, t: of `exp(log_c) + exp(log_k + t . r)`.
        seconds: (starts,) wall seconds each.
    """

    log_c: float
    log_k: float
    t: np.ndarray
    seconds: np.ndarray

    def predict(self, weights: np.ndarray) -> np.ndarray:
        """Values (n,)."""
        return np.exp(self.log_c) + np.exp(self.log_k + weights @ self.t)


def starting_points(num_domains: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Their starts in random order, so that the first few are a fair sample of all."""
    grid = [(c, k) for c in np.linspace(-2, 1.5, 10) for k in np.linspace(-10, 1, 20)]
    for i in rng.permutation(NUM_STARTS):
        yield np.concatenate([grid[i % len(grid)], 0.1 * rng.random(num_domains)])


def fit_m4(weights: np.ndarray, y: np.ndarray, num_starts: int, seed: int) -> M4Fit:
    """M4 to one target: weights (n, M), y (n,)."""
    r = torch.tensor(weights, dtype=torch.float32)
    observed = torch.tensor(y, dtype=torch.float32)
    starts = starting_points(weights.shape[1], np.random.default_rng(seed))
    seconds, lowest, best = [], np.inf, None
    for _, start in zip(range(num_starts), starts, strict=False):
        began = time.perf_counter()
        loss, theta = _descend(r, observed, torch.tensor(start, dtype=torch.float32))
        seconds.append(time.perf_counter() - began)
        if loss < lowest:
            lowest, best = loss, theta
    if best is None:
        raise FloatingPointError(f"all {num_starts} starts diverged")
    theta = best.double().numpy()
    return M4Fit(float(theta[0]), float(theta[1]), theta[2:], np.array(seconds))


def _descend(
    r: torch.Tensor, observed: torch.Tensor, start: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """One start: the lowest mean Huber loss on the way, and its parameters."""
    theta = torch.nn.Parameter(start)
    optimizer = torch.optim.LBFGS(
        [theta], lr=0.01, max_iter=20, history_size=10, line_search_fn="strong_wolfe"
    )

    def predicted() -> torch.Tensor:
        return theta[0].exp() + (theta[1] + r @ theta[2:]).exp()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = huber_loss(predicted(), observed, delta=M4_DELTA, reduction="sum")
        loss.backward()
        return loss

    lowest, best = np.inf, start
    for _ in range(LBFGS_STEPS):
        optimizer.step(closure)
        with torch.no_grad():
            loss = float(huber_loss(predicted(), observed, delta=M4_DELTA))
        if loss <= lowest:
            lowest, best = loss, theta.detach().clone()
    return lowest, best


class MixtureMLP(torch.nn.Module):
    """`b + sum_h softmax(v)_h exp(w_h . r + a_h)`: 30 exponentials, averaged."""

    def __init__(self, num_domains: int):
        super().__init__()
        self.hidden = torch.nn.Linear(num_domains, MLP_UNITS)
        self.out = torch.nn.Linear(MLP_UNITS, 1)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        """Mixtures (n, M) -> values (n,)."""
        averaged = self.hidden(r).exp() @ softmax(self.out.weight, dim=-1).T
        return (averaged + self.out.bias).squeeze(-1)


def train_mlp(weights: np.ndarray, y: np.ndarray, num_steps: int, seed: int) -> float:
    """Wall seconds of the first `num_steps` of the 5,000 steps of one network.

    Every step is one AdamW step on the first four fifths of the rows, then the mean absolute error
    of all rows, by which the best parameters are kept.
    """
    torch.manual_seed(seed)
    r, observed = (torch.tensor(a, dtype=torch.float32) for a in (weights, y))
    model = MixtureMLP(weights.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=1e-3)
    kept = len(y) - len(y) // 5
    lowest, best = np.inf, model.state_dict()
    began = time.perf_counter()
    for _ in range(num_steps):
        loss = huber_loss(model(r[:kept]), observed[:kept], delta=MLP_DELTA)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            error = float(l1_loss(model(r), observed))
        if error < lowest:
            lowest, best = error, model.state_dict()
    model.load_state_dict(best)
    return time.perf_counter() - began
