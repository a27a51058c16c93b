"""Many fitted laws at once give what each gives by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mixlaw.laws import CANDIDATES, Points, fit, fit_laws, make
from mixlaw.laws.bootstrap import bootstrap
from mixlaw.laws.catalogue import BASELINES
from mixlaw.laws.together import Together

TARGETS = ("loss/code", "loss/web", "loss/held")  # the first two have a domain of their own
OWN_DOMAIN_ONLY = {"bimix", "capacity", "d-cpt"}
WITH_PROCESS = ["effective+gp", "effective-product+gp", "nested+gp"]


def swarm(lab, rng):
    points = lab.grid(rng, mixtures=16)
    law, values = lab.law_named("effective-product"), {}
    for target in TARGETS:
        clean = law.predict(lab.plausible_theta(law, points, rng), points)
        values[target] = clean * np.exp(0.005 * rng.normal(size=len(clean)))
    return lab.table(points, values)


def fitted_laws(name, lab, rng):
    runs = swarm(lab, rng)
    recipe = make(name, lab.axes)
    if not recipe.axes:
        runs = runs.select((runs.num_params == 1e5) & (runs.train_tokens == 1e6))
    targets = TARGETS[:2] if name in OWN_DOMAIN_ONLY else TARGETS
    return [fit(recipe, runs, target=target) for target in targets]


def check(laws, points):
    together = Together(laws)
    assert len(together) == len(laws)
    value, slope = together.predict(points), together.gradient(points)
    for b, law in enumerate(laws):
        assert_allclose(value[:, b], law.predict(points), rtol=1e-12)
        assert_allclose(slope[:, b], law.gradient(points), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*CANDIDATES, *WITH_PROCESS])
def test_as_each_law_by_itself(name, lab, rng):
    if name in BASELINES:
        pytest.importorskip(name)
    laws, new = fitted_laws(name, lab, rng), lab.grid(rng, mixtures=4)
    check(laws, new)
    check(laws[::-1], new)
    check(laws, new.select(np.arange(1)))


def test_different_laws_in_any_order(lab, rng):
    names = ("effective-product", "joint", "nested")
    laws = [law for name in names for law in fitted_laws(name, lab, rng)]
    check([laws[i] for i in rng.permutation(len(laws))], lab.grid(rng, mixtures=4))


def test_repeated_data(lab, rng):
    laws, new = fitted_laws("effective-product", lab, rng), lab.grid(rng, mixtures=6)
    available = np.tile([3e5, np.inf, 1e5], (len(new), 1))  # code and web are seen several times
    repeated = replace(new, available_tokens=available)
    check(laws, repeated)
    assert np.abs(Together(laws).predict(repeated) - Together(laws).predict(new)).max() > 1e-4


def test_a_stack_and_the_draws_of_a_bootstrap(lab, rng):
    runs = swarm(lab, rng).select(slice(None))
    runs = runs.select((runs.num_params == 1e5) & (runs.train_tokens == 1e6))
    stacked = fit_laws(runs, candidates=["effective", "m4"])
    points = Points.at(rng.dirichlet(np.ones(3), 4))
    check(list(stacked.laws.values()), points)
    draws = bootstrap(stacked, num_draws=3, seed=0).draws
    check([law for draw in draws for law in draw.values()], points)
