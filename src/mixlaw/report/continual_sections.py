"""The sections about continuing a model, and the top of a page that is about it alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mixlaw import plots
from mixlaw.continual import Critical, Move
from mixlaw.files import digest
from mixlaw.report.blocks import Code, Notes, Part, Picture, Section, Table
from mixlaw.report.continual_words import (
    answer_sentences,
    best_words,
    composition_words,
    critical_words,
    forecast_words,
    is_guess,
    is_unsure,
    mean_words,
    moved_words,
    new_words,
    range_words,
    seeds_words,
    setting_words,
    share_text,
    share_words,
    side_words,
)
from mixlaw.report.drawn import drawn, drawn_panels
from mixlaw.report.next_steps import command_of
from mixlaw.report.run_sections import versions
from mixlaw.report.verdict import CONFIRMED, NOT_CONFIRMED, UNCLEAR, Headline, Step, Tile
from mixlaw.report.words import (
    count,
    number_of,
    percent,
    plain,
    target_names,
    unit_of,
    value,
)
from mixlaw.study import Study
from mixlaw.study.continual_answer import ContinualAnswer

KNOWN_WITHIN = 0.3
"""Width of the critical share's interval above which it is called uncertain."""
MOST_PANELS = 12
MOST_LINES = 5
MOST_BESIDE = 4
"""Targets of which a table stands beside a picture."""


def headline(found: ContinualAnswer) -> Headline:
    """The top of a page that is about continuing alone."""
    critical, new = found.main.critical, new_words(found)
    mood, verdict = _verdict(found)
    share = _safe_words(critical, new)
    if critical.end == "replay":
        share = f"replay, for no share of {new} is forecast to keep the old"
    return Headline(
        mixture=share,
        mood=mood,
        verdict=verdict,
        sentences=answer_sentences(found),
        tiles=_tiles(found),
        verb="Continue on",
    )


def _safe_words(critical: Critical, new: str) -> str:
    """Up to where the interval keeps the old, then the forecast alone; a guess is marked as one."""
    share, sure = share_text(critical), percent(_sure_share(critical))
    if is_guess(critical) or sure == share:
        return f"up to {share_text(critical, f' {new}')}"
    if not _sure_share(critical):
        return f"up to {share} {new} by the forecast alone; no share is sure to keep the old"
    return f"up to {sure} {new}, or {share} by the forecast alone"


def _sure_share(critical: Critical) -> float:
    """The low end of the interval, rounded down to whole points."""
    return math.floor(100 * critical.low) / 100


def next_steps(study: Study, found: ContinualAnswer) -> tuple[Step, ...]:
    """What to do with the answer, the most pressing first."""
    critical, new = found.main.critical, new_words(found)
    again, steps = command_of(study, "continual"), []
    if is_guess(critical):
        text = "Train shares beyond those that there are (continual.shares), and ask again."
        steps.append(Step(text, again))
    elif critical.high - critical.low > KNOWN_WITHIN:
        between = range_words(critical.low, critical.high)
        text = f"Train more shares between {between}, or more seeds, and ask again."
        steps.append(Step(text, again))
    if critical.end == "replay":
        steps.append(Step(f"Do not continue on {new} so: even replay alone loses some of the old."))
    elif critical.low > 0:
        sure = percent(_sure_share(critical))
        text = (
            f"To be on the safe side, continue on no more than {sure} {new}: up to there the "
            f"{critical.level:.0%} interval keeps the old."
        )
        steps.append(Step(text))
    if found.main.best is not None and found.main.best.share > critical.share:
        text = (
            f"The objective alone would take {share_text(found.main.best)}: decide what "
            f"{plain(critical.binding or 'the old')} is worth, and allow it to rise "
            "(continual.tolerance) if it is worth less."
        )
        steps.append(Step(text))
    return tuple(steps)


def _verdict(found: ContinualAnswer) -> tuple[str, str]:
    """The mood, and how far the critical share is known."""
    critical = found.main.critical
    between = range_words(critical.low, critical.high)
    if critical.end == "replay":
        if is_guess(critical) or is_unsure(critical):
            return UNCLEAR, f"Even replay alone may lose some of the old: {between}"
        return NOT_CONFIRMED, "Even replay alone loses some of the old"
    least, most = found.laws.trained.range("share")
    if is_guess(critical):
        what = "The critical share is a guess"
        if critical.share > most:
            what = "No trained share is forecast to lose any of the old, and more is a guess"
        return UNCLEAR, f"{what}: trained were {range_words(least, most)}, it is {between}"
    if critical.high - critical.low > KNOWN_WITHIN:
        return UNCLEAR, f"The critical share is uncertain: {between}"
    mood = UNCLEAR if "composition" in critical.extrapolates else CONFIRMED
    if critical.end == "never":
        return mood, "No trained share loses any of the old"
    return mood, f"The critical share is known within {between}"


