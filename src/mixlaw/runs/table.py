"""Runs as one table, in memory and in files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixlaw.errors import MissingExtraError, MixtureError, RunTableError
from mixlaw.files import atomic_path, parse_json, write_text
from mixlaw.mixture import SUM_TOLERANCE, Mixture, check_names
from mixlaw.names import fault
from mixlaw.runs.cells import (
    UNITS,
    available,
    blank,
    higher_is_better,
    positive,
    schedule_of,
    seed_of,
    starts,
    strings,
    weights_of,
    whole,
    with_dose,
)
from mixlaw.runs.spec import DONE, FAILED, MISSING


@dataclass(frozen=True, eq=False)
class RunTable:
    """Rows of (run, checkpoint): mixture, scale and targets. Arrays are aligned by row.

    Attributes:
        domains: M names, the column order of `weights`.
        targets: T names `metric/target`; the metric fixes the unit (see `UNITS`).
        weights: (n, M) proportions, each row on the simplex; of a scheduled run its dose.
        num_params: (n,) non-embedding parameters; NaN when unknown.
        train_tokens: (n,) tokens seen; NaN when unknown.
        available_tokens: (n, M) unique tokens of each domain that the run drew from; inf where
            they do not run out.
        values: (n, T); NaN where a run failed or is missing, or a target was not measured.
        run, label, role, status: (n,) strings; seed: (n,) integers.
        schedule: (n,) Schedule up to the row's tokens; None for a static one.
        start: (n, T) the targets at step 0 of a run that continued a model; NaN for others.
        rewarm: (n,) its peak learning rate as a share of the usual one; NaN when unknown.
    """

    domains: tuple[str, ...]
    targets: tuple[str, ...]
    weights: np.ndarray
    num_params: np.ndarray
    train_tokens: np.ndarray
    available_tokens: np.ndarray
    values: np.ndarray
    run: np.ndarray
    label: np.ndarray
    role: np.ndarray
    status: np.ndarray
    seed: np.ndarray
    schedule: np.ndarray
    start: np.ndarray
    rewarm: np.ndarray

    def __len__(self) -> int:
        return len(self.run)

    def __repr__(self) -> str:
        return (
            f"RunTable({len(self)} rows, {len(set(self.run))} runs, "
            f"{len(self.domains)} domains, {len(self.targets)} targets)"
        )

    @classmethod
    def from_rows(
        cls, rows: Iterable[Mapping[str, Any]], *, sum_tolerance: float = SUM_TOLERANCE
    ) -> RunTable:
        """Rows as mappings: `weight/<domain>`, `<metric>/<target>`, and optionally `run`, `label`,
        `role`, `seed`, `status`, `num_params`, `train_tokens`, `available_tokens/<domain>`,
        `schedule` (JSON as `Schedule.to_list`; the weights may then be left empty), `start/<metric>
        /<target>`, `rewarm`. None or "" is a missing value.

        Args:
            sum_tolerance: weights whose sum is this near to 1 are rescaled to it, and so are the
                shares and mixtures of a schedule, from whose dose the weights may lie as far.
        Raises: RunTableError: names the row, the value and the rule.
        """
        rows = list(rows)
        if not rows:
            raise RunTableError("the run table has no rows; train or import at least one run")
        for i, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise RunTableError(f"row {i + 1} is {row!r}; it must map column names to cells")
        given = [schedule_of(row, i, sum_tolerance) for i, row in enumerate(rows)]
        rows = [with_dose(row, i, given[i], sum_tolerance) for i, row in enumerate(rows)]
        changing = (None if s is None or s.is_static else s for s in given)
        schedules = np.fromiter(changing, object, len(rows))
        columns = list(dict.fromkeys(key for row in rows for key in row))
        domains = tuple(c.removeprefix("weight/") for c in columns if c.startswith("weight/"))
        targets = tuple(c for c in columns if c.partition("/")[0] in UNITS and "/" in c)
        if not domains or not targets:
            raise RunTableError(
                f"the run table needs columns weight/<domain> and one of "
                f"{[f'{metric}/<target>' for metric in UNITS]}; found {columns[:12]}"
            )
        try:
            check_names(domains)
        except MixtureError as error:
            raise RunTableError(str(error)) from error
        status = strings(rows, "status", lambda i: DONE)
        bad = sorted(set(status.tolist()) - {DONE, FAILED, MISSING})
        if bad:
            raise RunTableError(f"status {bad} is unknown; use {DONE!r}, {FAILED!r} or {MISSING!r}")
        if (status == MISSING).all():
            raise RunTableError(
                f"none of the {len(rows)} rows is of a run with a result; train the runs first"
            )
        run = strings(rows, "run", lambda i: f"row{i}")
        label = strings(rows, "label", lambda i: str(rows[i].get("run") or f"row{i}"))
        for names in (domains, targets, run.tolist(), label.tolist()):
            if problem := fault(names):
                raise RunTableError(problem)
        return cls(
            domains=domains,
            targets=targets,
            weights=weights_of(rows, domains, sum_tolerance),
            num_params=positive(rows, "num_params"),
            train_tokens=positive(rows, "train_tokens"),
            available_tokens=available(rows, domains, columns),
            values=np.stack(
                [positive(rows, t, or_zero=higher_is_better(t)) for t in targets], axis=1
            ),
            run=run,
            label=label,
            role=strings(rows, "role", lambda i: "swarm"),
            status=status,
            seed=np.array([seed_of(row, i) for i, row in enumerate(rows)]),
            schedule=schedules,
            start=starts(rows, targets, columns),
            rewarm=positive(rows, "rewarm"),
        )

    @classmethod
    def read(cls, path: str | Path, *, sum_tolerance: float = SUM_TOLERANCE) -> RunTable:
        """Read a `.csv`, `.jsonl` or `.parquet` table (see `from_rows` for the columns)."""
        path = Path(path)
        try:
            if path.suffix == ".csv":
                with open(path, newline="", encoding="utf-8-sig") as handle:  # Excel writes a BOM
                    reader = csv.DictReader(handle)
                    rows: list[Any] = list(reader)
                    names = list(reader.fieldnames or ())
                if len(set(names)) < len(names):
                    twice = sorted({name for name in names if names.count(name) > 1})
                    raise RunTableError(f"{path}: the columns {twice} are given twice; keep one")
                for i, row in enumerate(rows):
                    # csv marks surplus cells with a None key and lacking ones with a None value.
                    if None in row or None in row.values():
                        wrong = "more" if None in row else "fewer"
                        raise RunTableError(
                            f"{path}: row {i + 1} has {wrong} cells than the header's "
                            f"{len(names)}; is the file cut short? Leave cells that were not "
                            "measured empty"
                        )
            elif path.suffix == ".jsonl":
                # Not splitlines: JSON may hold characters that text is broken at, as they are.
                lines = path.read_text("utf-8-sig").split("\n")
                rows = [parse_json(line) for line in lines if line.strip()]
            elif path.suffix == ".parquet":
                rows = _read_parquet(path)
            else:
                raise RunTableError(
                    f"{path}: unknown kind {path.suffix!r}; use .csv, .jsonl, .parquet"
                )
        except (OSError, ValueError, csv.Error) as error:  # not UTF-8, or no JSON, is a ValueError
            raise RunTableError(f"could not read the run table {path}: {error}") from error
        try:
            return cls.from_rows(rows, sum_tolerance=sum_tolerance)
        except RunTableError as error:
            raise RunTableError(f"{path}: {error}") from error

    def rows(self) -> list[dict[str, Any]]:
        """The inverse of `from_rows`; missing values are None."""
        out = []
        limited = np.any(np.isfinite(self.available_tokens), axis=0).tolist()
        continued, rewarmed = np.isfinite(self.start).any(), np.isfinite(self.rewarm).any()
        staged = any(schedule is not None for schedule in self.schedule)
        for i in range(len(self)):
            row: dict[str, Any] = {
                key: str(getattr(self, key)[i]) for key in ("run", "label", "role")
            }
            row |= {"seed": int(self.seed[i]), "status": str(self.status[i])}
            row |= {key: whole(getattr(self, key)[i]) for key in ("num_params", "train_tokens")}
            for j, d in enumerate(self.domains):
                row[f"weight/{d}"] = float(self.weights[i, j])
                if limited[j]:
                    tokens = self.available_tokens[i, j]
                    row[f"available_tokens/{d}"] = whole(tokens) if np.isfinite(tokens) else None
            row |= dict(zip(self.targets, map(blank, self.values[i]), strict=True))
            if staged:
                row["schedule"] = (
                    None if (s := self.schedule[i]) is None else json.dumps(s.to_list())
                )
            if continued:
                found = zip(self.targets, self.start[i], strict=True)
                row |= {f"start/{target}": blank(value) for target, value in found}
            if rewarmed:
                row["rewarm"] = blank(self.rewarm[i])
            out.append(row)
        return out

    def write(self, path: str | Path) -> None:
        """Write `.csv`, `.jsonl` or `.parquet`, atomically; `read` gives the same table."""
        path, rows = Path(path), self.rows()
        if not rows:
            raise RunTableError(f"there is no row to write to {path}")
        if path.suffix == ".csv":
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_text(path, text.getvalue())
        elif path.suffix == ".jsonl":
            write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
        elif path.suffix == ".parquet":
            pyarrow, parquet = _pyarrow()
            with atomic_path(path) as temporary:
                parquet.write_table(pyarrow.Table.from_pylist(rows), temporary, compression="zstd")
        else:
            raise RunTableError(f"{path}: unknown kind {path.suffix!r}; use .csv, .jsonl, .parquet")

    def select(self, keep: np.ndarray) -> RunTable:
        """Rows by boolean mask or index array."""
        per_row = ("weights", "num_params", "train_tokens", "available_tokens", "values")
        per_row += ("run", "label", "role", "status", "seed", "schedule", "start", "rewarm")
        return replace(self, **{name: getattr(self, name)[keep] for name in per_row})

    def done(self) -> RunTable:
        """Rows of runs that have values: neither failed nor missing."""
        return self.select(self.status == DONE)

    def trained(self) -> RunTable:
        """Rows of runs that have a result, done or failed."""
        return self.select(self.status != MISSING)

    def static(self) -> RunTable:
        """Rows of one mixture throughout."""
        return self.select(np.array([schedule is None for schedule in self.schedule], bool))

    def staged(self) -> RunTable:
        """Rows whose mixture changed during training."""
        return self.select(np.array([schedule is not None for schedule in self.schedule], bool))

    def continued(self) -> RunTable:
        """Rows of runs that continue a trained model: one with losses at step 0, or re-warmed."""
        return self.select(np.isfinite(self.start).any(axis=1) | np.isfinite(self.rewarm))

    def column(self, target: str) -> np.ndarray:
        """Values (n,) of one target. Raises: RunTableError: no such target."""
        if target not in self.targets:
            raise RunTableError(f"no target {target!r} in the table; it has {list(self.targets)}")
        return self.values[:, self.targets.index(target)]

    def mixture_ids(self) -> np.ndarray:
        """(n,) integers, equal for rows of the same mixture (to nine decimals)."""
        return np.unique(np.round(self.weights, 9), axis=0, return_inverse=True)[1].reshape(-1)

    def mixture(self, i: int) -> Mixture:
        """The mixture of row i."""
        return Mixture.from_array(self.domains, self.weights[i])


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet") from None
    return pyarrow, pyarrow.parquet


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    pyarrow, parquet = _pyarrow()
    try:
        return parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise RunTableError(f"could not read the run table {path}: {error}") from error
