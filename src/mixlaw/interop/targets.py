"""Which columns of a source are targets, by their names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.interop.frame import Frame
from mixlaw.interop.metric_names import from_perplexity, is_data, perplexity_of, target_of
from mixlaw.runs import UNITS

_HELD_OUT = r"(?:(?:val|valid|validation|eval|test)[/._\- ])"
_IN_TABLES = (
    (rf"{_HELD_OUT}?(loss|bpb)[/._:\- ](.+)", r"\1/\2"),
    (r"(error|score)[._:\- ](.+)", r"\1/\2"),
    (rf"{_HELD_OUT}?([^/]+?)[/._\- ]{_HELD_OUT}?(loss|bpb)", r"\2/\1"),
    (r"(.+)[/._\- ](acc|acc_norm|accuracy|exact_match|f1)", r"score/\1/\2"),
)
"""Names of people's own tables, where no trainer's fits -> targets."""

_ALONE = re.compile(rf"{_HELD_OUT}?(loss|bpb)")
"""The only loss of a table."""

_OURS = ("loss/", "bpb/", "error/", "score/")
_NESTED = ("eval.", "val.", "valid.", "validation.")
"""Sections of metrics that a tool flattened."""

_WORDS = re.compile(
    r"(?<![a-z])(?:loss|bpb|error|score|val|valid|validation|eval|test|accuracy|acc)(?![a-z])",
    re.IGNORECASE,
)
"""Words by which a table's columns are known, in capitals, too."""

_PERPLEXITY = re.compile(r"(?<![a-z])(?:ppl|perplexity)(?![a-z])", re.IGNORECASE)
_SECTION = re.compile(r"^(?:metrics|results|summary|final|scores)\.")
"""Where nested rows keep what was measured."""

_LOGARITHM = re.compile(r"log2?\((.+)\)")
_NAMED = 12


def bare(expression: str) -> str:
    """The column in "log(<column>)"; any other as it is."""
    match = _LOGARITHM.fullmatch(expression)
    return match[1] if match else expression


def values_of(frame: Frame, target: str, expression: str) -> np.ndarray:
    """(n,) a target, NaN where it was not measured.

    Raises: RunTableError: no such column, text, or a perplexity that is taken for a loss.
    """
    if expression in frame.columns:
        if _PERPLEXITY.search(expression) and target.startswith(("loss/", "bpb/")):
            raise RunTableError(
                f"{target} is read from {expression}, which is a perplexity by its name and no "
                f"loss; read it from {_logarithm(target, expression)}"
            )
        return frame.numbers(expression)
    if (column := bare(expression)) not in frame.columns:
        raise RunTableError(no_such(column, frame.columns, f"for the target {target}"))
    values = frame.numbers(column)
    return np.array([from_perplexity(target, value) for value in values.tolist()])


def guess_targets(
    frame: Frame, taken: Collection[str], wanted: Sequence[str] = ()
) -> dict[str, str]:
    """Target -> its column, or the logarithm of one that is a perplexity.

    Args:
        taken: columns that are something else.
        wanted: what the user says: "pattern=pattern", a column, or a target.
    Raises: RunTableError: none is found, or none of those wanted.
    """
    numeric = [name for name in frame.columns if name not in taken and frame.is_numeric(name)]
    by_target = _by_target(frame, numeric)
    found = {target: columns[0] for target, columns in by_target.items()}
    if wanted:
        return _all_wanted(frame, wanted, by_target)
    if not found:
        empty = [n for n in frame.columns if n not in numeric and _target(n, frame.table)]
        hint = f"{', '.join(empty[:_NAMED])} hold no number. " if empty else ""
        raise RunTableError(
            "no column is a validation loss or a score by its name; say which is with --target "
            f"'<column>=loss/<name>' (loss, bpb, error or score). {hint}{_there_are(numeric)}"
        )
    _refuse_two(by_target)
    return found


def _by_target(frame: Frame, numeric: Sequence[str]) -> dict[str, list[str]]:
    """Target -> the columns of numbers that are called so and differ, the one to read first."""
    found: dict[str, list[str]] = {}
    for name in numeric:
        rest = name.partition("/")[2]
        if frame.table and name.startswith(_OURS) and f"weight/{rest}" in frame.columns:
            found.setdefault(name, []).append(name)  # whatever mixlaw's own domains are called
        elif (guessed := _target(name, frame.table)) is not None:
            found.setdefault(guessed[0], []).append(guessed[1])
    if not found and frame.table:
        for name in numeric:
            if match := _ALONE.fullmatch(_lower(name)):
                found.setdefault(f"{match[1]}/validation", []).append(name)
    return {target: _different(frame, columns) for target, columns in found.items()}


def _different(frame: Frame, columns: Sequence[str]) -> list[str]:
    """Without those that say the same: what a tool keeps twice, over training and as its last
    value, is read over training; and a loss goes before its perplexity."""
    losses = [c for c in columns if bare(c) == c] or columns
    series = [c for c in losses if not c.startswith("summary.")] or losses
    cells = frame.columns
    return [
        c
        for i, c in enumerate(series)
        if not any(
            np.array_equal(cells[bare(c)], cells[bare(b)], equal_nan=True)
            for b in series[:i]
            if cells[bare(c)].dtype != object and cells[bare(b)].dtype != object
        )
    ]


