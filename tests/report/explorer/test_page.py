"""The explorer's page in a real Chromium: from disk, by mouse and keyboard, against Python."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from jinja2 import Environment

from mixlaw.interop import snippets
from mixlaw.report import write_report
from mixlaw.report.explorer.embed import embed
from mixlaw.runs import RunTable
from mixlaw.study import Study
from mixlaw.study.deciding import Scale
from mixlaw.study.exploring import handover_for

pytest.importorskip("matplotlib", reason="the report needs matplotlib")

DOMAINS = ("docs", "code", "wiki")
TARGETS = ("loss/docs", "loss/law", "loss/code")
MANY_SCALES = [(n, d) for n in (1e5, 3e5) for d in (1e7, 3e7)]
ASKED = """\
target: {num_params: 1e6, train_tokens: 1e8}
constraints: {max_epochs: 4}
domains:
  docs: {available_tokens: 2e7}
  code: {available_tokens: 1.5e7}
  wiki: {available_tokens: 5e7}
"""

HOSTILE = (
    "<img src=x onerror=window.broken=1>",
    "</script><script>window.broken=2</script><!--",
    "\"quotes\" 'and' `ticks` ${window.broken=3} {{ 7*7 }} &amp;",
    "למידה right to left",
    "long " + "name" * 48,
    "__proto__",
)


def make_study(folder, domains, targets, scales, law, asked=""):
    """A study of a table in which losses fall with the share of a domain and with scale."""
    rng = np.random.default_rng(0)
    pull = rng.uniform(0.3, 2.0, (len(targets), len(domains)))
    rows = []
    for m, mixture in enumerate(rng.dirichlet(np.ones(len(domains)), 24)):
        for num_params, train_tokens in scales:
            level = 2 + 30 * num_params**-0.3 + 40 * train_tokens**-0.3
            losses = level + 0.5 * np.exp(-pull @ mixture) + rng.normal(0, 0.003, len(targets))
            row = {"run": f"r{len(rows)}", "label": f"m{m}", "seed": 0}
            row |= {"num_params": num_params, "train_tokens": train_tokens}
            row |= {f"weight/{name}": share for name, share in zip(domains, mixture, strict=True)}
            rows.append(row | dict(zip(targets, losses, strict=True)))
    folder.mkdir()
    RunTable.from_rows(rows).write(folder / "runs.csv")
    weights = json.dumps(dict.fromkeys(targets[:2], 1), ensure_ascii=False)
    text = f"table: runs.csv\nobjective: {weights}\nfit: {{laws: [{law}]}}\n{asked}"
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return Study(folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorer") / "my study"
    return make_study(folder, DOMAINS, TARGETS, MANY_SCALES, "effective-sum", ASKED)


@pytest.fixture(scope="module")
def report(study):
    return write_report(study, draws=20)


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory):
    targets = [f"loss/{name}" for name in HOSTILE[:4]]
    folder = tmp_path_factory.mktemp("explorer") / "<b>study & co"
    made = make_study(folder, HOSTILE, targets, [(1e6, 1e8)], "m4")
    return write_report(made, draws=0)


@dataclass
class Explorer:
    """An open report."""

    page: object
    path: Path

    def open(self, hash=""):
        self.page.goto("about:blank")
        self.page.goto(self.path.as_uri() + hash)
        return self.settle()

    def settle(self):
        """After the frame is drawn."""
        frame = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.page.evaluate(frame)
        return self

    def rest(self):
        """After the texts are written that wait for a drag to end."""
        self.page.wait_for_timeout(450)

    def ask(self, script):
        return self.page.evaluate(script)

    @property
    def shares(self):
        return np.array(self.ask("Array.from(mixlaw.explorer.state.shares)"))

    @property
    def fields(self):
        """Shares as shown, in percent."""
        values = self.page.locator("#x-domains input[type=number]")
        return [field.input_value() for field in values.all()]

    @property
    def told(self):
        return self.page.locator("#x-told").inner_text()

    def slider(self, name):
        return self.page.get_by_role("slider", name=f"Share of \u2068{name}\u2069", exact=True)

    def field(self, name):
        return self.page.get_by_label(f"Share of \u2068{name}\u2069 in percent")

    def lock(self, name):
        return self.page.get_by_role("button", name=f"Lock \u2068{name}\u2069")

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()
        self.settle()

    def drag(self, name, share):
        """By mouse, from where the thumb is to a share on the slider's track."""
        slider = self.slider(name)
        slider.scroll_into_view_if_needed()
        box, most = slider.bounding_box(), float(slider.get_attribute("max"))
        parts = np.array([float(slider.input_value()), 100 * share]) / most
        start, end = box["x"] + 8 + parts * (box["width"] - 16)  # half a thumb at either end
        middle = box["y"] + box["height"] / 2
        self.page.mouse.move(start, middle)
        self.page.mouse.down()
        self.page.mouse.move(end, middle, steps=3)
        self.page.mouse.up()
        self.settle()

    def rows(self):
        """Target -> (value, half width) as shown."""
        found = {}
        for row in self.page.locator(".x-target:not(.x-heads)").all():
            label, value = row.locator("bdi").inner_text(), row.locator(".x-value").inner_text()
            found[label] = tuple(float(text) for text in value.replace("±", " ").split())
        return found


