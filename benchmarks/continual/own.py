"""Own continued runs: is the critical share that a few runs predict the one that is observed?

Three pairs of old and new text of the Python environment, eight shares of new data, three seeds,
two re-warmed learning rates, 75 to 600 steps (the longest is four times 150). Each pair is a study:
its base of 55 thousand parameters is trained on the old text alone, then continued.

The observed critical share is where the old loss of one seed, linear between neighbouring shares,
crosses its base. It is predicted from runs that lack the two shares on either side of it.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from benchmarks.laws.common import Settings
from benchmarks.table import markdown, publish
from mixlaw.continual import ContinualLaws, fit_continual
from mixlaw.errors import FitError
from mixlaw.files import write_text
from mixlaw.runs import RunTable
from mixlaw.study import Study

PAIRS = {
    "docs + cpp": (["docs"], ["cpp"]),
    "python + docs": (["python"], ["docs"]),
    "python, tests + docs, cpp": (["python", "tests"], ["docs", "cpp"]),
}
SHARES = [0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0]
STEPS = [75, 150, 300, 600]
REWARM = [1.0, 0.3]
SEEDS = 3
TOKENS_PER_STEP = 512
LEVEL = 0.9

STUDY = """seed: 0
domains:
{domains}
validation_bytes: 200_000
tokenizer: {{kind: bpe, vocab_size: 1024}}
sizes: {{55k: {{width: 48, layers: 2}}}}
training: {{sizes: [55k], horizon_steps: [{base_steps}], evaluation_tokens: 32_768}}
objective: {objective}
continual:
  new: {new}
  old: {old}
  shares: {shares}
  horizon_steps: {steps}
  rewarm: {rewarm}
  seeds: {seeds}
"""


@dataclass(frozen=True)
class Pair:
    """One pair of sides and its runs.

    Attributes:
        old, new: domains of either side.
        runs: all of its continued runs.
    """

    name: str
    old: list[str]
    new: list[str]
    runs: RunTable

    @property
    def shares(self) -> np.ndarray:
        """(n,) of new data."""
        return np.round(
            self.runs.weights[:, [self.runs.domains.index(d) for d in self.new]].sum(1), 9
        )

    @property
    def protected(self) -> list[str]:
        return [f"bpb/{name}" for name in self.old]

    def at(self, rewarm: float | None = None, steps: Sequence[int] = STEPS) -> np.ndarray:
        """(n,) rows of one re-warmed rate and some horizons."""
        tokens = [s * TOKENS_PER_STEP for s in steps]
        rows = np.isin(self.runs.train_tokens, tokens)
        return rows if rewarm is None else rows & (self.runs.rewarm == rewarm)


def train(folder: Path, name: str, *, quick: bool = False) -> Pair:
    """The runs of one pair, trained if they are not there."""
    old, new = PAIRS[name]
    text = STUDY.format(
        domains="\n".join(
            f"  {d}: {{environment: {d}, max_bytes: 3_000_000}}" for d in [*old, *new]
        ),
        base_steps=60 if quick else 840,
        objective="{" + ", ".join(f"bpb/{d}: 1" for d in [*old, *new]) + "}",
        new=new,
        old=old,
        shares=SHARES,
        steps=[40, 80] if quick else STEPS,
        rewarm=REWARM[:1] if quick else REWARM,
        seeds=1 if quick else SEEDS,
    )
    place = folder / name.replace(", ", "-").replace(" + ", "-to-")
    write_text(place / "study.yaml", text)
    Study(place).continual()
    runs = RunTable.read(place / "continual.csv")
    return Pair(name, old, new, _bits_per_byte(runs))


def _bits_per_byte(runs: RunTable) -> RunTable:
    """Without nats per token, which are the same losses in another unit."""
    keep = [t for t, name in enumerate(runs.targets) if name.startswith("bpb/")]
    targets = tuple(runs.targets[t] for t in keep)
    return replace(runs, targets=targets, values=runs.values[:, keep], start=runs.start[:, keep])


def observed(pair: Pair, rows: np.ndarray) -> np.ndarray:
    """(seeds,) the share at which the first old target crosses its base, linear between shares; 0
    when even pure replay is above it, 1 when nothing is."""
    out = []
    for seed in np.unique(pair.runs.seed):
        mine = rows & (pair.runs.seed == seed)
        order = np.argsort(pair.shares[mine])
        share, runs = pair.shares[mine][order], pair.runs.select(np.flatnonzero(mine)[order])
        columns = [runs.targets.index(target) for target in pair.protected]
        out.append(min(_crossing(share, (runs.values - runs.start)[:, c]) for c in columns))
    return np.array(out)


def _crossing(share: np.ndarray, rise: np.ndarray) -> float:
    above = np.flatnonzero(rise > 0)
    if not len(above):
        return 1.0
    i = above[0]
    if i == 0:
        return 0.0
    part = rise[i - 1] / (rise[i - 1] - rise[i])
    return float(share[i - 1] + part * (share[i] - share[i - 1]))


def seed_interval(found: np.ndarray) -> tuple[float, float]:
    """Where a further seed would lie, at 90 %: Student's t."""
    half = (
        stdtrit(len(found) - 1, (1 + LEVEL) / 2) * found.std(ddof=1) * math.sqrt(1 + 1 / len(found))
    )
    return max(0.0, found.mean() - half), min(1.0, found.mean() + half)


