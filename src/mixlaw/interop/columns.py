"""Which name of a source means what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mixlaw.errors import RunTableError

SHARES, PERCENT, RELATIVE = "shares", "percent", "relative"
"""What the numbers of a mixture are: sum to 1, sum to 100, or any positive weights."""

LAST, ALL = "last", "all"
"""Which checkpoints of a run become rows."""


_NAMES, _ONE_OR_NAMES, _ONE, _NUMBER = "names", "one or names", "one", "number"
_KINDS = {
    **dict.fromkeys(("targets", "others", "rename"), _NAMES),
    **dict.fromkeys(("num_params", "train_tokens", "tokens_per_step", "seed"), _NUMBER),
    **dict.fromkeys(("run", "step"), _ONE),
    "mixture": _ONE_OR_NAMES,
}
_KIND_NAMES = {
    _NAMES: "a mapping of names to columns",
    _ONE_OR_NAMES: "a column, or a mapping of domains to columns",
    _ONE: "a column",
    _NUMBER: "a column, or a number",
}
_OTHERS = ("schedule", "rewarm", "status", "label", "role")
_PREFIXES = ("available_tokens/", "start/")


@dataclass(frozen=True)
class Columns:
    """What is read from where; shown to the user, kept in the study, and read from there again.

    A column is a name among `LoggedRun.fields` or `.series`. Where a number may stand instead, it
    holds for every run.

    Attributes:
        mixture: domain -> its column; or the one column that holds the whole mixture (a mapping,
            JSON text, or a trainer's list of weights and paths). Empty: the runs' mixtures are
            those of the planned runs, found by name.
        targets: target ("loss/web", see `mixlaw.runs.UNITS`) -> its column; "log(<column>)" of a
            perplexity per token, "log2(<column>)" of one per byte.
        run: the column of run ids, or several that name a run together: "split+run"; None: the
            source's own.
        num_params: of non-embedding parameters; None: unknown.
        train_tokens: of tokens seen; None: unknown, or from the steps.
        tokens_per_step: what a step of the series sees, where `train_tokens` is None.
        seed: None: 0.
        step: of training, in a table; it orders the rows of a run.
        unit: of the numbers in a mixture: "shares", "percent" or "relative".
        checkpoints: "last" at which every target was measured that the run has, or "all" such. Of
            a table whose rows are as people put them, not as a logger did, "all" is every row.
        others: further columns of a run table -> where they lie: "schedule", "rewarm", "status",
            "label", "role", "available_tokens/<domain>", "start/<target>".
        rename: name in the source -> domain, for a mixture in one column.
    """

    mixture: Mapping[str, str] | str
    targets: Mapping[str, str]
    run: str | None = None
    num_params: str | float | None = None
    train_tokens: str | float | None = None
    tokens_per_step: str | float | None = None
    seed: str | int | None = None
    step: str | None = None
    unit: str = SHARES
    checkpoints: str = LAST
    others: Mapping[str, str] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for name, kinds in _KINDS.items():
            if not _is_of(getattr(self, name), kinds):
                raise RunTableError(
                    f"{name} is {getattr(self, name)!r:.80}; it must be {_KIND_NAMES[kinds]}"
                )
        for name in self.others:
            if name not in _OTHERS and not name.startswith(_PREFIXES):
                raise RunTableError(
                    f"others has {name!r}; known are {', '.join(_OTHERS)} and names that begin "
                    f"with {' or '.join(_PREFIXES)}"
                )
        for name, known in (
            ("unit", (SHARES, PERCENT, RELATIVE)),
            ("checkpoints", (LAST, ALL)),
        ):
            if (found := getattr(self, name)) not in known:
                raise RunTableError(f"{name} is {found!r}; it must be one of {list(known)}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what is not said is left out."""
        mixture = self.mixture if isinstance(self.mixture, str) else dict(self.mixture)
        data = {**vars(self), "mixture": mixture, "targets": dict(self.targets)}
        data |= {"others": dict(self.others), "rename": dict(self.rename)}
        return {key: value for key, value in data.items() if value not in (None, {}, "")}

    def meanings(self) -> list[tuple[str, str]]:
        """(column, what it is read as), for people; a number that holds for all runs as itself."""
        if isinstance(self.mixture, str):
            out = [(self.mixture, f"the whole mixture, in {self.unit}")]
        else:
            unit = "" if self.unit == SHARES else f", {self.unit}"
            out = [(c, f"share of {name}{unit}") for name, c in self.mixture.items()]
        out += [(column, f"target {name}") for name, column in self.targets.items()]
        for name in ("run", "num_params", "train_tokens", "tokens_per_step", "seed", "step"):
            if (found := getattr(self, name)) is not None:
                out.append((str(found), name))
        return out + [(column, name) for name, column in self.others.items()]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Columns:
        """The inverse of `to_dict`. Raises: RunTableError: an unknown or a missing entry."""
        try:
            return cls(**{"mixture": {}, **data})
        except TypeError as error:
            raise RunTableError(f"{data!r:.80} names no columns: {error}") from error


def _is_of(found: Any, kind: str) -> bool:
    """Whether what was said is of a kind, as a file may not be."""
    if kind == _NAMES or (kind == _ONE_OR_NAMES and isinstance(found, Mapping)):
        return isinstance(found, Mapping) and all(
            isinstance(part, str) for item in found.items() for part in item
        )
    if isinstance(found, str) or (found is None and kind != _ONE_OR_NAMES):
        return True
    if isinstance(found, bool) or kind in (_ONE, _ONE_OR_NAMES):
        return False
    return kind == _NUMBER and isinstance(found, int | float)
