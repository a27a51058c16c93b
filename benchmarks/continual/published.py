"""Continued runs of "Data Mixing Laws" (arXiv 2403.16952): Pythia 70M, Pile with Python code.

Five shares of Pile, ten horizons to 10 billion tokens, one seed, and the base checkpoint. Held-out
errors of every form, the critical share at every horizon, and how often intervals hold on made
runs, whose truth is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import root_scalar

from benchmarks.laws.common import Settings
from benchmarks.table import markdown, publish
from mixlaw import datasets
from mixlaw.continual import ContinualLaws, fit_continual
from mixlaw.runs import RunTable

OLD, NEW = "loss/pile", "loss/python"
PUBLISHED = 0.2862
"""The critical share of Pile in the authors' notebook, at the last horizon."""


@dataclass(frozen=True)
class Published:
    """The continued runs, with Pile as one loss (its 22 parts by the authors' weights), and the
    same with every part of its own."""

    runs: RunTable
    base: Mapping[str, float]
    by_part: RunTable
    base_by_part: Mapping[str, float]


def read() -> Published:
    every = datasets.load("mixinglaws/ct")
    shares = datasets.target_weights("mixinglaws/ct")
    parts = [every.targets.index(target) for target in shares]
    by_part = replace(
        every, targets=tuple(shares), values=every.values[:, parts], start=every.start[:, parts]
    )
    code = every.targets.index("loss/starcoder_python")

    def whole(losses: np.ndarray) -> np.ndarray:
        return np.stack([losses[:, parts] @ list(shares.values()), losses[:, code]], axis=1)

    runs = replace(every, targets=(OLD, NEW), values=whole(every.values), start=whole(every.start))
    return Published(runs, _base(runs), by_part, _base(by_part))


def _base(runs: RunTable) -> dict[str, float]:
    """The losses of the model that all runs continued."""
    return dict(zip(runs.targets, runs.start[0].tolist(), strict=True))


def with_form(laws: ContinualLaws, form: str) -> ContinualLaws:
    return replace(laws, form=form)


def held_out(data: Published) -> str:
    """Mean absolute error of each form with every share held out."""
    whole = fit_continual(data.runs, new=["python"], base=data.base)
    sides = dict.fromkeys(data.by_part.targets, "old")
    parts = fit_continual(data.by_part, new=["python"], base=data.base_by_part, targets=sides)
    last = whole.trained.train_tokens == whole.trained.train_tokens.max()
    inner = ~np.isin(whole.trained.share, (whole.trained.share.min(), whole.trained.share.max()))
    rows = []
    for name, form in whole.forms.items():
        error = np.abs(form.left_out - whole.trained.losses)
        figures = [error[0], error[1], error[0, inner], error[0, inner & last]]
        every = np.ones(len(parts.trained.share), bool)
        of_parts = np.nanmean(parts.trained.errors(parts.forms[name], every))
        cells = [f"{np.mean(figure):.4f}" for figure in figures]
        mark = " (chosen)" * (name == whole.form)
        rows.append([f"{name}{mark}", *cells, f"{of_parts:.4f}", f"`{form.formula}`"])
    columns = ["form", OLD, NEW, f"{OLD}, inner shares", "the same at 10B", "22 parts of Pile"]
    note = (
        f"Chosen for the 22 parts: {parts.form}. The spread of {OLD} over the runs is "
        f"{np.std(whole.trained.losses[0]):.4f}, of {NEW} {np.std(whole.trained.losses[1]):.4f}. "
        "Five shares: with an end held out the form extrapolates."
    )
    return f"{markdown([*columns, 'formula'], rows)}\n\n{note}"


def by_share(data: Published) -> str:
    """Predicted and observed losses with each share held out, by the chosen form."""
    laws = fit_continual(data.runs, new=["python"], base=data.base)
    rows, trained = [], laws.trained
    for share in np.unique(trained.share):
        at = np.flatnonzero(trained.share == share)
        for billion in (1, 5, 10):
            row = at[np.argmin(np.abs(trained.train_tokens[at] - billion * 1e9))]
            pairs = (
                (trained.losses[t, row], laws.forms[laws.form].left_out[t, row]) for t in (0, 1)
            )
            cells = [f"{y:.4f} / {p:.4f} ({p - y:+.4f})" for y, p in pairs]
            rows.append([f"{1 - share:.3f}", f"{trained.train_tokens[row] / 1e9:.1f}", *cells])
    columns = ["replay share", "tokens, B", f"{OLD}: observed / held out", NEW]
    return markdown(columns, rows)


def observed_replay(data: Published, tokens: float) -> float:
    """Where the observed losses cross the base's, by straight lines between shares."""
    at = data.runs.train_tokens == tokens
    order = np.argsort(data.runs.weights[at, 0])
    replay = data.runs.weights[at, 0][order]
    rise = data.runs.column(OLD)[at][order] - data.base[OLD]
    last = np.flatnonzero(rise > 0).max()
    return float(np.interp(0.0, -rise[last : last + 2], replay[last : last + 2]))