def _tiles(found: ContinualAnswer) -> tuple[Tile, ...]:
    main = found.main
    critical, best, replay = main.critical, main.best, main.critical.replay
    level = f"{critical.level:.0%} interval"
    tiles = [
        Tile(
            "Critical share of new data",
            share_text(critical),
            f"{level} {range_words(critical.low, critical.high)}",
        ),
        Tile(
            "Least replay",
            percent(replay.value) + (" (guess)" if is_guess(critical) else ""),
            f"{level} {range_words(replay.low, replay.high)}",
        ),
    ]
    if critical.binding is not None:
        detail = f"base {value(critical.base[critical.binding])}"
        tiles.append(Tile("First to rise", plain(critical.binding), detail))
    if best is not None:
        detail = f"{range_words(best.low, best.high)} cannot be told from it"
        tiles.append(Tile("Best for the objective", share_text(best), detail))
    return tuple(tiles)


def sections(found: ContinualAnswer) -> list[Section]:
    """The answer, and the laws it is from; the first lead is the answer in words."""
    lead = critical_words(found, found.main.critical)
    if found.main.best is not None:
        lead += f" {best_words(found, found.main.best, found.main.critical)}"
    if composed := composition_words(found):
        lead += f" {composed}"
    return [_answer_section(found, lead), _laws_section(found)]


def page_sections(found: ContinualAnswer) -> list[Section]:
    """The same below a headline that has said it."""
    lead = (
        "Where the line of an old loss rises above its base, new data has crowded out the old; the "
        "first of these crossings is the critical share."
    )
    return [_answer_section(found, lead), _laws_section(found)]


def _answer_section(found: ContinualAnswer, lead: str) -> Section:
    parts: list[Part] = [_losses_picture(found)]
    lines = _lines(found)
    if max(map(len, lines)) > 1:
        says = moved_words(found) or "The critical share, by training tokens."
        if left_out := len(_all_lines(found)) - len(lines):
            says += f" {number_of(left_out, 'more line')} in the table only."
        label = "Critical share with its interval against training tokens."
        figure = plots.moving_answers(lines)
        parts.append(drawn(figure, name="moving", label=label, says=says))
    parts += [_runs_table(found), _moves_table(found), _forecast_table(found)]
    return Section("continual", f"Continuing on {new_words(found)}", lead, tuple(parts))


def _losses_picture(found: ContinualAnswer) -> Picture:
    """Small multiples, old targets first."""
    label = "{} against the share of new data, with its base and the law."
    figures = {
        target: plots.losses_by_share(found, target) for target in found.targets[:MOST_PANELS]
    }
    old, new = found.laws.domains["old"], new_words(found)
    at = setting_words(replace(found.main.setting, train_tokens=None))
    says = (
        f"Losses of runs that continue the base on {new} and replay of {side_words(old)}, at {at}: "
        f"dots were trained, lines are the law {found.laws.form}."
    )
    left_out = len(found.targets) - MOST_PANELS
    says += f" {number_of(left_out, 'more target')} in the table only." if left_out > 0 else ""
    return drawn_panels(figures, name="continual", label=label, says=says)


def _all_lines(found: ContinualAnswer) -> dict[tuple[float | None, float | None], list[Move]]:
    """The moves along tokens, of every size and re-warming."""
    lines: dict[tuple[float | None, float | None], list[Move]] = {}
    for move in found.moves:
        lines.setdefault((move.setting.num_params, move.setting.rewarm), []).append(move)
    return lines


def _lines(found: ContinualAnswer) -> list[list[Move]]:
    """Those that are drawn: the main ones where they are many."""
    lines = _all_lines(found)
    if len(lines) > MOST_LINES:
        size = found.main.setting.num_params
        lines = {key: line for key, line in lines.items() if key[0] == size}
    return list(lines.values())[-MOST_LINES:]


def _moves_table(found: ContinualAnswer) -> Table:
    rows = []
    for move in found.moves:
        at, critical, best = move.setting, move.critical, move.best
        row = [
            "unknown" if at.train_tokens is None else count(at.train_tokens),
            "unknown" if at.num_params is None else count(at.num_params),
            "unknown" if at.rewarm is None else f"{at.rewarm:g}",
            share_words(critical),
            range_words(critical.low, critical.high),
            plain(critical.binding or "-"),
        ]
        if best is not None:
            row += [share_words(best), range_words(best.low, best.high)]
        rows.append(row)
    columns = ["tokens", "parameters", "re-warmed to"]
    columns += ["critical share", f"{found.main.critical.level:.0%} interval", "first to rise"]
    columns += ["best share", "not told from it"] if found.main.best is not None else []
    return Table(
        f"The most {new_words(found)} that keeps the old, and the best share",
        columns,
        rows,
        text=frozenset({0, 5}),
        note="The interval is where a further run, of another seed, would cross.",
        wide=True,
    )


