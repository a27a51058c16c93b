"""The Pareto front on a law whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from mixlaw.errors import StudyError
from mixlaw.mixture import Constraints, Domain, Mixture
from mixlaw.optimize.decide import Question
from mixlaw.optimize.objective import Floor, Objective
from mixlaw.optimize.pareto import ParetoFront, pareto

NAMES = ("web", "code", "books", "wiki")


class TwoTasks:
    """Squared distance (plus one) of the mixture from one best mixture per task."""

    law, convex, decreasing = "two tasks", True, False
    domains = NAMES
    targets = ("loss/a", "loss/b", "loss/c")
    best = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4]])

    def predict(self, weights, num_params, train_tokens, *, available_tokens=None):
        return 1 + ((weights[:, None, :] - self.best) ** 2).sum(axis=2)

    def gradient(self, weights, num_params, train_tokens, *, available_tokens=None):
        return 2 * (weights[:, None, :] - self.best)


def question(**changes):
    asked = Question(
        TwoTasks(),
        Objective({"loss/a": 1.0}),
        [Domain(name) for name in NAMES],
        Constraints(),
        None,
        None,
        None,
        {"uniform": Mixture.uniform(NAMES)},
    )
    return replace(asked, **changes)


def objectives(*targets):
    return {target[-1]: Objective({target: 1.0}) for target in targets}


def test_the_front_of_two_quadratics_is_the_line_between_their_minima():
    front = pareto(question(), objectives("loss/a", "loss/b"), count=9)
    points = np.stack([mixture.array(NAMES) for mixture in front.mixtures])
    line = TwoTasks.best[1] - TwoTasks.best[0]
    along = (points - TwoTasks.best[0]) @ line / (line @ line)
    np.testing.assert_allclose(points, TwoTasks.best[0] + along[:, None] * line, atol=2e-4)
    assert len(front.mixtures) == 9
    assert (np.diff(along) > 0.01).all()
    assert along[0] == pytest.approx(0, abs=1e-4)
    assert along[-1] == pytest.approx(1, abs=1e-4)
    values = np.array(front.values)
    assert (np.diff(values[:, 0]) > 0).all()
    assert (np.diff(values[:, 1]) < 0).all()


def test_no_random_mixture_beats_a_point_of_the_front():
    front = pareto(question(), objectives("loss/a", "loss/b", "loss/c"), count=5)
    others = TwoTasks().predict(np.random.default_rng(0).dirichlet(np.ones(4), 5000), None, None)
    for values in front.values:
        assert not ((others < np.array(values) - 1e-6).all(axis=1)).any()
    assert len(front.mixtures) == 15  # 3 ends, 9 on the edges, 3 inside
    assert front.best == pytest.approx({"a": 1.0, "b": 1.0, "c": 1.0}, abs=1e-6)


def test_floors_and_support_hold_on_the_whole_front():
    floored = Objective({"loss/a": 1.0}, floors={"loss/c": Floor("uniform", 0.0)})
    support = np.array([[0.5, 0.1, 0.2, 0.2], [0.1, 0.5, 0.2, 0.2], [0.2, 0.2, 0.4, 0.2]])
    asked = question(objective=floored, support=support)
    front = pareto(asked, objectives("loss/a", "loss/b"), count=5)
    points = np.stack([mixture.array(NAMES) for mixture in front.mixtures])
    limit = TwoTasks().predict(np.full((1, 4), 0.25), None, None)[0, 2]
    assert (TwoTasks().predict(points, None, None)[:, 2] <= limit + 1e-7).all()
    assert (points <= support.max(axis=0) + 1e-9).all()


def test_round_trip_and_bad_input():
    front = pareto(question(), objectives("loss/a", "loss/b"), count=3)
    assert ParetoFront.from_dict(front.to_dict()) == front
    with pytest.raises(StudyError, match="run `mixlaw pareto` again"):
        ParetoFront.from_dict({"format": 0})
    with pytest.raises(StudyError, match="2 or 3 objectives, not 1"):
        pareto(question(), objectives("loss/a"))
    with pytest.raises(StudyError, match="at least its 2 ends"):
        pareto(question(), objectives("loss/a", "loss/b"), count=1)
