"""What a choice costs: by how much the run that a method picks is worse than the best one.

Among held-out runs the truth is known. Between them, in the second table, two strong surrogates
fitted to all runs stand for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.decide.search import (
    NUM_SAMPLES,
    PILE,
    SLIMPAJAMA,
    divergence,
    olmix_exact,
    prior_mixture,
    regmix_average,
    regmix_samples,
)
from benchmarks.laws import tables
from benchmarks.laws.common import DEFAULT, Scoreboard, Settings, first_targets, report
from benchmarks.laws.one_scale import own_domains
from benchmarks.laws.peers import PEERS, Predictor, Training, lightgbm
from benchmarks.laws.scales import SIZES, WARM_UP
from benchmarks.laws.tables import Swarm
from mixlaw.laws import FittedLaws, fit_laws
from mixlaw.laws.regret import regret_bound
from mixlaw.mixture import Constraints, Domain
from mixlaw.optimize import Objective, optimize
from mixlaw.runs import RunTable

KL_WEIGHTS = (0.0, 0.01, 0.05, 0.1)
NUM_SUBSETS = 20
MANY, FEW_SEEDS = 64, 3
"""Above so many runs the draws differ little, and fits take longer: three draws are enough."""

FREE = "regmix_pile"
"""The table on which mixtures are proposed freely."""

NUM_BETWEEN = 300

MEAN = "mean of the targets"
SINGLE = "single targets, share of (median - best)"
SUBSETS = "means of random subsets of the targets, share of (median - best)"
REGMIX, OLMIX = "RegMix", "Olmix"
LOWEST, NEAREST = ": lowest forecast", ": nearest to its proposal"

ABOUT = """True objective of the held-out run picked, less that of the best one; columns are the
number of runs (mixtures) learned from; above 64 of them, three draws.
RegMix: LightGBM, proposal = mean of the best 100 of 100,000 samples of Dirichlet(prior).
Olmix: M4 for each target, exact minimum of the mean plus KL to the prior; of the KL weights
0, .01, .05, .1 the one with the lowest regret in each column, so its lines are optimistic.
Prior: natural shares, on dclm_swarm the mean of the swarm. A pick is the run with the lowest
forecast, or the run nearest to the proposal. "any run": a run drawn blindly. From up to 310M to
937M, the peers learn from the last checkpoints at 310M and rely on rank invariance.
"""

FREE_ABOUT = """Free proposals, within the simplex (mixlaw: within the range of trained shares),
for the mean of the targets, judged by surrogates fitted to all 768 runs: a law with a residual
process (`effective+gp`, of our family) and LightGBM (RegMix's). `optimum of effective+gp itself`:
the lowest that the first judge gives within the range of all runs. Regrets and bounds: against the
optima of the law's folds and 300 mixtures between the trained ones. `of single runs`: what one
run of each would measure, noise and all; else the expected loss, as the judge gives it."""

FREE_TITLES = {
    "law": "mean loss by effective+gp",
    "trees": "mean loss by LightGBM",
    "bound": "mixlaw's regret by effective+gp, its own account of it, share within the .9 bound",
}


@dataclass(frozen=True, eq=False)
class Draw:
    """One decision to take.

    Attributes:
        key: names `train`, so that a fit to it can be used again.
        train: runs to learn from.
        flat: those of them that a peer without scale learns from.
        test: runs to choose among.
        scale: (num_params, train_tokens) of the test runs, None where the table has one scale.
    """

    key: tuple[str, int, int]
    train: RunTable
    flat: RunTable
    test: RunTable
    scale: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True, eq=False)
class Question:
    """A table to draw decisions from.

    Attributes:
        runs: all of them.
        draw: (number of runs, seed) -> draw.
        counts: numbers of runs to learn from.
        num_runs: that can be drawn; as many make one draw only.
        prior: (M,) natural mixture, or the swarm's mean where that is unknown.
    """

    runs: RunTable
    draw: Callable[[int, int], Draw]
    counts: Sequence[int]
    num_runs: int
    prior: np.ndarray

    def draws(self, num_runs: int, settings: Settings) -> list[Draw]:
        seeds = settings.seeds if num_runs <= MANY else min(FEW_SEEDS, settings.seeds)
        seeds = 1 if num_runs == self.num_runs else seeds
        return [self.draw(num_runs, seed) for seed in range(seeds)]


FITS: dict[tuple[str, int, int], FittedLaws] = {}


def default_fit(draw: Draw) -> FittedLaws:
    """The default fit to the runs of a draw; parts that ask about the same draw share it."""
    if draw.key not in FITS:
        FITS[draw.key] = fit_laws(draw.train)
    return FITS[draw.key]


def from_swarm(name: str, swarm: Swarm, counts: Sequence[int], prior: np.ndarray) -> Question:
    """A question of one scale."""

    def draw(num_runs: int, seed: int) -> Draw:
        train, test = swarm.draw(num_runs, seed)
        return Draw((name, num_runs, seed), train, train, test)

    return Question(swarm.runs, draw, counts, len(swarm.pool), prior)


def across_scales(
    runs: RunTable, counts: Sequence[int], prior: np.ndarray, num_params: float
) -> Question:
    """Learn from mixtures at 122M and 310M, choose among the 40 of a larger size; peers see the
    last checkpoints at 310M, since rank invariance is what they rely on."""
    share = tables.share_of_training(runs)
    ids, small = runs.mixture_ids(), runs.num_params <= SIZES["310M"]
    large = runs.select((runs.num_params == num_params) & (share == 1))

    def draw(num_runs: int, seed: int) -> Draw:
        drawn = np.isin(ids, np.random.default_rng(seed).permutation(np.unique(ids))[:num_runs])
        train = runs.select(small & drawn & (share > WARM_UP))
        last = drawn & (share == 1) & (runs.num_params == SIZES["310M"])
        flat = runs.select(last & np.isfinite(runs.values).all(axis=1))
        key = ("dmsl", num_runs, seed)
        return Draw(key, train, flat, large, (num_params, float(large.train_tokens[0])))

    return Question(runs, draw, counts, len(np.unique(ids)), prior)


def questions(settings: Settings) -> dict[str, Question]:
    pile, dclm = tables.regmix_pile(), tables.dclm_swarm()
    if settings.quick:
        pile, dclm = (Swarm(first_targets(s.runs, 4), s.pool, s.test) for s in (pile, dclm))
    small, scales = tables.slimpajama_122m(), tables.slimpajama_scales()
    slimpajama = prior_mixture(SLIMPAJAMA, small.runs.domains)
    one_scale = {
        "regmix_pile": (pile, (24, 32, 64, 128, 256, 512), prior_mixture(PILE, pile.runs.domains)),
        "dmsl_slimpajama, 122M": (small, (24, 40), slimpajama),
        "olmix dclm_swarm": (dclm, (32, 64), dclm.runs.weights.mean(axis=0)),
    }
    found = {
        name: from_swarm(name, swarm, settings.few(counts), prior)
        for name, (swarm, counts, prior) in one_scale.items()
    }
    large, counts = SIZES["937M"], settings.few((40, 60))
    found["dmsl_slimpajama, up to 310M to 937M"] = across_scales(scales, counts, slimpajama, large)
    return found


def objectives(num_targets: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Kind -> coefficients (k, T)."""
    rng = np.random.default_rng(seed)
    subsets = np.zeros((NUM_SUBSETS, num_targets))
    for row in subsets:
        size = rng.integers(2, max(3, num_targets // 2 + 1))
        row[rng.choice(num_targets, size, replace=False)] = 1 / size
    return {
        MEAN: np.full((1, num_targets), 1 / num_targets),
        SINGLE: np.eye(num_targets),
        SUBSETS: subsets,
    }


def regret_of(scores: np.ndarray, truth: np.ndarray) -> float:
    """Regret of the lowest score among runs (n,), the mean over ties (a constant fit ties all)."""
    return float(truth[scores == scores.min()].mean() - truth.min())


@dataclass(frozen=True, eq=False)
class Methods:
    """All methods fitted to one draw.

    Attributes:
        ours: the default fit.
        trees, olmix: forecasts of RegMix and Olmix, weights (n, M) -> (n, T).
        proposals: method -> mixture (M,) that it would train for the mean of the targets.
    """

    ours: FittedLaws
    trees: Predictor
    olmix: Predictor
    proposals: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, draw: Draw, prior: np.ndarray, rng: np.random.Generator) -> Methods:
        runs = draw.flat
        training = Training(runs.weights, runs.values, own_domains(runs), rng)
        olmix = PEERS["M4 (Ye et al.; Olmix default)"](training)
        # RegMix fits its trees to the objective itself.
        mean = lightgbm(runs.weights, runs.values.mean(axis=1), -1, rng)
        samples = regmix_samples(prior, rng, NUM_SAMPLES)
        proposals = {REGMIX: regmix_average(samples, mean(samples))}
        for w in KL_WEIGHTS:
            proposals[olmix_name(w)] = olmix_exact(lambda r: olmix(r).mean(axis=1), prior, w)
        trees = PEERS["LightGBM (RegMix)"](training)
        return cls(default_fit(draw), trees, olmix, proposals)


def olmix_name(kl_weight: float) -> str:
    return f"{OLMIX}, KL {kl_weight:g}"


def judge(boards: dict[str, Scoreboard], methods: Methods, draw: Draw, prior: np.ndarray) -> None:
    """Regret among the test runs: of the mean of the targets in its unit, of other objectives as
    a share of their spread."""
    test, column = draw.test, str(len(np.unique(draw.train.mixture_ids())))
    ours = methods.ours.predict(test.weights, *draw.scale)
    trees, olmix = methods.trees(test.weights), methods.olmix(test.weights)
    far = divergence(test.weights, prior)
    for kind, coefficients in objectives(len(test.targets)).items():
        found: dict[str, list[float]] = {}
        for c in coefficients:
            truth = test.values @ c
            scores = {DEFAULT: ours @ c, REGMIX + LOWEST: trees @ c}
            scores |= {olmix_name(w) + LOWEST: olmix @ c + w * far for w in KL_WEIGHTS}
            if kind == MEAN:
                for name, proposal in methods.proposals.items():
                    scores[name + NEAREST] = np.linalg.norm(test.weights - proposal, axis=1)
            scores["any run"] = np.zeros(len(truth))
            spread = 1.0 if kind == MEAN else np.median(truth) - truth.min()
            for name, score in scores.items():
                found.setdefault(name, []).append(regret_of(score, truth) / spread)
        for name, figures in found.items():
            boards[kind].add(name, column, float(np.mean(figures)))


def best_weights(board: Scoreboard) -> Scoreboard:
    """The board with one line for each of Olmix's ways: in each column the KL weight with the
    lowest mean regret, a choice that nobody could have made in advance."""
    out = Scoreboard()
    lines = {row: [row] for row in board.rows if not row.startswith(OLMIX)}
    for way in (LOWEST, NEAREST, ""):
        rows = [name for name in (olmix_name(w) + way for w in KL_WEIGHTS) if name in board.rows]
        lines |= {f"{OLMIX}, best KL{way}": rows} if rows else {}
    for column in board.columns:
        for line, rows in lines.items():
            for figure in min((board.found[row, column] for row in rows), key=np.mean):
                out.add(line, column, figure)
    return out


class Surrogates:
    """Judges of mixtures that were never trained, fitted to all runs of regmix_pile."""

    def __init__(self, runs: RunTable):
        self.law = fit_laws(runs, candidates=["effective+gp"])
        self.best = optimum(self.law, runs.weights)
        rng = np.random.default_rng(0)
        self.trees = PEERS["LightGBM (RegMix)"](
            Training(runs.weights, runs.values, own_domains(runs), rng)
        )

    def losses(self, mixture: np.ndarray) -> dict[str, float]:
        """Judge -> mean loss of a mixture (M,)."""
        return {
            "law": float(self.law.predict(mixture[None]).mean()),
            "trees": float(self.trees(mixture[None]).mean()),
        }


def optimum(fitted: FittedLaws, support: np.ndarray) -> np.ndarray:
    """The mixture (M,) that `optimize` recommends for the mean of the targets."""
    decision = optimize(
        fitted,
        Objective(dict.fromkeys(fitted.targets, 1.0)),
        domains=[Domain(name) for name in fitted.domains],
        constraints=Constraints(),
        num_params=None,
        train_tokens=None,
        support=support,
    )
    return decision.recommended.array(fitted.domains)


def propose(
    boards: dict[str, Scoreboard], methods: Methods, draw: Draw, judges: Surrogates, prior
) -> None:
    """Losses, by the judges, of what each method would train for the mean of the targets."""
    runs, column = draw.train, str(len(draw.train))
    chosen = optimum(methods.ours, runs.weights)
    mixtures = {DEFAULT: chosen, **methods.proposals}
    mixtures["best run of the draw"] = runs.weights[np.argmin(runs.values.mean(axis=1))]
    mixtures |= {"uniform": np.full(len(prior), 1 / len(prior)), "natural": prior}
    mixtures["optimum of effective+gp itself"] = judges.best
    for name, mixture in mixtures.items():
        for judge_name, loss in judges.losses(mixture).items():
            boards[judge_name].add(name, column, loss)
    account(boards["bound"], methods.ours, chosen, runs, judges)


def account(
    board: Scoreboard, ours: FittedLaws, chosen: np.ndarray, runs: RunTable, judges: Surrogates
) -> None:
    """The regret of our proposal by the judge, and what we say of it: for the expected loss, and
    for what single runs would measure."""
    candidates, column = contenders(ours, runs.weights), str(len(runs))
    coefficients = np.full(len(runs.targets), 1 / len(runs.targets))
    losses = judges.law.predict(np.vstack([chosen, candidates])) @ coefficients
    true = float(losses[0] - losses.min())
    board.add("true", column, true)
    for name, noise in (("", False), (", of single runs", True)):
        found = regret_bound(ours, coefficients, chosen=chosen, candidates=candidates, noise=noise)
        board.add(f"expected{name}", column, found.expected)
        board.add(f"bound{name}", column, found.bound)
        board.add(f"within{name}", column, float(true <= found.bound))


def contenders(fitted: FittedLaws, support: np.ndarray) -> np.ndarray:
    """The optimum of every fold's law, and mixtures between the trained ones (n, M)."""
    optima = [optimum(replace(fitted, laws=laws), support) for laws in fitted.folds]
    shares = np.random.default_rng(0).dirichlet(
        np.full(len(support), 4 / len(support)), NUM_BETWEEN
    )
    return np.vstack([*optima, shares @ support])


def regret(settings: Settings) -> None:
    """Picks among held-out runs of every table, and free proposals on regmix_pile."""
    parts = [ABOUT]
    for name, question in questions(settings).items():
        boards = {kind: Scoreboard() for kind in (MEAN, SINGLE, SUBSETS)}
        free = {key: Scoreboard() for key in ("law", "trees", "bound")}
        judges = Surrogates(question.runs) if name == FREE else None
        for num_runs in question.counts:
            for seed, draw in enumerate(question.draws(num_runs, settings)):
                rng = np.random.default_rng([seed, num_runs])
                methods = Methods.of(draw, question.prior, rng)
                judge(boards, methods, draw, question.prior)
                if judges:
                    propose(free, methods, draw, judges, question.prior)
        section = [f"## {name}"]
        for kind, board in boards.items():
            section.append(f"**{kind}**\n\n{best_weights(board).table('runs')}")
        if judges:
            section.append(FREE_ABOUT)
            for key, title in FREE_TITLES.items():
                section.append(f"**{title}**\n\n{best_weights(free[key]).table('runs')}")
        print(*section, sep="\n\n", flush=True)  # a table may take a quarter of an hour
        parts += section
    report(settings, "regret", "Regret of decisions", "\n\n".join(parts), group="decide")