@pytest.fixture
def explorer(page, report):
    page.set_viewport_size({"width": 1440, "height": 900})
    return Explorer(page, report).open()


def assert_as_python_says(explorer, study, scale=None):
    """What is shown of the mixture that is set, against the study's own forecast of it."""
    laws, weights = study.forecaster(), explorer.shares[None]
    known = {"available_tokens": np.array([d.available_tokens for d in study.domains()], float)}
    at = (scale or study.scale).counts
    (values,) = laws.predict(weights, *at, **known)
    shown = explorer.rows()
    assert len(shown) == len(TARGETS) == len(values)
    for row, target, value in zip(np.eye(len(TARGETS)), laws.targets, values, strict=True):
        (half,) = laws.half_width(row, weights, *at, level=0.9, **known)
        assert shown[target.partition("/")[2]] == pytest.approx((value, half), abs=5.1e-5)
    said = explorer.page.locator("#x-objective").inner_text()
    objective = np.mean([values[laws.targets.index(target)] for target in TARGETS[:2]])
    assert float(said) == pytest.approx(objective, abs=5.1e-5)


def assert_sums_to_one(explorer):
    assert explorer.shares.sum() == pytest.approx(1, abs=1e-9)
    assert sum(round(100 * float(text)) for text in explorer.fields) == 10000
    assert explorer.page.locator("#x-sum").inner_text() == "100.00"


def test_it_opens_at_the_recommended_mixture(explorer, study):
    decision = study.optimize()
    np.testing.assert_allclose(explorer.shares, decision.recommended.array(DOMAINS), atol=1e-12)
    assert_sums_to_one(explorer)
    assert_as_python_says(explorer, study)
    half = explorer.page.locator("#x-objective-half").inner_text()
    assert half == f"± {decision.forecast.objective.half_width:.4f}"
    compared = explorer.page.locator("#x-against").inner_text()
    assert "same as recommended" in compared
    for name, comparison in decision.baselines.items():
        assert f"{comparison.gain:.4f} lower than {name}" in compared
    assert re.search(r"\d% sure to be lower; lower in \d+ of 20 refits of the law", compared)
    assert explorer.page.locator(".x-heads .x-epochs").is_visible()
    assert (
        explorer.page.get_by_role("button", name="recommended").get_attribute("aria-pressed")
        == "true"
    )


