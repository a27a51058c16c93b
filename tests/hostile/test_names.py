"""Names that attack, through all that a study does. No room of the source has this to itself: a
name goes from a table through the laws, the report and the exports, and comes back."""

import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import MixlawError, RunTableError, StudyError
from mixlaw.interop.exporters import EXPORTERS, exporter
from mixlaw.mixture import Mixture
from mixlaw.names import fault
from mixlaw.report import write_report
from mixlaw.runs import RunTable
from mixlaw.study import Study
from mixlaw.study.export_config import PathsConfig
from mixlaw.study.importing import Request, import_again, import_into

NAMES = (
    "<script>pwned(1)</script>",
    "</script><script>pwned(2)</script><!--",
    '"><img src=x onerror=pwned(3)>',
    "javascript:pwned(4)",
    "{{7*7}}${7*7}{% raw %}",
    "$(touch pwned)",
    "; touch pwned #",
    "`touch pwned`",
    "../../pwned",
    "/tmp/pwned",
    "=HYPERLINK(1+1)",
    '!!python/object/apply:os.system ["touch pwned"]',
    "n" * 300,
    "🦊🔥",
    "שלום",
    "__proto__",
    "constructor",
    "toString",
    "NaN",
    "null",
    "yes",
    "1.0",
    "$x_1$ \\frac{",
    "%s {0} {domain} &amp; a,b 'c' \"d\" e|f",
    "[red]a: b[/red]",
    "..",
)
"""Text wherever they are written; each is a domain, a target, a run, a label and a baseline."""

REFUSED = {
    "a\nobjective: {}": "control character",
    "a\rb": "control character",
    "a\tb": "control character",
    "a\0b": "control character",
    "\x1b[31mred\x1b[0m": "control character",
    "\x1b]0;title\x07": "control character",
    "a\x85b": "control character",
    "a\u2028b": "line break",
    "photo_\u202egpj.exe": "invisible",
    "a\u200bb": "invisible",
    "\ufeffa": "invisible",
    "a\ud800b": "surrogate",
}


def rows(names, count=64):
    """Of runs whose losses fall with the share of a domain each."""
    rng = np.random.default_rng(0)
    made = []
    for i, shares in enumerate(rng.dirichlet(np.ones(len(names)), count)):
        row = {f"weight/{name}": float(share) for name, share in zip(names, shares, strict=True)}
        row |= {f"loss/{names[j]}": 3 - shares[j] ** 0.5 for j in range(min(4, len(names)))}
        row |= {"run": f"{names[i % len(names)]}{i}", "label": f"{names[i % len(names)]}{i}"}
        made.append(row | {"num_params": 1000, "train_tokens": 1_000_000})
    return made


def write_study(folder: Path, names) -> Path:
    folder.mkdir()
    RunTable.from_rows(rows(names)).write(folder / "runs.csv")
    told = {
        "table": "runs.csv",
        "domains": {name: {"available_tokens": 10**6} for name in names},
        "objective": {"weights": {names[0]: 1.0}, "families": {names[0]: [f"loss/{names[0]}"]}},
        "tradeoffs": {name: {f"loss/{names[1]}": 1} for name in names[:2]},
        "baselines": {name: dict.fromkeys(names, 1 / len(names)) for name in names[:3]},
        "constraints": {"groups": {names[0]: {"domains": list(names[:2]), "upper": 0.9}}},
        "target": {"num_params": 2000, "train_tokens": 1_000_000},
        "fit": {"laws": ["m1"]},
    }
    text = yaml.safe_dump(told, allow_unicode=True, sort_keys=False)
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def inside(tmp_path_factory):
    """A folder to be in, with nothing but what tests put there: where `touch` would write."""
    folder = tmp_path_factory.mktemp("hostile") / "outer" / "inner"
    folder.mkdir(parents=True)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
    found = [path.name for path in folder.parent.parent.rglob("pwned*")]
    assert found == []
    assert not Path("/tmp/pwned").exists()


