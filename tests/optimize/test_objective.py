"""Weights, families, worst cases, relative changes, floors and scores."""

import json

import numpy as np
import pytest

from mixlaw.errors import StudyError
from mixlaw.optimize.objective import Floor, Objective

TARGETS = ("loss/a", "loss/b", "loss/c", "score/d")
VALUES = np.array([[1.0, 2.0, 3.0, 0.5], [2.0, 2.0, 2.0, 0.6]])


def test_a_mean_by_hand():
    objective = Objective({"loss/a": 3.0, "loss/b": 1.0})
    np.testing.assert_allclose(objective.values(VALUES, TARGETS), [1.25, 2])
    np.testing.assert_allclose(objective.coefficients(TARGETS), [0.75, 0.25, 0, 0])


def test_a_family_counts_once():
    objective = Objective({"exact": 1.0, "loss/c": 1.0}, families={"exact": ("loss/a", "loss/b")})
    assert objective.targets == ("loss/a", "loss/b", "loss/c")
    np.testing.assert_allclose(objective.values(VALUES, TARGETS), [2.25, 2])
    np.testing.assert_allclose(objective.coefficients(TARGETS), [0.25, 0.25, 0.5, 0])
    assert objective.shares == {"loss/a": 0.25, "loss/b": 0.25, "loss/c": 0.5}


def test_the_worst_by_hand():
    objective = Objective({"loss/a": 1.0, "loss/b": 1.0, "loss/c": 1.0}, over="worst")
    np.testing.assert_allclose(objective.values(VALUES, TARGETS), [3, 2])
    twice = Objective({"loss/a": 2.0, "loss/b": 1.0, "loss/c": 1.0}, over="worst")
    # Weights over their mean: 1.5, .75, .75.
    np.testing.assert_allclose(twice.values(VALUES, TARGETS), [2.25, 3])
    families = Objective(
        {"ab": 1.0, "loss/c": 1.0}, families={"ab": ("loss/a", "loss/b")}, over="worst"
    )
    np.testing.assert_allclose(families.values(VALUES, TARGETS), [3, 2])
    assert families.terms(TARGETS)[0].shape == (2, 4)
    assert Objective({"loss/a": 1.0}, over="worst").terms(TARGETS)[0].shape == (1, 4)


def test_a_score_is_less_when_better():
    objective = Objective({"score/d": 1.0})
    np.testing.assert_allclose(objective.values(VALUES, TARGETS), [-0.5, -0.6])
    np.testing.assert_allclose(objective.coefficients(TARGETS), [0, 0, 0, -1])


def test_relative_changes_by_hand():
    objective = Objective({"loss/a": 1.0, "score/d": 1.0}, relative_to="natural")
    with pytest.raises(StudyError, match="relative to 'natural', whose forecast is needed"):
        objective.terms(TARGETS)
    with pytest.raises(StudyError, match="mixes the metrics"):
        objective.coefficients(TARGETS)
    known = objective.relative(dict(zip(TARGETS, (2.0, 2.0, 2.0, 0.5), strict=True)))
    # A loss half as large is 50 % better; a score of .6 instead of .5 is 20 % better.
    np.testing.assert_allclose(known.values(VALUES, TARGETS), [-0.25, -0.1])
    with pytest.raises(StudyError, match=r"\['loss/a'\] are forecast at 0"):
        objective.relative(dict(zip(TARGETS, (0.0, 2.0, 2.0, 0.5), strict=True)))


@pytest.mark.parametrize("over", ["mean", "worst"])
def test_terms_and_values_agree(over):
    objective = Objective(
        {"ab": 2.0, "loss/c": 1.0}, families={"ab": ("loss/a", "loss/b")}, over=over
    )
    matrix, offset = objective.terms(TARGETS)
    np.testing.assert_allclose(
        objective.values(VALUES, TARGETS), (VALUES @ matrix.T + offset).max(axis=1)
    )