def _runs_table(found: ContinualAnswer) -> Table:
    """What was trained at the main setting: means over seeds, and the change from the base."""
    setting, targets = found.main.setting, found.targets
    base, (shares, means, seeds) = found.base(setting), found.means(setting)
    rows = [["base", *(value(base[target]) for target in targets)]]
    for k, share in enumerate(shares):
        rows.append([percent(share), *(mean_words(means[t][k], base[t]) for t in targets)])
    names = target_names(targets)
    caption = (
        f"Trained at {setting_words(setting)}: mean over {seeds_words(seeds)}, change from the base"
    )
    columns = [f"share of {new_words(found)}", *(names[target] for target in targets)]
    note = f"In {unit_of(targets)}."
    wide = len(targets) > MOST_BESIDE
    return Table(caption, columns, rows, strong=frozenset({0}), note=note, wide=wide)


def _forecast_table(found: ContinualAnswer) -> Table:
    """Losses at the critical and the best share of the main setting."""
    main, names = found.main, target_names(found.targets)
    base, answers = found.base(main.setting), [main.critical, *([main.best] if main.best else [])]
    rows = [
        [
            names[target],
            value(base[target]),
            *(forecast_words(answer.losses[target]) for answer in answers),
        ]
        for target in found.targets
    ]
    words = ("at the critical share", "at the best share")
    columns = [f"{text}, {percent(a.share)}" for text, a in zip(words, answers, strict=False)]
    caption = (
        f"Forecasts at {setting_words(main.setting)} ({unit_of(found.targets)}), "
        f"{main.critical.level:.0%} intervals"
    )
    return Table(caption, ["target", "base", *columns], rows, wide=True)


def _laws_section(found: ContinualAnswer) -> Section:
    laws = found.laws
    errors, names = laws.held_out_error, target_names(found.targets)
    rows = [
        [
            f"{name} (chosen)" if name == laws.form else name,
            percent(float(np.mean(laws.forms[name].error))),
            *(f"{errors[name][target]:.4f}" for target in found.targets),
            f"{np.nanmean(list(laws.end_error[name].values())):.4f}",
            laws.forms[name].formula,
        ]
        for name in laws.ranked
    ]
    columns = ["law", "error over spread", *(names[t] for t in found.targets)]
    columns += ["least and largest share", "formula"]
    table = Table(
        f"Laws of the share: held-out errors by target ({unit_of(found.targets)})",
        columns,
        rows,
        text=frozenset({0, len(columns) - 1}),
        strong=frozenset({0}),
        note=(
            "Each share was held out in turn, with all its runs. Errors are mean absolute ones of "
            "inner shares; the first is over the standard deviation of the losses, mean over "
            "targets, and decides. With the least or the largest share held out (mean over "
            "targets) a law extrapolates. Formulae are of the loss as a share of the base's."
        ),
        wide=True,
    )
    parts: list[Part] = [table]
    told = [f"Refused: {name}: {plain(why)}." for name, why in laws.refused.items()]
    told += [f"Set aside: {name}: {plain(why)}." for name, why in laws.aside.items()]
    if told:
        parts.append(Notes(tuple(told)))
    runs = len(set(laws.trained.run.tolist()))
    lead = (
        f"{number_of(runs, 'continued run')} at {laws.trained.num_shares} shares of new data. The "
        f"law {laws.form} forecast held-out shares best"
    )
    others = [name for name in laws.rivals if name != laws.form]
    lead += f"; what {side_words(others)} would say instead widens the intervals" if others else ""
    return Section("continual-laws", "The laws of the share", f"{lead}.", tuple(parts))


def warnings_of(found: ContinualAnswer) -> tuple[str, ...]:
    """What to read before trusting the answer, each once."""
    return tuple(dict.fromkeys(map(plain, (*found.laws.warnings, *found.notes))))


def facts_section(study: Study, found: ContinualAnswer) -> Section:
    """Versions and digests of a page that is about continuing alone."""
    rows = [
        *versions(),
        ["seed", f"{study.config.seed}"],
        ["answer", digest(found.to_dict())],
    ]
    steps = ["continual", "report"]
    if not study.from_table:
        rows.append(["corpus", study.corpus().digest])
        steps.insert(0, "corpus")
    table = Table("Versions and digests", ["what", "value"], rows, frozenset({0, 1}), wide=True)
    commands = "\n".join(f"mixlaw {step} {plain(study.folder.name)}" for step in steps)
    lead = "The same study file, seed and version give the same numbers."
    return Section("facts", "Facts", lead, (table, Code("To reproduce", commands)))