def critical(data: Published) -> str:
    """The critical replay share per horizon: observed, fitted, and with the nearest share held out
    for each form."""
    laws = fit_continual(data.runs, new=["python"], base=data.base)
    replays = np.unique(data.runs.weights[:, 0])
    rows, off = [], []
    for tokens in np.unique(data.runs.train_tokens):
        observed = observed_replay(data, tokens)
        full = laws.critical(train_tokens=tokens).replay
        nearest = replays[np.argmin(np.abs(replays - observed))]
        rest = data.runs.select(data.runs.weights[:, 0] != nearest)
        without = fit_continual(rest, new=["python"], base=data.base)
        alone = rest.select(rest.train_tokens == tokens)
        single = fit_continual(alone, new=["python"], base=data.base, candidates=["exponential"])
        found = [
            with_form(without, name).critical(train_tokens=tokens).replay.value
            for name in laws.forms
        ]
        ours = without.critical(train_tokens=tokens).replay
        paper = single.critical(train_tokens=tokens).replay.value
        off.append([abs(number - observed) for number in (*found, paper, ours.value)])
        rows.append(
            [
                f"{tokens / 1e9:.1f}",
                f"{observed:.3f}",
                f"{full.value:.3f} ({full.low:.3f} to {full.high:.3f})",
                f"{nearest:.3f}",
                f"{ours.value:.3f} ({ours.low:.3f} to {ours.high:.3f})",
                *(f"{number:.3f}" for number in (*found, paper)),
            ]
        )
    mean = [f"{number:.3f}" for number in np.mean(off, axis=0)]
    rows.append(["mean error", "", "", "", mean[-1], *mean[:-1]])
    columns = ["tokens, B", "observed", f"all runs ({laws.form})", "held out", "chosen without it"]
    columns += [*laws.forms, "exponential, this horizon only"]
    note = (
        f"Published: {PUBLISHED} at the last horizon. Observed: straight lines between the shares; "
        "one seed and checkpoints read in the middle of a cosine, so it jumps by itself (the "
        "noise of a checkpoint, about .004 nats, moves it by about .03)."
    )
    return f"{markdown(columns, rows)}\n\n{note}"


def extrapolated(data: Published) -> str:
    """Fitted to the first half of the tokens, asked about twice as many."""
    half = data.runs.select(data.runs.train_tokens <= 5.3e9)
    laws = fit_continual(half, new=["python"], base=data.base)
    last = data.runs.train_tokens.max()
    at = data.runs.select(data.runs.train_tokens == last)
    rows = []
    for name in laws.forms:
        form = with_form(laws, name)
        error = np.abs(form.predict(at.weights[:, 1], train_tokens=last) - at.values)
        found = form.critical(train_tokens=last).replay
        mark = " (chosen)" * (name == laws.form)
        rows.append(
            [
                f"{name}{mark}",
                *(f"{number:.4f}" for number in error.mean(axis=0)),
                f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})",
            ]
        )
    note = f"Observed at 10.5B: {observed_replay(data, last):.3f}."
    columns = ["form", f"{OLD}, MAE at 10.5B", NEW, "critical replay share"]
    return f"{markdown(columns, rows)}\n\n{note}"


BASE_OLD, BASE_NEW = 3.0, 2.5
RISES: Mapping[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "exponential": lambda x, s: 0.03 * s * np.exp(3 * x),
    "power": lambda x, s: 0.1 * s * (1.02 - x) ** -0.35,
    "logistic": lambda x, s: 0.3 * s / (1 + np.exp(-8 * (x - 0.8))),
    "quadratic": lambda x, s: s * (0.2 * x**2 + 0.05 * x),
}
"""How the old loss rises with the share; the last two are none of the forms."""


@dataclass(frozen=True)
class Made:
    """A truth: the old loss and the new one against share and tokens (in millions)."""

    rise: Callable[[np.ndarray, float], np.ndarray]
    steepness: float
    crosses_at: float

    def old(self, x: np.ndarray, tokens: float) -> np.ndarray:
        apart = self.rise(x, self.steepness) - self.rise(np.array(self.crosses_at), self.steepness)
        paced = (1 - (1 + tokens / 0.3) ** -0.7) / (1 - (1 + 4 / 0.3) ** -0.7)
        return BASE_OLD + apart * paced - 0.01 * (np.log1p(tokens / 2) - np.log1p(2.0))

    def new(self, x: np.ndarray, tokens: float) -> np.ndarray:
        return BASE_NEW - 0.5 * (x + 0.02) ** 0.3 * (1 - (1 + tokens / 0.3) ** -0.5)


