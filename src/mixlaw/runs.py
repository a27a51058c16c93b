"""Runs: what was asked for (RunSpec), what came out (RunResult), and both as one RunTable."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixlaw.errors import MissingExtraError, MixtureError, RunTableError
from mixlaw.files import atomic_path, digest, write_text
from mixlaw.mixture import SUM_TOLERANCE, Mixture, check_names

UNITS = {
    "loss": "nats per token",
    "bpb": "bits per byte",
    "error": "share of wrong answers",
    "score": "score, higher is better",
}
"""The metric is the prefix of a target's name (`bpb/code`) and fixes its unit.

All but scores are fitted as losses: above zero, lower is better. A score (zero or above) is
forecast through its link to a loss, see `laws.links`."""

HIGHER_IS_BETTER = frozenset({"score"})

DONE, FAILED, MISSING = "done", "failed", "missing"
"""Status of a run: it has values; it diverged; it was planned and has no result."""
SWARM, REPLICATE, VERIFY = "swarm", "replicate", "verify"


@dataclass(frozen=True)
class RunSpec:
    """One training to do.

    Attributes:
        label: name of the mixture for people ("m07", "uniform").
        role: "swarm" (fitted), "replicate" (another seed, fitted and tells the noise) or
            "verify" (never fitted).
        size: name of the architecture in the study.
        num_params: non-embedding parameters.
        horizon_tokens: training tokens at which a finished-schedule loss is measured, ascending.
        seed: of initial weights and data order.
        context: digest of all else that decides the losses (corpus, tokenizer, recipe).
        pools: domain -> tokens of it that the run draws from; None: all of the corpus.
    """

    mixture: Mixture
    label: str
    role: str
    size: str
    num_params: int
    horizon_tokens: tuple[int, ...]
    seed: int
    context: str
    pools: Mapping[str, int] | None = field(default=None, hash=False)

    @property
    def run_id(self) -> str:
        """Hash of what decides the result; label and role do not."""
        decides = [
            dict(self.mixture),
            self.size,
            self.num_params,
            self.horizon_tokens,
            self.seed,
            self.context,
        ]
        return digest(decides if self.pools is None else [*decides, dict(self.pools)])

    def to_dict(self) -> dict[str, Any]:
        return {
            **vars(self),
            "mixture": dict(self.mixture),
            "horizon_tokens": list(self.horizon_tokens),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunSpec:
        mixture, horizons = Mixture(data["mixture"]), tuple(data["horizon_tokens"])
        return cls(**{**data, "mixture": mixture, "horizon_tokens": horizons})


@dataclass(frozen=True)
class RunResult:
    """What a training gave.

    Attributes:
        status: "done" or "failed".
        targets: one mapping target -> value per horizon; empty when failed.
        reason: why it failed.
        epochs: domain -> how often the longest horizon saw it, as counted; empty when failed.
    """

    status: str
    targets: tuple[Mapping[str, float], ...] = ()
    reason: str = ""
    epochs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RunTable:
    """Rows of (run, checkpoint): mixture, scale and targets. Arrays are aligned by row.

    Attributes:
        domains: M names, the column order of `weights`.
        targets: T names `metric/target`; the metric fixes the unit (see `UNITS`).
        weights: (n, M) proportions, each row on the simplex.
        num_params: (n,) non-embedding parameters; NaN when unknown.
        train_tokens: (n,) tokens seen; NaN when unknown.
        available_tokens: (n, M) unique tokens of each domain that the run drew from; inf where
            they do not run out.
        values: (n, T); NaN where a run failed or is missing, or a target was not measured.
        run, label, role, status: (n,) strings; seed: (n,) integers.
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
        `role`, `seed`, `status`, `num_params`, `train_tokens`, `available_tokens/<domain>`. None
        or "" is a missing value.

        Args:
            sum_tolerance: weights whose sum is this near to 1 are rescaled to it.
        Raises: RunTableError: names the row, the value and the rule.
        """
        rows = list(rows)
        if not rows:
            raise RunTableError("the run table has no rows; train or import at least one run")
        for i, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise RunTableError(f"row {i + 1} is {row!r}; it must map column names to cells")
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
        status = _strings(rows, "status", lambda i: DONE)
        bad = sorted(set(status.tolist()) - {DONE, FAILED, MISSING})
        if bad:
            raise RunTableError(f"status {bad} is unknown; use {DONE!r}, {FAILED!r} or {MISSING!r}")
        if (status == MISSING).all():
            raise RunTableError(
                f"none of the {len(rows)} rows is of a run with a result; train the runs first"
            )
        return cls(
            domains=domains,
            targets=targets,
            weights=_weights(rows, domains, sum_tolerance),
            num_params=_positive(rows, "num_params"),
            train_tokens=_positive(rows, "train_tokens"),
            available_tokens=_available(rows, domains, columns),
            values=np.stack(
                [_positive(rows, t, or_zero=higher_is_better(t)) for t in targets], axis=1
            ),
            run=_strings(rows, "run", lambda i: f"row{i}"),
            label=_strings(rows, "label", lambda i: str(rows[i].get("run") or f"row{i}")),
            role=_strings(rows, "role", lambda i: "swarm"),
            status=status,
            seed=np.array([_seed(row, i) for i, row in enumerate(rows)]),
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
                lines = path.read_text("utf-8-sig").splitlines()
                rows = [json.loads(line) for line in lines if line]
            elif path.suffix == ".parquet":
                rows = _read_parquet(path)
            else:
                raise RunTableError(
                    f"{path}: unknown kind {path.suffix!r}; use .csv, .jsonl, .parquet"
                )
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise RunTableError(f"could not read the run table {path}: {error}") from error
        try:
            return cls.from_rows(rows, sum_tolerance=sum_tolerance)
        except RunTableError as error:
            raise RunTableError(f"{path}: {error}") from error

    def rows(self) -> list[dict[str, Any]]:
        """The inverse of `from_rows`; missing values are None."""
        out = []
        limited = np.any(np.isfinite(self.available_tokens), axis=0).tolist()
        for i in range(len(self)):
            row: dict[str, Any] = {
                key: str(getattr(self, key)[i]) for key in ("run", "label", "role")
            }
            row |= {"seed": int(self.seed[i]), "status": str(self.status[i])}
            row |= {key: _whole(getattr(self, key)[i]) for key in ("num_params", "train_tokens")}
            for j, d in enumerate(self.domains):
                row[f"weight/{d}"] = float(self.weights[i, j])
                if limited[j]:
                    tokens = self.available_tokens[i, j]
                    row[f"available_tokens/{d}"] = _whole(tokens) if np.isfinite(tokens) else None
            row |= {
                t: None if np.isnan(v) else float(v)
                for t, v in zip(self.targets, self.values[i], strict=True)
            }
            out.append(row)
        return out

    def write(self, path: str | Path) -> None:
        """Write `.csv`, `.jsonl` or `.parquet`, atomically; `read` gives the same table."""
        path, rows = Path(path), self.rows()
        if not rows:
            raise RunTableError(f"there is no row to write to {path}")
        if path.suffix == ".csv":
            with atomic_path(path) as temporary, open(temporary, "w", newline="") as handle:
                writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
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
        per_row += ("run", "label", "role", "status", "seed")
        return replace(self, **{name: getattr(self, name)[keep] for name in per_row})

    def done(self) -> RunTable:
        """Rows of runs that have values: neither failed nor missing."""
        return self.select(self.status == DONE)

    def trained(self) -> RunTable:
        """Rows of runs that have a result, done or failed."""
        return self.select(self.status != MISSING)

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


def _number(row: Mapping[str, Any], key: str, index: int) -> float | None:
    cell = row.get(key)
    if cell is None or cell == "":
        return None
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise RunTableError(f"row {index + 1}: {key} is {cell!r}; it must be a number") from None


def _seed(row: Mapping[str, Any], index: int) -> int:
    number = _number(row, "seed", index) or 0.0
    if not (math.isfinite(number) and number.is_integer()):
        raise RunTableError(f"row {index + 1}: seed is {number}; it must be a whole number")
    return int(number)


def higher_is_better(target: str) -> bool:
    """Whether `metric/name` is a score rather than a loss."""
    return target.partition("/")[0] in HIGHER_IS_BETTER


def _positive(rows: Sequence[Mapping[str, Any]], key: str, *, or_zero: bool = False) -> np.ndarray:
    out = np.full(len(rows), np.nan)
    for i, row in enumerate(rows):
        number = _number(row, key, i)
        if number is None:
            continue
        if not (math.isfinite(number) and (number > 0 or (or_zero and number == 0))):
            raise RunTableError(
                f"row {i + 1}: {key} is {number}; it must be finite and >{'=' * or_zero} 0 "
                "(leave the cell empty when it was not measured)"
            )
        out[i] = number
    return out


def _available(
    rows: Sequence[Mapping[str, Any]], domains: Sequence[str], columns: Sequence[str]
) -> np.ndarray:
    out = np.full((len(rows), len(domains)), np.nan)
    given = {c.removeprefix("available_tokens/") for c in columns if c.startswith("available_t")}
    if strangers := sorted(given - set(domains)):
        raise RunTableError(f"available_tokens of {strangers}, which have no weight/ column")
    for domain in given:
        out[:, domains.index(domain)] = _positive(rows, f"available_tokens/{domain}")
    limited = np.isfinite(out).any(axis=1)
    unknown = np.flatnonzero(limited & np.isnan(_positive(rows, "train_tokens")))
    if len(unknown):
        raise RunTableError(
            f"row {unknown[0] + 1} has available_tokens but no train_tokens; epochs need both"
        )
    return np.where(np.isnan(out), np.inf, out)


def _weights(
    rows: Sequence[Mapping[str, Any]], domains: Sequence[str], sum_tolerance: float
) -> np.ndarray:
    out = np.zeros((len(rows), len(domains)))
    for i, row in enumerate(rows):
        for j, domain in enumerate(domains):
            share = _number(row, f"weight/{domain}", i) or 0.0
            if not (math.isfinite(share) and share >= 0):
                raise RunTableError(
                    f"row {i + 1}: the proportion of {domain!r} is {share}; "
                    "it must be finite and >= 0"
                )
            out[i, j] = share
    totals = out.sum(axis=1)
    worst = int(np.argmax(np.abs(totals - 1)))
    if abs(totals[worst] - 1) > sum_tolerance:
        raise RunTableError(
            f"row {worst + 1}: the proportions sum to {totals[worst]:.6f}; they must sum to 1 "
            f"within {sum_tolerance:g} (raise sum_tolerance if the source rounded them)"
        )
    return out / totals[:, None]


def _strings(rows: Sequence[Mapping[str, Any]], key: str, default) -> np.ndarray:
    return np.array([str(row.get(key) or default(i)) for i, row in enumerate(rows)])


def _whole(number: float) -> int | float | None:
    if np.isnan(number):
        return None
    return int(number) if float(number).is_integer() else float(number)


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
