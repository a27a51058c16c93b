"""Asking for runs and telling of them, budgets, and changes of domains, through a study."""

from __future__ import annotations

import numpy as np
import pytest

from mixlaw.errors import MixtureError, RunTableError, StudyError
from mixlaw.files import read_json
from mixlaw.mixture import Domain, Mixture
from mixlaw.plan.edits import Add, Remove
from mixlaw.study import Study

OBJECTIVE = "objective: {loss/web: 1, loss/code: 1}\n"
NAMES = ("web", "code", "books")


def true_losses(mixture: Mixture) -> dict[str, float]:
    """What the user's trainer would say."""
    own = {name: 3 - 0.8 * mixture.get(name, 0.0) ** 0.5 for name in ("web", "code")}
    return {f"loss/{name}": value for name, value in own.items()}


class TestFromNothing:
    """A user with a trainer of their own and no runs yet."""

    @pytest.fixture
    def study(self, tmp_path):
        (tmp_path / "study.yaml").write_text(
            "table: mine.csv\ndomains: {web: {}, code: {}, books: {}}\n" + OBJECTIVE
        )
        return Study(tmp_path)

    def test_what_to_do_first(self, study):
        assert study.status()["next"] == "design --next 1"
        assert study.status()["steps"]["fit"] is None

    def test_what_was_asked_for_is_not_asked_for_again(self, study):
        first, second = study.ask(3), study.ask(2)
        asked = [p.mixture for p in (*first.proposals, *second.proposals)]
        assert len(asked) == 5
        arrays = np.stack([mixture.array(NAMES) for mixture in asked])
        apart = np.abs(arrays[:, None] - arrays[None]).max(axis=2) + np.eye(5)
        assert apart.min() > 0.01
        stored = read_json(study.folder / "asked.json")
        assert [Mixture(item["mixture"]) for item in stored] == asked

    def test_a_told_run_is_in_the_table_and_pending_no_more(self, study):
        one, other = (proposal.mixture for proposal in study.ask(2).proposals)
        study.tell(one, true_losses(one), seed=5)
        (left,) = read_json(study.folder / "asked.json")
        assert Mixture(left["mixture"]) == other
        runs = Study(study.folder).runs()
        assert len(runs) == 1
        assert runs.seed.tolist() == [5]
        assert dict(zip(runs.domains, runs.weights[0], strict=True)) == pytest.approx(dict(one))
        assert runs.column("loss/web")[0] == pytest.approx(true_losses(one)["loss/web"])
        study.tell(other, true_losses(other))
        assert read_json(study.folder / "asked.json") == []
        assert len(set(study.runs().run)) == 2

    def test_until_a_law_says_which_is_next(self, study):
        for _ in range(4):
            for proposal in study.ask(3).proposals:
                study.tell(proposal.mixture, true_losses(proposal.mixture))
        plan = study.ask(1)
        assert plan.recommended is not None
        assert plan.expected_regret is not None
        truth = sum(true_losses(plan.recommended).values()) / 2
        best = 3 - 0.8 * 0.5**0.5  # half web, half code
        assert truth - best < 0.02

    def test_advice_to_stop_is_not_remembered(self, study):
        for share in np.linspace(0.02, 0.9, 12).tolist():
            mixture = Mixture({"web": share, "code": 0.95 - share, "books": 0.05})
            study.tell(mixture, true_losses(mixture))
        with (study.folder / "study.yaml").open("a") as file:
            file.write("plan: {threshold: 100}\n")
        plan = Study(study.folder).ask(2)
        assert plan.stop
        assert not (study.folder / "asked.json").exists()

    def test_it_says_why_its_mixture_is_not_the_one_of_the_decision(self, study):
        for share in np.linspace(0.02, 0.9, 12).tolist():
            mixture = Mixture({"web": share, "code": 0.95 - share, "books": 0.05})
            study.tell(mixture, true_losses(mixture))
        plan = study.ask(1)
        assert plan.recommended is not None
        assert plan.recommended.get("books", 0.0) < 0.04  # no run had less than 0.05
        assert "without the support guard" in plan.reason
        with (study.folder / "study.yaml").open("a") as file:
            file.write("optimize: {guard: false}\n")
        unguarded = Study(study.folder).ask(1).reason
        assert "support guard" not in unguarded
        assert unguarded.endswith("the decision is of mixlaw optimize")

    def test_domains_must_be_named(self, study):
        (study.folder / "study.yaml").write_text("table: mine.csv\n" + OBJECTIVE)
        with pytest.raises(StudyError, match=r"no table at mine.csv yet; name the domains"):
            Study(study.folder).ask()

    def test_no_runs_are_planned_for_scores(self, study):
        path = study.folder / "study.yaml"
        path.write_text(path.read_text().replace("loss/web: 1", "score/quiz: 1"))
        path.write_text(path.read_text().replace("loss/code: 1", "score/exam: 1"))
        with pytest.raises(StudyError, match=r"names the scores \['score/quiz', 'score/exam'\]"):
            Study(study.folder).ask()

    @pytest.mark.parametrize(
        ("mixture", "targets", "error", "message"),
        [
            ({"web": 0.5, "sea": 0.5}, {"loss/web": 3, "loss/code": 2}, MixtureError, r"\['sea'\]"),
            ({"web": 1.0}, {"loss/web": 3.0, "loss/cod": 2.0}, StudyError, r"\['loss/code'\]"),
            (
                {"web": 1.0},
                {"loss/web": 3.0, "loss/code": 2.0, "quiz": 0.5},
                RunTableError,
                r"\['quiz'\] are no targets",
            ),
            ({"web": 1.0}, {"loss/web": "high", "loss/code": 2}, RunTableError, r"high"),
        ],
    )
    def test_what_makes_no_sense_leaves_the_table_alone(
        self, study, mixture, targets, error, message
    ):
        with pytest.raises(error, match=message):
            study.tell(Mixture(mixture), targets)
        assert not (study.folder / "mine.csv").exists()

    def test_a_damaged_list_of_asked_runs_is_named(self, study):
        (study.folder / "asked.json").write_text('[{"mixture": 3}]')
        with pytest.raises(StudyError, match=r"asked.json is damaged .*delete it"):
            study.ask()


