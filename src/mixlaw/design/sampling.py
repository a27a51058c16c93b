"""Mixtures worth training: five designs behind one call, `design`.

A method is a function `(space, count, *, prior, rng) -> (n, M)` that returns distinct mixtures
of the space, at most `count` of them and fewer only when it knows no more. To add one, write the
function and list it in `METHODS`.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mixlaw.design import doptimal
from mixlaw.design.space import SAME, Space, distinct, farthest_first
from mixlaw.errors import DesignError
from mixlaw.mixture import Mixture, check_names


class Method(Protocol):
    """A sampler of mixtures: see the module's first lines."""

    def __call__(
        self, space: Space, count: int, *, prior: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray: ...


def design(
    domains: Sequence[str],
    count: int,
    *,
    method: str = "maximin",
    bounds: tuple[np.ndarray, np.ndarray],
    prior: Mixture | None = None,
    temperature: float = 0.5,
    min_share: float = 0.0,
    seed: int,
) -> list[Mixture]:
    """Choose mixtures to train on.

    Args:
        domains: M names.
        count: how many mixtures.
        method: a key of `METHODS`.
        bounds: lower and upper proportions (M,), (M,), with availability folded in
            (`Constraints.bounds`).
        prior: where the Dirichlet draws are centred; None for uniform.
        temperature: power that the prior is raised to; below 1 it smooths a skewed prior, 1
            leaves it, 0 makes it uniform (RegMix: 0.5).
        min_share: a domain has at least this proportion or none at all.
        seed: of every random choice; the same arguments give the same mixtures.
    Returns: `count` mixtures, no two the same to 1e-6.
    Raises:
        DesignError: an unknown method, or fewer distinct mixtures than asked for.
        InfeasibleError: no mixture satisfies the bounds and `min_share`.
        MixtureError: a domain named twice, or a prior on an unknown domain.
    """
    check_names(domains)
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=1, cutoff=0)
        raise DesignError(
            f"no design method {method!r}; did you mean {near[0]!r}? known: {sorted(METHODS)}"
        )
    if count < 1:
        raise DesignError(f"a design of {count} mixtures was asked for; it needs at least 1")
    space = Space(domains, *bounds, min_share)
    if not (np.isfinite(temperature) and temperature >= 0):
        raise DesignError(f"the temperature is {temperature}; it must be finite and >= 0")
    centre = np.ones(len(domains)) if prior is None else prior.array(domains)
    # A domain that the prior leaves out still gets drawn: a law must see it to price it.
    centre = np.maximum(centre, SAME) ** temperature
    centre /= centre.sum()
    points = METHODS[method](space, count, prior=centre, rng=np.random.default_rng(seed))
    if len(points) < count:
        raise DesignError(
            f"the design {method!r} has only {len(points)} distinct mixtures within the bounds "
            f"and min_share = {min_share:g}, {count} were asked for; ask for fewer, widen the "
            "bounds, or choose another method"
        )
    return [Mixture.from_array(domains, point) for point in points]


# --- double-diminishing -----------------------------------------------------------------------

SMALLEST_LEVEL = 1 / 32
WITHOUT_A_DOMAIN = 1 / 4
_ENUMERATE = 200_000


