"""Links: benchmark scores from losses, so that laws of the loss forecast scores.

A link is a falling curve (`link_forms`), meant to hold over scales: it is fitted to all rows on
which the loss and the score were measured. Its loss is one of the fitted targets, or the mean of
all those in one metric; which, and which form, cross-validation decides (`link_choice`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from mixlaw.errors import FitError
from mixlaw.laws.base import Fitted
from mixlaw.laws.link_choice import Case, Choice, choose
from mixlaw.laws.link_forms import Link
from mixlaw.laws.points import Points
from mixlaw.laws.scoring import score as scored
from mixlaw.laws.selection import LEVEL, FittedLaws, Intervals, weighted
from mixlaw.laws.splits import MIXTURE_SPLIT, SCALE_SPLIT
from mixlaw.laws.uncertainty import HeldOut
from mixlaw.laws.validation import CrossValidation
from mixlaw.runs import RunTable, higher_is_better

FORMAT_VERSION = 1

NO_CHANCE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class FittedLink:
    """The link of one score, and how well it does on mixtures that it has not seen.

    Attributes:
        target: the score.
        link: form and parameters.
        loss_range: least and largest L that it was fitted to.
        held_out: predicted from the measured loss less observed, at the largest scale.
        warnings: read them before trusting a forecast.
    """

    target: str
    link: Link
    loss_range: tuple[float, float]
    held_out: HeldOut
    warnings: tuple[str, ...]

    def score(self, loss: np.ndarray) -> np.ndarray:
        """Scores, of the shape of `loss`."""
        return self.link.score(np.asarray(loss, float))

    def slope(self, loss: np.ndarray) -> np.ndarray:
        """Derivatives in the loss, <= 0."""
        return self.link.slope(np.asarray(loss, float))

    def interval(self, loss: np.ndarray, *, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends for a run whose loss is known, of the shape of `loss`."""
        score = self.score(loss)
        width = self.held_out.half_width(np.ones(1), level)[0]
        return score - width, score + width

    def extrapolates(self, loss: np.ndarray) -> np.ndarray:
        """Whether a loss lies outside those that the link was fitted to, of the shape of `loss`."""
        least, most = self.loss_range
        return (np.asarray(loss) < least) | (np.asarray(loss) > most)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "target": self.target,
            "link": self.link.to_dict(),
            "loss_range": list(self.loss_range),
            "held_out": self.held_out.to_dict(),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedLink:
        least, most = data["loss_range"]
        held_out, warnings = HeldOut.from_dict(data["held_out"]), tuple(data["warnings"])
        return cls(data["target"], Link(**data["link"]), (least, most), held_out, warnings)


