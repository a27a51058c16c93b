"""The report of a study that continues a model: alone, and beside a decided mixture."""

from __future__ import annotations

import re
from html import unescape

import pytest

from mixlaw.errors import StudyError
from mixlaw.report import write_report
from mixlaw.report.continual_sections import headline
from mixlaw.report.continual_words import range_words
from mixlaw.report.page import render
from mixlaw.runs import RunTable
from mixlaw.study import Study
from tests.report.test_report import Reader
from tests.study.continued import continued_rows

HOSTILE = "<script>alert(1)</script>"


def make_study(folder, *, more="", names=None, rows=None):
    """A study of the made-up continued runs; `names` replaces domain names."""
    names = names or {}

    def renamed(key):
        for old, new in names.items():
            key = key.replace(f"/{old}", f"/{new}")
        return key

    rows = [{renamed(key): cell for key, cell in row.items()} for row in rows or continued_rows()]
    RunTable.from_rows(rows).write(folder / "runs.csv")
    new = names.get("code", "code")
    text = (
        f'table: runs.csv\nobjective: {{loss/web: 1, "loss/{new}": 1}}\n'
        f'continual:\n  new: ["{new}"]\n{more}'
    )
    (folder / "study.yaml").write_text(text)
    return Study(folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    made = make_study(tmp_path_factory.mktemp("study"), rows=continued_rows(horizons=2))
    made.continual()
    return made


def test_the_page_is_about_continuing_and_whole(study):
    page = write_report(study).read_text(encoding="utf-8")
    read = Reader(page)
    assert read.open == []
    assert len(read.ids) == len(set(read.ids))
    assert all(link.startswith("#") for link in read.loads)
    page = unescape(page)
    critical = study.continual().main.critical
    assert 0.01 < critical.low < critical.share
    sure, share = f"{int(100 * critical.low)}% code", f"{100 * critical.share:.0f}%"
    assert f"<h1>Continue on up to {sure}, or {share} by the forecast alone</h1>" in page
    assert "Keep at least" in page
    assert 'id="continual"' in page
    assert 'id="continual-laws"' in page
    for target in ("loss/web", "loss/books", "loss/code"):
        assert f"{target} against the share of new data" in page
    assert "Critical share with its interval against training tokens." in page
    assert 'id="mixture"' not in page
    assert study.status()["next"] is None
    assert render(study) == render(study)


def test_before_the_answer_the_report_says_what_is_first(tmp_path):
    study = make_study(tmp_path)
    with pytest.raises(StudyError, match="first: mixlaw continual"):
        render(study)


def test_one_horizon_has_no_picture_of_how_it_moves(tmp_path):
    study = make_study(tmp_path)
    study.continual()
    page = render(study)
    assert Reader(page).open == []
    assert "against training tokens" not in page


def test_names_are_text(tmp_path):
    study = make_study(tmp_path, names={"code": HOSTILE.replace("/", "")})
    study.continual()
    page = render(study)
    assert "script" not in Reader(page).tags
    assert "alert(1)" in page


@pytest.mark.parametrize(
    ("more", "shift", "mood", "verdict"),
    [
        ("", 0.0, "good", "known within"),
        ("", -0.3, "bad", "Even replay alone"),
        ("  tolerance: 9\n", 0.0, "unclear", "No trained share is forecast to lose any"),
    ],
)
def test_the_verdict_follows_the_interval(tmp_path, more, shift, mood, verdict):
    rows = continued_rows()
    for row in rows:
        row |= {key: row[key] + shift for key in row if key.startswith("start/")}
    head = headline(make_study(tmp_path, more=more, rows=rows).continual())
    assert (head.mood, verdict in head.verdict) == (mood, True)
    assert head.verb == "Continue on"


def test_a_guess_is_marked_wherever_it_is_said(tmp_path):
    head = headline(make_study(tmp_path, more="  tolerance: 9\n").continual())
    assert head.mixture == "up to 100% code (guess)"
    assert [tile.number for tile in head.tiles[:2]] == ["100% (guess)", "0% (guess)"]
    assert "a guess beyond the trained shares" in head.sentences[0]


def test_replay_that_loses_within_the_noise_is_unclear(tmp_path):
    rows = continued_rows(noise=0.03)
    for row in rows:
        row["start/loss/web"] -= 0.1
    found = make_study(tmp_path, rows=rows).continual()
    assert found.main.critical.end == "replay"
    head = headline(found)
    assert (head.mood, "may lose" in head.verdict) == ("unclear", True)


def test_ranges_are_rounded_outwards():
    assert range_words(0.2399, 0.3001) == "23% to 31%"
    assert range_words(0.0, 1.0) == "0% to 100%"
    assert range_words(0.3, 0.7) == "30% to 70%"
    assert range_words(0.0459, 0.00123) == "4.5% to 0.13%"


def test_what_was_trained_is_in_a_table(study):
    page = unescape(render(study))
    rows = continued_rows(horizons=2)
    last = [r["loss/web"] for r in rows if r["train_tokens"] == 4e6 and r["weight/code"] == 0.25]
    mean = sum(last) / len(last)
    assert re.search(rf">25%</th>\s*<td>{mean:.4f} \(", page)


def test_beside_a_decided_mixture_it_is_a_section(trained_study):
    file = trained_study / "study.yaml"
    section = "continual: {new: [digits], shares: [0, 0.2, 0.5, 1], horizon_steps: [10]"
    file.write_text(f"{file.read_text()}{section}, sizes: [3k]}}\n")
    before = unescape(render(Study(trained_study)))
    assert 'id="continual"' not in before
    Study(trained_study).continual()
    page = unescape(render(Study(trained_study)))
    assert Reader(page).open == []
    assert page.index('id="mixture"') < page.index('id="continual"') < page.index('id="runs"')
    assert "<h1>The runs cannot tell yet; the best guess is" in page
    assert "Continuing on digits" in page
