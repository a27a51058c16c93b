"""What people see of continuing a model on new data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mixlaw.cli.terminal import line, notes, table
from mixlaw.report.continual_words import (
    answer_sentences,
    forecast_words,
    mean_words,
    new_words,
    range_words,
    seeds_words,
    setting_words,
    share_words,
    side_words,
)
from mixlaw.report.words import count, percent

if TYPE_CHECKING:
    from mixlaw.continual import Move
    from mixlaw.study.continual_answer import ContinualAnswer

MOST_TARGETS = 8
"""Of which errors are shown."""


def answer(found: ContinualAnswer) -> None:
    """The continued runs, the laws of the share, the critical and the best share."""
    runs(found)
    laws(found)
    shares(found)


def runs(found: ContinualAnswer) -> None:
    """What was measured at the main setting: old targets first, then new ones."""
    setting, targets = found.main.setting, found.targets
    base, (shares, means, seeds) = found.base(setting), found.means(setting)
    rows = [["base", *(f"{base[target]:.4f}" for target in targets)]]
    for k, share in enumerate(shares):
        rows.append([percent(share), *(mean_words(means[t][k], base[t]) for t in targets)])
    old = side_words(found.laws.domains["old"])
    title = (
        f"trained with {seeds_words(seeds)}, {setting_words(setting)}; in brackets the change from "
        f"the base; the rest is replay of {old}"
    )
    table([f"share of {new_words(found)}", *targets], rows, title=title)


def shares(found: ContinualAnswer) -> None:
    """Both answers at every trained setting, and what they come to in sentences.

    Columns of settings that do not vary are left out.
    """
    settings = [move.setting for move in found.moves]
    columns = {
        "tokens": [_cell(s.train_tokens, count) for s in settings],
        "parameters": [_cell(s.num_params, count) for s in settings],
        "re-warmed": [_cell(s.rewarm, "{:g}".format) for s in settings],
    }
    kept = {text: cells for text, cells in columns.items() if len(set(cells)) > 1}
    first = kept or {"tokens": columns["tokens"]}
    rows = [
        [*cells, *_answers(move)]
        for cells, move in zip(zip(*first.values(), strict=True), found.moves, strict=True)
    ]
    level = f"{found.main.critical.level:.0%}"
    after = ["critical", f"{level} interval", "first to rise", "best", "as good"]
    with_best = found.main.best is not None
    names = [*first, *(after if with_best else after[:3])]
    table(names, rows, title=f"share of {new_words(found)}")
    _forecasts(found)
    for sentence in answer_sentences(found):
        line(sentence)
    notes([*found.laws.warnings, *found.notes])


def _forecasts(found: ContinualAnswer) -> None:
    """Losses at the critical and the best share of the main setting."""
    main, base = found.main, found.base(found.main.setting)
    answers = {"critical": main.critical} | ({"best": main.best} if main.best else {})
    rows = [
        [
            target,
            f"{base[target]:.4f}",
            *(forecast_words(at.losses[target]) for at in answers.values()),
        ]
        for target in found.targets
    ]
    columns = [f"{name}, {percent(at.share)}" for name, at in answers.items()]
    title = f"forecasts at {setting_words(main.setting)}, {main.critical.level:.0%} intervals"
    table(["target", "base", *columns], rows, title=title)


def _cell(number: float | None, text: Callable[[float], str]) -> str:
    return "-" if number is None else text(number)


def _answers(move: Move) -> list[str]:
    critical, best = move.critical, move.best
    cells = [
        share_words(critical),
        range_words(critical.low, critical.high),
        critical.binding or "-",
    ]
    if best is not None:
        cells += [share_words(best), range_words(best.low, best.high)]
    return cells


def laws(found: ContinualAnswer) -> None:
    """Held-out errors of every form, side by side."""
    fitted = found.laws
    errors, targets = fitted.held_out_error, found.targets[:MOST_TARGETS]
    rows = [
        [
            ("* " if name == fitted.form else "  ") + name,
            f"{np.mean(fitted.forms[name].error):.3f}",
            *(f"{errors[name][target]:.4f}" for target in targets),
            f"{np.nanmean(list(fitted.end_error[name].values())):.4f}",
        ]
        for name in fitted.ranked
    ]
    title = (
        "laws of the share, each share held out in turn: mean absolute error of inner shares, over "
        "the spread of the losses and by target; then of the least and the largest share"
    )
    table(["law (* chosen)", "error/spread", *targets, "ends"], rows, title=title)
    for name, reason in fitted.refused.items():
        line(f"refused {name}: {reason}")
    for name, reason in fitted.aside.items():
        line(f"set aside {name}: {reason}")
