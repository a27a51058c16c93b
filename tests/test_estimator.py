"""scikit-learn's face of the laws: its own checks, and that it says what `fit_laws` says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", reason="needs the extra sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from mixlaw.errors import FitError, RunTableError
from mixlaw.estimator import MixtureLaw
from mixlaw.laws import fit_laws
from mixlaw.runs import RunTable

EXAMPLE = Path(__file__).parents[1] / "examples" / "tiny-env" / "runs.csv"

CONTRADICTED = {
    "check_estimators_dtypes": "its rows of small whole numbers hold one of zeros only, which is "
    "no mixture",
    "check_regressor_multioutput": "its targets fall below zero, whatever the tags say, and no "
    "loss does",
}


@parametrize_with_checks(
    [MixtureLaw(), MixtureLaw("log-linear")], expected_failed_checks=lambda _: CONTRADICTED
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def swarm():
    """60 mixtures of four domains and two losses of a known law; weights of any sum."""
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.ones(4), 60)
    slopes = np.array([[-1.0, 0.5, 0.2, 0.0], [0.3, -0.8, 0.0, 0.1]])
    losses = 2.0 + 0.8 * np.exp(shares @ slopes.T)
    return shares * rng.uniform(0.1, 50, (60, 1)), losses


@pytest.fixture(scope="module")
def example():
    return RunTable.read(EXAMPLE)


def test_a_known_law_is_found(swarm):
    X, y = swarm
    model = MixtureLaw("m4").fit(X[:40], y[:40])
    assert_allclose(model.predict(X[40:]), y[40:], rtol=2e-3)
    assert model.score(X[40:], y[40:]) > 0.999


def test_only_ratios_count(swarm):
    X, y = swarm
    model = MixtureLaw("log-linear").fit(X, y)
    assert_allclose(model.predict(X * 7), model.predict(X), rtol=1e-12)


def test_one_target_comes_back_as_it_was_given(swarm):
    X, y = swarm
    both, one = (MixtureLaw("log-linear").fit(X, part) for part in (y, y[:, 0]))
    assert one.predict(X).shape == (60,)
    assert both.predict(X).shape == (60, 2)
    assert all(end.shape == (60,) for end in one.predict_interval(X))


def test_it_says_what_fit_laws_says_at_each_scale(example):
    """Of a table with three sizes and horizons, whose law is chosen."""
    targets = ("bpb/python", "bpb/docs")
    rows = example.select(example.role != "verify").done()
    rows = rows.select(np.arange(0, len(rows), 3))
    X = np.column_stack([rows.weights, rows.num_params, rows.train_tokens])
    y = np.stack([rows.column(target) for target in targets], axis=1)
    domains = rows.domains
    model = MixtureLaw(
        ["effective-sum", "scaling"],
        domains=domains,
        targets=targets,
        num_params=5,
        train_tokens=-1,
    )
    with pytest.raises(RunTableError, match="train_tokens is column -1 of X, which has 7"):
        model.fit(X, y)
    model.set_params(train_tokens=6).fit(X, y)
    assert model.fitted_.law == "effective-sum"
    assert model.domains_ == domains
    size, tokens = rows.num_params[0], rows.train_tokens[0]
    at = (rows.num_params == size) & (rows.train_tokens == tokens)
    expected = model.fitted_.predict(rows.weights[at], size, tokens)
    assert_allclose(model.predict(X)[at], expected, rtol=1e-12)
    low, high = model.predict_interval(X, level=0.8)
    width = model.fitted_.half_width(
        np.array([0.0, 1.0]), rows.weights[at], size, tokens, level=0.8
    )
    assert_allclose((high - low)[at, 1], 2 * width, rtol=1e-9)
    assert np.mean((low <= y) & (y <= high)) > 0.7
    with pytest.raises(FitError, match="level of the intervals is 2; it must lie between 0 and 1"):
        model.predict_interval(X, level=2)


def test_a_table_of_runs_and_an_array_give_the_same_law(example):
    largest = example.select(example.role != "verify").done()
    largest = largest.select(largest.num_params == largest.num_params.max())
    largest = largest.select(largest.train_tokens == largest.train_tokens.max())
    fitted = fit_laws(largest, ["bpb/docs"], candidates=["log-linear", "log-ridge"])
    model = MixtureLaw(
        ["log-linear", "log-ridge"], domains=largest.domains, targets=["bpb/docs"]
    ).fit(largest.weights, largest.column("bpb/docs"))
    assert model.fitted_.law == fitted.law
    assert_allclose(
        model.predict(largest.weights), fitted.predict(largest.weights)[:, 0], rtol=1e-9
    )


def test_names_come_from_a_frame_and_find_the_own_domain(swarm):
    X, y = swarm
    frame = pyarrow.table(dict(zip(("web", "code", "books", "math"), X.T, strict=True)))
    named = y[:, 0].view(Named)
    named.name = "code"
    model = MixtureLaw("log-linear").fit(frame, named)
    assert list(model.feature_names_in_) == ["web", "code", "books", "math"]
    assert model.domains_ == model.fitted_.domains == ("web", "code", "books", "math")
    assert model.targets_ == ("loss/code",)
    assert model.fitted_.laws["loss/code"].own == 1
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename_columns(["web", "code", "math", "books"]))


class Named(np.ndarray):
    """What a data frame's column is: numbers with a name."""

    name: str


