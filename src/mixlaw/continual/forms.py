"""Forms of the loss of a continued run, as a share of its base's loss: `z = loss / base`.

`x` is the share of the new side, `r` the shares of the groups (one group a side, or its domains
when the runs vary them), `r_i` the share of the target's own side, `D` tokens of the continued run,
`N` parameters, `w` the re-warming: the peak learning rate as a share of the usual one. What does
not vary in the runs has no term. Dividing by the base carries most of what size does to the level,
so `N` and `w` enter by powers of either sign, of the whole and of what the mixture does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.batch import Batch
from mixlaw.laws.domain_powers import SHARE_EXPONENT_MEAN, SHARE_EXPONENT_SD
from mixlaw.laws.mixing import Exponential
from mixlaw.laws.points import MIXTURE, NUM_PARAMS, TRAIN_TOKENS, Axes, Points
from mixlaw.laws.scaling import SYMBOL, Decay
from mixlaw.laws.terms import Constant, Product, Sum, Term, TermLaw, bounded_exp

REWARM = "rewarm"
SETTINGS = (NUM_PARAMS, TRAIN_TOKENS, REWARM)
"""What may vary beside the share."""

FEWEST_SHARES = 4
"""Distinct shares to fit from, so that three remain when one is held out; priors carry the rest."""

LEVEL_SD, CHANGE_SD = 0.1, 1.0
"""Prior sd of the power of N or w on the whole (.1: a factor of two is worth up to 15 %) and on
what the mixture changes."""

FLOOR_MEAN, FLOOR_SD = np.log(0.01), 1.5
"""Prior of log eps, the share that a side without any data of its own still seems to have."""

PACE_MEAN, PACE_SD = np.log(0.1), 2.0
"""Prior of log D0, the tokens within which a run leaves its base, in units of the runs' mean."""

APPROACH_MEAN, APPROACH_SD = np.log(0.5), 0.5
"""Prior of the log of the exponent with which it nears its asymptote."""

LEARNING_MEAN, LEARNING_SD = np.log(0.01), 1.0
"""Prior of the log of the exponent with which a run goes on learning at every share."""


@dataclass(frozen=True)
class ContinualPoints(Points):
    """Where a form is evaluated; `weights` are the shares (n, G) of the groups.

    Attributes:
        rewarm: (n,) peak learning rate as a share of the usual one; NaN when unknown.
    """

    rewarm: np.ndarray | None = None

    def select(self, keep: np.ndarray | slice) -> ContinualPoints:
        rewarm = None if self.rewarm is None else self.rewarm[keep]
        chosen = super().select(keep)
        assert isinstance(chosen, ContinualPoints)
        return replace(chosen, rewarm=rewarm)


class FreePower(Term):
    """(v / reference)^u of one setting v, u of either sign; a factor. Theta is (u,)."""

    convex = log_convex = decreasing = True  # it does not read the mixture

    def __init__(self, axis: str, reference: float, sd: float):
        self.axis, self.reference, self.sd = axis, reference, sd
        self.needs = frozenset({axis})

    def num_parameters(self, num_domains: int) -> int:
        return 1

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        logs = np.log(getattr(points, self.axis) / self.reference)
        value = bounded_exp(theta * logs)
        return value, (value * logs)[:, :, None]

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(level), 1)), np.full((len(level), 1), self.sd)


class SidePower(Term):
    """A (r_i + eps)^-p, p > 0, of the share r_i of the target's own side.

    Theta is (log A, log p, log eps).

    Args:
        sides: (G,) 0 where a group is of the old side, 1 where of the new.
        rising: the power is +p instead.
        own: (B,) side of each target; see `for_targets`.
    """

    needs = frozenset({MIXTURE})
    needs_own = True

    def __init__(self, sides: np.ndarray, *, rising: bool = False, own: np.ndarray | None = None):
        self.sides, self.rising, self.own = np.asarray(sides), rising, own
        self.convex = self.log_convex = self.decreasing = not rising

    def for_targets(self, own: np.ndarray) -> Term:
        return SidePower(self.sides, rising=self.rising, own=own)

    def num_parameters(self, num_domains: int) -> int:
        return 3

    def _members(self) -> np.ndarray:
        """(B, G) whether a group is of the target's side."""
        if self.own is None:
            raise FitError("the share of a target's own side is asked for, but it has none")
        return self.sides == self.own[:, None]

    def _parts(self, theta: np.ndarray, points: Points):
        """The signed power (B, 1), eps (B, 1), r_i + eps (B, n) and values (B, n)."""
        power = bounded_exp(theta[:, 1:2]) * (1 if self.rising else -1)
        floor = bounded_exp(theta[:, 2:])
        share = self._members() @ points.weights.T + floor
        return power, floor, share, bounded_exp(theta[:, :1] + power * np.log(share))

    def value(self, theta: np.ndarray, points: Points) -> np.ndarray:
        return self._parts(theta, points)[3]

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        power, floor, share, value = self._parts(theta, points)
        columns = [value, value * power * np.log(share), value * power * floor / share]
        return value, np.stack(columns, axis=2)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        power, _, share, value = self._parts(theta, points)
        return (value * power / share)[:, :, None] * self._members()[:, None, :]

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = np.tile([0.0, SHARE_EXPONENT_MEAN, FLOOR_MEAN], (len(level), 1))
        mean[:, 0] = np.log(level) - np.log(self.value(mean, points)).mean(axis=1)
        return mean, np.tile([np.inf, SHARE_EXPONENT_SD, FLOOR_SD], (len(level), 1))