def neighbours(share: float) -> list[float]:
    """The trained shares on either side of one."""
    below = max([s for s in SHARES if s <= share], default=SHARES[0])
    above = min([s for s in SHARES if s > share], default=SHARES[-1])
    return sorted({below, above})


def _fit(pair: Pair, rows: np.ndarray, form: str | None = None) -> ContinualLaws:
    candidates = None if form is None else [form]
    return fit_continual(pair.runs.select(rows), new=pair.new, candidates=candidates)


def critical_rows(pair: Pair, rewarm: float, form: str | None) -> list[list[object]]:
    """Observed and predicted at every horizon, without the shares next to the observed one."""
    out = []
    for steps in STEPS:
        here = pair.at(rewarm, [steps])
        seen = observed(pair, here)
        low, high = seed_interval(seen)
        known = pair.at(rewarm) & ~np.isin(pair.shares, neighbours(float(seen.mean())))
        tokens = steps * TOKENS_PER_STEP
        try:
            found = _fit(pair, known, form).critical(train_tokens=tokens)
        except FitError as error:
            out.append([pair.name, rewarm, steps, f"{seen.mean():.3f}", "", f"refused: {error}"])
            continue
        covered = found.low <= seen.mean() <= found.high
        out.append(
            [
                pair.name,
                f"{rewarm:g}",
                steps,
                f"{seen.mean():.3f}",
                f"{low:.3f} to {high:.3f}",
                f"{found.share:.3f}",
                f"{found.low:.3f} to {found.high:.3f}",
                "yes" if low <= found.share <= high else "no",
                "yes" if covered else "no",
            ]
        )
    return out


def far_rows(pair: Pair, rewarm: float) -> list[list[object]]:
    """The critical share and losses at 600 steps, from runs of at most so many."""
    here, tokens = pair.at(rewarm, [600]), 600 * TOKENS_PER_STEP
    seen = observed(pair, here)
    low, high = seed_interval(seen)
    short = pair.at(rewarm, [75, 150])
    out = []
    for steps, rows in (
        (150, short),
        (300, pair.at(rewarm, [75, 150, 300])),
        (600, pair.at(rewarm)),
    ):
        laws = _fit(pair, rows)
        found = laws.critical(train_tokens=tokens)
        error = _mean_error(pair, laws, here)
        out.append(
            [
                pair.name,
                f"{rewarm:g}",
                steps,
                laws.form,
                f"{seen.mean():.3f}",
                f"{low:.3f} to {high:.3f}",
                f"{found.share:.3f}",
                f"{found.low:.3f} to {found.high:.3f}",
                f"{error:.4f}",
            ]
        )
    return out


def _mean_error(pair: Pair, laws: ContinualLaws, rows: np.ndarray) -> float:
    """Mean absolute error over rows and targets, against the mean over seeds."""
    errors = []
    for share in np.unique(pair.shares[rows]):
        mine = rows & (pair.shares == share)
        at = {"train_tokens": pair.runs.train_tokens[mine][0], "rewarm": pair.runs.rewarm[mine][0]}
        at |= {"num_params": pair.runs.num_params[mine][0]}
        columns = [pair.runs.targets.index(t) for t in laws.targets]
        seen = pair.runs.values[mine][:, columns].mean(axis=0)
        errors.append(np.abs(laws.predict(share, **at)[0] - seen))
    return float(np.mean(errors))


