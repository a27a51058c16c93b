"""Mixtures that a team would use without a law, to compare with."""

from __future__ import annotations

from collections.abc import Sequence

from mixlaw.errors import InfeasibleError, MixtureError
from mixlaw.mixture import Domain, Mixture


def unimax(domains: Sequence[Domain], train_tokens: float, max_epochs: float) -> Mixture:
    """Uniform over domains, but none is seen more than `max_epochs` times: the tokens that a small
    domain cannot give are shared equally by the larger ones.

    Source: UniMax, Chung et al., arXiv 2304.09151, algorithm 1.
    Raises:
        MixtureError: tokens of a domain are unknown, or a cap that is not positive.
        InfeasibleError: all domains together do not hold enough.
    """
    unknown = [domain.name for domain in domains if domain.available_tokens is None]
    if unknown:
        raise MixtureError(f"UniMax needs available_tokens, unknown for {unknown}; set them")
    if not max_epochs > 0:
        raise MixtureError(f"max_epochs is {max_epochs}; it must be > 0")
    shares, rest = {}, 1.0
    caps = {d.name: max_epochs * (d.available_tokens or 0) / train_tokens for d in domains}
    for left, (name, cap) in enumerate(sorted(caps.items(), key=lambda item: item[1])):
        shares[name] = min(cap, rest / (len(caps) - left))
        rest -= shares[name]
    if rest > 1e-9:
        raise InfeasibleError(
            f"{max_epochs:g} epochs of all domains are {1 - rest:.3f} of the {train_tokens:,.0f} "
            "training tokens; raise max_epochs or train on fewer tokens"
        )
    return Mixture.from_weights({domain.name: shares[domain.name] for domain in domains})
