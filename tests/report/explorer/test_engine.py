"""What the page forecasts of a mixture is what Python does, worked out in a real Chromium."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mixlaw.laws import Points
from mixlaw.laws.bootstrap import Bootstrap
from mixlaw.laws.portable import NotPortable
from mixlaw.mixture import Mixture
from mixlaw.optimize.decide import Question, _Decider, distinct
from mixlaw.optimize.evidence import distance_from_trained
from mixlaw.report.explorer import Explorer, escaped_json, explorer, payload
from mixlaw.report.explorer.asked import multipliers
from mixlaw.runs import RunTable
from mixlaw.study import Study
from mixlaw.study.exploring import question_of

EXAMPLE = Path(__file__).parents[3] / "examples" / "tiny-env"
DOMAINS = ("web", "code", "books", "<b>")
TARGETS = ("loss/web", "loss/code", "loss/all")
TOKENS = "\n".join(
    f"  {json.dumps(name)}: {{available_tokens: {count}}}"
    for name, count in zip(DOMAINS, (40_000_000, 3_000_000, 9_000_000, 20_000_000), strict=True)
)
OBJECTIVE = "{loss/web: 2, loss/code: 1}"
SCALES = [(n, d) for n in (1e5, 3e5) for d in (1e7, 3e7)]
REFITS = 12


def table(scales, *, scores=(), mixtures=24, seed=0) -> RunTable:
    """Losses that fall with the shares of some domains and with scale; scores that follow them."""
    rng = np.random.default_rng(seed)
    pull = rng.uniform(0.2, 3.0, (len(TARGETS), len(DOMAINS)))
    rows = []
    for m, mixture in enumerate(rng.dirichlet(np.ones(len(DOMAINS)), mixtures)):
        for num_params, train_tokens in scales:
            level = 2 + 30 * num_params**-0.3 + 40 * train_tokens**-0.3
            bump = 0.2 * np.sin(9 * mixture[0])
            losses = level + np.exp(-pull @ mixture) + bump + rng.normal(0, 0.004, len(TARGETS))
            row = {"run": f"r{len(rows)}", "label": f"m{m}", "seed": 0}
            row |= {"num_params": num_params, "train_tokens": train_tokens}
            row |= {f"weight/{name}": share for name, share in zip(DOMAINS, mixture, strict=True)}
            row |= dict(zip(TARGETS, losses, strict=True))
            row |= {name: 0.25 + 0.7 * np.exp(1.5 - 0.5 * losses[k % 3]) for k, name in scores}
            rows.append(row)
    return RunTable.from_rows(rows)


def example() -> RunTable:
    """The example's runs, with three of their targets."""
    used = ("weight/", "bpb/docs", "bpb/python", "bpb/cython")
    rows = RunTable.read(EXAMPLE / "runs.csv").rows()
    return RunTable.from_rows(
        [{k: v for k, v in row.items() if "/" not in k or k.startswith(used)} for row in rows]
    )


def plain(laws, objective, rest="", target="{num_params: 1000000, train_tokens: 100000000}"):
    return (
        f"table: runs.csv\nfit: {{laws: {laws}}}\nobjective: {objective}\ntarget: {target}\n"
        f"domains:\n{TOKENS}\n{rest}"
    )