@dataclass(frozen=True, eq=False)
class LinkedLaws(Intervals):
    """Laws of losses with links to scores: forecasts losses and scores alike.

    T targets are the losses of `laws`, then the S scores. Scores are better when higher: an
    objective to be minimised gives them negative coefficients.

    Attributes:
        laws: of the losses.
        links: score -> fitted link.
        fold_links: per fold of the mixture split, score -> link fitted without its mixtures.
        within, beyond: residuals of losses and scores on held-out mixtures; a score's is that of
            the whole chain, from a loss that was forecast through a link, neither of which has
            seen the mixture.
        cross_validation: how well the chain does, beside the losses.
    """

    laws: FittedLaws
    links: Mapping[str, FittedLink]
    fold_links: Sequence[Mapping[str, Link]]
    within: HeldOut
    beyond: HeldOut | None
    cross_validation: CrossValidation

    @property
    def law(self) -> str:
        """Name of the law of the losses."""
        return self.laws.law

    @property
    def domains(self) -> tuple[str, ...]:
        """M names, the order of weights."""
        return self.laws.domains

    @property
    def targets(self) -> tuple[str, ...]:
        """T names: losses, then scores."""
        return (*self.laws.targets, *self.links)

    @property
    def needs(self) -> frozenset[str]:
        """Inputs that the laws read."""
        return self.laws.needs

    @property
    def convex(self) -> bool:
        """A falling link of a convex loss is neither convex nor concave."""
        return False

    @property
    def decreasing(self) -> bool:
        """Scores rise where losses fall."""
        return False

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the laws, then of the links."""
        of_links = (text for fitted in self.links.values() for text in fitted.warnings)
        return (*self.laws.warnings, *of_links)

    @cached_property
    def _shares(self) -> np.ndarray:
        """(losses, S): L of every link is `losses @ shares`."""
        shares = [fitted.link.shares(self.laws.targets) for fitted in self.links.values()]
        return np.stack(shares, axis=1)

    def predict(
        self,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Values (n, T) of mixtures (n, M) at one scale; see `FittedLaws.predict`."""
        losses = self.laws.predict(
            weights, num_params, train_tokens, available_tokens=available_tokens
        )
        inputs = (losses @ self._shares).T
        scores = [f.score(x) for f, x in zip(self.links.values(), inputs, strict=True)]
        return np.column_stack([losses, *scores])

    def gradient(
        self,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        """Slopes (n, T, M) in the proportions; see `FittedLaws.gradient`."""
        where = (weights, num_params, train_tokens)
        losses = self.laws.predict(*where, available_tokens=available_tokens)
        slopes = self.laws.gradient(*where, available_tokens=available_tokens)
        inputs = (losses @ self._shares).T
        of_link = [f.slope(x) for f, x in zip(self.links.values(), inputs, strict=True)]
        of_loss = np.einsum("ntm,ts->nsm", slopes, self._shares)
        return np.concatenate([slopes, np.stack(of_link, axis=1)[:, :, None] * of_loss], axis=1)

    def extrapolations(
        self,
        weights: np.ndarray,
        num_params: float | None = None,
        train_tokens: float | None = None,
    ) -> tuple[str, ...]:
        """One phrase for each score whose link would be read outside the losses that it saw, at
        any of the mixtures (n, M)."""
        inputs = (self.laws.predict(weights, num_params, train_tokens) @ self._shares).T
        return tuple(
            f"{name}: its link saw losses of {fitted.loss_range[0]:.4g} to "
            f"{fitted.loss_range[1]:.4g}, the forecast reads it at {x.min():.4g} to {x.max():.4g}"
            for (name, fitted), x in zip(self.links.items(), inputs, strict=True)
            if fitted.extrapolates(x).any()
        )

    def of_folds(
        self,
        coefficients: np.ndarray,
        weights: np.ndarray,
        num_params: float | None,
        train_tokens: float | None,
        *,
        available_tokens: np.ndarray | None = None,
    ) -> np.ndarray:
        points = self.laws.points(weights, num_params, train_tokens, available_tokens)
        pairs = zip(self.laws.folds, self.fold_links, strict=True)
        return np.stack([_linked(laws, links, coefficients, points) for laws, links in pairs])

    def levels(
        self, coefficients: np.ndarray, num_params: float | None, train_tokens: float | None
    ) -> list[float]:
        trained = np.unique(self.cross_validation.runs.weights, axis=0)
        points = self.laws.points(trained, num_params, train_tokens)
        links = {name: fitted.link for name, fitted in self.links.items()}
        return [
            float(np.mean(_linked(laws, links, coefficients, points)))
            for laws in (self.laws.laws, *self.laws.rivals.values())
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives an object that predicts bit-identically."""
        return {
            "format": FORMAT_VERSION,
            "laws": self.laws.to_dict(),
            "links": [fitted.to_dict() for fitted in self.links.values()],
            "fold_links": [
                {name: link.to_dict() for name, link in links.items()} for links in self.fold_links
            ],
            "within": self.within.to_dict(),
            "beyond": self.beyond and self.beyond.to_dict(),
            "cross_validation": self.cross_validation.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LinkedLaws:
        """Raises: FitError: another format."""
        if data.get("format") != FORMAT_VERSION:
            raise FitError(
                f"these linked laws have format {data.get('format')}, this version reads "
                f"{FORMAT_VERSION}; fit the links again"
            )
        links = [FittedLink.from_dict(link) for link in data["links"]]
        return cls(
            laws=FittedLaws.from_dict(data["laws"]),
            links={fitted.target: fitted for fitted in links},
            fold_links=[
                {name: Link(**link) for name, link in links.items()} for links in data["fold_links"]
            ],
            within=HeldOut.from_dict(data["within"]),
            beyond=data["beyond"] and HeldOut.from_dict(data["beyond"]),
            cross_validation=CrossValidation.from_dict(data["cross_validation"]),
        )


def _linked(
    laws: Mapping[str, Fitted], links: Mapping[str, Link], coefficients: np.ndarray, points: Points
) -> np.ndarray:
    """Values (n,) of `coefficients (T,) @ targets`; those that do not count are not predicted."""
    total = weighted(laws, coefficients[: len(laws)], points)
    for c, link in zip(coefficients[len(laws) :], links.values(), strict=True):
        if c:
            total = total + c * link.score(weighted(laws, link.shares(tuple(laws)), points))
    return total


def fit_links(
    fitted: FittedLaws,
    runs: RunTable,
    scores: Sequence[str],
    *,
    chance: Mapping[str, float] = NO_CHANCE,
) -> LinkedLaws:
    """Link scores to the losses that laws were fitted to.

    For each score, form and L are those whose chain (a forecast of the losses of held-out mixtures
    through a link fitted without them) errs least on the split that also decided on the law. The
    choice for a fold looks at the other folds only, so that its residuals are honest.

    Args:
        fitted: laws of the losses.
        runs: the table that they were fitted to; rows count that have a loss and the score.
        scores: names, `score/task`.
        chance: score -> its floor, such as .25 with four answers; fitted where not given.
    Raises: FitError: another table, an unknown score, one that is constant, or measured (with a
        loss) on too few mixtures.
    """
    case = Case.of(fitted, runs)
    for name in (*scores, *chance):
        _check_name(name, runs)
    if not scores:
        raise FitError("fit_links was given no score; name at least one, such as score/arc")
    if strangers := sorted(set(chance) - set(scores)):
        raise FitError(f"chance is given for {strangers}, which are not among {list(scores)}")
    for name, level in chance.items():
        if not (math.isfinite(level) and level >= 0):
            raise FitError(f"the chance level of {name!r} is {level}; it must be finite and >= 0")
    chosen = {name: choose(case, name, chance.get(name)) for name in dict.fromkeys(scores)}
    validation = case.validation(
        {split: {n: c.chained[split] for n, c in chosen.items()} for split in case.splits}
    )
    return LinkedLaws(
        laws=fitted,
        links={
            name: _fitted_link(case, name, choice, validation) for name, choice in chosen.items()
        },
        fold_links=[
            {name: choice.folds[fold] for name, choice in chosen.items()}
            for fold in range(len(fitted.folds))
        ],
        within=HeldOut.of(validation, fitted.law, MIXTURE_SPLIT),
        beyond=HeldOut.of(validation, fitted.law, SCALE_SPLIT) if fitted.beyond else None,
        cross_validation=validation,
    )


def _check_name(name: str, runs: RunTable) -> None:
    known = [target for target in runs.targets if higher_is_better(target)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise FitError(
            f"{name!r} is no score (score/<task>) of the table{hint or ';'} it has {known}"
        )


def _fitted_link(case: Case, name: str, choice: Choice, validation: CrossValidation) -> FittedLink:
    """The link with its own residuals and what there is to warn of."""
    split = validation.splits[MIXTURE_SPLIT]
    alone = scored(choice.direct[:, None], case.runs, (name,), split)
    alone = CrossValidation(
        case.runs, (name,), validation.splits, {name: {MIXTURE_SPLIT: alone}}, {}
    )
    scores = validation.scores[case.laws.law][validation.deciding_split]
    error = scores.normalised_error[validation.targets.index(name)]
    warnings = []
    if error >= 1:
        warnings.append(
            f"{name}: no link to a loss forecasts held-out mixtures better than the mean of the "
            f"other mixtures does (squared error {error:.2f} times that); differences between "
            "mixtures in this score are not to be trusted"
        )
    if choice.same_scale:
        warnings.append(
            f"{name}: measured on too few mixtures below the largest scale, so whether its "
            "link holds at another scale is untested"
        )
    loss = choice.fitted_losses
    return FittedLink(
        target=name,
        link=choice.full,
        loss_range=(float(loss.min()), float(loss.max())),
        held_out=HeldOut.of(alone, name, MIXTURE_SPLIT),
        warnings=tuple(warnings),
    )