@pytest.fixture(scope="module")
def study(inside):
    return Study(write_study(inside / "$(touch pwned) <b>'study'", NAMES))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_keep_names(kind, inside):
    table = RunTable.from_rows(rows(NAMES))
    table.write(inside / f"kept.{kind}")
    back = RunTable.read(inside / f"kept.{kind}")
    assert (back.domains, back.targets) == (table.domains, table.targets)
    assert back.run.tolist() == table.run.tolist()
    assert back.label.tolist() == table.label.tolist()
    np.testing.assert_allclose(back.weights, table.weights, rtol=1e-12)


def test_laws_and_decisions_keep_names(study):
    decision = study.optimize()
    assert tuple(decision.recommended) == NAMES
    assert set(NAMES[:3]) <= set(study.baselines())
    forecast = study.predict([decision.recommended])
    assert len(forecast) == 1
    again = Study(study.folder).optimize()  # as read back from its files
    assert dict(again.recommended) == dict(decision.recommended)
    word = shlex.quote(str(study.folder))
    assert study.status()["export"] == f"mixlaw export {word} --to TRAINER"


@pytest.fixture(scope="module")
def report(study):
    pytest.importorskip("matplotlib", reason="the report needs matplotlib")
    return write_report(study, draws=0)


def test_the_report_shows_names_and_runs_none(page, report):
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.expose_function("pwned", lambda number: dialogs.append(number))
    page.goto(report.as_uri())
    shown = page.locator(".x-domain:not(.x-heads) bdi").all_text_contents()
    assert shown == list(NAMES)
    text = page.inner_text("body")
    for name in (*NAMES[:4], "__proto__", "🦊🔥"):
        assert name in text
    assert page.locator("img, iframe, object, embed, base, form[action]").count() == 0
    assert page.locator("script:not([type='application/json'])").count() == 1
    for link in page.locator("a[href]").all():
        assert link.get_attribute("href").startswith("#")
    for name in ("__proto__", "constructor", NAMES[0]):
        k = NAMES.index(name)
        before = page.evaluate("Array.from(mixlaw.explorer.state.shares)")
        slider = page.locator("#x-domains input[type=range]").nth(k)
        slider.focus()
        page.keyboard.press("PageUp")
        page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        after = page.evaluate("Array.from(mixlaw.explorer.state.shares)")
        assert after[k] > before[k], name
        assert sum(after) == pytest.approx(1)
    for option in page.locator("#x-trainer option").all_inner_texts():
        page.locator("#x-trainer").select_option(label=option)
    page.goto(report.as_uri() + "#" + page.url.partition("#")[2])
    assert page.evaluate("({}).polluted === undefined && typeof ({}).toString === 'function'")
    assert dialogs == []


@pytest.mark.parametrize("trainer", EXPORTERS)
def test_exports_keep_names_or_say_why_not(trainer, study):
    paths = {name: [f"{study.folder}/{k:02d}/{name}"] for k, name in enumerate(NAMES)}
    settings = study.config.export.model_copy(
        update={
            "paths": PathsConfig(by_domain=paths),
            "sequence_length": 128,
            "batch_sequences": 8,
            "mean_document_tokens": dict.fromkeys(NAMES, 100.0),
        }
    )
    made, refused = None, ""
    try:
        made = study.export(trainer, settings=settings)
    except MixlawError as error:
        refused = str(error)
    if made is None:
        assert "\n" not in refused
        assert "\x1b" not in refused
        return
    for name in made.exported.files:
        file = (made.folder / name).resolve()
        assert file.is_relative_to(study.folder.resolve())
    first = made.folder / next(iter(made.exported.files))
    wanted = made.exported.realised.dose
    back = exporter(trainer).read(first, list(NAMES)).dose
    for name in NAMES:
        assert back.get(name, 0) == pytest.approx(wanted.get(name, 0), abs=0.02)