@dataclass(frozen=True)
class Design:
    """Made runs: shares, seeds, horizons (millions of tokens), sd of a seed and of a run."""

    shares: Sequence[float]
    seeds: int
    tokens: Sequence[float]
    seed_sd: float
    run_sd: float

    def runs(self, truth: Made, rng: np.random.Generator) -> RunTable:
        rows = []
        of_seed = rng.normal(0, self.seed_sd, (self.seeds, 2))
        for share in self.shares:
            for seed in range(self.seeds):
                of_run = of_seed[seed] + rng.normal(0, self.run_sd, 2)
                for tokens in self.tokens:
                    error = of_run + rng.normal(0, self.run_sd / 3, 2)
                    x = np.array(share)
                    rows.append(
                        {
                            "run": f"{share}-{seed}",
                            "seed": seed,
                            "weight/old": 1 - share,
                            "weight/new": share,
                            "train_tokens": tokens * 1e6,
                            "loss/old": float(truth.old(x, tokens)) + error[0],
                            "loss/new": float(truth.new(x, tokens)) + error[1],
                        }
                    )
        return RunTable.from_rows(rows)


DESIGNS = {
    "5 shares, 1 seed, 1 horizon": Design((0.1, 0.3, 0.5, 0.7, 0.9), 1, (4.0,), 0.0, 0.006),
    "5 shares, 3 seeds, 3 horizons": Design((0.1, 0.3, 0.5, 0.7, 0.9), 3, (1, 2, 4), 0.004, 0.004),
    "8 shares, 1 seed, 3 horizons": Design(np.linspace(0, 1, 8).tolist(), 1, (1, 2, 4), 0.0, 0.006),
    "8 shares, 3 seeds, 1 horizon": Design(np.linspace(0, 1, 8).tolist(), 3, (4.0,), 0.004, 0.004),
    "8 shares, 3 seeds, 3 horizons": Design(
        np.linspace(0.05, 0.95, 8).tolist(), 3, (1, 2, 4), 0.004, 0.004
    ),
}


def crossing(rise: Callable[[np.ndarray], np.ndarray]) -> float:
    """The largest share at which a rise is at most 0."""
    grid = np.linspace(0, 1, 2001)
    below = np.flatnonzero(rise(grid) <= 0)
    if len(below) == 0 or below[-1] == 2000:
        return 0.0 if len(below) == 0 else 1.0
    bracket = grid[below[-1]], grid[below[-1] + 1]
    return float(root_scalar(lambda x: float(rise(np.array(x))), bracket=bracket).root)


def coverage(repeats: int) -> str:
    """How often 90 % intervals hold the truth of made runs."""
    rows = []
    for design_name, design in DESIGNS.items():
        for name, rise in RISES.items():
            rng = np.random.default_rng(1)
            found = [_one(design, rise, rng) for _ in range(repeats)]
            means = np.mean(found, axis=0)
            rows.append([design_name, name, *(f"{number:.2f}" for number in means[:2])])
            rows[-1] += [f"{number:.3f}" for number in means[2:4]]
            rows[-1] += [f"{means[4]:.2f}", *(f"{number:.3f}" for number in means[5:])]
    columns = ["runs", "old loss rises", "critical: holds the truth", "holds another run's"]
    columns += ["error", "width", "best: holds the truth", "error", "width"]
    note = (
        f"{repeats} swarms a row. Truth: the crossing of the expected loss; another run's: of a "
        "further run, with seed and noise of its own, which is what the interval is for."
    )
    return f"{markdown(columns, rows)}\n\n{note}"


def _one(design: Design, rise: Callable, rng: np.random.Generator) -> list[float]:
    truth = Made(rise, rng.uniform(0.6, 1.4), rng.uniform(0.25, 0.75))
    base = {"loss/old": BASE_OLD, "loss/new": BASE_NEW}
    laws = fit_continual(design.runs(truth, rng), new=["new"], base=base)
    tokens = design.tokens[-1]
    found = laws.critical(train_tokens=tokens * 1e6)
    best = laws.best({"loss/old": 1, "loss/new": 1}, train_tokens=tokens * 1e6)
    luck = rng.normal(0, np.hypot(design.seed_sd, design.run_sd))
    true = crossing(lambda x: truth.old(x, tokens) - BASE_OLD)
    another = crossing(lambda x: truth.old(x, tokens) + luck - BASE_OLD)
    grid = np.linspace(0, 1, 2001)
    lowest = grid[np.argmin(truth.old(grid, tokens) + truth.new(grid, tokens))]
    return [
        found.low <= true <= found.high,
        found.low <= another <= found.high,
        abs(found.share - true),
        found.high - found.low,
        best.low <= lowest <= best.high,
        abs(best.share - lowest),
        best.high - best.low,
    ]


def published(settings: Settings) -> None:
    """All tables of this page."""
    data = read()
    parts = {
        "Held-out shares: mean absolute error, nats": held_out(data),
        "Losses with their share held out, nats": by_share(data),
        "Critical replay share (Pile): the least that does not raise its loss": critical(data),
        "From the first 5B tokens to 10.5B": extrapolated(data),
        "Coverage on made runs": coverage(settings.seeds),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in parts.items())
    if settings.quick:
        print(body)
    else:
        command = f"python -m benchmarks continual published --seeds {settings.seeds}"
        publish("continual-published", "Continued runs, published and made", command, body)
