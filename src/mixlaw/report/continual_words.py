"""What continuing a model does, in sentences: for the terminal and the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from mixlaw.continual import Best, Critical, Range, Setting
from mixlaw.plots.words import rewarm_words
from mixlaw.report.words import count, listing, number_of, percent, plain, scale_words, value
from mixlaw.study.continual_answer import ContinualAnswer


def side_words(names: Iterable[str]) -> str:
    """ "code and maths"."""
    return listing(map(plain, names))


def new_words(found: ContinualAnswer) -> str:
    """The new domains."""
    return side_words(found.laws.domains["new"])


def range_words(low: float, high: float) -> str:
    """ "18% to 29%", rounded outwards."""
    return f"{_rounded(low, math.floor)} to {_rounded(high, math.ceil)}"


def _rounded(share: float, to: Callable[[float], int]) -> str:
    """As `percent`, but down or up."""
    scale = 100 if share >= 0.0995 else 1000 if share >= 0.00995 else 10_000
    # Nothing is rounded for the noise of the last digits.
    return percent(to(round(share * scale, 6)) / scale)


def share_words(found: Critical | Best) -> str:
    """The share for a table: "none" where even replay alone loses the old, "any" where nothing
    does; one beyond the trained shares is a guess."""
    ends = {"replay": "none", "never": "any"} if isinstance(found, Critical) else {}
    text = ends.get(found.end or "") or percent(found.share)
    return text + _guess_mark(found)


def share_text(found: Critical | Best, of: str = "") -> str:
    """ "35% code", with a mark where it is a guess."""
    return f"{percent(found.share)}{of}{_guess_mark(found)}"


def _guess_mark(found: Critical | Best) -> str:
    return " (guess)" if is_guess(found) else ""


def mean_words(mean: float, base: float) -> str:
    """ "2.3100 (+0.0100)": a mean and its change from the base; "-" where nothing was measured."""
    return f"{value(mean)} ({mean - base:+.4f})" if math.isfinite(mean) else "-"


def seeds_words(seeds: tuple[int, int]) -> str:
    """ "1 to 2 seeds", the fewest and the most."""
    fewest, most = seeds
    return number_of(most, "seed") if fewest == most else f"{fewest} to {number_of(most, 'seed')}"


def forecast_words(found: Range) -> str:
    """ "2.314 (2.310 to 2.318)"."""
    return f"{value(found.value)} ({value(found.low)} to {value(found.high)})"


def setting_words(setting: Setting) -> str:
    """ "1,000,000 parameters and 300,000 tokens, re-warmed to 0.5 of the usual rate"."""
    text = scale_words(setting.num_params, setting.train_tokens)
    return text if setting.rewarm is None else f"{text}, {rewarm_words(setting.rewarm)}"


def answer_sentences(found: ContinualAnswer) -> tuple[str, ...]:
    """The main answer: how much new data is safe, how much is best, and how both move."""
    main = found.main
    sentences = [critical_words(found, main.critical)]
    if main.best is not None:
        sentences.append(best_words(found, main.best, main.critical))
    sentences += filter(None, (composition_words(found), moved_words(found)))
    return tuple(sentences)


def composition_words(found: ContinualAnswer) -> str | None:
    """How the sides are composed in the forecasts, where the runs vary it; None where not."""
    laws, sides = found.laws, []
    for side in laws.varied_sides:
        parts = sorted(laws.composition[side].items(), key=lambda part: -part[1])
        sides.append(f"the {side} side of {listing(f'{percent(p)} {plain(d)}' for d, p in parts)}")
    if not sides:
        return None
    text = f"The runs vary the mixture within a side; this is for {listing(sides)}"
    if "composition" in found.main.critical.extrapolates:
        text += ", near which no run was: a guess"
    return f"{text}."


def critical_words(found: ContinualAnswer, critical: Critical) -> str:
    """How much new data keeps the old losses, and what must be replayed."""
    new, at = new_words(found), setting_words(critical.setting)
    if critical.binding is None:
        return (
            f"At {at}, no share of {new} is forecast to raise an old loss above its base"
            f"{_tolerated(critical)}{_guessed(critical)}; {critical.level:.0%} sure up to "
            f"{_rounded(critical.low, math.floor)}."
        )
    interval = f"{critical.level:.0%} interval {range_words(critical.low, critical.high)}"
    if critical.end == "replay":
        return f"At {at}, {_replay_words(new, critical)} ({interval}). {_remedy(critical)}"
    target, base = plain(critical.binding), critical.base[critical.binding]
    only = len(critical.base) == 1
    keeps = f"{target} at or below its base value {value(base)}" if only else KEEPS
    text = (
        f"At {at}, up to {percent(critical.share)} {new} ({interval}) is forecast to keep {keeps}"
        f"{_tolerated(critical)}"
    )
    text += "" if only else f"; {target} is the first to rise, from {value(base)}"
    return f"{text}. Keep at least {percent(1 - critical.share)} replay{_guessed(critical)}."


KEEPS = "every old loss at or below its base"


def _replay_words(new: str, critical: Critical) -> str:
    """What even replay alone does; the binding target has the most to lose."""
    assert critical.binding is not None, "some target is above its base"
    target, base = plain(critical.binding), critical.base[critical.binding]
    loss, room = critical.losses[critical.binding].value, critical.tolerance[critical.binding]
    text = (
        f"even replay alone is forecast to leave {target} at {value(loss)}, {loss - base:.4f} "
        f"above its base{_allowed(room)}"
    )
    if is_unsure(critical):
        return f"{text}, but not beyond doubt: some {new} may keep it"
    return f"{text}, so no share of {new} keeps it"


def is_unsure(critical: Critical) -> bool:
    """Whether the interval holds shares of new data though the forecast is that none keeps the
    old."""
    return critical.end == "replay" and critical.high > 0


def _remedy(critical: Critical) -> str:
    """What would leave room for new data: each target needs a tolerance of its own rise."""
    rises = {t: critical.losses[t].value - base for t, base in critical.base.items()}
    above = {t: rise for t, rise in rises.items() if rise > critical.tolerance[t]}
    each = listing(
        f"{math.ceil(rise * 1e4) / 1e4:.4f}" + (f" for {plain(t)}" if len(rises) > 1 else "")
        for t, rise in above.items()
    )
    return f"Re-warm less, train longer, or allow a tolerance above {each}."


def _guessed(found: Critical | Best) -> str:
    return ", a guess beyond the trained shares" if is_guess(found) else ""


def is_guess(found: Critical | Best) -> bool:
    """Whether the share lies beyond those that were trained."""
    return "share" in found.extrapolates


def _tolerated(critical: Critical) -> str:
    """ ", within a tolerance of 0.01", where there is one."""
    rises = sorted(set(critical.tolerance.values()))
    if rises == [0.0]:
        return ""
    return f", within a tolerance of {listing(f'{rise:g}' for rise in rises)}"


def _allowed(rise: float) -> str:
    return f" ({rise:g} is tolerated)" if rise else ""


def best_words(found: ContinualAnswer, best: Best, critical: Critical) -> str:
    """What the study's objective would choose, and what that does to the old."""
    new = new_words(found)
    text = f"For the study's objective {percent(best.share)} {new} is best"
    if best.end == "trained":
        text += " of the trained shares, at their edge"
    if best.high - best.low > 1e-3:
        text += f" ({range_words(best.low, best.high)} cannot be told from it)"
    text += _guessed(best)
    rises = {target: best.losses[target].value - base for target, base in critical.base.items()}
    above = [target for target, rise in rises.items() if rise > critical.tolerance[target]]
    if above:
        worst = max(above, key=rises.__getitem__)
        return f"{text}; there {plain(worst)} is forecast {rises[worst]:.4f} above its base."
    text += f", which is forecast to keep {KEEPS}{_tolerated(critical)}"
    if best.share > critical.low:
        sure = _rounded(critical.low, math.floor)
        text += f", though that is {critical.level:.0%} sure only up to {sure}"
    return f"{text}."


def moved_words(found: ContinualAnswer) -> str | None:
    """How the critical share moves with tokens and with re-warming; None with one setting."""
    main, along, sentences = found.main, found.along_tokens, []
    if len(along) > 1:
        first, last = (
            f"{share_text(move.critical)} at {count(move.setting.train_tokens or 0)} tokens"
            for move in (along[0], along[-1])
        )
        sentences.append(f"The critical share goes from {first} to {last}.")
    here = replace(main.setting, rewarm=None)
    for move in found.moves:
        rewarm = move.setting.rewarm
        if move is not main and rewarm is not None and replace(move.setting, rewarm=None) == here:
            share = share_text(move.critical)
            sentences.append(f"{rewarm_words(rewarm).capitalize()} it is {share}.")
    return " ".join(sentences) or None