def test_the_one_script_is_named_by_its_digest(report):
    text = report.read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy
    assert not re.search(r"script-src [^;]*unsafe", policy)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\(", text)
    assert not re.search(r"<[^>]+ on[a-z]+=", text.partition("<script")[0])


def test_the_mouse_moves_a_share_and_back(explorer, study):
    before = explorer.shares
    explorer.drag("code", 0.5)
    assert explorer.shares[1] == pytest.approx(0.5, abs=0.01)
    others = explorer.shares[[0, 2]] / before[[0, 2]]
    assert others[0] == pytest.approx(others[1])
    assert_sums_to_one(explorer)
    assert_as_python_says(explorer, study)
    explorer.field("code").fill(str(100 * before[1]))
    explorer.field("code").press("Enter")
    explorer.settle()
    np.testing.assert_allclose(explorer.shares, before, atol=1e-9)


def test_the_keyboard_does_all(explorer, study):
    page = explorer.page
    page.get_by_role("button", name="recommended").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    explorer.settle()
    first = page.evaluate("document.activeElement.textContent")
    shares = next(p["shares"] for p in _payload(explorer)["presets"] if p["name"] == first)
    np.testing.assert_allclose(explorer.shares, shares, atol=1e-12)
    explorer.slider("wiki").focus()
    start = explorer.shares[2]
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    explorer.settle()
    assert explorer.shares[2] == pytest.approx(start + 0.003, abs=0.0006)
    page.keyboard.press("Home")
    explorer.settle()
    assert explorer.shares[2] == 0
    assert_sums_to_one(explorer)
    assert_as_python_says(explorer, study)
    page.keyboard.press("Tab")
    page.keyboard.type("12.5")
    page.keyboard.press("Enter")
    explorer.settle()
    assert explorer.shares[2] == pytest.approx(0.125, abs=1e-12)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    explorer.settle()
    assert explorer.lock("wiki").get_attribute("aria-pressed") == "true"
    assert explorer.slider("wiki").is_disabled()


def test_what_cannot_be_a_share_changes_nothing(explorer):
    before = explorer.shares
    explorer.field("docs").fill("")
    explorer.field("docs").press("Enter")
    explorer.settle()
    np.testing.assert_array_equal(explorer.shares, before)
    assert explorer.fields[0] == f"{100 * before[0]:.2f}"
    explorer.field("docs").fill("1e300")
    explorer.field("docs").press("Enter")
    explorer.settle()
    assert_sums_to_one(explorer)


def test_a_lock_holds(explorer, study):
    explorer.press("uniform")
    explorer.lock("docs").click()
    explorer.drag("code", 0.1)
    assert explorer.shares[0] == 1 / 3
    assert explorer.shares[1] == pytest.approx(0.1, abs=0.01)
    explorer.field("wiki").fill("99")
    explorer.field("wiki").press("Enter")
    explorer.settle()
    assert explorer.shares[0] == 1 / 3
    assert explorer.shares[2] <= 2 / 3 + 1e-12
    assert "wiki" in explorer.told
    assert_sums_to_one(explorer)
    assert_as_python_says(explorer, study)


def test_a_cap_on_epochs_holds_and_moves_with_the_tokens(explorer, study):
    cap = 4 * 1.5e7 / 1e8
    explorer.press("uniform")
    explorer.slider("code").focus()
    explorer.page.keyboard.press("End")
    explorer.settle()
    assert explorer.shares[1] == pytest.approx(cap)
    assert "code" in explorer.told
    row = explorer.page.locator(".x-domain:not(.x-heads)").nth(1)
    assert row.locator(".x-epochs").inner_text() == "4.00 / 4"
    tokens = explorer.page.get_by_role("slider", name="Training tokens")
    tokens.focus()
    explorer.page.keyboard.press("End")
    explorer.settle()
    assert "✗" in row.locator(".x-epochs").inner_text()
    assert "code" in explorer.page.locator("#x-violations").inner_text()
    assert "More training tokens" in explorer.page.locator("#x-beyond").inner_text()


def test_the_scale_sliders_forecast_at_that_scale(explorer, study):
    page, scales = explorer.page, _payload(explorer)["scale"]
    for steps in (1, 2):
        page.get_by_role("slider", name="Parameters").focus()
        page.keyboard.press("ArrowLeft")
        page.get_by_role("slider", name="Training tokens").focus()
        page.keyboard.press("ArrowLeft")
        explorer.settle()
        at = [axis["values"][axis["target"] - steps] for axis in scales.values()]
        assert_as_python_says(explorer, study, Scale(*at))
    page.get_by_role("button", name="Parameters: back to the target").click()
    page.get_by_role("button", name="Training tokens: back to the target").click()
    explorer.settle()
    assert_as_python_says(explorer, study)


def test_presets_set_all_and_free_the_locks(explorer):
    explorer.lock("docs").click()
    for preset in _payload(explorer)["presets"]:
        if preset["kind"] == "best":
            label = preset["target"].partition("/")[2]
            explorer.page.locator("#x-best").select_option(label=f"\u2068{label}\u2069")
            explorer.settle()
        else:
            explorer.press(preset["name"])
        np.testing.assert_array_equal(explorer.shares, preset["shares"])
        assert explorer.lock("docs").get_attribute("aria-pressed") == "false"
        assert_sums_to_one(explorer)


def test_a_link_brings_the_state_to_another_page(explorer, report, browser):
    explorer.press("natural")
    explorer.lock("wiki").click()
    explorer.drag("docs", 0.2)
    explorer.page.get_by_role("slider", name="Parameters").focus()
    explorer.page.keyboard.press("ArrowLeft")
    explorer.page.locator("#x-trainer").select_option(label="\u2068megatron\u2069")
    explorer.rest()
    link = explorer.page.locator("#x-link").input_value()
    assert link == explorer.page.url
    assert len(link.partition("#")[2]) < 100
    context = browser.new_context(offline=True)
    other = Explorer(context.new_page(), report).open("#" + link.partition("#")[2])
    other.rest()
    np.testing.assert_allclose(other.shares, explorer.shares, atol=2e-9)
    assert other.fields == explorer.fields
    assert other.rows() == explorer.rows()
    state = "JSON.stringify([mixlaw.explorer.state.locked, mixlaw.explorer.state.scale])"
    assert other.ask(state) == explorer.ask(state)
    assert other.page.locator("#x-trainer").locator("option:checked").inner_text() == (
        "\u2068megatron\u2069"
    )
    assert other.page.locator("#x-link").input_value() == link
    context.close()


SPOILT = (
    (lambda link: "#mix=", "damaged"),
    (lambda link: "#mix=9" + link[6:], "another version"),
    (lambda link: link[:-12].rpartition("~")[0], "cut short"),
    (lambda link: re.sub(r"(?<=~)[0-9a-z]+", "zzz", link, count=1), "another study"),
    (lambda link: re.sub(r"\.[0-9a-z]+(?=~)", ".1", link, count=1), "damaged"),
    (lambda link: re.sub(r"\.[0-9a-z]+(?=~)", ".-5%", link, count=1), "damaged"),
    (lambda link: link.replace("~1000000~", "~7~"), "no such scale"),
    (lambda link: link.replace("~~", "~99~"), "damaged"),
    (lambda link: link + "~<img src=x onerror=window.broken=1>", "damaged"),
    (lambda link: "#mix=%E0%A4%A" + "~" * 30000, "damaged"),
)


def test_a_bad_link_is_told_and_ignored(explorer):
    link = "#" + explorer.page.locator("#x-link").input_value().partition("#")[2]
    for spoil, says in SPOILT:
        explorer.press("uniform")
        assert explorer.told == ""
        before = explorer.shares
        explorer.ask(f"location.hash = {json.dumps(spoil(link))}")
        explorer.settle()
        assert says in explorer.told
        assert "\n" not in explorer.told.strip()
        np.testing.assert_array_equal(explorer.shares, before)
    explorer.ask(f"location.hash = {json.dumps(link)}")
    explorer.settle()
    assert explorer.told == ""
    assert (
        explorer.page.get_by_role("button", name="recommended").get_attribute("aria-pressed")
        == "true"
    )


def test_a_link_to_a_section_is_no_state(explorer):
    explorer.page.get_by_role("link", name="Facts").click()
    explorer.settle()
    assert explorer.told == ""
    assert explorer.page.url.endswith("#facts")


def test_snippets_are_those_of_python(explorer, study):
    explorer.drag("wiki", 0.27)
    options = explorer.page.locator("#x-trainer option").all_inner_texts()
    mixture = dict(zip(DOMAINS, explorer.shares.tolist(), strict=True))
    assert len(options) > 10
    for option in options:
        name = option.strip("\u2068\u2069")
        explorer.page.locator("#x-trainer").select_option(label=option)
        explorer.press("Copy command")  # writes the texts at once
        known = snippets(handover_for(study, name))[name]
        shown = explorer.page.locator("#x-snippet")
        if isinstance(known, str):
            assert known in explorer.page.locator("#x-notes").text_content()
            assert shown.is_hidden()
        else:
            assert shown.text_content() == known.text(mixture)
        command = explorer.page.locator("#x-command").input_value()
        assert command.startswith(f"mixlaw export 'my study' --to {name} --mixture docs=0.")


def test_random_mixtures_are_rounded_as_python_rounds_them(explorer, study):
    known = snippets(handover_for(study, "megatron"))["megatron"]
    rng = np.random.default_rng(0)
    mixtures = [*rng.dirichlet(np.full(3, 0.2), 200).tolist(), [0.25, 0.25, 0.5], [0, 0, 1]]
    mixtures += [[1e-9, 0.5, 0.5 - 1e-9], [1.0000005e-6, 0.9999989999995, 0.0]]
    given = [dict(zip(DOMAINS, shares, strict=True)) for shares in mixtures]
    made = explorer.page.evaluate(
        """(mixtures) => {
            const data = JSON.parse(document.getElementById("explorer-data").textContent);
            const trainer = data.trainers.find((one) => one.name === "megatron");
            return mixtures.map((mixture) => mixlaw.snippet(trainer, mixture));
        }""",
        given,
    )
    assert made == [known.text(mixture) for mixture in given]


def test_without_a_clipboard_the_text_is_selected(page, report):
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    explorer = Explorer(page, report).open()
    explorer.press("Copy weights")
    assert page.evaluate("String(getSelection())").strip() == (
        page.locator("#x-snippet").inner_text().strip()
    )
    assert "Selected" in explorer.told
    explorer.press("Copy link")
    start, end = page.evaluate(
        "[document.activeElement.selectionStart, document.activeElement.selectionEnd]"
    )
    assert page.locator("#x-link").input_value()[start:end] == page.url


def test_the_copy_buttons_copy(browser, report):
    context = browser.new_context(offline=True, permissions=["clipboard-read", "clipboard-write"])
    explorer = Explorer(context.new_page(), report).open()
    explorer.press("Copy command")
    copied = explorer.page.evaluate("navigator.clipboard.readText()")
    assert copied == explorer.page.locator("#x-command").input_value()
    assert explorer.told == "Copied."
    context.close()


def test_what_changed_is_spoken_once_it_rests(explorer):
    heard = explorer.page.locator("#x-heard")
    assert heard.get_attribute("aria-live") == "polite"
    assert heard.text_content() == ""
    explorer.press("uniform")
    explorer.rest()
    assert explorer.page.locator("#x-objective").inner_text() in heard.text_content()
    assert "same as uniform" in heard.text_content()


def test_everything_has_a_name(explorer):
    unnamed = explorer.page.locator(
        "#explorer :is(button, input, select, [role=region], [role=table])"
    ).evaluate_all(
        """(all) => all.filter((one) => one.checkVisibility()).filter((one) => {
            const label = one.labels?.length ? one.labels[0].textContent : "";
            return !(one.getAttribute("aria-label") || label || one.textContent).trim();
        }).map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    ids = explorer.page.locator("[id]").evaluate_all("(all) => all.map((one) => one.id)")
    assert len(ids) == len(set(ids))


def test_it_fits_and_follows_the_scheme(explorer, tmp_path):
    page, papers = explorer.page, set()
    explorer.press("natural")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for width in (1440, 760, 390):
            page.set_viewport_size({"width": width, "height": 900})
            explorer.settle()
            assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
            cut = page.locator("#explorer :is(.x-value, .x-change, .x-epochs, button)")
            assert (
                cut.evaluate_all(
                    "(all) => all.filter((one) => one.scrollWidth > one.clientWidth + 1)"
                    ".map((one) => one.textContent)"
                )
                == []
            )
            page.locator("#explorer").screenshot(path=tmp_path / f"{scheme}-{width}.png")
    assert len(papers) == 2


def test_a_phone_hides_no_comparison_and_shows_where_to_scroll(explorer):
    page = explorer.page
    page.set_viewport_size({"width": 390, "height": 844})
    explorer.press("natural")
    assert page.evaluate("getComputedStyle(document.querySelector('.x-now')).position") == "sticky"
    page.evaluate("""() => {
        const list = document.getElementById("x-against");
        for (let k = 0; k < 8; k++) list.append(list.lastElementChild.cloneNode(true));
    }""")
    inside = "(one) => one.scrollHeight <= one.clientHeight"
    assert page.locator("#x-against").evaluate(inside)
    assert page.evaluate("getComputedStyle(document.querySelector('.x-now')).position") == "static"
    shades = page.locator(".drawing, .sheet").evaluate_all(
        "(all) => all.map((one) => getComputedStyle(one).backgroundImage)"
    )
    assert all(shade.count("linear-gradient") == 4 for shade in shades)


def test_names_run_nothing(page, hostile_report):
    page.set_viewport_size({"width": 390, "height": 844})
    explorer = Explorer(page, hostile_report).open()
    rows = page.locator(".x-domain:not(.x-heads) bdi")
    assert rows.all_text_contents() == list(HOSTILE)
    shown = page.locator(".x-target:not(.x-heads) bdi").all_text_contents()
    assert HOSTILE[0] in shown
    explorer.press("uniform")
    explorer.slider(HOSTILE[1]).focus()
    page.keyboard.press("PageUp")
    explorer.settle()
    assert_sums_to_one(explorer)
    for option in page.locator("#x-trainer option").all_inner_texts():
        page.locator("#x-trainer").select_option(label=option)
        explorer.press("Copy command")
    assert page.locator(".x-epochs:visible").count() == 0  # nobody knows how much text there is
    explorer.open("#" + page.url.partition("#")[2])
    assert explorer.shares[1] > 1 / len(HOSTILE)
    assert page.evaluate("window.broken") is None
    assert page.locator("#explorer :is(img, script)").count() == 0
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert page.locator("#x-command").input_value().startswith("none: ")


def test_without_scripts_it_says_so(browser, report):
    context = browser.new_context(offline=True, java_script_enabled=False)
    bare = context.new_page()
    bare.goto(report.as_uri())
    assert bare.get_by_text("The sliders need JavaScript").is_visible()
    assert bare.locator("#x").is_hidden()
    context.close()


def test_print_keeps_the_state(explorer):
    explorer.press("uniform")
    explorer.page.emulate_media(media="print")
    for hidden in (".x-presets", ".x-scale input", ".x-slide", ".x-lock", ".x-out"):
        assert explorer.page.locator(hidden).first.is_hidden()
    assert explorer.field("docs").is_visible()
    assert explorer.page.locator("output").first.inner_text() == "1,000,000"
    assert explorer.page.locator("#x-objective").is_visible()
    adjust = "(one) => getComputedStyle(one).getPropertyValue('print-color-adjust')"
    for mark in (".x-dot", ".x-bar", ".x-swatch-dot"):
        assert explorer.page.locator(mark).first.evaluate(adjust) == "exact"


def test_a_law_without_a_page_form_is_told_and_runs_nothing():
    part = embed("this page cannot try <b>: 'x'", Environment(autoescape=True))
    assert "This page cannot try &lt;b&gt;: &#39;x&#39;." in part.section
    assert "template" not in part.section
    assert (part.script, part.data, part.style, part.policy) == ("", "", "", "'none'")


def _payload(explorer):
    return json.loads(explorer.page.locator("#explorer-data").text_content())
