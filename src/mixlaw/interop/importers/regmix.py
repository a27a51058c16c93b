"""Proxy runs of RegMix: a table of mixtures and a table of losses."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from mixlaw.errors import RunTableError
from mixlaw.interop.importers.pairs import join, read_half, tell_apart, top_of
from mixlaw.interop.logged import LoggedRun
from mixlaw.interop.metric_names import target_of

KEYS = ("index",)
THE_PILE = "the_pile_"
"""Before every domain's name in RegMix's own runs; it tells them apart from nothing."""


class RegMix:
    """A row each for a run, by number: proportions in one table, validation losses in the other.

    Domains and targets get the names that they share: train_the_pile_arxiv and
    metric/the_pile_arxiv_val_loss are "arxiv" and "loss/arxiv". Ids carry the files' name, since
    every pair counts its runs from 1: "train_1m-1".
    Source: github.com/sail-sg/regmix, regression_fitting/collect_mixture_data.py and
        collect_loss_data.py; data/*.csv, and data/pile/*.csv, whose columns are bare names.
    """

    name: ClassVar[str] = "regmix"
    what: ClassVar[str] = "runs of RegMix: a mixture CSV and a loss CSV"
    checked: ClassVar[str] = "tables of sail-sg/regmix at b004d3a and 7d422e9"

    def recognises(self, sources: Sequence[str]) -> bool:
        try:
            pair = _pair(sources)
        except RunTableError:
            return True  # Several pairs: it is said when they are read.
        except OSError:
            return False
        return pair is not None and _are_of_regmix(*pair)

    def files(self, sources: Sequence[str]) -> list[Path]:
        return list(_pair(sources) or map(Path, sources))

    def read(
        self, sources: Sequence[str], *, names: Collection[str] | None = None
    ) -> Iterator[LoggedRun]:
        """As of `Importer`. Raises: RunTableError: also for a folder of several pairs."""
        if (pair := _pair(sources)) is None:
            raise RunTableError(
                f"{', '.join(sources)}: not runs of RegMix; name its two files, mixtures and "
                "losses, which both need a column index"
            )
        mixtures, losses = (read_half(path, KEYS) for path in pair)
        domains = {column: column.removeprefix("train_") for column in mixtures.columns}
        targets = {c: _target(c, bare=c in mixtures.columns) for c in losses.columns}
        if all(domain.startswith(THE_PILE) for domain in domains.values()):
            domains = {k: v.removeprefix(THE_PILE) for k, v in domains.items()}
            targets = {k: v.replace(f"loss/{THE_PILE}", "loss/") for k, v in targets.items()}
        prefix = f"{_common_name(*pair)}-"
        return join(mixtures, losses, domains=domains, targets=targets, prefix=prefix)


def _are_of_regmix(mixtures: Path, losses: Path) -> bool:
    """By the names of their columns: the losses are called so, or as the domains are."""
    domains, measures = (set(top_of(path)[0]) - {"index"} for path in (mixtures, losses))
    return measures <= domains or any((target_of(m) or "").startswith("loss/") for m in measures)


def _target(column: str, *, bare: bool) -> str:
    """Of a trainer's name, or a domain's (bare); "metric/train_loss" and others stay so."""
    return target_of(column) or (f"loss/{column}" if bare else column)


def _pair(sources: Sequence[str]) -> tuple[Path, Path] | None:
    """Mixtures and losses; None: there are none. Raises: RunTableError: several."""
    paths = [Path(source) for source in sources]
    if len(paths) == 1 and paths[0].is_dir():
        pairs = _pairs_in(paths[0])
        if len(pairs) > 1:
            raise RunTableError(
                f"{paths[0]} holds several pairs of tables, which may be of models of several "
                "sizes; name the two files of one at a time, with --num-params: "
                + "; ".join(f"{mixtures.name} {losses.name}" for mixtures, losses in pairs)
            )
        return pairs[0] if pairs else None
    return tell_apart(paths, KEYS)


def _pairs_in(folder: Path) -> list[tuple[Path, Path]]:
    """Tables that differ in name only by what they hold: train_mixture_1m, train_pile_loss_1m."""
    files = sorted(folder.glob("*.csv"))
    losses = {_bare(path): path for path in files if "loss" in path.stem}
    mixtures = {_bare(path): path for path in files if "mixture" in path.stem}
    pairs = [(path, losses[name]) for name, path in mixtures.items() if name in losses]
    return [pair for pair in pairs if tell_apart(pair, KEYS) == pair]


def _bare(path: Path) -> str:
    """ "train_pile_loss_1m.csv" -> "train_1m"."""
    return re.sub(r"_?(?:mixture|(?:pile_)?loss)(?=_|$)", "", path.stem).strip("_")


def _common_name(mixtures: Path, losses: Path) -> str:
    """Of a pair: what both files are called, else the name of the first."""
    return _bare(mixtures) if _bare(mixtures) == _bare(losses) else mixtures.stem
