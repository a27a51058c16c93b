"""Planning and trade-offs from the command line, in this process for speed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mixlaw.plan.budget import BudgetPlan
from mixlaw.plan.edit_plan import EditPlan
from mixlaw.plan.proposals import Plan
from mixlaw.runs import RunTable

BIG_RUN = ("--num-params", "7e9", "--train-tokens", "2e11", "--domains", "12")


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    """A table of runs of three domains."""
    path = tmp_path_factory.mktemp("table") / "runs.csv"
    rng = np.random.default_rng(0)
    rows = []
    for web, code, books in rng.dirichlet(np.ones(3), 16).tolist():
        losses = {"loss/web": 3 - 0.8 * web**0.5, "loss/code": 2.5 - 0.9 * code**0.5}
        rows.append({"weight/web": web, "weight/code": code, "weight/books": books} | losses)
    RunTable.from_rows(rows).write(path)
    return path


@pytest.fixture
def study(table, tmp_path) -> Path:
    (tmp_path / "runs.csv").write_bytes(table.read_bytes())
    (tmp_path / "study.yaml").write_text(
        "table: runs.csv\ndomains: {web: {available_tokens: 3e9}, code: {available_tokens: 1e9}}\n"
        "objective: {loss/web: 1, loss/code: 1}\ntradeoffs: {code: {loss/code: 1}}\n"
    )
    return tmp_path


class TestNextRuns:
    def test_from_nothing_in_json_and_for_people(self, mixlaw, tmp_path):
        (tmp_path / "study.yaml").write_text(
            "table: mine.csv\ndomains: {web: {}, code: {}}\nobjective: {loss/web: 1}\n"
        )
        code, out, _ = mixlaw("status", tmp_path)
        assert (code, "next: mixlaw design --next 1" in out) == (0, True)
        code, out, _ = mixlaw("design", tmp_path, "--next", 2, "--json")
        assert code == 0
        first = Plan.from_dict(json.loads(out))
        assert not first.stop
        code, out, _ = mixlaw("design", tmp_path, "--next", 1)
        assert (code, "the next runs" in out) == (0, True)
        asked = json.loads((tmp_path / "asked.json").read_text())
        assert [item["mixture"] for item in asked[:2]] == [dict(p.mixture) for p in first.proposals]
        assert len(asked) == 3

    def test_advice_to_stop(self, mixlaw, study):
        path = study / "study.yaml"
        path.write_text(path.read_text() + "plan: {threshold: 100}\n")
        code, out, _ = mixlaw("design", study, "--next", 1)
        assert code == 0
        assert "not worth doing" in out
        assert "< threshold 100" in out

    def test_no_runs_at_all_is_wrong_usage(self, mixlaw, study):
        assert mixlaw("design", study, "--next", 0)[0] == 2


class TestBudget:
    def test_without_a_study(self, mixlaw):
        code, out, _ = mixlaw("plan", "--budget", "1e19", *BIG_RUN, "--json")
        assert code == 0
        found = BudgetPlan.from_dict(json.loads(out))
        assert found.recommended.flops <= 1e19
        code, out, _ = mixlaw("plan", "--budget", "1e19", *BIG_RUN)
        assert code == 0
        assert "ways to spend 1e+19 FLOPs" in out

    def test_with_a_study(self, mixlaw, study):
        path = study / "study.yaml"
        path.write_text(path.read_text() + "target: {num_params: 1e9, train_tokens: 2e10}\n")
        code, out, _ = mixlaw("plan", study, "--budget", "1e18", "--json")
        assert code == 0
        assert BudgetPlan.from_dict(json.loads(out)).recommended.flops <= 1e18

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (BIG_RUN, 2, "Missing option '--budget'"),
            (("--budget", "1e19"), 1, "name a study, or give --num-params"),
            (("--budget", "-1", *BIG_RUN), 1, "the budget is -1.0 FLOPs; it must be finite"),
            (("--budget", "1", *BIG_RUN), 1, "a budget of 1 FLOPs buys"),
            (("{study}", "--budget", "1e18"), 1, "give target: {num_params"),
            (("{study}", "--budget", "1e18", *BIG_RUN), 1, "give either a study, or"),
        ],
    )
    def test_errors(self, mixlaw, study, arguments, code, message):
        found = mixlaw("plan", *(argument.format(study=study) for argument in arguments))
        assert found[0] == code
        assert message in found[2]
        assert found[1] == ""


class TestEdit:
    @pytest.mark.parametrize(
        ("option", "domains"),
        [
            (("--add", "news=1e9"), ("web", "code", "books", "news")),
            (("--remove", "books"), ("web", "code")),
            (("--split", "web=news:0.3,forums:0.7"), ("news", "forums", "code", "books")),
            (("--merge", "text=web,code"), ("text", "books")),
            (("--revise", "web=2e9"), ("web", "code", "books")),
            (("--add", "news", "--remove", "books"), ("web", "code", "news")),
        ],
    )
    def test_every_kind_with_its_kept_runs(self, mixlaw, study, option, domains):
        kept = study / "kept.csv"
        code, out, _ = mixlaw("edit", study, *option, "--out", kept, "--json")
        assert code == 0
        plan = EditPlan.from_dict(json.loads(out))
        assert set(plan.domains) == set(domains)
        runs = RunTable.read(kept)
        assert runs.domains == plan.domains
        assert len(runs) == plan.exact_rows + plan.moved_rows

    def test_for_people(self, mixlaw, study):
        code, out, _ = mixlaw("edit", study, "--add", "news", "--out", study / "kept.csv")
        assert code == 0
        for text in ("add news", "rows kept: 16 exactly", "new mixtures: 4 for reuse", "wrote the"):
            assert text in out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "no edit given; use --add"),
            (("--add", "web"), "'web' is the name of another domain"),
            (("--add", "news=many"), "'many' in '--add news=many' is no number"),
            (("--add", "news=nan"), "'nan' in '--add news=nan' is no whole number"),
            (("--add", "news=inf"), "'inf' in '--add news=inf' is no whole number"),
            (("--add", "news=1.5"), "'1.5' in '--add news=1.5' is no whole number"),
            (("--remove", "cod"), "did you mean 'code'"),
            (("--split", "web"), "not of the form --split web=news:0.3"),
            (("--split", "web=news,forums"), "'news' in 'web=news,forums' has no ratio"),
            (("--split", "web=news:x,forums:1"), "'x' in 'web=news:x,forums:1' is no number"),
            (("--split", "web=news:.3,news:.7"), "'news' is named twice in '--split web=news"),
            (("--remove", "web", "--remove", "code"), "the edits leave ['books']"),
            (("--merge", "text=web"), "name two domains or more"),
            (("--remove", "books", "--out", "kept.txt"), "unknown kind '.txt'"),
        ],
    )
    def test_errors(self, mixlaw, study, arguments, message):
        code, out, err = mixlaw("edit", study, *arguments)
        assert (code, out) == (1, "")
        assert message in err


class TestScores:
    """Plans and edits are for losses, and say so."""

    @pytest.fixture
    def scored(self, study) -> Path:
        rows = RunTable.read(study / "runs.csv").rows()
        rows = [row | {"score/quiz": 1 - 0.2 * row["loss/web"]} for row in rows]
        RunTable.from_rows(rows).write(study / "runs.csv")
        path = study / "study.yaml"
        text = path.read_text().replace("loss/web: 1, loss/code: 1", "score/quiz: 1")
        scales = "plan: {scales: [{num_params: 1e8, train_tokens: 2e9}]}\n"
        path.write_text(text + scales + "target: {num_params: 1e9, train_tokens: 2e10}\n")
        return study

    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            (("edit", "{}", "--remove", "books"), "edits"),
            (("plan", "{}", "--budget", "1e18"), "a budget"),
        ],
    )
    def test_are_refused(self, mixlaw, scored, arguments, what):
        code, out, err = mixlaw(*(argument.format(scored) for argument in arguments))
        assert (code, out) == (1, "")
        assert "names the scores ['score/quiz']" in err
        assert f"error: {what}" in err
        assert "planned for losses" in err


class TestPareto:
    def test_in_json_and_for_people(self, mixlaw, study):
        code, out, _ = mixlaw("pareto", study, "--points", 3, "--json")
        assert code == 0
        front = json.loads(out)
        assert front["objectives"] == ["objective", "code"]
        code, out, _ = mixlaw("pareto", study, "--points", 3)
        assert code == 0
        assert "objective code share of web share of code share of books" in out

    def test_without_trade_offs(self, mixlaw, study):
        path = study / "study.yaml"
        path.write_text(path.read_text().replace("tradeoffs: {code: {loss/code: 1}}", ""))
        code, out, err = mixlaw("pareto", study)
        assert (code, out) == (1, "")
        assert "names no trade-off; add for instance tradeoffs" in err

    def test_one_point_is_wrong_usage(self, mixlaw, study):
        assert mixlaw("pareto", study, "--points", 1)[0] == 2
