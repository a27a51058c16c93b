"""The report of small studies from a table: what it says, that it is safe, and self-contained."""

import itertools
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mixlaw import plots
from mixlaw.errors import MissingExtraError
from mixlaw.files import digest, sealed, write_json
from mixlaw.plots.evidence import Noise, centred, swarm_at_largest_scale
from mixlaw.plots.marks import forecasts_of
from mixlaw.report import write_report
from mixlaw.report.page import render
from mixlaw.report.svg import inline_svg
from mixlaw.report.verdict import headline
from mixlaw.report.words import percent, plain, short_count
from mixlaw.runs import RunTable
from mixlaw.study import Study
from mixlaw.study.verification import Gain, Verification, Verified

HOSTILE = ("<script>alert(1)</script>", "$x_1$ \"a\" & 'b'", "прямой 日本 {{ 7*7 }}")


def make_table(path: Path, domains, targets, scales, mixtures, seed=0):
    """A swarm whose losses fall with the share of a domain and with scale."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(len(domains)), mixtures)
    pull = rng.uniform(0.3, 2.0, (len(targets), len(domains)))
    rows = []
    for m, mixture in enumerate(weights):
        for num_params, train_tokens in scales:
            level = 2 + 30 * num_params**-0.3 + 40 * train_tokens**-0.3
            for k in range(2 if m == 0 else 1):
                row = {"run": f"r{m}-{num_params}-{k}", "label": f"m{m}", "seed": k}
                row |= {"num_params": num_params, "train_tokens": train_tokens}
                row |= {f"weight/{d}": w for d, w in zip(domains, mixture, strict=True)}
                losses = level + 0.5 * np.exp(-pull @ mixture) + rng.normal(0, 0.003, len(targets))
                row |= dict(zip(targets, losses, strict=True))
                rows.append(row)
    RunTable.from_rows(rows).write(path)


def make_study(folder, domains, targets, scales, *, laws=("m4", "log-linear"), more=""):
    folder.mkdir()
    mixtures = max(14, 2 * len(domains))
    make_table(folder / "runs.csv", domains, targets, scales, mixtures)
    weights = json.dumps(dict.fromkeys(targets[:2], 1), ensure_ascii=False)
    text = f"table: runs.csv\nobjective: {weights}\nfit: {{laws: {list(laws)}}}\n{more}"
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return Study(folder)


ONE_SCALE = [(1e6, 1e8)]
MANY_SCALES = [(n, d) for n in (1e5, 3e5, 1e6) for d in (1e7, 3e7, 1e8)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "study"
    return make_study(folder, ("web", "code", "wiki"), ("loss/web", "loss/law"), ONE_SCALE)


@pytest.fixture(scope="module")
def page(study):
    return write_report(study, draws=0).read_text(encoding="utf-8")


def fabricate(study, shift=-0.001, gain=0.05, seeds=2):
    """A verification in which the recommended mixture is `gain` better than each baseline."""
    decision = study.optimize()
    mixtures, recommended = {}, decision.forecast.objective.value + shift
    for name, forecast in forecasts_of(decision).items():
        value = recommended + (0 if name == "recommended" else gain)
        mixtures[name] = Verified(
            predicted=forecast.objective,
            observed=tuple(value + 0.001 * k for k in range(seeds)),
            targets={t: (found, found.value + shift) for t, found in forecast.targets.items()},
            curve=((5e7, value + 0.2), (1e8, value)),
        )
    gains = {
        name: Gain(comparison.gain, (gain,) * seeds, 0.8 if gain > 0 else None, False)
        for name, comparison in decision.baselines.items()
    }
    return Verification(mixtures, gains, ("natural (seed 3)",))


class Reader(HTMLParser):
    """Collects tags, ids and the attributes that could load something."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.loads, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for key, value in attrs:
            assert not key.startswith("on"), f"event handler {key} in {tag}"
            if key == "id":
                self.ids.append(value)
            if key.rpartition(":")[2] in ("src", "href", "srcset", "action", "data"):
                self.loads.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} is not the innermost open tag"


