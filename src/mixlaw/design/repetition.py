"""Repetition-matched proxies: text cut so that a proxy repeats each domain as the target will.

A run of D tokens that gives domain j the share r_j sees each of its U_j unique tokens e_j times,

    e_j = r_j D / U_j,

so a proxy of d tokens repeats it as often, whatever the mixture, when it draws from a pool of

    u_j = U_j d / D.

With all of U_j the proxy would repeat D / d times less, and scarce good data would look better than
it is in the target run. Source: Zhou et al., "Repetition mismatch", arXiv 2606.07597.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mixlaw.errors import DesignError
from mixlaw.mixture import Domain


def matched_pools(
    domains: Sequence[Domain],
    *,
    proxy_tokens: int,
    target_tokens: int | None,
    sequence_length: int,
    tokens_on_disk: Mapping[str, int],
) -> dict[str, int]:
    """Domain -> tokens that a proxy may draw from, in whole sequences: u_j = U_j d / D.

    Rounding to sequences of L tokens moves the epochs by at most a share L / u_j. Where neither
    run can repeat the domain (U_j >= D, and d tokens on this disk), all that is here will do.

    Args:
        domains: with the unique tokens U_j that the target run has of each.
        proxy_tokens: d, of the longest horizon; shorter ones repeat less.
        target_tokens: D.
        sequence_length: L.
        tokens_on_disk: domain -> tokens that can be drawn from here.
    Raises: DesignError: U_j or D is unknown, a pool is smaller than one sequence, or the disk
        holds less than a pool, so that the proxy would repeat more than the target.
    """
    if target_tokens is None:
        raise DesignError(
            "the tokens of the target run are unknown, and with them how often it repeats each "
            "domain; set target.train_tokens, or design without match_repetition"
        )
    unknown = [domain.name for domain in domains if domain.available_tokens is None]
    if unknown:
        raise DesignError(
            f"available_tokens of {unknown} are unknown, and with them how often the target run "
            "repeats these domains; set them to the unique tokens that the target run will have"
        )
    pools = {}
    for domain in domains:
        assert domain.available_tokens is not None, "checked above"
        pool = domain.available_tokens * proxy_tokens / target_tokens
        made_of = (
            f"{domain.name!r} has {domain.available_tokens:,} tokens for a target run of "
            f"{target_tokens:,}, so a run of {proxy_tokens:,} must draw from {pool:,.0f}"
        )
        if pool < sequence_length:
            raise DesignError(
                f"{made_of}, less than one sequence of {sequence_length:,}; train the proxies "
                "longer, on shorter sequences, or leave the domain out"
            )
        # A sequence also needs the token after its last.
        held = (tokens_on_disk[domain.name] - 1) // sequence_length
        if held + 1 < min(pool, proxy_tokens) / sequence_length:
            raise DesignError(
                f"{made_of}; this disk holds {tokens_on_disk[domain.name]:,}, and would be "
                "repeated more often than in the target run; add text, train the proxies shorter, "
                "or design without match_repetition"
            )
        pools[domain.name] = min(round(pool / sequence_length), held) * sequence_length
    return pools
