"""What continuing a model does, in sentences: for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mixlaw.continual import Best, Critical, Range, Setting
from mixlaw.report.words import count, listing, percent, plain, scale_words, value
from mixlaw.study.continual_answer import ContinualAnswer


def side_words(names: Iterable[str]) -> str:
    """ "code and maths"."""
    return listing(map(plain, names))


def new_words(found: ContinualAnswer) -> str:
    """The new domains."""
    return side_words(found.laws.domains["new"])


def range_words(low: float, high: float) -> str:
    """ "18% to 29%"."""
    return f"{percent(low)} to {percent(high)}"


def share_words(found: Critical | Best) -> str:
    """The share for a table: "none" where even replay alone loses the old, "any" where nothing
    does; one beyond the trained shares is a guess."""
    ends = {"replay": "none", "never": "any"} if isinstance(found, Critical) else {}
    text = ends.get(found.end or "") or percent(found.share)
    return text + (" (guess)" if "share" in found.extrapolates else "")


def forecast_words(found: Range) -> str:
    """ "2.314 (2.310 to 2.318)"."""
    return f"{value(found.value)} ({value(found.low)} to {value(found.high)})"


def setting_words(setting: Setting) -> str:
    """ "1,000,000 parameters and 300,000 tokens, re-warmed to 0.5 of the usual rate"."""
    text = scale_words(setting.num_params, setting.train_tokens)
    return text if setting.rewarm is None else f"{text}, {rewarm_words(setting.rewarm)}"


def rewarm_words(rewarm: float) -> str:
    """How high the learning rate rises again."""
    if rewarm == 1:
        return "re-warmed to the usual rate"
    return f"re-warmed to {rewarm:g} of the usual rate"


def answer_sentences(found: ContinualAnswer) -> tuple[str, ...]:
    """The main answer: how much new data is safe, how much is best, and how both move."""
    main = found.main
    sentences = [critical_words(found, main.critical)]
    if main.best is not None:
        sentences.append(best_words(found, main.best, main.critical))
    if moved := moved_words(found):
        sentences.append(moved)
    return tuple(sentences)


def critical_words(found: ContinualAnswer, critical: Critical) -> str:
    """How much new data keeps the old losses, and what must be replayed."""
    new, at = new_words(found), setting_words(critical.setting)
    if critical.binding is None:
        return (
            f"At {at}, no share of {new} is forecast to raise an old loss above its base"
            f"{_tolerated(critical)}{_guessed(critical)}; {critical.level:.0%} sure up to "
            f"{percent(critical.low)}."
        )
    target, base = plain(critical.binding), critical.base[critical.binding]
    if critical.end == "replay":
        rise = critical.losses[critical.binding].value - base
        room = critical.tolerance[critical.binding]
        return (
            f"At {at}, even replay alone is forecast to leave {target} at {value(base + rise)}, "
            f"{rise:.4f} above its base{_allowed(room)}, so no share of {new} keeps it "
            f"({critical.level:.0%} interval {range_words(critical.low, critical.high)}). Re-warm "
            f"less, train longer, or allow a tolerance above {rise:.4f}."
        )
    only = len(critical.base) == 1
    keeps = "every old loss at or below its base"
    if only:
        keeps = f"{target} at or below its base value {value(base)}"
    text = (
        f"At {at}, up to {percent(critical.share)} {new} ({critical.level:.0%} interval "
        f"{range_words(critical.low, critical.high)}) keeps {keeps}{_tolerated(critical)}"
    )
    text += "" if only else f"; {target} is the first to rise, from {value(base)}"
    return f"{text}. Keep at least {percent(1 - critical.share)} replay{_guessed(critical)}."


def _guessed(found: Critical | Best) -> str:
    return ", a guess beyond the trained shares" if "share" in found.extrapolates else ""


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
    if best.high - best.low > 1e-3:
        text += f" ({range_words(best.low, best.high)} cannot be told from it)"
    text += _guessed(best)
    rises = {target: best.losses[target].value - base for target, base in critical.base.items()}
    above = [target for target, rise in rises.items() if rise > critical.tolerance[target]]
    if not above:
        return f"{text}, which keeps every old loss at or below its base{_tolerated(critical)}."
    worst = max(above, key=rises.__getitem__)
    return f"{text}; there {plain(worst)} is {rises[worst]:.4f} above its base."


def moved_words(found: ContinualAnswer) -> str | None:
    """How the critical share moves with tokens and with re-warming; None with one setting."""
    main, along, sentences = found.main, found.along_tokens, []
    if len(along) > 1:
        first, last = (
            f"{percent(move.critical.share)} at {count(move.setting.train_tokens or 0)} tokens"
            for move in (along[0], along[-1])
        )
        sentences.append(f"The critical share goes from {first} to {last}.")
    here = replace(main.setting, rewarm=None)
    for move in found.moves:
        rewarm = move.setting.rewarm
        if move is not main and rewarm is not None and replace(move.setting, rewarm=None) == here:
            share = percent(move.critical.share)
            sentences.append(f"{rewarm_words(rewarm).capitalize()} it is {share}.")
    return " ".join(sentences) or None
