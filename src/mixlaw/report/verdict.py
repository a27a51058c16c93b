"""The decision in plain words: what is promised, what was seen, how far to trust it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from mixlaw.optimize import Comparison, Decision
from mixlaw.optimize.decision import AtOtherScale
from mixlaw.plots.evidence import Noise, known
from mixlaw.report.words import (
    against,
    count,
    listing,
    number_of,
    objective_unit,
    objective_words,
    percent,
    plain,
    scale_words,
)
from mixlaw.runs import RunTable
from mixlaw.study.verification import RECOMMENDED, Gain, Verification

CONFIRMED, UNCLEAR, NOT_CONFIRMED, UNTESTED = "good", "unclear", "bad", "untested"

SURE = 0.8
"""Probability to beat a baseline below which the runs cannot tell."""

SAME_OPTIMUM = 1e-3

TRAIN, GUESS = "Train on", "The runs cannot tell yet; the best guess is"
NOT_VERIFIED = "a forecast: this mixture is not verified yet"


@dataclass(frozen=True)
class Step:
    """Something to do, and the command that does it; "" where there is none.

    Attributes:
        gives: what the command gives, for a terminal.
    """

    text: str
    command: str = ""
    gives: str = ""


@dataclass(frozen=True)
class Tile:
    """One number of the headline."""

    label: str
    number: str
    detail: str


@dataclass(frozen=True)
class Headline:
    """The top of the page.

    Attributes:
        mood: "good", "unclear", "bad" or "untested".
        verb: what the page says of the mixture.
        steps: what to do next.
    """

    mixture: str
    mood: str
    verdict: str
    sentences: tuple[str, ...]
    tiles: tuple[Tile, ...]
    verb: str = TRAIN
    steps: tuple[Step, ...] = ()


def headline(
    decision: Decision, verification: Verification | None, noise: Noise | None, *, level: str = ""
) -> Headline:
    """Everything above the first section; level: as `level_words` has it."""
    sentences = [_promise(decision), *([level] if level else [])]
    if verification is None:
        mood, verdict = UNTESTED, NOT_VERIFIED.capitalize()
    else:
        mood, verdict = _judge(verification, noise)
        sentences.append(_seen(decision, verification, noise))
    return Headline(
        mixture=mixture_words(decision),
        mood=mood,
        verdict=verdict,
        sentences=tuple(sentences),
        tiles=_tiles(decision, verification),
        verb=verb_of(decision, mood),
    )


def verb_of(decision: Decision, mood: str) -> str:
    """What is said of the mixture: train on it, or that it is a guess, where no baseline that may
    be trained is beaten with a probability of `SURE`, neither by the law nor when trained."""
    others = rivals(decision) or decision.baselines
    chances = [comparison.probability_better for comparison in others.values()]
    told = mood == CONFIRMED or not chances or max(chances) >= SURE
    return TRAIN if told else GUESS


def rivals(decision: Decision) -> dict[str, Comparison]:
    """The baselines that keep the study's constraints."""
    return {n: c for n, c in decision.baselines.items() if not c.forecast.violations}


def mixture_words(decision: Decision) -> str:
    """ "75 % docs, 11 % python and 14 % others", largest first."""
    ranked = sorted(decision.recommended.items(), key=lambda pair: -pair[1])
    shown = ranked if len(ranked) <= 7 else ranked[:6]
    words = [f"{percent(share)} {plain(name)}" for name, share in shown]
    rest = ranked[len(shown) :]
    if rest:
        total = sum(share for _, share in rest)
        words.append(f"{percent(total)} across {len(rest)} other domains")
    return listing(words, most=8)


def _promise(decision: Decision) -> str:
    found = decision.forecast.objective
    width = f" ± {found.half_width:.3f}" if np.isfinite(found.half_width) else ""
    parts = [
        f"{against(comparison.gain, name)} (probability {comparison.probability_better:.2f} "
        f"that it is lower{guess_words(comparison)})"
        for name, comparison in decision.baselines.items()
    ]
    compared = f": {listing(parts)}" if parts else ""
    return (
        f"For {objective_words(decision.objective)} at "
        f"{scale_words(decision.num_params, decision.train_tokens)}, the law {decision.law} "
        f"predicts {found.value:.3f}{width} ({decision.level:.0%} interval){compared}."
    )


def level_words(needs: Set[str], runs: RunTable, decision: Decision) -> str:
    """At what scale the forecast really is, where the law does not read the scale of the target.

    Args:
        needs: what the law reads.
        runs: that it was fitted to.
    Returns: "" where the law reads it, or the target is no larger or smaller than the runs.
    """
    words = {"num_params": "parameters", "train_tokens": "tokens"}
    unread = []
    for axis, thing in words.items():
        wanted, seen = getattr(decision, axis), getattr(runs, axis)
        if axis not in needs and wanted is not None and not np.allclose(seen, wanted):
            unread.append((thing, known(seen)))
    if not unread or not len(runs):
        return ""
    things = " or ".join(thing for thing, _ in unread)
    trained = listing(f"{count(most)} {thing}" for thing, most in unread if most is not None)
    return (
        f"The law {decision.law} does not depend on the number of {things}: the level it forecasts "
        f"is that of the trained runs{f' ({trained})' if trained else ''}, not of the target."
    )


