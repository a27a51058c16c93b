"""A mixture that a run adapts: it moves where the objective falls, within its bounds, and no bit of
it depends on kills or company."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs torch")

from mixlaw.claims import Worker  # noqa: E402
from mixlaw.corpus import BatchSampler, load_corpus  # noqa: E402
from mixlaw.errors import MixtureError, TrainError  # noqa: E402
from mixlaw.mixture import Mixture  # noqa: E402
from mixlaw.runs import DONE, RunResult, RunSpec  # noqa: E402
from mixlaw.schedule import Online, Schedule  # noqa: E402
from mixlaw.store import RunStore  # noqa: E402
from mixlaw.study import Study  # noqa: E402
from mixlaw.train import devices, record  # noqa: E402
from mixlaw.train.evaluate import Evaluator  # noqa: E402
from mixlaw.train.feed import Feed, _Ahead  # noqa: E402
from mixlaw.train.online import OnlineJob, OnlineMixtures  # noqa: E402
from mixlaw.train.probes import Bursts, bounded, fit_law, trust  # noqa: E402
from mixlaw.train.swarm import Swarm  # noqa: E402

DOMAINS = ("abc", "digits", "words")
WARM, TRUNK, STEPS, BATCH = 10, 330, 400, 8
WINDOWS = (3000, 2500, 2000)


class Toy:
    """K runs whose targets follow a log-linear law in the sequences drawn so far.

    Args:
        law: (T, M) fall of the log of each target per sequence of each domain.
        mixtures: (K, M).
        broken_at: steps at which the first member's targets are not finite.
        noise: standard deviation of the log of the targets.
    """

    def __init__(self, law, mixtures, *, broken_at=(), noise=0.0, seeds=None, **settings):
        self.law, self.step = np.array(law), 0
        self.broken_at, self.noise = broken_at, noise
        targets = [f"loss/{i}" for i in range(len(self.law))]
        options = {"weights": dict.fromkeys(targets, 1.0), "smoothing": 0.0, **settings}
        mixtures = np.array(mixtures)
        self.known_until, seeds = 0, seeds or list(range(len(mixtures)))
        self.sampler = BatchSampler(
            [np.zeros(4 * windows + 1, dtype=np.uint16) for windows in WINDOWS],
            sequence_length=4,
            batch_size=BATCH,
            seeds=seeds,
        )
        self.online = OnlineMixtures(
            OnlineJob(
                online=Online(**options),
                domains=DOMAINS,
                mixtures=mixtures,
                seeds=seeds,
                sampler=self.sampler,
                evaluate=self.evaluate,
                renew=self.renew,
                first_step=WARM,
                last_step=TRUNK,
                num_steps=STEPS,
            )
        )

    def renew(self, until: int) -> None:
        self.known_until = until

    def counts(self, step: int) -> np.ndarray:
        return self.sampler.domain_counts(step, self.online.segments)

    def evaluate(self, _) -> list[dict[str, float]]:
        # Summed by numpy: the bits of a product with a matrix may depend on the number of members.
        levels = 3 * np.exp(-(self.counts(self.step)[:, None] * self.law).sum(axis=-1))
        levels *= np.exp(
            np.random.default_rng(self.step).normal(scale=self.noise, size=levels.shape)
        )
        if self.step in self.broken_at:
            levels[0] = math.nan
        return [{f"loss/{i}": level for i, level in enumerate(row)} for row in levels.tolist()]

    def train(self, until: int = TRUNK) -> list[np.ndarray]:
        """To the end of the trunk; the mixtures after each decision."""
        mixtures = []
        while self.step < until:
            if self.online.look(self.step, None):
                mixtures.append(self.online.mixtures.copy())
            self.step = min(until, self.online.next_look or until)
            assert self.step <= self.known_until
        if until == TRUNK:
            self.online.hold(TRUNK, STEPS)
        return mixtures


ONE_HELPS = [[0.0, 2e-4, 0.0]]
EVEN = [[1 / 3, 1 / 3, 1 / 3]]


def test_the_law_is_found_where_bursts_follow_it():
    rng = np.random.default_rng(0)
    law, shares, steps = (
        rng.normal(size=(2, 3)),
        rng.dirichlet(np.ones(3), 5),
        rng.integers(1, 9, 5),
    )
    found = fit_law(Bursts(steps, shares, shares @ law.T))
    np.testing.assert_allclose(found, law, rtol=1e-9)


def test_it_moves_to_the_one_domain_that_helps_as_fast_as_it_may():
    toy = Toy(ONE_HELPS, EVEN, step_size=2.0, max_change=0.08, floor=0.05)
    shares = np.array([1 / 3, *(mixture[0, 1] for mixture in toy.train())])
    assert len(shares) == 9
    np.testing.assert_allclose(np.diff(shares)[:6], 0.08)
    assert shares[-1] == pytest.approx(0.9)
    np.testing.assert_allclose(toy.online.mixtures[0, [0, 2]], 0.05)


def test_the_law_that_it_estimates_is_the_true_one_up_to_scale():
    law = [[1e-4, 3e-4, 2e-4], [5e-5, 0.0, 2e-4]]
    toy = Toy(law, [[0.2, 0.3, 0.5]], weights={"loss/0": 1.0, "loss/1": 2.0})
    toy.train()
    found = toy.online.law[0]
    np.testing.assert_allclose(found / found.max(), np.array(law) / 3e-4, atol=1e-6)


def test_domains_that_help_alike_keep_their_shares():
    start = np.array([[0.2, 0.3, 0.5]])
    toy = Toy([[2e-4, 2e-4, 2e-4]], start)
    toy.train()
    np.testing.assert_allclose(toy.online.mixtures, start, atol=1e-6)


def test_smoothing_stills_a_mixture_whose_rounds_disagree():
    def moved(smoothing: float) -> float:
        toy = Toy([[0.0, 0.0, 0.0]], EVEN, smoothing=smoothing, noise=0.02, step_size=0.1)
        mixtures = np.stack([mixture[0] for mixture in toy.train()])
        return np.abs(np.diff(mixtures, axis=0)).sum()

    assert moved(0.8) < 0.6 * moved(0.0)


def test_what_may_be_noise_moves_the_mixture_less():
    """Of 20 made rounds each: the moves of a signal, of noise of its size, and of noise alone."""

    def mean_trust(signal: float, noise: float) -> float:
        rng, found = np.random.default_rng(1), []
        mixture, steps = np.full(3, 1 / 3), np.array([4, 4, 8, 4, 4])
        shares = (mixture + np.eye(3)[[0, 1, 2, 1, 0]]) / 2
        for _ in range(20):
            falls = shares @ [0, signal, 0] + rng.normal(scale=noise, size=5) / np.sqrt(steps)
            found.append(trust(Bursts(steps, shares, falls[:, None]), np.ones(1), mixture))
        return float(np.mean(found))

    assert mean_trust(1.0, 0.0) == pytest.approx(1)
    assert mean_trust(1.0, 0.0) > 0.9 > mean_trust(1.0, 0.5) > 2 * mean_trust(0.0, 0.5)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(-3e-4, 3e-4), min_size=6, max_size=6),
    st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(lambda row: sum(row) > 1),
    st.floats(0.01, 0.5),
    st.floats(0, 0.1),
    st.floats(0.05, 3),
    st.sampled_from([None, 0.5, 1.0, 1.5]),
)
def test_bounds_hold_whatever_the_probes_say(law, start, max_change, floor, step_size, epochs):
    mixtures = np.array([start, [1, 1, 1]]) / np.array([[sum(start)], [3]])
    options = {"max_change": max_change, "floor": floor, "step_size": step_size}
    try:
        toy = Toy(np.reshape(law, (2, 3)), mixtures, **options, max_epochs=epochs)
    except TrainError:
        assert (mixtures * STEPS * BATCH > np.array(WINDOWS) * (epochs or math.inf) - 4).any()
        return
    decided = np.array([mixtures, *toy.train()])
    assert len(decided) == 9
    assert (np.abs(np.diff(decided, axis=0)) <= max_change + 1e-9).all()
    np.testing.assert_allclose(decided.sum(axis=-1), 1, atol=1e-9)
    assert (decided[:, mixtures == 0] == 0).all()
    if epochs is None:
        assert (decided >= np.minimum(floor, mixtures) - 1e-9).all()
    else:
        counts = toy.sampler.domain_counts(STEPS, toy.online.held[STEPS])
        assert (counts <= np.array(WINDOWS) * epochs).all()


def test_a_cap_is_used_up_and_never_passed():
    toy = Toy(ONE_HELPS, EVEN, max_epochs=0.6, step_size=2.0)
    toy.train()
    drawn = toy.sampler.domain_counts(STEPS, toy.online.held[STEPS])[0, 1]
    assert 0.95 * 0.6 * WINDOWS[1] < drawn <= 0.6 * WINDOWS[1]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1e-6, 1), st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6
    )
)
def test_bounded_shares_are_the_nearest_in_relative_entropy(rows):
    wanted, one, other = np.array(rows).T
    low, high = np.minimum(one, other), np.maximum(one, other)
    found = bounded(wanted, low, high)
    if found is None:
        assert low.sum() > 1 or high.sum() < 1
        return
    assert found.sum() == pytest.approx(1, abs=1e-9)
    assert (low <= found).all()
    assert (found <= high).all()

    def entropy(p):
        return np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / wanted), 0))

    for i in range(len(found)):  # no small exchange between two shares is nearer
        for j in range(len(found)):
            moved, by = found.copy(), 1e-5
            moved[i] += by
            moved[j] -= by
            if moved[i] <= high[i] and moved[j] >= low[j] and i != j:
                assert entropy(moved) >= entropy(found) - 1e-9


def test_a_broken_probe_keeps_the_mixture_of_its_member_alone():
    start = [*EVEN, *EVEN]
    expected = Toy(ONE_HELPS, start).train()
    toy = Toy(ONE_HELPS, start, broken_at=range(WARM, 40))
    found = toy.train()
    np.testing.assert_array_equal(found[0][0], EVEN[0])
    assert (found[1][0] != EVEN[0]).any()
    np.testing.assert_array_equal([m[1] for m in found], [m[1] for m in expected])


def reasons(toy: Toy) -> list[str]:
    """Of the first member, of all decisions."""
    found = []
    while toy.step < TRUNK:
        found += [decided["reason"] for decided in toy.online.look(toy.step, None)[:1]]
        toy.step = min(TRUNK, toy.online.next_look or TRUNK)
    return found


@pytest.mark.parametrize(
    ("mixture", "options", "told"),
    [
        ([1 / 3, 1 / 3, 1 / 3], {}, ""),
        ([0.0, 1.0, 0.0], {}, "only one domain has a share, so there is nothing to adapt"),
        ([0.4, 1 / 3, 4 / 15], {"max_epochs": 0.43}, "max_epochs left no room for probes"),
        ([0.2, 0.3, 0.5], {"floor": 0.9}, "no share may fall: none is above the floor, 0.9"),
        ([0.2, 0.3, 0.5], {"broken_at": range(400)}, "a target was not finite in the probes"),
    ],
)
def test_a_mixture_that_does_not_move_says_why(mixture, options, told):
    toy = Toy(ONE_HELPS, [mixture], **options)
    found = reasons(toy)
    assert len(found) == 8
    assert all(reason.startswith(told) if told else not reason for reason in found)
    np.testing.assert_allclose(toy.online.mixtures[0], mixture, atol=1.0 if not told else 1e-9)


def test_bounds_that_no_mixture_keeps_are_told(monkeypatch):
    monkeypatch.setattr("mixlaw.train.online.bounded", lambda *rows: None)
    toy = Toy(ONE_HELPS, EVEN, rounds=2)
    assert reasons(toy) == [
        "max_epochs leaves no mixture to move to",
        "max_epochs left no room for probes",
    ]


def first_moves(law, mixture, **options) -> np.ndarray:
    """Log of the wanted change of each share, by the first decision, up to a constant."""
    toy = Toy(law, [mixture], max_change=1.0, floor=0.0, rounds=2, **options)
    found = np.log(toy.train()[0][0] / mixture)
    return found - found.mean()


PULLING = [[3e-4, 0.0, 1e-4], [0.0, 3e-4, 1e-4]]
"""Two targets: each falls with a domain of its own, both a little with the third."""


def test_the_weights_of_targets_that_pull_apart_decide_the_way():
    mixture = np.array([1 / 3, 1 / 3, 1 / 3])
    one, even, other = (
        first_moves(PULLING, mixture, weights={"loss/0": a, "loss/1": b})
        for a, b in ((3.0, 1.0), (1.0, 1.0), (1.0, 3.0))
    )
    assert one[0] > one[1] + 0.1
    assert other[1] > other[0] + 0.1
    assert abs(even[0] - even[1]) < 0.1 * (one[0] - one[1])


def test_a_step_is_of_the_gains_at_the_levels_of_the_targets():
    """A target three times as high counts as one of three times the weight."""

    class High(Toy):
        def evaluate(self, _):
            return [{"loss/0": 3 * f["loss/0"], "loss/1": f["loss/1"]} for f in super().evaluate(_)]

    mixture = [1 / 3, 1 / 3, 1 / 3]
    high = High(PULLING, [mixture], max_change=1.0, floor=0.0, rounds=2)
    weighed = first_moves(PULLING, mixture, weights={"loss/0": 3.0, "loss/1": 1.0})
    found = np.log(high.train()[0][0] / mixture)
    np.testing.assert_allclose(found - found.mean(), weighed, atol=1e-12)


def test_a_step_has_the_size_asked_for():
    mixture = np.array([0.2, 0.3, 0.5])
    small, large = (first_moves(ONE_HELPS, mixture, step_size=s) for s in (0.5, 1.5))
    np.testing.assert_allclose(large, 3 * small, atol=1e-9)
    assert np.ptp(large) == pytest.approx(1.5, abs=1e-6)


@pytest.mark.parametrize("tilt", [0.2, 0.7])
def test_probes_tilt_as_far_as_asked_for_and_only_after_the_warm_up(tilt):
    toy = Toy(ONE_HELPS, [[0.2, 0.3, 0.5]], tilt=tilt)
    first, *bursts = toy.online.trunk.within(0, int(toy.online.edges[0][-1]))
    np.testing.assert_array_equal(first[2][0], [0.2, 0.3, 0.5])
    assert first[:2] == (0, WARM)
    shares = np.array([rows[0] for *_, rows in bursts])
    given = (shares - (1 - tilt) * np.array([0.2, 0.3, 0.5])) / tilt
    np.testing.assert_allclose(np.sort(given, axis=1), [[0, 0, 1]] * len(given), atol=1e-12)
    np.testing.assert_allclose(given, given[::-1], atol=1e-12)  # in mirror image


def test_a_step_is_shrunk_by_the_trust_in_its_probes(monkeypatch):
    full = first_moves(ONE_HELPS, EVEN[0])
    monkeypatch.setattr("mixlaw.train.online.trust", lambda *given: 0.25)
    np.testing.assert_allclose(first_moves(ONE_HELPS, EVEN[0]), 0.25 * full, atol=1e-9)


def test_no_decision_depends_on_company():
    law = [[1e-4, 3e-4, 2e-4]]
    mixtures = [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.0, 0.5, 0.5]]
    together = Toy(law, mixtures, max_epochs=1.0)
    together.train()
    for k, mixture in enumerate(mixtures):
        alone = Toy(law, [mixture], max_epochs=1.0, seeds=[k])
        alone.train()
        assert together.online.state(k) == alone.online.state(0)


@pytest.mark.parametrize("kill_at", [0, WARM, 25, 60, 100, 200, TRUNK])
def test_killed_anywhere_it_goes_on_from_its_state(kill_at):
    mixtures = [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]
    options = {"law": [[1e-4, 3e-4, 2e-4]], "mixtures": mixtures, "smoothing": 0.5}
    expected = Toy(**options)
    expected.train()
    killed, resumed = Toy(**options), Toy(**options)
    killed.train(kill_at)
    states = json.loads(json.dumps([killed.online.state(k) for k in range(2)], allow_nan=False))
    resumed.online.restore(states)
    resumed.step = killed.step
    if kill_at < TRUNK:
        resumed.train()
    for k in range(2):
        assert resumed.online.state(k) == expected.online.state(k)


def test_what_was_measured_and_could_not_be_is_kept_in_a_state():
    toy = Toy(ONE_HELPS, EVEN, broken_at=[WARM])
    toy.train(12)
    states = json.loads(json.dumps([toy.online.state(0)], allow_nan=False))
    assert [len(look) for look in states[0]["looks"]] == [1, 1]
    assert states[0]["looks"][0] == [None]
    toy.online.restore(states)
    assert [np.isnan(look).tolist() for look in toy.online.looks] == [[[True]], [[False]]]


# Settings


def test_settings_read_back_and_decide_the_run():
    online = Online({"loss/web": 2, "bpb/code": 1.0}, rounds=3, max_epochs=4.0)
    assert Online.from_dict(json.loads(json.dumps(online.to_dict()))) == online
    assert online == Online({"bpb/code": 1.0, "loss/web": 2.0}, rounds=3, max_epochs=4)
    plain = RunSpec(Mixture({"web": 0.5, "code": 0.5}), "a", "swarm", "3k", 10, (32, 64), 0, "c")
    assert plain.run_id == "8d4e148cd8739f89"
    assert "online" not in plain.to_dict()
    spec = replace(plain, online=online)
    assert spec.run_id not in (plain.run_id, replace(spec, online=replace(online, tilt=0.4)).run_id)
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {}}, "one of them > 0"),
        ({"weights": {"loss/a": -1.0, "loss/b": 2.0}}, "finite and >= 0"),
        ({"rounds": 0}, "rounds of an online mixture is 0; it must be a whole number >= 1"),
        ({"probe_share": 1.0}, r"probe_share .* is 1.0; it must be in \(0, 1\)"),
        ({"step_size": math.nan}, "step_size"),
        ({"max_epochs": 0.0}, "max_epochs"),
        ({"what": 1}, "no settings of an online mixture"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(MixtureError, match=message):
        Online.from_dict({"weights": {"loss/a": 1.0}, **settings})


def test_an_online_run_has_no_schedule_of_its_own():
    schedule = Schedule.of([(0.5, Mixture({"web": 1.0})), (0.5, Mixture({"code": 1.0}))])
    with pytest.raises(MixtureError, match="has a schedule and an online mixture"):
        RunSpec(
            schedule.dose,
            "m1",
            "swarm",
            "3k",
            10,
            (32,),
            0,
            "c",
            schedule=schedule,
            online=Online({"loss/a": 1.0}),
        )


def test_rounds_that_are_too_short_for_their_probes():
    with pytest.raises(TrainError, match=r"100 rounds of 3 steps, of which 0\.25 are probes"):
        Toy(ONE_HELPS, EVEN, rounds=100)


# Trained

ONLINE = Online(
    {"loss/digits": 1.0}, rounds=2, probe_share=0.5, evaluation_tokens=256, max_change=0.2
)
START = Mixture({"abc": 0.4, "digits": 0.2, "words": 0.4})
SHORT = 20 * 32


@pytest.fixture
def swarm(tiny_study) -> Swarm:
    study = Study(tiny_study)
    study.design()
    return elsewhere(study._own_runs.training.swarm(tiny_study / "runs"), tiny_study / "runs")


@pytest.fixture
def spec(swarm, tiny_study) -> RunSpec:
    found = next(spec for spec in Study(tiny_study).design() if spec.size == "3k")
    return replace(found, mixture=START, horizon_tokens=(SHORT, 2 * SHORT), online=ONLINE)


def elsewhere(swarm: Swarm, folder: Path, **hardware) -> Swarm:
    return replace(swarm, runs=str(folder), hardware=replace(swarm.hardware, **hardware))


def train(swarm: Swarm, *specs: RunSpec) -> list[RunResult]:
    """All in this process; their results."""
    with Worker(swarm.store) as worker:
        for stack in swarm.unfinished(specs):
            swarm.train(stack, worker)
    results = [swarm.store.load(spec) for spec in specs]
    assert all(result.status == DONE for result in results)
    return results


def test_the_table_tells_what_became_of_the_mixture(swarm, spec):
    result = train(swarm, spec)[0]
    corpus, (short, long) = load_corpus(swarm.corpus), result.schedules
    names = [domain.name for domain in corpus.domains]
    table = swarm.store.table([spec], names)
    assert list(table.schedule) == [short, long]
    np.testing.assert_allclose(
        table.weights, [schedule.dose.array(names) for schedule in (short, long)]
    )
    assert short.at(0.0) == long.at(0.0) == START
    # Both are the same until the first leaves the trunk, at step 16, and keep their last mixture.
    assert short.until(16 / 20) == long.until(16 / 40)
    assert long.stages[-1].share >= 0.2
    # What was drawn is what the schedule says.
    windows = np.array([(len(corpus.train_tokens(name)) - 1) // 16 for name in names])
    drawn = np.array([result.epochs[name] for name in names]) * windows
    assert drawn.sum() == pytest.approx(80)
    assert np.abs(drawn - 80 * long.dose.array(names)).max() < 8
    told = [m for m in swarm.store.metrics(spec.run_id) if m.get("event") == "mixture"]
    assert len(told) == ONLINE.rounds
    assert told[-1]["mixture"] == pytest.approx(dict(long.stages[-1].mixture))


def test_it_moves_towards_the_domain_of_the_objective(swarm, spec):
    """A longer run, on text that no other domain helps with."""
    online = replace(ONLINE, rounds=5, probe_share=0.3, evaluation_tokens=512)
    long = replace(spec, online=online, horizon_tokens=(400 * 32,))
    plain = replace(long, online=None)
    adapted, static = train(swarm, long, plain)
    shares = [stage.mixture["digits"] for stage in adapted.schedules[0].stages]
    assert shares[-1] > 0.5 > START["digits"]
    assert adapted.targets[0]["loss/digits"] < static.targets[0]["loss/digits"]


def test_no_bit_of_an_online_run_depends_on_its_company(swarm, spec, tmp_path):
    specs = [
        spec,
        replace(spec, mixture=Mixture({"abc": 0.5, "digits": 0.5})),
        replace(spec, seed=spec.seed + 1),
        replace(spec, online=None),
    ]
    together = train(elsewhere(swarm, tmp_path / "together", stack_size=4), *specs)
    assert train(elsewhere(swarm, tmp_path / "alone", stack_size=1), *specs) == together
    assert [len(result.schedules) for result in together] == [2, 2, 2, 0]


def test_two_settings_in_one_swarm_train_apart(swarm, spec, tmp_path):
    """And what each measures its targets on is its own, after the warm-up."""
    specs = [spec, replace(spec, online=replace(ONLINE, evaluation_tokens=512, tilt=0.9))]
    assert swarm.unfinished(specs) == [[specs[0]], [specs[1]]]
    found = train(elsewhere(swarm, tmp_path / "together", stack_size=4), *specs)
    alone = [train(elsewhere(swarm, tmp_path / f"{k}"), one)[0] for k, one in enumerate(specs)]
    assert found == alone
    assert found[0].schedules != found[1].schedules
    warm = swarm.sizes["3k"].recipe.warmup_steps
    for result in found:
        assert result.schedules[-1].starts[1] == warm / 40  # the first burst


def test_what_is_measured_has_the_tokens_asked_for(swarm, spec, monkeypatch):
    sizes = []

    class Recording(Evaluator):
        def __init__(self, size, *given, **more):
            sizes.append(size.recipe.evaluation_tokens)
            super().__init__(size, *given, **more)

    monkeypatch.setattr("mixlaw.train.stack.Evaluator", Recording)
    train(swarm, spec)
    own = swarm.sizes["3k"].recipe.evaluation_tokens
    assert sorted(sizes) == sorted([own, ONLINE.evaluation_tokens])
    assert own != ONLINE.evaluation_tokens


# With all else that a run can be


@pytest.fixture
def started(swarm, spec, tmp_path) -> list[RunSpec]:
    """An online run and a scheduled one that continue a model."""
    base = replace(spec, online=None, keep=True, seed=50)
    other = elsewhere(swarm, tmp_path / "base")
    train(other, base)
    start = other.store.start(base.run_id, optimizer=True, rewarm=0.5)
    schedule = Schedule.of([(0.3, START), (0.3, Mixture({"words": 1.0})), (0.4, START)])
    staged = replace(spec, online=None, mixture=schedule.dose, schedule=schedule)
    return [replace(spec, start=start, keep=True), replace(staged, start=start, keep=True)]


def test_what_continues_a_model_may_adapt_or_follow_a_schedule(swarm, spec, started, tmp_path):
    plain = replace(started[0], online=None, keep=False)
    together = train(elsewhere(swarm, tmp_path / "together", stack_size=4), *started, plain)
    assert train(elsewhere(swarm, tmp_path / "alone", stack_size=1), *started, plain) == together
    assert [len(result.schedules) for result in together] == [2, 2, 0]
    assert together[1].schedules[-1] == started[1].schedule
    assert together[0].at_start == together[1].at_start == together[2].at_start != {}
    kept = [
        [RunStore(tmp_path / at).start(one.run_id).digest for one in started]
        for at in ("together", "alone")
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("after_saves", [1, 5, 9])
def test_continued_and_killed_it_gives_the_same_bits(
    swarm, started, tmp_path, monkeypatch, which, after_saves
):
    spec = started[which]
    expected = train(elsewhere(swarm, tmp_path / "undisturbed"), spec)
    killing(monkeypatch, after_saves)
    with pytest.raises(Killed):
        train(swarm, spec)
    monkeypatch.undo()
    assert train(swarm, spec) == expected


def test_batches_made_ahead_by_a_thread_follow_the_mixture(swarm, spec, tmp_path, monkeypatch):
    """As on a GPU."""
    expected = train(elsewhere(swarm, tmp_path / "unthreaded"), spec)

    class Threaded(Feed):
        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            self.ahead = _Ahead(self._make, self.last_step)

    monkeypatch.setattr("mixlaw.train.stack.Feed", Threaded)
    for k in range(3):
        assert train(elsewhere(swarm, tmp_path / f"{k}"), spec) == expected


@pytest.mark.parametrize("checkpoint_seconds", [0, 1e9])
@pytest.mark.parametrize("broken_step", [7, 14, 27, 44])
def test_a_fault_of_the_machine_changes_no_bit(
    swarm, spec, tmp_path, monkeypatch, checkpoint_seconds, broken_step
):
    """A loss that is not finite once: in the probes, between them, in a branch."""
    expected = train(elsewhere(swarm, tmp_path / "sound"), spec)
    training_step, calls = devices.training_step, [0]

    def faulty(*given, **more):
        sound = training_step(*given, **more)

        def step(state, tokens, rate):
            losses, norms = sound(state, tokens, rate)
            calls[0] += 1
            return losses * (math.nan if calls[0] == broken_step else 1.0), norms

        return step

    monkeypatch.setattr(devices, "training_step", faulty)
    found = elsewhere(swarm, tmp_path / "faulty", checkpoint_seconds=checkpoint_seconds)
    assert train(found, spec) == expected
    assert "restart" in {line.get("event") for line in found.store.metrics(spec.run_id)}


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


def killing(monkeypatch, after_saves: int) -> None:
    """Kill the process after a checkpoint."""
    real, saves = record.save_checkpoint, [0]

    def save(*args) -> None:
        real(*args)
        saves[0] += 1
        if saves[0] == after_saves:
            raise Killed

    monkeypatch.setattr(record, "save_checkpoint", save)


@pytest.mark.parametrize("after_saves", [*range(2, 20, 3)])
def test_killed_and_resumed_gives_the_same_bits(swarm, spec, tmp_path, monkeypatch, after_saves):
    expected = train(elsewhere(swarm, tmp_path / "undisturbed"), spec)
    killing(monkeypatch, after_saves)
    with pytest.raises(Killed):
        train(swarm, spec)
    monkeypatch.undo()
    assert train(swarm, spec) == expected


def test_a_horizon_is_the_same_with_and_without_a_shorter_one(swarm, spec, tmp_path):
    both = train(swarm, spec)[0]
    alone = train(elsewhere(swarm, tmp_path / "x"), replace(spec, horizon_tokens=(2 * SHORT,)))[0]
    assert both.targets[1:] == alone.targets
    assert both.schedules[1:] == alone.schedules


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"loss/nothing": 1.0}}, "weighs loss/nothing; this corpus has the targets"),
        ({"rounds": 9}, "9 rounds of 3 steps"),
        ({"max_epochs": 1e-6}, "more than max_epochs"),
    ],
)
def test_what_cannot_be_done_is_said(swarm, spec, change, message):
    bad = replace(spec, online=replace(ONLINE, **change))
    with Worker(swarm.store) as worker, pytest.raises(TrainError, match=message):
        swarm.train([bad], worker)


def test_a_cosine_has_no_trunk_to_adapt_in(swarm, spec):
    size = swarm.sizes["3k"]
    cosine = replace(size, recipe=replace(size.recipe, schedule="cosine"))
    with (
        Worker(swarm.store) as worker,
        pytest.raises(TrainError, match="needs a size with the sch"),
    ):
        replace(swarm, sizes={"3k": cosine}).train([spec], worker)
