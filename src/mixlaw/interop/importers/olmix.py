"""Swarms of Olmix: `ratios.csv` and `metrics.csv`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from mixlaw.errors import RunTableError
from mixlaw.interop.importers.pairs import join, read_half, tell_apart
from mixlaw.interop.logged import LoggedRun
from mixlaw.interop.metric_names import target_of
from mixlaw.interop.roles import COUNTED, TOKENS_PER_STEP, snake

RATIOS, METRICS = "ratios.csv", "metrics.csv"
KEYS = ("run_id", "run")
"""The column of ids as `load_from_csv` wants it, and as a saved data frame has it."""

_METRIC = re.compile(r"(.+)_(acc|acc_norm|accuracy|exact_match|em|f1)")
_IS_LOSS = re.compile(r"(?:^|_)(?:loss|ppl|perplexity)(?:_|$)", re.IGNORECASE)


class Olmix:
    """A row each for a run: shares of domains in one table, bits per byte of tasks in the other.

    Metrics are bits per byte, unless their name says something else.
    Source: github.com/allenai/olmix, olmix/fit/loaders.py, `load_from_csv` (run_id, name) and the
        tables dclm_ratios.csv, dclm_metrics.csv and their like (an index, run, name, index).
    """

    name: ClassVar[str] = "olmix"
    what: ClassVar[str] = "a swarm of Olmix: ratios.csv and metrics.csv"
    checked: ClassVar[str] = "tables of allenai/olmix at b98f5e3"

    def recognises(self, sources: Sequence[str]) -> bool:
        try:
            return _pair(sources) is not None
        except RunTableError:
            return True  # Several pairs: it is said when they are read.
        except OSError:
            return False

    def files(self, sources: Sequence[str]) -> list[Path]:
        return list(_pair(sources) or map(Path, sources))

    def read(
        self, sources: Sequence[str], *, names: Collection[str] | None = None
    ) -> Iterator[LoggedRun]:
        """As of `Importer`. Raises: RunTableError: also for a folder of several pairs."""
        pair = _pair(sources) or tell_apart([Path(source) for source in sources], KEYS)
        if pair is None:
            raise RunTableError(
                f"{', '.join(sources)}: not a swarm of Olmix; name a folder with {RATIOS} and "
                f"{METRICS}, or the two files, which both need a column {' or '.join(KEYS)}"
            )
        ratios, metrics = (read_half(path, KEYS) for path in pair)
        return join(
            ratios,
            metrics,
            domains={column: column for column in ratios.columns},
            targets={column: _target(column) for column in metrics.columns},
        )


def _target(column: str) -> str:
    """Of a trainer's name, or a task's; others, as "train/CE loss", and what is counted, stay as
    they are."""
    if found := target_of(column) or _of_words(column):
        return found
    counted = snake(column) in {*COUNTED, *TOKENS_PER_STEP}
    return column if "/" in column or counted or _IS_LOSS.search(column) else f"bpb/{column}"


def _of_words(column: str) -> str | None:
    """ "hellaswag_acc" is a score, as "hellaswag/acc"."""
    match = _METRIC.fullmatch(column)
    return target_of(f"{match[1]}/{match[2]}") if match else None


def _pair(sources: Sequence[str]) -> tuple[Path, Path] | None:
    """Ratios and metrics by their names; None: there are none. Raises: RunTableError: several."""
    paths = [Path(source) for source in sources]
    if len(paths) == 1 and paths[0].is_dir():
        pairs = _pairs_in(paths[0])
        if len(pairs) > 1:
            raise RunTableError(
                f"{paths[0]} holds several swarms; name the two files of one: "
                f"{', '.join(sorted(ratios.name for ratios, _ in pairs))} ..."
            )
        return pairs[0] if pairs else None
    named = {kind: p for kind in (RATIOS, METRICS) for p in paths if p.name.endswith(kind)}
    if len(paths) == 2 and len(named) == 2 and all(path.is_file() for path in paths):
        return named[RATIOS], named[METRICS]
    return None


def _pairs_in(folder: Path) -> list[tuple[Path, Path]]:
    """ratios.csv and metrics.csv, or those of one name before that: dclm_ratios.csv."""
    ratios = sorted(folder.glob(f"*{RATIOS}"))
    pairs = [(path, path.with_name(path.name.removesuffix(RATIOS) + METRICS)) for path in ratios]
    return [pair for pair in pairs if pair[1].is_file()]