LIMITS = """\
constraints:
  lower: {web: 0.05}
  upper: {books: 0.5}
  max_epochs: {code: 4}
  groups: {text: {domains: [web, books], lower: 0.3, upper: 0.8}}
  min_unique_tokens: 20000000
  near: {mixture: uniform, measure: kl, at_most: 0.4}
"""
FLOORS = "loss/code: {than: uniform, slack: 0.01}, loss/all: 3.0"
CASES = {
    "two scales, a rival": lambda: (
        example(),
        (EXAMPLE / "study.yaml").read_text() + "fit: {laws: [effective-sum, effective-ratio]}\n",
    ),
    "limits, epochs, repetition": lambda: (
        table(SCALES[:1]),
        plain("[effective]", OBJECTIVE, LIMITS),
    ),
    "few mixtures": lambda: (table(SCALES[:1], mixtures=8), plain("[m4]", OBJECTIVE)),
    "process": lambda: (table(SCALES[:1]), plain("[log-linear+gp]", OBJECTIVE)),
    "nested": lambda: (
        table([(n, 1e7) for n in (1e5, 2e5, 4e5, 8e5)], mixtures=12),
        plain("[nested]", OBJECTIVE),
    ),
    "scores, a rival": lambda: (
        table(SCALES, scores=((0, "score/a"), (1, "score/b"))),
        plain(
            "[exponential-chinchilla, additive]",
            "{weights: {score/a: 1, loss/code: 2}, relative_to: uniform}",
        ),
    ),
    "relative, floors": lambda: (
        table(SCALES),
        plain(
            "[exponential-chinchilla]",
            f"{{weights: {OBJECTIVE}, relative_to: natural, floors: {{{FLOORS}}}}}",
        ),
    ),
    "worst of": lambda: (
        table(SCALES),
        plain("[exponential-chinchilla]", f"{{weights: {OBJECTIVE}, over: worst}}"),
    ),
    "worst change of families": lambda: (
        table(SCALES[:1]),
        plain(
            "[effective]",
            "{weights: {all: 1, loss/code: 2}, families: {all: [loss/web, loss/all]}, "
            "over: worst, relative_to: uniform}",
            "constraints: {near: {mixture: natural, measure: l2, at_most: 0.3}}",
        ),
    ),
}
FORECASTS = """(asked) => {
  const engine = mixlaw.engine(JSON.parse(data.textContent));
  const list = (found) => found && Array.from(found);
  return asked.map(([shares, scale]) => {
    const found = engine.forecast(shares, scale);
    for (const name of ["values", "halves", "epochs"]) found[name] = list(found[name]);
    return { ...found, counts: engine.counts(scale) };
  });
}"""


@dataclass(frozen=True)
class Case:
    name: str
    study: Study
    question: Question
    found: Explorer


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp("study")
    runs, text = CASES[request.param]()
    runs.write(folder / "runs.csv")
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    study = Study(folder)
    found = explorer(study, num_draws=REFITS)
    assert isinstance(found, Explorer)
    return Case(request.param, study, question_of(study), found)


@pytest.fixture
def opened(page, tmp_path):
    """A function: the page with the script and payload of an explorer."""

    def open_page(found: Explorer):
        file = tmp_path / "page.html"
        data = escaped_json(found.payload)
        text = f'<script type="application/json" id="data">{data}</script>'
        file.write_text(f"<!doctype html><meta charset=utf-8>{text}<script>{found.script}</script>")
        page.goto(file.as_uri())
        return page

    return open_page


def asked_mixtures(case: Case) -> list[np.ndarray]:
    """(M,) each: random ones, a corner, an edge, ties of rounding, and those of the presets."""
    names = case.question.fitted.domains
    rng = np.random.default_rng(1)
    points = [*rng.dirichlet(np.ones(len(names)), 5), *rng.dirichlet(np.full(len(names), 0.2), 2)]
    corner, edge, ties = np.eye(len(names))[0], np.zeros(len(names)), np.zeros(len(names))
    edge[:2] = 0.5
    ties[:3] = [1 / 64, 1 / 128, 1 - 3 / 128]
    points += [corner, edge, ties]
    points += [np.array(preset["shares"]) for preset in case.found.payload["presets"]]
    return [Mixture.from_array(names, point).array(names) for point in points]