class TestOfOwnTraining:
    """A study that trains its runs asks for its own design."""

    def test_what_is_asked_for_joins_the_design_and_is_trained(self, trained_study):
        study = Study(trained_study)
        before = {spec.run_id for spec in study.design()}
        plan = study.ask(2)
        assert not plan.stop
        study = Study(trained_study)
        new = [spec for spec in study.design() if spec.run_id not in before]
        assert [spec.mixture for spec in new] == [p.mixture for p in plan.proposals]
        assert study.status()["runs"] == {"planned": len(before) + 2, "done": 20, "failed": 0}
        assert study.status()["next"] == "train"
        assert {spec.label for spec in new} == {"n20", "n21"}
        runs = study.train()
        assert {spec.run_id for spec in new} <= set(runs.run)
        assert study.status()["runs"]["done"] == len(before) + 2
        assert not (trained_study / "asked.json").exists()

    def test_planned_runs_are_not_asked_for_again(self, tiny_study):
        study = Study(tiny_study)
        planned = {(spec.mixture, spec.num_params) for spec in study.design()}
        plan = study.ask(2)
        assert len(plan.proposals) == 2
        assert not planned & {(p.mixture, p.num_params) for p in plan.proposals}

    def test_advice_to_stop_adds_nothing(self, trained_study):
        path = trained_study / "study.yaml"
        path.write_text(path.read_text() + "plan: {threshold: 100}\n")
        study = Study(trained_study)
        before = study.design()
        assert study.ask(1).stop
        assert Study(trained_study).design() == before

    def test_scales_that_the_swarm_does_not_have(self, tiny_study):
        path = tiny_study / "study.yaml"
        scales = "plan: {scales: [{num_params: 5000, train_tokens: 640}]}\n"
        path.write_text(path.read_text() + scales)
        study = Study(tiny_study)
        before = study.design()
        with pytest.raises(StudyError, match=r"3072 and 1280, 6144 and 1280; none of"):
            study.ask(1)
        assert study.design() == before

    def test_it_cannot_be_told_of_other_runs(self, tiny_study):
        with pytest.raises(StudyError, match="trains its runs itself: mixlaw train"):
            Study(tiny_study).tell(Mixture({"abc": 1.0}), {"loss/abc": 2.0})


BIG_RUN = "target: {num_params: 1e9, train_tokens: 2e10}\n"
SCALES = (
    "plan: {scales: [{num_params: 1e6, train_tokens: 2e7}, {num_params: 1e7, train_tokens: 2e8}]}\n"
)


def test_a_budget_for_a_study(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "table: mine.csv\ndomains: {web: {}, code: {}, books: {}}\n" + OBJECTIVE + BIG_RUN + SCALES
    )
    study = Study(tmp_path)
    found = study.plan_budget(1e18)
    allowed = {(1e6, 2e7), (1e7, 2e8)}
    assert {(p.num_params, p.train_tokens) for p in found.recommended.proxies} <= allowed
    assert found.recommended.flops <= 1e18
    with pytest.raises(StudyError, match=r"a budget of 1e\+03 FLOPs"):
        study.plan_budget(1e3)


def test_a_budget_needs_a_big_run_and_the_scales_of_the_runs(study_of):
    with pytest.raises(StudyError, match=r"the study's target is the one scale; give target:"):
        study_of(OBJECTIVE).plan_budget(1e18)
    with pytest.raises(StudyError, match=r"have no num_params or train_tokens"):
        study_of(OBJECTIVE + BIG_RUN + SCALES).plan_budget(1e18)
    assert study_of(OBJECTIVE + BIG_RUN).plan_budget(1e18).recommended.flops <= 1e18


class TestEdits:
    def test_what_is_kept_becomes_the_table_of_the_next_study(self, study_of, tmp_path):
        study = study_of(OBJECTIVE)
        edits = [Add(Domain("news"))]
        plan = study.plan_edit(edits)
        assert plan.domains == (*NAMES, "news")
        assert plan.affected == ("news",)
        carried = study.carry(edits)
        assert len(carried.runs) == plan.exact_rows + plan.moved_rows == 24
        following = tmp_path / "next"
        following.mkdir()
        carried.runs.write(following / "runs.csv")
        (following / "study.yaml").write_text("table: runs.csv\n" + OBJECTIVE)
        assert Study(following).runs().domains == plan.domains

    def test_an_unknown_domain(self, study_of):
        with pytest.raises(MixtureError, match="'sea'"):
            study_of(OBJECTIVE).plan_edit([Remove("sea")])
