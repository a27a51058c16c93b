"""Laws behind scikit-learn's face, for pipelines, cross-validation and searches of its own.

>>> from mixlaw.estimator import MixtureLaw
>>> model = MixtureLaw().fit(weights, losses)
>>> model.predict(new_weights)

Needs the extra `sklearn`; nothing else of mixlaw does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from mixlaw.errors import MissingExtraError, RunTableError
from mixlaw.laws import FittedLaws, Points, fit_laws
from mixlaw.mixture import check_names
from mixlaw.runs import UNITS, RunTable

try:
    from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data
except ImportError:
    raise MissingExtraError("scikit-learn", "sklearn") from None

LEVEL = 0.9


class MixtureLaw(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Losses as a function of the data mixture, by the laws of `fit_laws`.

    A row of X has the weights of M domains, >= 0 and of any sum above zero: each row is divided by
    its sum, so that only their ratios count. X may have a column of model sizes and one of training
    tokens beside them, which then may vary. y has positive losses, (n,) or (n, T) for T targets.
    What X cannot say a RunTable can, for `fit_laws`: rows of one run, seeds, failed runs, losses
    that were not measured, data that run out.

    Args:
        law: a name from `CANDIDATES`; several, or "auto" for the default ones, to choose from by
            cross-validation.
        domains: names of the M weight columns, in their order; default: those of X, if it has
            some, else x0, x1 and so on.
        targets: names of the T targets, with a metric (`loss/web`, `bpb/code`) or without (a
            loss); default: those of y, if it has some, else y0, y1 and so on. One that is named
            as a domain is the loss on that domain's text, which some laws read.
        num_params, train_tokens: the column of X, by name or number, that has the model size, and
            the tokens trained on; None: there is none.
        random_state: of folds and starting points.

    Attributes:
        fitted_: FittedLaws, for everything that scikit-learn has no word for: the law chosen, its
            gradient, and `fitted_.warnings`, to be read before extrapolating.
        domains_, targets_: names.
        n_features_in_, feature_names_in_: of X.
    """

    n_features_in_: int

    def __init__(
        self,
        law: str | Sequence[str] = "auto",
        *,
        domains: Sequence[str] | None = None,
        targets: Sequence[str] | None = None,
        num_params: str | int | None = None,
        train_tokens: str | int | None = None,
        random_state: Any = 0,
    ):
        self.law = law
        self.domains = domains
        self.targets = targets
        self.num_params = num_params
        self.train_tokens = train_tokens
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to runs.

        Args:
            X: (n, M) weights, or (n, M + 1 or 2) with columns of counts; an array or a data frame.
            y: (n,) or (n, T) losses.
        Raises:
            ValueError: not numbers, negative weights, fewer than two rows or columns (of
                scikit-learn); a row of zeros, or a loss that is not above zero (`RunTableError`).
            FitError: no law can be fitted, such as from too few mixtures; says how many it takes.
        """
        names = _names(y)
        X, y = validate_data(
            self, X, y, y_numeric=True, multi_output=True, dtype=np.float64,
            ensure_min_samples=2, ensure_min_features=2,
        )  # fmt: skip
        self._columns = self._axes()
        self.domains_ = self._domains()
        self.targets_ = self._targets(names, 1 if y.ndim == 1 else y.shape[1])
        table = self._table(X, y.reshape(len(y), -1))
        candidates = None if self.law == "auto" else self.law
        self.fitted_: FittedLaws = fit_laws(
            table,
            self.targets_,
            candidates=[candidates] if isinstance(candidates, str) else candidates,
            seed=_seed(self.random_state),
        )
        self._one_target = y.ndim == 1
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Losses (n,) or (n, T), as y was, of mixtures as in `fit`. Raises: as `fit`."""
        points = self._points(X)
        laws = self.fitted_.laws.values()
        return self._as_y(np.stack([law.predict(points) for law in laws], axis=1))

    def predict_interval(self, X: Any, *, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of the intervals that hold a new run's losses with probability
        `level`, each as `predict`; see `FittedLaws.half_width`. Raises: as `fit`, and FitError: a
        level outside (0, 1)."""
        points = self._points(X)
        half = np.empty((len(points), len(self.targets_)))
        counts = np.stack([points.num_params, points.train_tokens], axis=1)
        scales, which = np.unique(counts, axis=0, return_inverse=True)
        for i, scale in enumerate(scales):
            rows = which.reshape(-1) == i
            at = [None if np.isnan(count) else float(count) for count in scale]
            for t, coefficients in enumerate(np.eye(len(self.targets_))):
                width = self.fitted_.half_width
                half[rows, t] = width(coefficients, points.weights[rows], *at, level=level)
        middle, half = self.predict(X), self._as_y(half)
        return middle - half, middle + half

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.target_tags.positive_only = True
        # A row's sum says nothing here, and the losses that scikit-learn makes up depend on it.
        tags.regressor_tags.poor_score = True
        return tags

    def _axes(self) -> dict[str, int]:
        """Count -> its column. Raises: RunTableError: there is no such column."""
        names: list[Any] = list(getattr(self, "feature_names_in_", range(self.n_features_in_)))
        axes = {}
        for axis in ("num_params", "train_tokens"):
            column = getattr(self, axis)
            if column is None:
                continue
            if isinstance(column, str) and column not in names:
                raise RunTableError(f"{axis} is column {column!r} of X, which has {names}")
            axes[axis] = names.index(column) if isinstance(column, str) else int(column)
            if not 0 <= axes[axis] < len(names):
                raise RunTableError(f"{axis} is column {column} of X, which has {len(names)}")
        return axes

    def _domains(self) -> tuple[str, ...]:
        """Raises:
        RunTableError: names for another number of columns.
        MixtureError: one name twice.
        """
        axes = self._columns.values()
        given = getattr(self, "feature_names_in_", [f"x{j}" for j in range(self.n_features_in_)])
        found = [str(name) for j, name in enumerate(given) if j not in axes]
        if self.domains is not None and len(self.domains) != len(found):
            raise RunTableError(
                f"domains names {len(self.domains)}, and X has {len(found)} columns of weights"
            )
        names = tuple(found if self.domains is None else self.domains)
        check_names(names)
        return names

    def _targets(self, names: Sequence[str] | None, number: int) -> tuple[str, ...]:
        """Raises: RunTableError: names for another number of targets, or one name twice."""
        names = self.targets or names or [f"y{t}" for t in range(number)]
        if len(names) != number or len({*names}) != number:
            raise RunTableError(
                f"the targets are {list(names)}, and y has {number} columns; name each, once"
            )
        return tuple(n if n.partition("/")[0] in UNITS and "/" in n else f"loss/{n}" for n in names)

    def _table(self, X: np.ndarray, y: np.ndarray) -> RunTable:
        weights, counts = self._parts(X)
        return RunTable.from_rows(
            {f"weight/{name}": share for name, share in zip(self.domains_, row, strict=True)}
            | dict(zip(self.targets_, losses, strict=True))
            | {axis: column[i] for axis, column in counts.items()}
            for i, (row, losses) in enumerate(zip(weights.tolist(), y.tolist(), strict=True))
        )

    def _points(self, X: Any) -> Points:
        check_is_fitted(self)
        X = np.asarray(validate_data(self, X, reset=False, dtype=np.float64))
        weights, counts = self._parts(X)
        unknown = np.full(len(weights), np.nan)
        return Points(
            weights, counts.get("num_params", unknown), counts.get("train_tokens", unknown)
        )

    def _parts(self, X: np.ndarray) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Mixtures (n, M), and the counts (n,) that X has. Raises: ValueError: what is none."""
        check_non_negative(X, "MixtureLaw")
        counts = {axis: X[:, column] for axis, column in self._columns.items()}
        for axis, column in counts.items():
            if not np.all(column > 0):
                raise RunTableError(f"{axis} is {column.min():g} in X; it must be > 0")
        weights = np.delete(X, list(self._columns.values()), axis=1)
        totals = weights.sum(axis=1)
        if not np.all(totals > 0):
            row = int(np.argmin(totals))
            raise RunTableError(
                f"the weights of row {row + 1} of X sum to {totals[row]:g}; a mixture needs at "
                "least one above 0"
            )
        return weights / totals[:, None], counts

    def _as_y(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0] if self._one_target else values


def _names(y: Any) -> list[str] | None:
    """Of the targets, where y is a data frame or a series with a name."""
    names = list(getattr(y, "columns", [getattr(y, "name", None)]))
    return [name for name in names if isinstance(name, str)] or None


def _seed(random_state: Any) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))