def without_scripts(page):
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_the_page_is_well_formed_and_loads_nothing(page):
    found = Reader(page)
    assert found.open == []
    assert not {"link", "iframe", "img", "object", "embed", "base"} & set(found.tags)
    assert found.tags.count("script") <= 2  # the explorer and what it reads
    page = without_scripts(page)
    assert found.loads
    assert all(value.startswith("#") for value in found.loads)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert len(found.ids) == len(set(found.ids))
    assert {value[1:] for value in found.loads} <= set(found.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(found.ids)


def test_the_page_states_the_recommended_shares(study, page):
    recommended = study.optimize().recommended
    for name, share in recommended.items():
        assert re.search(rf">{name}</th>\s*<td>{share:.2%}</td>", page)
        assert f"{percent(share)} {name}" in page
    exact = re.search(r"<pre>(\{.*?\})</pre>", page, re.DOTALL)
    assert exact
    assert json.loads(unescape(exact[1])) == dict(recommended)


def test_the_same_study_gives_the_same_bytes(study, page):
    assert render(Study(study.folder), draws=0) == page


def test_pictures_have_a_sentence_and_a_label(page):
    pictures = page.count('<figure class="picture">')
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert pictures == len(captions) >= 4
    assert all(len(caption) > 20 for caption in captions)
    svgs = re.findall(r'<svg (?!class="swatch")[^>]*>', without_scripts(page))
    svgs = [svg for svg in svgs if 'aria-hidden="true"' not in svg]
    assert all('role="img"' in svg and 'aria-label="' in svg for svg in svgs)
    assert page.count("<table>") == page.count("<caption>")


def test_headings_begin_at_one_and_skip_no_level(page):
    levels = [int(level) for level in re.findall(r"<h([1-6])", without_scripts(page))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_what_can_be_reached_by_tab_has_a_name(page):
    reached = re.findall(r"<[a-z]+[^>]*tabindex[^>]*>", without_scripts(page))
    assert reached
    assert all("aria-label" in tag for tag in reached)


def test_the_page_says_what_to_do_next_before_the_evidence(page):
    assert page.index("<h2>Next</h2>") < page.index('id="mixture"')
    assert "mixlaw export" in page


def test_versions_and_what_went_in_are_told(study, page):
    assert np.__version__ in page
    assert digest(study.runs().static().done().rows()) in page


def test_no_others_are_spoken_of_where_there_are_none(page):
    assert "the others as bad" not in page


def test_a_study_from_a_table_has_neither_domains_nor_verification(page):
    assert 'id="verification"' not in page
    assert 'id="domains"' not in page
    assert "A forecast: this mixture is not verified yet" in page


def test_an_answer_of_an_earlier_state_is_not_dropped_without_a_word(study):
    stale = study.folder / "schedule.json"
    assert "earlier state" not in render(study, draws=0)
    write_json(stale, sealed({"mixlaw": "0.0.1", "inputs": "", "basis": {}, "result": {}}))
    try:
        page = render(study, draws=0)
    finally:
        stale.unlink()
    assert "schedule.json is of an earlier state" in page
    assert "renew it: mixlaw schedule" in page


def test_hostile_names_stay_text(tmp_path):
    targets = tuple(f"loss/{name}" for name in HOSTILE)
    study = make_study(tmp_path / "s<blink>", HOSTILE, targets, ONE_SCALE)
    page = write_report(study, draws=0).read_text(encoding="utf-8")
    found = Reader(page)
    assert found.tags.count("script") <= 2
    assert "blink" not in found.tags
    page = without_scripts(page)
    assert "alert(1)" in page
    assert "$x_1$" in page
    assert "{{ 7*7 }}" in page


@pytest.mark.parametrize(("laws", "scales"), [(("scaling",), MANY_SCALES), (("m1",), ONE_SCALE)])
def test_two_domains_and_one_target(tmp_path, laws, scales):
    more = "target: {num_params: 3000000, train_tokens: 300000000}"
    study = make_study(tmp_path / "s", ("a", "b"), ("loss/a",), scales, laws=laws, more=more)
    page = write_report(study, draws=0).read_text(encoding="utf-8")
    assert ('id="curves"' in page) == (len(scales) > 1)
    assert Reader(page).open == []


def test_the_worst_of_several_targets_is_drawn_and_told(tmp_path):
    targets = ("loss/web", "loss/law")
    study = make_study(tmp_path / "s", ("web", "code", "wiki"), targets, ONE_SCALE, laws=("m4",))
    file = study.folder / "study.yaml"
    text = file.read_text(encoding="utf-8")
    worst = "objective: {weights: {loss/web: 1, loss/law: 1}, over: worst}"
    file.write_text(text.replace(text.splitlines()[1], worst), encoding="utf-8")
    page = render(Study(study.folder), draws=0)
    assert "the worst loss of web and law" in page
    assert 'id="effects"' in page


def test_thirty_domains_and_sixty_targets_fit_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr("mixlaw.report.page.explorer", lambda study, num_draws: "not drawn here")
    domains = tuple(f"domain{i:02d}" for i in range(30))
    targets = tuple(f"bpb/target{i:02d}" for i in range(60))
    study = make_study(tmp_path / "s", domains, targets, ONE_SCALE, laws=("log-ridge",))
    path = write_report(study, draws=0)
    page = path.read_text(encoding="utf-8")
    svgs = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    assert sum(map(len, svgs)) < 700_000
    assert "48 more targets in the table only" in page
    assert "target59" in page


def test_a_verification_is_told(study, monkeypatch):
    verification = fabricate(study)
    noise = Noise(0.004, (1e6, 1e8), True)
    found = headline(study.optimize(), verification, noise)
    assert found.mood == "good"
    assert found.verdict.startswith("Confirmed")
    monkeypatch.setattr(Study, "verification", lambda self: verification)
    page = render(study, draws=0)
    assert 'id="verification"' in page
    assert f"{verification.mixtures['recommended'].mean:.4f}" in page
    assert "natural (seed 3)" in page


@pytest.mark.parametrize(
    ("changes", "noise", "mood", "word"),
    [
        ({"gain": -0.02}, 0.004, "bad", "Not confirmed"),
        ({"gain": 0.004}, 0.004, "unclear", "within seed noise"),
        ({"gain": 0.05}, None, "unclear", "unknown"),
        ({"gain": 0.05, "seeds": 1}, 0.004, "unclear", "one seed"),
        ({"gain": 0.05, "shift": 5.0}, 0.004, "unclear", "level"),
    ],
)
def test_bad_news_is_told_as_it_is(study, changes, noise, mood, word):
    known = None if noise is None else Noise(noise, (1e6, 1e8), True)
    found = headline(study.optimize(), fabricate(study, **changes), known)
    assert found.mood == mood
    assert word in found.verdict
    if changes["gain"] < 0:
        assert "HIGHER than" in found.sentences[1]
    if changes.get("shift", 0) > 1:
        assert "OUTSIDE" in found.sentences[1]


def test_without_matplotlib_the_error_names_the_extra(study, no_matplotlib):
    with pytest.raises(MissingExtraError, match=r"mixlaw\[report\]"):
        render(study, draws=0)


def test_the_swarm_is_sorted_and_complete(study):
    swarm = swarm_at_largest_scale(study.runs(), study.objective)
    assert len(swarm.labels) == 14
    assert (np.diff(swarm.means) >= 0).all()
    assert sorted(len(values) for values in swarm.scores)[-1] == 2


def test_centred_points_keep_the_error(study):
    validation = study.fit().cross_validation
    law = study.fit().law
    found = centred(validation, law, "mixture", "loss/law")
    residual = validation.residuals(law, "mixture")[:, 1]
    np.testing.assert_allclose(found.predicted - found.observed, residual)
    assert abs(found.observed.mean()) < 1e-9


def test_figures_are_plain_matplotlib(study):
    from matplotlib.figure import Figure

    figure = plots.mixture(study.optimize())
    assert isinstance(figure, Figure)
    text = inline_svg(figure, name="one", label='say "hi" <b>')
    assert 'aria-label="say &quot;hi&quot; &lt;b&gt;"' in text
    assert "http" not in text
    assert "var(--recommended)" in text


def test_words():
    assert [short_count(v) for v in (999, 147456, 999_999, 2e9)] == ["999", "147k", "1M", "2B"]
    assert [percent(v) for v in (0.7525, 0.031, 0.0042, 0.0)] == ["75%", "3.1%", "0.42%", "0%"]
    assert plain("a\u202eb\n\x00c") == "a b  c"


def test_what_speaks_against_the_fit_is_in_the_report(tmp_path):
    domains = ("web", "code", HOSTILE[0])
    made = make_study(tmp_path / "study", domains, ("loss/web", "loss/law"), ONE_SCALE)
    table = RunTable.read(tmp_path / "study" / "runs.csv")
    rows = []
    for row in table.rows():
        given = {f"weight/{d}": row[f"weight/{d}"] for d in domains}
        total = given["weight/web"] + given["weight/code"]
        shares = {k: 0.0 if HOSTILE[0] in k else share / total for k, share in given.items()}
        rows.append(row | shares)
    RunTable.from_rows(rows).write(tmp_path / "study" / "runs.csv")
    html = render(made, draws=0)
    assert {"absent domain"} <= {found.kind for found in made.diagnose()}
    for found in made.diagnose():
        assert f"{found.kind.capitalize()}: {plain(found.text)}." in unescape(html)
    assert HOSTILE[0] not in html


def add_score(folder):
    """A score that follows loss/web."""
    table = RunTable.read(folder / "runs.csv")
    rows = [row | {"score/quiz": 0.2 + 0.6 / (1 + np.exp(row["loss/web"]))} for row in table.rows()]
    RunTable.from_rows(rows).write(folder / "runs.csv")


@pytest.mark.parametrize(
    ("objective", "unit"),
    [
        ("{score/quiz: 1}", "minus the score"),
        (
            "{weights: {score/quiz: 1, loss/law: 1}, relative_to: uniform, "
            "floors: {score/quiz: {than: uniform, slack: 0.01}}}",
            "relative change from uniform",
        ),
    ],
)
def test_an_objective_on_scores_is_drawn_and_told(tmp_path, objective, unit):
    targets = ("loss/web", "loss/law")
    study = make_study(tmp_path / "s", ("web", "code", "wiki"), targets, ONE_SCALE, laws=("m4",))
    add_score(study.folder)
    file = study.folder / "study.yaml"
    old = file.read_text(encoding="utf-8").splitlines()[1]
    file.write_text(file.read_text(encoding="utf-8").replace(old, f"objective: {objective}"))
    page = unescape(render(Study(study.folder), draws=0))
    assert Reader(page).open == []
    assert f"({unit}, lower is better)" in page
    assert "Predicted against observed for score/quiz, held out." in page
    best = max(row["score/quiz"] for row in RunTable.read(study.folder / "runs.csv").rows())
    assert re.search(rf">score/quiz</th>\s*<td>{best:.4f}</td>", page)


def test_regret_and_how_the_mixture_was_chosen_are_told(tmp_path):
    more = "optimize: {robust: 0.9, draws: 4}\nconstraints: {granularity: 10}\n"
    targets = ("loss/web", "loss/law")
    made = make_study(
        tmp_path / "s", ("web", "code", "wiki"), targets, ONE_SCALE, laws=("m4",), more=more
    )
    page, decision = unescape(render(made, draws=0)), made.optimize()
    regret, robust, distance = decision.regret, decision.robust, decision.distance
    assert regret
    assert robust
    assert distance
    assert f"is expected to be {regret.expected:.2g} from the best allowed mixture" in page
    assert "Expected regret" in page
    told = f"quantile of 4 refits to resampled mixtures, which is {robust.value:.4f} here"
    assert f"Chosen for the 90% {told}" in page
    assert f"raises the objective by {decision.rounding_cost:.2g}" in page
    assert "Each share is kept within the trained range" in page
    assert f"{distance.nearest:.2f} from the nearest trained one (Hellinger" in page