def other_scales(needs: Set[str], decision: Decision) -> tuple[AtOtherScale, ...]:
    """Those that say something: of a law that reads no scale, none where no cap moves its optimum
    either."""
    reads = needs & {"num_params", "train_tokens"}
    names = list(decision.recommended)
    optima = np.array([scale.mixture.array(names) for scale in decision.scales])
    still = not len(optima) or np.ptp(optima, axis=0).max() < SAME_OPTIMUM
    return () if still and not reads else decision.scales


def guess_words(comparison: Comparison) -> str:
    """What to add to a gain over a baseline that no run supports."""
    return (
        "; a guess, it lies outside the trained range" if comparison.forecast.extrapolates else ""
    )


def _seen(decision: Decision, verification: Verification, noise: Noise | None) -> str:
    verified = verification.mixtures[RECOMMENDED]
    miss = verified.mean - verified.predicted.value
    side = "above" if miss > 0 else "below"
    inside = "inside" if verified.inside else "OUTSIDE"
    gains = [against(gain.mean, name) for name, gain in verification.gains.items()]
    text = (
        f"Trained at that scale ({number_of(len(verified.observed), 'seed')}), it scored "
        f"{verified.mean:.3f}, {abs(miss):.3f} {side} the forecast and {inside} the "
        f"{decision.level:.0%} interval"
    )
    text += f"; it came out {listing(gains)}." if gains else "."
    return f"{text} {noise_words(noise, verification)}"


def noise_words(noise: Noise | None, verification: Verification) -> str:
    """How far apart two seeds of one mixture are."""
    seeds = min(len(gain.observed) for gain in verification.gains.values())
    if noise is None:
        return "No mixture was trained with several seeds, so the seed noise is unknown."
    where = "there" if noise.at_target else f"at {scale_words(*noise.where)} (not at the target)"
    text = f"Between seeds the objective varies by {noise.deviation:.4f} (standard deviation) "
    text += f"{where}."
    if seeds == 1:
        text += " One seed was verified: repeat it before much depends on it."
    return text


def difference_noise(noise: Noise | None, seeds: int) -> float | None:
    """Standard deviation of a mean gain over so many seeds, were the seeds independent."""
    return None if noise is None else noise.deviation * float(np.sqrt(2 / seeds))


def _judge(verification: Verification, noise: Noise | None) -> tuple[str, str]:
    """Mood and verdict: a gain counts when it exceeds twice the noise of a difference."""
    worse, within = [], []
    for name, gain in verification.gains.items():
        spread = difference_noise(noise, len(gain.observed))
        if gain.mean <= 0:
            worse.append(plain(name))
        elif spread is None or gain.mean <= 2 * spread:
            within.append(plain(name))
    names = listing([plain(name) for name in verification.gains])
    if worse:
        return NOT_CONFIRMED, f"Not confirmed: {listing(worse)} was as good or better when trained"
    if within and noise is None:
        return UNCLEAR, f"Better than {names} when trained, but the seed noise is unknown"
    if within:
        return UNCLEAR, f"Not clear: the gain over {listing(within)} is within seed noise"
    if min(len(gain.observed) for gain in verification.gains.values()) == 1:
        return UNCLEAR, f"Better than {names} when trained, but with one seed only"
    if not verification.mixtures[RECOMMENDED].inside:
        return UNCLEAR, f"Better than {names} when trained, but the level was predicted wrongly"
    return CONFIRMED, f"Confirmed: better than {names} when trained, beyond seed noise"


def _tiles(decision: Decision, verification: Verification | None) -> tuple[Tile, ...]:
    found, unit = decision.forecast.objective, objective_unit(decision.objective)
    width = f"± {found.half_width:.3f}" if np.isfinite(found.half_width) else "± unknown"
    tiles = []
    if verification is None:
        tiles.append(Tile("Predicted objective", f"{found.value:.3f}", f"{width} {unit}"))
        for name, comparison in decision.baselines.items():
            label = f"Predicted gain over {plain(name)}"
            chance = f"probability better {comparison.probability_better:.2f}"
            chance += guess_words(comparison)
            tiles.append(Tile(label, f"{comparison.gain:.3f}".replace("-", "−"), chance))
        if (regret := decision.regret) is not None:
            detail = f"below {regret.bound:.2g} with probability {regret.level:.2f}"
            tiles.append(Tile("Expected regret", f"{regret.expected:.2g}", detail))
        return tuple(tiles)
    verified = verification.mixtures[RECOMMENDED]
    detail = f"{unit}; predicted {found.value:.3f} {width}"
    tiles.append(Tile("Observed objective", f"{verified.mean:.3f}", detail))
    for name, gain in verification.gains.items():
        chance = decision.baselines[name].probability_better
        detail = f"predicted {gain.predicted:.3f}, probability better {chance:.2f}"
        number = f"{gain.mean:.3f}"
        tiles.append(Tile(f"Observed gain over {plain(name)}", number.replace("-", "−"), detail))
    for name, gain in list(verification.gains.items())[:1]:
        took = f"of those {plain(name)} took"
        detail = "within its training" if gain.tokens_share is None else took
        tiles.append(Tile(f"Tokens to match {plain(name)}", tokens_share(gain), detail))
    return tuple(tiles)


def tokens_share(gain: Gain) -> str:
    """Share of the baseline's tokens needed to be as good, in words."""
    if gain.tokens_share is None:
        return "never reached"
    most = "at most " if gain.tokens_share_is_bound else ""
    return f"{most}{gain.tokens_share:.0%}"