def held_out_rows(pair: Pair) -> list[list[object]]:
    """Mean absolute error on each share held out (all seeds, horizons and rates), per form."""
    laws = _fit(pair, pair.at())
    noise = _seed_noise(pair)
    spread = _mean_error_of_mean(pair)
    rows = []
    rows_of_all = np.ones(len(laws.trained.share), bool)
    for form, errors in laws.held_out_error.items():
        name = f"**{form}**" if form == laws.form else form
        inner = float(np.mean(list(errors.values())))
        mean = float(laws.trained.errors(laws.forms[form], rows_of_all).mean())
        cells = (f"{e:.4f}" for e in (inner, mean, spread, noise))
        rows.append([pair.name, name, *cells])
    return rows + [
        [pair.name, form, f"refused: {why}", "", ""] for form, why in laws.refused.items()
    ]


def _cells(pair: Pair) -> np.ndarray:
    """(n,) one integer per share, horizon and rate."""
    keys = np.stack([pair.shares, pair.runs.train_tokens, pair.runs.rewarm], axis=1)
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def _seed_noise(pair: Pair) -> float:
    """Pooled standard deviation over seeds, mean over targets."""
    cells = _cells(pair)
    variances = [pair.runs.values[cells == c].var(axis=0, ddof=1) for c in np.unique(cells)]
    return float(np.sqrt(np.mean(variances, axis=0)).mean())


def _mean_error_of_mean(pair: Pair) -> float:
    """Mean absolute error of a forecast that does not know the share: the mean of the others."""
    keys = np.stack([pair.runs.train_tokens, pair.runs.rewarm], axis=1)
    groups = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    errors = []
    for group in np.unique(groups):
        for share in np.unique(pair.shares):
            mine = (groups == group) & (pair.shares == share)
            others = (groups == group) & (pair.shares != share)
            errors.append(np.abs(pair.runs.values[mine] - pair.runs.values[others].mean(axis=0)))
    return float(np.mean(np.concatenate(errors)))


CRITICAL = [
    "old + new", "re-warmed to", "steps", "observed, mean of seeds", "a further seed, 90 %",
    "predicted", "its 90 % interval", "in the seeds' interval", "its interval holds the mean",
]  # fmt: skip
FAR = [
    "old + new", "re-warmed to", "runs of at most (steps)", "form", "observed at 600",
    "a further seed, 90 %", "predicted at 600", "its 90 % interval", "mean error of the losses",
]  # fmt: skip
HELD_OUT = [
    "old + new", "form", "inner shares held out", "all shares held out",
    "all, without knowing the share", "seed noise",
]  # fmt: skip


def report(pairs: Sequence[Pair], seconds: float) -> str:
    """The tables."""
    near, chosen = [], []
    for pair in pairs:
        for rewarm in REWARM:
            near += critical_rows(pair, rewarm, None)
    for pair in pairs:
        for rewarm in REWARM:
            chosen += far_rows(pair, rewarm)
    inside = [row[7] == "yes" for row in near if len(row) > 6]
    covered = [row[8] == "yes" for row in near if len(row) > 6]
    held = [row for pair in pairs for row in held_out_rows(pair)]
    return "\n\n".join(
        [
            f"{sum(len(set(p.runs.run)) for p in pairs)} continued runs of 55 thousand parameters, "
            f"{SEEDS} seeds, trained and fitted in {seconds:.0f} s. Losses are in bits per byte.",
            "## The critical share, predicted without the two shares beside it\n\n"
            f"In the interval of the seeds: {sum(inside)} of {len(inside)}; the predicted interval "
            f"holds the observed mean: {sum(covered)} of {len(covered)}. (Of these, "
            f"{sum(row[3] == '0.000' for row in near)} are observed at 0: re-warming alone raised "
            "the old loss.)\n\n" + markdown(CRITICAL, near),
            "## Four times the tokens\n\nThe same question at 600 steps, from shorter runs.\n\n"
            + markdown(FAR, chosen),
            "## Held-out shares\n\nMean absolute error over targets, seeds, horizons and rates.\n\n"
            + markdown(HELD_OUT, held),
        ]
    )


def own(settings: Settings) -> None:
    """Train all pairs and judge them; quick: one pair, a few steps, nothing judged."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="continual-") as folder:
        if settings.quick:
            print(train(Path(folder), next(iter(PAIRS)), quick=True).runs)
            return
        pairs = [train(Path(folder), name) for name in PAIRS]
        body = report(pairs, time.perf_counter() - started)
    publish(
        "continual-own",
        "Continued pretraining: own runs",
        "python -m benchmarks continual own",
        body,
    )