def test_a_column_of_a_frame_is_a_count_by_its_name(swarm):
    X, y = swarm
    tokens = np.repeat([1e6, 4e6, 16e6], 20)
    columns = dict(zip(("web", "code", "books", "math"), X.T, strict=True))
    frame = pyarrow.table({"tokens": tokens, **columns})
    falling = y[:, 0] + 30 * tokens**-0.3
    model = MixtureLaw("effective-chinchilla", train_tokens="tokens").fit(frame, falling)
    assert model.domains_ == tuple(columns)
    assert model.fitted_.needs == {"mixture", "train_tokens"}
    assert model.score(frame, falling) > 0.99
    with pytest.raises(RunTableError, match="num_params is column 'size' of X, which has"):
        clone(model).set_params(num_params="size").fit(frame, falling)
    with pytest.raises(RunTableError, match="train_tokens is 0 in X; it must be > 0"):
        model.predict(frame.set_column(0, "tokens", pyarrow.array(0 * tokens)))


def test_it_works_in_a_pipeline_a_search_and_cross_validation(swarm):
    X, y = swarm
    named = FunctionTransformer(lambda X: X[:, ::-1])
    model = make_pipeline(named, MixtureLaw("log-linear")).fit(X, y)
    assert_allclose(model.predict(X), MixtureLaw("log-linear").fit(X, y).predict(X), rtol=1e-4)
    assert cross_val_score(MixtureLaw("m4"), X, y, cv=3).min() > 0.99
    search = GridSearchCV(
        MixtureLaw(), {"law": ["scaling-free", "log-ridge", "m4"]}, cv=3, error_score=-1.0
    )
    with pytest.warns(Warning, match="no law is called 'scaling-free'"):
        search.fit(X, y[:, 0])
    assert search.best_params_ == {"law": "m4"}
    assert search.best_score_ > 0.99


def test_the_same_seed_gives_the_same_fit_and_any_random_state_is_taken(swarm):
    X, y = swarm
    first, again = (MixtureLaw("m4", random_state=3).fit(X, y).predict(X) for _ in range(2))
    assert_array_equal(first, again)
    state = MixtureLaw("m4", random_state=np.random.RandomState(3)).fit(X, y)
    assert_allclose(state.predict(X), first, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"law": "nonsense"}, FitError, "no law is called 'nonsense'"),
        ({"domains": ["a", "b"]}, RunTableError, "domains names 2, and X has 4 columns of weights"),
        ({"domains": ["a", "b", "b", "c"]}, ValueError, "'b' is named twice"),
        ({"targets": ["a", "a"]}, RunTableError, "y has 2 columns; name each, once"),
        ({"targets": ["a"]}, RunTableError, r"targets are \['a'\], and y has 2 columns"),
        ({"targets": ["score/a", "b"]}, FitError, "scores, higher is better"),
        ({"num_params": "size"}, RunTableError, "num_params is column 'size' of X"),
    ],
)
def test_wrong_parameters_are_refused_when_it_is_fitted(swarm, change, error, told):
    with pytest.raises(error, match=told):
        MixtureLaw(**change).fit(*swarm)


def test_wrong_numbers_are_refused(swarm):
    X, y = swarm
    empty = np.vstack([X[:-1], np.zeros(4)])
    with pytest.raises(RunTableError, match="row 60 of X sum to 0; a mixture needs at least one"):
        MixtureLaw("log-linear").fit(empty, y)
    with pytest.raises(RunTableError, match="loss/y0 is -"):
        MixtureLaw("log-linear").fit(X, -y)
    with pytest.raises(ValueError, match="Negative values in data"):
        MixtureLaw("log-linear").fit(-X, y)
    with pytest.raises(FitError, match="train"):
        MixtureLaw("log-linear").fit(X[:3], y[:3])


def test_without_scikit_learn_it_says_what_to_install():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "try:\n    import mixlaw.estimator\nexcept ImportError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'mixlaw[sklearn]'" in told.stdout