def _refuse_two(by_target: Mapping[str, Sequence[str]]) -> None:
    """Raises: RunTableError: a target may be read from two columns, which differ."""
    for target, columns in by_target.items():
        if len(columns) > 1:
            first, second = map(bare, columns[:2])
            raise RunTableError(
                f"{first!r} and {second!r} are both called {target} and differ; say which it is "
                f"with --target '{first}={target}', beside a --target for every other"
            )


def is_target(name: str) -> bool:
    """Whether a table's column is called a target, or its perplexity."""
    return _target(name, True) is not None


def no_such(name: str, names: Iterable[str], what: str) -> str:
    """A message: no such column, the nearest first."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    others = [other for other in names if other not in near]
    return f"there is no column {name!r} {what}; {hint}{_there_are([*near, *others])}"


def run_parts(frame: Frame, run: str) -> list[str]:
    """The columns that name a run: one, or those joined by "+".

    Raises: RunTableError: there is none such.
    """
    parts = [run] if run in frame.columns else run.split("+")
    for part in parts:
        if part not in frame.columns:
            raise RunTableError(no_such(part, frame.columns, "for the runs"))
    return parts


def matches(pattern: str, names: Iterable[str]) -> dict[str, str]:
    """Name -> what `*` stands for in it, of the names that are as the pattern says."""
    parts = pattern.split("*", 1)
    expression = re.compile("(.+)".join(map(re.escape, parts)))
    found = ((name, expression.fullmatch(name)) for name in names)
    return {name: m[1] if len(parts) > 1 else name for name, m in found if m}


def check_target(target: str) -> str:
    """The same. Raises: RunTableError: it does not begin with a metric."""
    metric, _, name = target.partition("/")
    if metric not in UNITS or not name:
        raise RunTableError(
            f"{target!r} is no target; it must be one of "
            f"{', '.join(f'{metric}/<name> ({unit})' for metric, unit in UNITS.items())}"
        )
    return target


def _target(name: str, table: bool) -> tuple[str, str] | None:
    """A column's target, and what it is read from; None if it is none by its name."""
    if table and name.startswith("weight/"):
        return None
    lower = _lower(name) if table else name
    inner = _SECTION.sub("", lower)
    nested = [lower.replace(".", "/")] if table or lower.startswith(_NESTED) else []
    for spelled in [name, lower, inner, inner.replace(".", "/"), *nested]:
        if (target := target_of(spelled)) is not None:
            return target, name
        if (target := perplexity_of(spelled)) is not None:
            return target, _logarithm(target, name)
    if not table:
        return None
    spelled = _PERPLEXITY.sub("loss", inner)
    for pattern, template in _IN_TABLES:
        if match := re.fullmatch(pattern, spelled):
            target = match.expand(template)
            data = target.partition("/")[2]
            if not is_data(data) or re.fullmatch(_HELD_OUT, f"{data}/"):
                return None
            return target, name if spelled == inner else _logarithm(target, name)
    return None


def _lower(name: str) -> str:
    """A column with the words by which it is known as they are known."""
    return _WORDS.sub(lambda match: match[0].lower(), name)


def _all_wanted(
    frame: Frame, hints: Sequence[str], by_target: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """What the hints say together. Raises: RunTableError: also where they say two things."""
    guessed = {target: columns[0] for target, columns in by_target.items()}
    out: dict[str, str] = {}
    for hint in hints:
        chosen = _wanted(frame, hint, guessed)
        if "=" not in hint and hint not in frame.columns:
            _refuse_two({target: by_target[target] for target in chosen})
        for target, column in chosen.items():
            if out.setdefault(target, column) != column:
                raise RunTableError(
                    f"--target makes {target} of both {bare(out[target])!r} and {bare(column)!r}; "
                    "each target needs a name of its own"
                )
    return out


def _logarithm(target: str, column: str) -> str:
    return f"log2({column})" if target.startswith("bpb/") else f"log({column})"


def _wanted(frame: Frame, hint: str, guessed: dict[str, str]) -> dict[str, str]:
    """What one hint says. Raises: RunTableError: it fits no column, or makes no target."""
    source, equals, target = hint.rpartition("=")
    if not equals:
        source = hint
        if chosen := {t: guessed[t] for t in matches(hint, guessed)}:
            return chosen
        by_column = {bare(column): t for t, column in guessed.items()}
        if chosen := {by_column[c]: guessed[by_column[c]] for c in matches(hint, by_column)}:
            return chosen
        if matches(hint, frame.columns):
            raise RunTableError(
                f"it is not clear which target {hint!r} is; say --target '{hint}=loss/<name>'"
            )
    found = matches(bare(source), frame.columns)
    if not found:
        raise RunTableError(no_such(source, frame.columns, "for a target"))
    out = {}
    for column, name in found.items():
        made = check_target(target.replace("*", name, 1))
        wrap = bare(source) != source or (
            _PERPLEXITY.search(column) is not None and made.startswith(("loss/", "bpb/"))
        )
        if out.setdefault(made, _logarithm(made, column) if wrap else column) != (
            _logarithm(made, column) if wrap else column
        ):
            raise RunTableError(
                f"--target {hint!r} makes {made} of both {bare(out[made])!r} and {column!r}; put a "
                "* into the target, too"
            )
    return out


def _there_are(names: Sequence[str]) -> str:
    if not names:
        return "There is no column of numbers"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"There are {', '.join(names[:_NAMED])}{more}"
