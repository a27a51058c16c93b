"""Which columns of a source are targets, by their names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.interop.frame import Frame
from mixlaw.interop.metric_names import from_perplexity, perplexity_of, target_of
from mixlaw.runs import UNITS

_HELD_OUT = r"(?:(?:val|valid|validation|eval|test)[/._\- ])"
_IN_TABLES = (
    (rf"{_HELD_OUT}?(loss|bpb)[/._:\- ](?!train)(.+)", r"\1/\2"),
    (r"(error|score)[._:\- ](?!train)(.+)", r"\1/\2"),
    (rf"{_HELD_OUT}?(?!train|total)([^/]+?)[/._\- ]{_HELD_OUT}?(loss|bpb)", r"\2/\1"),
    (r"(.+)[/._\- ](acc|acc_norm|accuracy|exact_match|f1)", r"score/\1/\2"),
)
"""Names of people's own tables, where no trainer's fits -> targets."""

_ALONE = re.compile(rf"{_HELD_OUT}?(loss|bpb)")
"""The only loss of a table."""

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
    found: dict[str, str] = {}
    numeric = [name for name in frame.columns if name not in taken and frame.is_numeric(name)]
    # What a tool keeps twice, over training and as its last value, is read over training.
    for name in sorted(numeric, key=lambda name: name.startswith("summary.")):
        if (guessed := _target(name, frame.table)) is not None:
            target, expression = guessed
            if target not in found or (bare(found[target]) != found[target] and expression == name):
                found[target] = expression
    if not found and frame.table:
        found = {f"{m[1]}/validation": n for n in numeric if (m := _ALONE.fullmatch(n))}
    order = {name: i for i, name in enumerate(frame.columns)}
    found = dict(sorted(found.items(), key=lambda item: order[bare(item[1])]))
    if wanted:
        chosen: dict[str, str] = {}
        for hint in wanted:
            chosen |= _wanted(frame, hint, found)
        return chosen
    if not found:
        raise RunTableError(
            "no column is a validation loss or a score by its name; say which is with --target "
            f"'<column>=loss/<name>' (loss, bpb, error or score). {_there_are(numeric)}"
        )
    return found


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
    inner = _SECTION.sub("", name)
    names = [name, inner, inner.replace(".", "/"), name.replace(".", "/")] if table else [name]
    for spelled in names:
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
            return target, name if spelled == inner else _logarithm(target, name)
    return None


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