def double_diminishing(
    space: Space, count: int, *, prior: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Proportions that halve down from each domain's largest allowed share.

    All domains but the last take a level r_max, r_max/2, r_max/4, ... or 0, and the last takes
    the rest: losses are about exponential in a share, so halved shares spread the losses evenly.
    Most candidates lack some domain (a 0 among their levels); to keep these from flooding the
    set, only a quarter of the mixtures comes from them and the others have every domain.

    Source: Ye et al., arXiv 2403.16952, written from the description of its sampler and from the
        released mixtures: they show the halving, smallest levels of 1/16 (RedPajama) and 1/32
        (5Mix; used here), and 10 of 42 RedPajama runs that lack a domain, hence the quarter.
    Deviations: r_max is not floored to a grid; r_max itself is a level even below 1/32; a
        positive lower bound replaces 0 as the lowest level; beyond 8 domains the smallest level
        is 1/(4M), or no mixture could have every domain; with over 200,000 level combinations
        candidates are drawn level by level (in random order of domains, only levels that still
        allow a sum of 1) instead of being enumerated. `prior` is not used.
    """
    levels = _levels(space)
    if math.prod(len(domain_levels) for domain_levels in levels[:-1]) <= _ENUMERATE:
        grid = np.meshgrid(*levels[:-1], indexing="ij")
        first = np.stack([g.ravel() for g in grid], axis=1) if grid else np.zeros((1, 0))
    else:  # with every domain, and with any
        present = [domain_levels[domain_levels > 0] for domain_levels in levels]
        draws = 20 * count + 2000
        first = np.concatenate(
            [_draw_levels(space, choice, draws, rng) for choice in (present, levels)]
        )
    candidates = np.column_stack([first, 1 - first.sum(axis=1)])
    # Subtraction leaves dust where the rest should be 0, and dust is not a share.
    candidates[np.abs(candidates) < 1e-9] = 0.0
    candidates = rng.permutation(distinct(candidates[space.contains(candidates)]))
    lacking = (candidates == 0).any(axis=1)
    sparse, full = candidates[lacking], candidates[~lacking]
    take = min(len(sparse), max(int(count * WITHOUT_A_DOMAIN), count - len(full)))
    return rng.permutation(np.concatenate([sparse[:take], full[: count - take]]))


def _levels(space: Space) -> list[np.ndarray]:
    """Per domain its levels, descending; 0 (or the lower bound) last."""
    levels = []
    smallest_level = min(SMALLEST_LEVEL, 1 / (4 * len(space.cap)))
    for required, floor, cap in zip(space.required, space.floor, space.cap, strict=True):
        smallest = max(floor, smallest_level)
        halvings = max(0, math.floor(math.log2(cap / smallest) + 1e-9)) if cap > 0 else 0
        values = cap / 2.0 ** np.arange(halvings + 1)
        lowest = floor if required else 0.0
        levels.append(np.unique(np.append(values, lowest))[::-1])
    return levels


def _draw_levels(
    space: Space, levels: list[np.ndarray], draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Random level combinations (n, M - 1) that leave the last domain a feasible rest."""
    size = len(levels) - 1
    if any(len(domain_levels) == 0 for domain_levels in levels):
        return np.empty((0, size))  # a domain that cannot be present
    table = np.full((size, max(map(len, levels))), np.nan)
    for j, domain_levels in enumerate(levels[:-1]):
        table[j, : len(domain_levels)] = domain_levels
    lowest = np.array([domain_levels[-1] for domain_levels in levels])
    rows, out, used = np.arange(draws), np.zeros((draws, size)), np.zeros(draws)
    least, most = np.full(draws, lowest.sum()), np.full(draws, space.cap.sum())
    alive = np.ones(draws, bool)
    for j in rng.permuted(np.tile(np.arange(size), (draws, 1)), axis=1).T:  # j: (draws,)
        least, most = least - lowest[j], most - space.cap[j]
        values = table[j]  # (draws, L)
        total = used[:, None] + values
        allowed = (total + least[:, None] <= 1 + SAME) & (total + most[:, None] >= 1 - SAME)
        pick = np.argmax(np.where(allowed, rng.random(values.shape), -1.0), axis=1)
        alive &= allowed[rows, pick]
        out[rows, j] = np.nan_to_num(values[rows, pick])
        used += out[rows, j]
    return out[alive]


# --- Dirichlet --------------------------------------------------------------------------------

CONCENTRATION = (0.025, 1.25)


def dirichlet(
    space: Space, count: int, *, prior: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws around the tempered prior p: `Dirichlet(s M p)`, s log-uniform.

    Small s gives mixtures of few domains, large s mixtures near p.

    Source: RegMix, Liu et al., arXiv 2407.01492, and its `synthesize_mixture.py`.
    Deviations: s is continuous instead of one of 15 values, and its range is RegMix's .1 to 5 for
        4 domains and grows with their number, since RegMix's total mass leaves most of many
        domains out of most mixtures; a draw outside the bounds is brought inside (`Space.snap`)
        where RegMix rejects it, which fails under tight caps; shares below half of `min_share`
        become 0.
    """
    return _draw_dirichlet(space, count, prior, CONCENTRATION, rng)


def _draw_dirichlet(
    space: Space,
    count: int,
    prior: np.ndarray,
    concentration: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Distinct draws (<= count, M) with a mean concentration per domain in the range given."""
    centre = prior / prior.mean()
    low, high = np.log(concentration)
    points = np.empty((0, len(prior)))
    for _ in range(8):  # eight rounds find fewer only where the space is a few points
        strength = np.exp(rng.uniform(low, high, (count, 1)))
        gammas = rng.standard_gamma(np.maximum(strength * centre, 1e-3))
        # All gammas of very small shape can underflow to 0; one domain then takes all.
        gammas[gammas.sum(axis=1) <= 0, rng.integers(len(prior))] = 1.0
        draws = gammas / gammas.sum(axis=1, keepdims=True)
        points = distinct(np.concatenate([points, space.snap(draws)]))
        if len(points) >= count:
            break
    return points[:count]


# --- corners and centroids --------------------------------------------------------------------

_MAX_COMBINATIONS = 4000


def simplex(space: Space, count: int, *, prior: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The overall centroid, the vertices, then the centroids of 2, 3, ... vertices.

    Without bounds this is the simplex-centroid design; where bounds cut the corners, the vertices
    are those of the polytope. A level with more points than are left to choose is thinned by
    greedy maximin. `prior` is not used.

    Source: Scheffe (1963), simplex-centroid; McLean and Anderson (1966), extreme vertices.
    """
    corners = vertices(space, rng)
    chosen = space.snap(corners.mean(axis=0, keepdims=True))
    if len(corners) > count:
        corners = corners[farthest_first(corners, count)[0]]
    for size in range(1, len(corners) + 1):
        groups = _combinations(len(corners), size, rng)
        centroids = space.snap(corners[groups].mean(axis=1))
        fresh = distinct(np.concatenate([chosen, centroids]))[len(chosen) :]
        missing = count - len(chosen)
        if len(fresh) > missing:
            fresh = fresh[farthest_first(fresh, missing, start=chosen)[0]] if missing else fresh[:0]
        chosen = np.concatenate([chosen, fresh])
        if len(chosen) >= count:
            break
    return chosen


def vertices(space: Space, rng: np.random.Generator) -> np.ndarray:
    """Vertices of the polytope `lower <= r <= cap, sum r = 1`, snapped to the minimum share.

    Each is the lower bounds filled up to the caps in some order of domains. All orders are tried
    up to 7 domains; beyond that every domain comes first once, then random orders.
    """
    size = len(space.cap)
    if size <= 7:
        orders = np.array(list(itertools.permutations(range(size))))
    else:
        shuffled = rng.permuted(np.tile(np.arange(size), (_MAX_COMBINATIONS, 1)), axis=1)
        firsts = np.array([np.roll(np.arange(size), -j) for j in range(size)])
        orders = np.concatenate([firsts, shuffled])
    lowest = np.where(space.required, space.floor, 0.0)
    room = (space.cap - lowest)[orders]
    fill = np.clip(1 - lowest.sum() - (np.cumsum(room, axis=1) - room), 0, room)
    points = np.zeros(orders.shape)
    np.put_along_axis(points, orders, fill, axis=1)
    return distinct(space.snap(points + lowest))


def _combinations(total: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Index sets (n, size): all of them, or a random sample when there are too many."""
    if math.comb(total, size) <= _MAX_COMBINATIONS:
        return np.array(list(itertools.combinations(range(total), size)))
    return np.argsort(rng.random((_MAX_COMBINATIONS, total)), axis=1)[:, :size]


# --- from a large pool: maximin, D-optimal ----------------------------------------------------

_POOL = 1500
_POOL_CONCENTRATION = (0.3, 1.2)
"""Per domain. At .8 alone, mixtures of few domains are missed: their error is 2.6 times larger."""


def maximin(space: Space, count: int, *, prior: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mixtures of a large pool as far from one another as greedy choice can put them.

    The pool is that of `d_optimal`; distances are those of sqrt(r) (`space.coordinates`).
    """
    pool = candidate_pool(space, max(_POOL, 10 * count), prior=prior, rng=rng)
    return pool[farthest_first(pool, count)[0]] if len(pool) > count else pool


def d_optimal(
    space: Space, count: int, *, prior: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The best of a large pool for the M4 law, well spread: see `doptimal`.

    The pool is half Dirichlet draws around the prior and half around uniform.
    """
    pool = candidate_pool(space, max(_POOL, 10 * count), prior=prior, rng=rng)
    return doptimal.choose(pool, count, rng) if len(pool) > count else pool


def candidate_pool(
    space: Space, size: int, *, prior: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """At most `size` distinct mixtures (n, M) from all over the space."""
    draws = [
        _draw_dirichlet(space, size // 2, centre, _POOL_CONCENTRATION, rng)
        for centre in (prior, np.full(len(prior), 1 / len(prior)))
    ]
    return distinct(np.concatenate(draws))


METHODS: dict[str, Method] = {
    "d-optimal": d_optimal,
    "dirichlet": dirichlet,
    "double-diminishing": double_diminishing,
    "maximin": maximin,
    "simplex": simplex,
}
"""Every design method by name."""