def test_an_import_takes_names_twice(inside):
    RunTable.from_rows(rows(NAMES)).write(inside / "of others.csv")
    outcome = import_into(inside / "imported", Request(("of others.csv",)))
    assert outcome.study.runs().domains == NAMES
    (again,) = import_again(inside / "imported")
    assert again.study.runs().run.tolist() == outcome.study.runs().run.tolist()


SEEN = st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))


@given(
    st.lists(
        st.one_of(st.text(SEEN, min_size=1, max_size=8), st.text(min_size=1, max_size=2)),
        min_size=2,
        max_size=4,
        unique=True,
    )
)
@settings(max_examples=100, deadline=None)
def test_any_names_come_back_or_are_refused(tmp_path_factory, names):
    folder = tmp_path_factory.getbasetemp() / "any-names"
    folder.mkdir(exist_ok=True)
    if fault(names) is not None:
        with pytest.raises(RunTableError, match=r"^[ -~]+$"):
            RunTable.from_rows(rows(names, count=len(names)))
        return
    table = RunTable.from_rows(rows(names, count=len(names)))
    for kind in ("csv", "jsonl", "parquet"):
        table.write(folder / f"table.{kind}")
        back = RunTable.read(folder / f"table.{kind}")
        assert (
            (back.domains, back.targets)
            == (table.domains, table.targets)
            == (
                tuple(names),
                tuple(f"loss/{name}" for name in names),
            )
        )
        assert back.run.tolist() == table.run.tolist()


def test_commands_to_copy_quote_the_folder(inside):
    folder = inside / "my $(touch pwned)"
    word = shlex.quote(str(folder))
    with pytest.raises(StudyError, match=re.escape(f"mixlaw init {word}")):
        Study(folder)
    with pytest.raises(StudyError, match=re.escape(f"mixlaw import SOURCE --into {word}")):
        import_again(write_study(folder, NAMES[:2]))
    (folder / "runs.csv").unlink()
    with pytest.raises(StudyError, match=re.escape(f"mixlaw design {word} --next 1")):
        Study(folder).fit()


@pytest.mark.parametrize(("name", "why"), REFUSED.items(), ids=map(ascii, REFUSED))
@pytest.mark.parametrize("place", ["domain", "target", "run", "label"])
def test_names_that_are_not_seen_are_refused(place, name, why):
    row = {"weight/web": 1.0, "loss/web": 2.0, "run": "a", "label": "b"}
    row |= {"domain": {f"weight/{name}": 0}, "target": {f"loss/{name}": 2.0}}.get(place) or {
        place: name
    }
    with pytest.raises(RunTableError, match=why) as refused:
        RunTable.from_rows([row])
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("section", ["domains", "baselines", "tradeoffs"])
def test_study_files_refuse_them_too(section, tmp_path):
    folder = write_study(tmp_path / "study", NAMES[:5])
    told = yaml.safe_load((folder / "study.yaml").read_text("utf-8"))
    told[section]["a\u202eb"] = next(iter(told[section].values()))
    (folder / "study.yaml").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(StudyError, match=r"invisible character \(U\+202E\)"):
        Study(folder)


@pytest.mark.parametrize(
    "pair", [("caf\u00e9", "cafe\u0301"), ("a b", "a\u00a0b"), ("می\u200cروم", "میروم")]
)
def test_names_that_look_alike_are_refused(pair):
    assert all(fault([name]) is None for name in pair)
    assert "look alike" in (fault(pair) or "")
    with pytest.raises(RunTableError, match="look alike"):
        RunTable.from_rows([{f"weight/{name}": 0.5 for name in pair} | {"loss/web": 2.0}])


def test_what_javascript_keeps_for_itself_is_a_domain():
    shares = {"__proto__": 0.5, "constructor": 0.25, "hasOwnProperty": 0.25}
    assert dict(Mixture(shares)) == shares