def test_a_missing_target_spoils_only_what_it_counts_for():
    missing = np.array([[1.0, np.nan, 2.0, 0.5]])
    assert np.isnan(Objective({"loss/a": 1.0, "loss/b": 1.0}).values(missing, TARGETS))[0]
    assert Objective({"loss/a": 1.0, "loss/c": 1.0}).values(missing, TARGETS)[0] == 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": {"loss/a": 1.0, "score/d": 1.0}}, r"\['loss', 'score'\], whose units differ"),
        ({"weights": {"loss/a": 1.0}, "over": "median"}, "over 'median'; use 'mean' or 'worst'"),
        ({"weights": {"loss/a": 1.0}, "families": {"x": ("loss/b",)}}, "family 'x' has"),
        ({"weights": {"x": 1.0}, "families": {"x": ()}}, "at least one target"),
        ({"weights": {"x": 1.0}, "families": {"x": ("loss/a", "loss/a")}}, "each named once"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(StudyError, match=message):
        Objective(**arguments)


def test_floors_that_make_no_sense():
    with pytest.raises(StudyError, match="slack of a floor is -1"):
        Floor(2.0, slack=-1)
    with pytest.raises(StudyError, match="a floor is nan"):
        Floor(float("nan"))


def test_json_round_trip():
    objective = Objective(
        {"ab": 2.0, "loss/c": 1.0},
        families={"ab": ("loss/a", "loss/b")},
        over="worst",
        relative_to="natural",
        floors={"loss/a": Floor("natural", 0.01), "loss/c": Floor(2.5)},
    )
    again = Objective.from_dict(json.loads(json.dumps(objective.to_dict())))
    assert again.to_dict() == objective.to_dict()
    assert again == objective
    known = objective.relative({"loss/a": 1.0, "loss/b": 2.0, "loss/c": 3.0})
    again = Objective.from_dict(json.loads(json.dumps(known.to_dict())))
    np.testing.assert_array_equal(again.values(VALUES, TARGETS), known.values(VALUES, TARGETS))


def mixed(lab):
    """A law of one loss and one score; the score rises with books, the loss falls with web."""
    law = lab.KnownLaw(targets=("loss/a", "score/d"))
    law.size[:] = [[1, 0.1, 0.1, 0.1], [-0.1, -0.1, -1, -0.1]]
    law.rate[:] = 3
    law.convex = False
    return law


def test_scores_are_raised(lab):
    law = mixed(lab)
    decision = lab.decide(law, objective=Objective({"score/d": 1.0}))
    assert decision.recommended["books"] > 0.5
    grid = np.random.default_rng(0).dirichlet(np.ones(4), 5000)
    best = law.predict(grid, None, None)[:, 1].max()
    assert decision.forecast.targets["score/d"].value >= best
    assert decision.forecast.objective.value == -decision.forecast.targets["score/d"].value


def test_losses_and_scores_together_relative_to_a_baseline(lab):
    objective = Objective({"loss/a": 1.0, "score/d": 1.0}, relative_to="uniform")
    decision = lab.decide(mixed(lab), objective=objective)
    assert decision.baselines["uniform"].forecast.objective.value == pytest.approx(0)
    assert decision.forecast.objective.value < 0
    assert decision.baselines["uniform"].gain == pytest.approx(-decision.forecast.objective.value)
    assert decision.recommended["web"] > 0.3
    assert decision.recommended["books"] > 0.3
    with pytest.raises(StudyError, match="baseline 'best'"):
        lab.decide(mixed(lab), objective=Objective({"loss/a": 1.0}, relative_to="best"))


def test_floors_are_kept_and_named(lab):
    law = lab.KnownLaw()
    free = lab.decide(law, objective=Objective({"loss/t0": 1.0}))
    floors = {"loss/t1": Floor("uniform", slack=0.01), "loss/t2": Floor("uniform")}
    decision = lab.decide(law, objective=Objective({"loss/t0": 1.0}, floors=floors))
    baselines = {name: item.forecast.targets for name, item in decision.baselines.items()}
    reached = {name: value.value for name, value in decision.forecast.targets.items()}
    assert reached["loss/t1"] <= baselines["uniform"]["loss/t1"].value + 0.01 + 1e-8
    assert reached["loss/t2"] <= baselines["uniform"]["loss/t2"].value + 1e-8
    broken = free.forecast.targets["loss/t1"].value > reached["loss/t1"] + 1e-6
    named = {bound.domain for bound in decision.active_bounds if bound.reason == "floor"}
    assert broken == ("loss/t1" in named)
    assert named
    assert decision.forecast.objective.value >= free.forecast.objective.value
    assert decision.forecast.violations == ()


def test_a_floor_of_a_score_is_a_lower_one(lab):
    objective = Objective({"loss/a": 1.0}, floors={"score/d": Floor("uniform")})
    decision = lab.decide(mixed(lab), objective=objective)
    uniform = decision.baselines["uniform"].forecast.targets["score/d"].value
    assert decision.forecast.targets["score/d"].value >= uniform - 1e-8
    assert [b.side for b in decision.active_bounds if b.reason == "floor"] == ["lower"]


def test_the_worst_target_is_levelled(lab):
    law = lab.KnownLaw()
    objective = Objective(dict.fromkeys(law.targets, 1.0), over="worst")
    decision = lab.decide(law, objective=objective)
    grid = np.random.default_rng(0).dirichlet(np.ones(4), 20_000)
    assert decision.forecast.objective.value <= law.predict(grid, None, None).max(axis=1).min()
    assert decision.gap <= 1e-7
    mean = lab.decide(law)
    assert max(v.value for v in decision.forecast.targets.values()) <= max(
        v.value for v in mean.forecast.targets.values()
    )