def asked_places(data) -> list[dict[str, int]]:
    """The study's target, both ends of the sliders, and one between."""

    def at(axis, where):
        slider = data["scale"][axis]
        if slider is None:
            return 0
        last = len(slider["values"]) - 1
        return {"target": slider["target"], "first": 0, "last": last, "between": last // 2}[where]

    axes = ("num_params", "train_tokens")
    return [
        {axis: at(axis, where) for axis in axes} for where in ("target", "first", "between", "last")
    ]


class Python:
    """What the library says at one place."""

    def __init__(self, case: Case, counts):
        question = case.question
        num_params, train_tokens = counts["num_params"], counts["train_tokens"]
        there = replace(question, num_params=num_params, train_tokens=train_tokens)
        self.case, self.names = case, question.fitted.domains
        self.decider = _Decider(there, None, case.study.config.fit.level, case.study.config.seed)
        data = case.found.payload["engine"]
        self.matrix, self.offset = self.decider.problem.matrix, self.decider.problem.offset
        self.coefficients = np.array(data["multipliers"]) @ self.matrix
        self.drawn = data["draws"]
        others = {"recommended": case.study.optimize().recommended}
        others |= distinct(question.baselines)
        self.others = {name: mixture.array(self.names) for name, mixture in others.items()}
        self.forecasts = {name: self.decider._forecast(other) for name, other in others.items()}
        self.refits = {
            name: self.drawn and self.refit_objectives(other) for name, other in self.others.items()
        }

    def refit_objectives(self, point):
        """(R,)"""
        laws = self.case.found.pages[-1].laws
        targets = self.drawn["targets"]
        draws = [
            {law.target: law for law in laws[first : first + len(targets)]}
            for first in range(0, len(laws), len(targets))
        ]
        question, scale = self.decider.question, self.decider.scale
        at = Points.at(
            point,
            question.num_params,
            question.train_tokens,
            available_tokens=scale.available_tokens,
        )
        rows = self.matrix[:, targets]
        each = [Bootstrap(draws).objective(row, at)[:, 0] for row in rows]
        return (np.stack(each, axis=1) + self.offset).max(axis=1)

    def check(self, point, found):
        forecast = self.decider._forecast(Mixture.from_array(self.names, point))
        values = [interval.value for interval in forecast.targets.values()]
        halves = [interval.half_width for interval in forecast.targets.values()]
        assert_allclose(found["values"], values, rtol=1e-9)
        assert_allclose(found["halves"], halves, rtol=1e-6)
        assert found["objective"]["value"] == pytest.approx(forecast.objective.value, rel=1e-9)
        # A change from a baseline has no error where the mixture is all but that baseline.
        assert found["objective"]["half"] == pytest.approx(
            forecast.objective.half_width, rel=1e-6, abs=1e-7
        )
        assert tuple(found["violations"]) == forecast.violations
        assert [part["domain"] for part in found["outside"]] == [
            text.rsplit(" ", 5)[0] for text in forecast.extrapolates
        ]
        self.check_epochs(found["epochs"], forecast.epochs)
        self.check_distance(point, found["distance"])
        self.check_against(point, forecast, found["against"])

    def check_epochs(self, found, epochs):
        if self.decider.question.train_tokens is None:
            assert found is None
            return
        wanted = [epochs.get(name, np.nan) for name in self.names]
        assert_allclose(found, wanted, rtol=1e-12)

    def check_distance(self, point, found):
        mixture = Mixture.from_array(self.names, point)
        support = self.decider.question.support
        assert support is not None
        wanted = distance_from_trained(mixture, self.names, support)
        for name in ("nearest", "typical", "largest"):
            assert found[name] == pytest.approx(getattr(wanted, name), abs=1e-6)
        assert found["far"] == wanted.far

    def check_against(self, point, forecast, found):
        assert [entry["name"] for entry in found] == list(self.others)
        refits = self.drawn and self.refit_objectives(point)
        for entry, (name, other) in zip(found, self.others.items(), strict=True):
            compared = self.decider._compare(self.forecasts[name], forecast, self.coefficients)
            assert entry["gain"] == pytest.approx(compared.gain, abs=1e-9)
            same = np.allclose(other, point, rtol=0, atol=1e-6)
            if not same:  # of two that are all but the same, rounding decides
                assert entry["chance"] == pytest.approx(compared.probability_better, abs=1e-6)
            if not self.drawn:
                assert entry["refits"] is None
            elif not same:
                lower = refits < self.refits[name]
                assert entry["refits"] == {"lower": int(lower.sum()), "of": self.drawn["count"]}


def test_the_page_forecasts_what_python_does(case, opened):
    data = case.found.payload
    assert data["engine"]["scales"]["num_rivals"] == (1 if "rival" in case.name else 0)
    points, places = asked_mixtures(case), asked_places(data)
    asked = [[point.tolist(), place] for place in places for point in points]
    answers = opened(case.found).evaluate(FORECASTS, asked)
    for k in range(len(places)):
        here = answers[k * len(points) : (k + 1) * len(points)]
        python = Python(case, here[0]["counts"])
        for point, found in zip(points, here, strict=True):
            python.check(point, found)


def test_the_recommended_mixture_is_compared_as_the_decision_does(case, opened):
    decision, data = case.study.optimize(), case.found.payload
    engine = "const engine = mixlaw.engine(JSON.parse(data.textContent));"
    found = opened(case.found).evaluate(
        f"(shares) => {{ {engine} const found = engine.forecast(shares, engine.target);"
        "return { half: found.objective.half, value: found.objective.value, "
        "against: found.against }; }",
        data["presets"][0]["shares"],
    )
    assert found["value"] == pytest.approx(decision.forecast.objective.value, rel=1e-9)
    assert found["half"] == pytest.approx(decision.forecast.objective.half_width, rel=1e-6)
    for entry in found["against"][1:]:
        wanted = decision.baselines[entry["name"]]
        assert entry["gain"] == pytest.approx(wanted.gain, abs=1e-9)
        assert entry["chance"] == pytest.approx(wanted.probability_better, abs=1e-6)


def test_presets_keep_the_limits_and_are_best(case):
    question, data = case.question, case.found.payload
    problem = question.guarded(question.problem())
    presets = {p["target"]: np.array(p["shares"]) for p in data["presets"] if p["kind"] == "best"}
    recommended = np.array(data["presets"][0]["shares"])
    values = question.scale().predict(np.vstack([recommended, *presets.values()]))
    for k, (target, point) in enumerate(presets.items()):
        assert problem.keeps(point)
        t = question.fitted.targets.index(target)
        sign = -1 if data["targets"][t]["higher_is_better"] else 1
        assert sign * values[1 + k, t] <= sign * values[0, t] + 1e-6
    assert list(presets) == list(question.fitted.targets)


def test_sliders_hold_the_target_and_what_was_trained(case):
    runs = case.study.runs()
    for axis, slider in case.found.payload["scale"].items():
        if slider is None:
            continue
        values = np.array(slider["values"], float)
        assert np.all(np.diff(values) > 0)
        assert values[slider["target"]] == getattr(case.question, axis)
        counts = getattr(runs, axis)
        assert {v for v, t in zip(values, slider["trained"], strict=True) if t} <= set(counts) | {
            getattr(case.question, axis)
        }
        assert values[0] == counts.min()
        assert values[-1] >= counts.max()


def test_refits_of_an_objective_on_scores_are_left_out(case):
    scores = any(name.startswith("score/") for name in case.question.objective.targets)
    drawn = case.found.payload["draws"]
    assert drawn["count"] == (0 if scores else REFITS)
    assert (drawn["note"] is not None) == scores


def test_multipliers_say_how_the_worst_terms_press(case):
    given = case.found.payload["engine"]["multipliers"]
    assert sum(given) == pytest.approx(1)
    terms = np.array(case.found.payload["engine"]["objective"]["rows"])
    assert given == multipliers(case.question, terms, case.study.config.seed)


MOVES = """(count) => {
  const engine = mixlaw.engine(JSON.parse(data.textContent));
  let state = 12345;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  const wrong = [];
  for (let round = 0; round < count / 20; round++) {
    const size = 2 + Math.floor(random() * 29), all = [...Array(size).keys()];
    let shares = all.map(() => (random() < 0.3 ? 0 : -Math.log(random())));
    if (!shares.some((share) => share > 0)) shares[0] = 1;
    let total = shares.reduce((a, b) => a + b, 0);
    shares = Float64Array.from(shares, (share) => share / total);
    // Most limits hold the first mixture, some do not; some hold no mixture at all.
    const low = shares.map((share) => (random() < 0.5 ? 0 : share * random()));
    const high = shares.map((share) => {
      const kind = random();
      return kind < 0.4 ? 1 : kind < 0.9 ? share + (1 - share) * random() ** 3 : share * random();
    });
    low.forEach((value, i) => (low[i] = Math.min(value, high[i])));
    for (let step = 0; step < 20; step++) {
      const locked = all.map(() => random() < 0.3), j = Math.floor(random() * size);
      const wanted = random() < 0.2 ? Math.round(random()) : random() * 1.4 - 0.2;
      const before = Float64Array.from(shares);
      const after = engine.move(shares, locked, j, wanted, { low, high });
      const say = (what) => wrong.push(JSON.stringify({ what, round, step, j, wanted }));
      if (shares.some((share, i) => !Object.is(share, before[i]))) say("changed its input");
      if (Math.abs(after.reduce((a, b) => a + b, 0) - 1) > 1e-12) say("sum");
      const free = all.filter((i) => i !== j && !locked[i]);
      const atLow = (i) => Math.min(low[i], before[i]);
      const atHigh = (i) => Math.max(high[i], before[i]);
      all.forEach((i) => {
        if ((locked[i] || (locked[j] && i !== j)) && !Object.is(after[i], before[i])) say("lock");
        if (after[i] < atLow(i) - 1e-12 || after[i] > atHigh(i) + 1e-12) say("limit");
      });
      if (!locked[j]) {
        // As near to what is wanted as the others can make up for.
        const room = before[j] + free.reduce((a, i) => a + before[i], 0);
        const least = room - free.reduce((a, i) => a + atHigh(i), 0);
        const most = room - free.reduce((a, i) => a + atLow(i), 0);
        let best = Math.min(high[j], Math.max(low[j], wanted));
        best = Math.min(most, atHigh(j), Math.max(least, atLow(j), best));
        if (Math.abs(after[j] - best) > 1e-12) say("not as near as can be");
        // In proportion, but for those that a limit holds.
        const loose = free.filter((i) => before[i] > 1e-9 &&
          after[i] > atLow(i) + 1e-9 && after[i] < atHigh(i) - 1e-9);
        const ratios = loose.map((i) => after[i] / before[i]);
        if (Math.max(...ratios, 0) - Math.min(...ratios, Infinity) > 1e-6) say("proportion");
        if (free.every((i) => before[i] === 0) && free.length > 1) {
          const given = free.filter((i) => after[i] < atHigh(i) - 1e-9).map((i) => after[i]);
          if (Math.max(...given, 0) - Math.min(...given, Infinity) > 1e-12 &&
              given.every((share, k) => share > low[free[k]])) say("equally");
        }
      }
      shares = after;
    }
  }
  return wrong;
}"""


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    table(SCALES[:1]).write(folder / "runs.csv")
    (folder / "study.yaml").write_text(plain("[m4]", OBJECTIVE), encoding="utf-8")
    return Study(folder)


def test_moves_keep_sum_locks_and_limits(small, opened):
    assert opened(explorer(small, num_draws=0)).evaluate(MOVES, 20_000) == []


def test_nothing_moves_where_nothing_can(small, opened):
    page = opened(explorer(small, num_draws=0))
    shares = [0.1, 0.2, 0.3, 0.4]
    move = """([shares, locked, j]) => Array.from(mixlaw.engine(JSON.parse(data.textContent)).move(
      shares, locked, j, 0.9, { low: [0, 0, 0, 0], high: [1, 1, 1, 1] }))"""
    assert page.evaluate(move, [shares, [False, True, True, True], 0]) == shares
    assert page.evaluate(move, [shares, [True, False, False, False], 0]) == shares
    assert page.evaluate(move, [[1, 0, 0, 0], [False] * 4, 0]) == pytest.approx(
        [0.9] + [0.1 / 3] * 3
    )


def test_epoch_caps_follow_the_tokens_slider(small, opened, tmp_path):
    text = plain("[m4]", OBJECTIVE, "constraints: {max_epochs: 2, upper: {web: 0.4}}\n")
    small.runs().write(tmp_path / "runs.csv")
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    found = explorer(Study(tmp_path), num_draws=0)
    assert isinstance(found, Explorer)
    limits = """(scale) => {
      const found = mixlaw.engine(JSON.parse(data.textContent)).limits(scale);
      return [Array.from(found.low), Array.from(found.high), found.capped];
    }"""
    tokens = found.payload["scale"]["train_tokens"]["values"]
    question, page = question_of(Study(tmp_path)), opened(found)
    for index, count in enumerate(tokens):
        low, high, capped = page.evaluate(limits, {"train_tokens": index})
        lower, upper, allowed = question.constraints.asked(question.ordered(), count)
        assert low == lower.tolist()
        assert high == np.minimum(upper, allowed).tolist()
        assert capped == (allowed < upper).tolist()


def test_data_in_the_page_cannot_end_its_element():
    hostile = ["</script><script>", "<!--", "&lt;", "\u2028\u2029", "\ud800", '"\\', "naïve 数据"]
    text = escaped_json({"names": hostile})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"names": hostile}
    text.encode()  # a file can hold it
    with pytest.raises(ValueError, match="JSON"):
        escaped_json({"loss": float("nan")})


def test_a_law_without_a_page_form_is_told(small, monkeypatch):
    def refuse(*_, **__):
        raise NotPortable("Mystery has no form for a page; fit another law")

    monkeypatch.setattr(payload, "portable", refuse)
    found = explorer(small)
    assert (
        found
        == "this page cannot try other mixtures: Mystery has no form for a page; fit another law"
    )


def test_refits_that_do_not_fit_the_page_are_fewer(small, monkeypatch):
    def with_room(size):
        monkeypatch.setattr("mixlaw.report.explorer.draws.MOST_BYTES", size)
        found = explorer(small, num_draws=200)
        assert isinstance(found, Explorer)
        laws = [found.payload["engine"][part] for part in ("laws", "folds", "draws")]
        return (
            found.payload["draws"],
            found.payload["engine"]["draws"],
            len(escaped_json(laws).encode()),
        )

    drawn, _, taken = with_room(6000)
    assert 20 <= drawn["count"] < 200
    assert drawn["note"] == f"the page has room for {drawn['count']} of the 200 refits asked for"
    assert 5000 < taken < 6500
    drawn, laws, _ = with_room(100)
    assert (drawn["count"], laws) == (0, None)
    assert "say too little" in drawn["note"]