class Departure(Term):
    """1 + (a - 1) (1 - (1 + D w^q / D0)^-b): at D = 0 the base, later the asymptote a.

    Re-warming enters as so many more tokens. Theta is (log D0, log b, [q,] theta of a), D0 in
    units of the reference.
    """

    convex = False

    def __init__(self, asymptote: Term, axes: Axes):
        self.asymptote, self.axes = asymptote, axes
        self.needs = asymptote.needs | {TRAIN_TOKENS} | ({REWARM} & set(axes))
        self.needs_own, self.num_gauges = asymptote.needs_own, asymptote.num_gauges
        self.convex, self.decreasing = asymptote.convex, asymptote.decreasing
        self.count = 3 if REWARM in axes else 2

    def for_targets(self, own: np.ndarray) -> Term:
        return Departure(self.asymptote.for_targets(own), self.axes)

    def num_parameters(self, num_domains: int) -> int:
        return self.count + self.asymptote.num_parameters(num_domains)

    def _progress(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """How far from base to asymptote (B, n), below 1, and its derivatives (B, n, count)."""
        logs = np.log(points.train_tokens / self.axes[TRAIN_TOKENS]) - theta[:, :1]
        warm = None
        if self.count == 3:
            warm = np.log(getattr(points, REWARM) / self.axes[REWARM])
            logs = logs + theta[:, 2:3] * warm
        tokens = bounded_exp(logs)
        power, grown = bounded_exp(theta[:, 1:2]), np.log1p(tokens)
        rest = np.exp(-power * grown)
        in_logs = rest * power * tokens / (1 + tokens)
        columns = [-in_logs, rest * power * grown]
        if warm is not None:
            columns.append(in_logs * warm)
        return -np.expm1(-power * grown), np.stack(columns, axis=2)

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        progress, in_progress = self._progress(theta, points)
        asymptote, jacobian = self.asymptote.evaluate(theta[:, self.count :], points)
        columns = [
            (asymptote - 1)[:, :, None] * in_progress,
            progress[:, :, None] * jacobian,
        ]
        return (1 - progress) + asymptote * progress, np.concatenate(columns, axis=2)

    def gradient(self, theta: np.ndarray, points: Points) -> np.ndarray:
        progress, _ = self._progress(theta, points)
        return progress[:, :, None] * self.asymptote.gradient(theta[:, self.count :], points)

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, sd = self.asymptote.prior(points, level)
        first = np.array([PACE_MEAN, APPROACH_MEAN, 1.0][: self.count])
        first_sd = np.array([PACE_SD, APPROACH_SD, 1.0][: self.count])
        rows = (len(level), 1)
        return (
            np.concatenate([np.tile(first, rows), mean], axis=1),
            np.concatenate([np.tile(first_sd, rows), sd], axis=1),
        )


class Learning(Term):
    """(1 + D / reference)^-g: what more training is worth at any share. Theta is (log g,)."""

    log_convex = True
    needs = frozenset({TRAIN_TOKENS})

    def __init__(self, reference: float):
        self.reference = reference

    def num_parameters(self, num_domains: int) -> int:
        return 1

    def evaluate(self, theta: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        logs = -bounded_exp(theta) * np.log1p(points.train_tokens / self.reference)
        value = bounded_exp(logs)
        return value, (value * logs)[:, :, None]

    def prior(self, points: Points, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full((len(level), 1), LEARNING_MEAN), np.full((len(level), 1), LEARNING_SD)


class ContinualLaw(TermLaw):
    """A form; its priors carry all but what three shares identify."""

    def num_required(self, num_domains: int) -> int:
        return FEWEST_SHARES - 1

    def check(self, batch: Batch) -> None:
        """Raise FitError, too, when a target has no side and the form reads it."""
        bare = sorted({t for t, own in zip(batch.targets, batch.own, strict=True) if own < 0})
        if self.term.needs_own and bare:
            raise FitError(
                f"form {self.name!r} reads the share of a target's own side, and {bare} are named "
                "after no domain; say it: targets={target: 'old' or 'new'}"
            )
        super().check(batch)


def _moved(mixture: Term, axes: Axes, *rest: Term) -> Term:
    """(c + rest + mixture v^u) v^s for v among N and w."""
    others = [axis for axis in axes if axis != TRAIN_TOKENS]
    change = [FreePower(axis, axes[axis], CHANGE_SD) for axis in others]
    total = Sum([Constant(), *rest, Product([mixture, *change]) if change else mixture])
    level = [FreePower(axis, axes[axis], LEVEL_SD) for axis in others]
    return Product([total, *level]) if level else total


def _decay(axes: Axes) -> list[Term]:
    return [Decay(TRAIN_TOKENS, axes[TRAIN_TOKENS])] if TRAIN_TOKENS in axes else []


def _text(change: str, axes: Axes, *, decay: bool = True) -> str:
    """The formula for people."""
    symbols = [{**SYMBOL, REWARM: "w"}[axis] for axis in axes if axis != TRAIN_TOKENS]
    change += "".join(f" {v}^u{v}" for v in symbols)
    text = "c + " + ("B/D^beta + " if decay and TRAIN_TOKENS in axes else "") + change
    return f"({text})" + "".join(f" {v}^s{v}" for v in symbols) if symbols else text


def exponential(axes: Axes, sides: np.ndarray) -> ContinualLaw:
    """c + k exp(t.r) + B/D^beta.

    Source: Ye et al., "Data Mixing Laws", arXiv 2403.16952, section on continual pretraining (at
    one number of tokens; the term in D is Chinchilla's).
    """
    term = _moved(Exponential(), axes, *_decay(axes))
    return ContinualLaw("exponential", _text("k exp(t.r)", axes), term, axes)


def d_cpt(axes: Axes, sides: np.ndarray) -> ContinualLaw:
    """E + B (r_i + eps')^eta / D^beta + C/(r_i + eps)^gamma.

    Source: Que et al., "D-CPT Law", arXiv 2406.01375 (A/N^alpha is carried by the base here, and
    the first floor eps' is 0 there: ours keeps the power finite in r_i's derivative at 0).
    """
    rising: Term = SidePower(sides, rising=True)
    formula = "B (r_i + eps')^eta"
    if TRAIN_TOKENS in axes:
        rising = rising * Decay(TRAIN_TOKENS, axes[TRAIN_TOKENS], amplitude=False)
        formula += "/D^beta"
    term = _moved(SidePower(sides), axes, rising)
    text = _text(f"{formula} + C/(r_i + eps)^gamma", axes, decay=False)
    return ContinualLaw("d-cpt", text, term, axes)


def power(axes: Axes, sides: np.ndarray) -> ContinualLaw:
    """c + C/(r_i + eps)^gamma + B/D^beta: D-CPT's last term alone."""
    term = _moved(SidePower(sides), axes, *_decay(axes))
    return ContinualLaw("power", _text("C/(r_i + eps)^gamma", axes), term, axes)


def anchored_exponential(axes: Axes, sides: np.ndarray) -> ContinualLaw:
    """From the base at D = 0 to c + k exp(t.r), and ever better."""
    return _anchored("anchored-exponential", Exponential(), "k exp(t.r)", axes)


def anchored_power(axes: Axes, sides: np.ndarray) -> ContinualLaw:
    """From the base at D = 0 to c + C/(r_i + eps)^gamma, and ever better."""
    return _anchored("anchored-power", SidePower(sides), "C/(r_i + eps)^gamma", axes)


def _anchored(name: str, mixture: Term, text: str, axes: Axes) -> ContinualLaw:
    """Two things happen at once: the run leaves its base for what its mixture supports (it forgets,
    or learns the new), and at every share it goes on learning."""
    term = Product([Departure(_moved(mixture, axes), axes), Learning(axes[TRAIN_TOKENS])])
    tokens = "D w^q" if REWARM in axes else "D"
    away = f"1 + ({_text(text, axes, decay=False)} - 1) (1 - (1 + {tokens}/D0)^-b)"
    return ContinualLaw(name, f"({away}) (1 + D/D1)^-g", term, axes)


FORMS: Mapping[str, Callable[[Axes, np.ndarray], ContinualLaw]] = {
    "exponential": exponential,
    "d-cpt": d_cpt,
    "power": power,
    "anchored-exponential": anchored_exponential,
    "anchored-power": anchored_power,
}
"""The one list of forms. To add one: a builder from (axes, sides), and a line here."""

NEED_TOKENS = frozenset({"anchored-exponential", "anchored-power"})
"""Forms that describe how a loss moves with tokens: without two token counts they are others."""


def candidates_for(axes: Axes) -> tuple[str, ...]:
    """The forms that runs varying in `axes` can tell apart."""
    return tuple(f for f in FORMS if TRAIN_TOKENS in axes or f not in NEED_TOKENS)


def make(name: str, axes: Axes, sides: np.ndarray) -> ContinualLaw:
    """Raises: FitError: no such form, or one that needs token counts to vary."""
    if name not in FORMS:
        raise FitError(f"no continual form is called {name!r}; there are {list(FORMS)}")
    if name not in candidates_for(axes):
        raise FitError(
            f"form {name!r} describes how a loss moves with train_tokens, and these runs have one "
            f"value of it; train another horizon, or choose among {list(candidates_for(axes))}"
        )
    return FORMS[name](axes, sides)
