"""What a study file may ask of a decision, on made-up runs with a known law."""

from __future__ import annotations

import numpy as np
import pytest

from mixlaw.errors import InfeasibleError, MixtureError, StudyError
from mixlaw.laws.links import LinkedLaws
from mixlaw.mixture import Mixture
from mixlaw.optimize.decide import distinct
from mixlaw.study import Scale

OBJECTIVE = "objective: {loss/web: 1, loss/code: 1}\n"
TOKENS = """\
domains:
  web: {available_tokens: 4e9}
  code: {available_tokens: 1e9}
  books: {available_tokens: 5e8}
target: {train_tokens: 2e9}
"""


class TestObjective:
    def test_the_worst_target_relative_to_a_baseline_is_evened_out(self, study_of):
        mean = study_of(TOKENS + "objective: {loss/web: 1, loss/code: 1, loss/books: 1}\n")
        mean = mean.optimize()
        worst = study_of(
            TOKENS + "objective: {weights: {loss/web: 1, loss/code: 1, loss/books: 1}, "
            "over: worst, relative_to: natural}\n"
        ).optimize()
        natural = worst.baselines["natural"].forecast

        def rises(found):
            targets = found.forecast.targets
            return {t: targets[t].value / natural.targets[t].value for t in targets}

        assert max(rises(worst).values()) <= max(rises(mean).values()) + 1e-6
        assert worst.objective.over == "worst"
        assert worst.objective.reference is not None

    def test_a_family_counts_as_one(self, study_of):
        """Two targets in a family of weight 1 share what one target beside it has."""
        found = study_of(
            TOKENS + "objective: {weights: {prose: 1, loss/code: 1}, "
            "families: {prose: [loss/web, loss/books]}}\n"
        ).optimize()
        shares = {"loss/web": 0.25, "loss/books": 0.25, "loss/code": 0.5}
        assert found.objective.shares == pytest.approx(shares)

    def test_floors_hold_as_numbers_and_as_baselines(self, study_of):
        free = study_of(TOKENS + "objective: {loss/web: 1}\n").optimize()
        limit = 2.6
        assert free.forecast.targets["loss/code"].value > limit
        number = study_of(
            TOKENS + f"objective: {{weights: {{loss/web: 1}}, floors: {{loss/code: {limit}}}}}\n"
        ).optimize()
        assert number.forecast.targets["loss/code"].value <= limit + 1e-6
        named = study_of(
            TOKENS + "objective: {weights: {loss/web: 1}, "
            "floors: {loss/code: {than: uniform, slack: 0.01}}}\n"
        ).optimize()
        uniform = named.baselines["uniform"].forecast.targets["loss/code"].value
        assert named.forecast.targets["loss/code"].value <= uniform + 0.01 + 1e-6

    def test_forecasts_of_repeated_data_are_those_of_the_decision(self, study_of):
        books = "baselines: {books: {web: 0.1, code: 0.1, books: 0.8}}\n"
        study = study_of(TOKENS.replace("2e9", "2e10") + OBJECTIVE + books)
        forecast = study.optimize().baselines["books"].forecast
        assert forecast.epochs["books"] == pytest.approx(32)
        (found,) = study.predict([forecast.mixture])
        for target, (value, half_width) in found.items():
            expected = forecast.targets[target]
            assert value == pytest.approx(expected.value, rel=1e-12)
            assert half_width == pytest.approx(expected.half_width, rel=1e-12)

    def test_scores_are_reached_through_links(self, study_of):
        study = study_of(TOKENS + "objective: {score/quiz: 1}\nfit: {chance: {score/quiz: 0.25}}\n")
        decision = study.optimize()
        assert isinstance(study.forecaster(), LinkedLaws)
        # The quiz follows the loss on web, so its best mixture is nearly that loss' best.
        other = study_of(TOKENS + "objective: {loss/web: 1}\n").optimize()
        assert dict(decision.recommended) == pytest.approx(dict(other.recommended), abs=0.1)
        assert 0.25 <= decision.forecast.targets["score/quiz"].value <= 1


class TestConstraints:
    def test_groups_fixed_shares_and_granularity(self, study_of):
        found = study_of(
            TOKENS + OBJECTIVE + "constraints:\n"
            "  groups: {prose: {domains: [web, books], upper: 0.65}}\n"
            "  fixed: {books: 0.1}\n  granularity: 20\n"
        ).optimize()
        shares = found.recommended
        assert shares["books"] == pytest.approx(0.1)
        assert shares["web"] + shares["books"] <= 0.65 + 1e-9
        assert all(abs(20 * share - round(20 * share)) < 1e-6 for share in shares.values())
        assert found.rounding_cost is not None

    def test_epochs_by_domain(self, study_of):
        found = study_of(
            TOKENS + OBJECTIVE + "constraints: {max_epochs: {books: 0.5, code: 0.8}}\n"
        ).optimize()
        assert found.recommended["books"] <= 0.5 * 5e8 / 2e9 + 1e-9
        assert found.recommended["code"] <= 0.8 * 1e9 / 2e9 + 1e-9

    def test_near_an_own_baseline(self, study_of):
        found = study_of(
            TOKENS + OBJECTIVE + "baselines: {mine: {web: .2, code: .4, books: .4}}\n"
            "constraints: {near: {mixture: mine, measure: l2, at_most: 0.1}}\n"
        ).optimize()
        mine = found.baselines["mine"].forecast.mixture
        assert mine == Mixture({"web": 0.2, "code": 0.4, "books": 0.4})
        away = np.array([found.recommended[name] - mine[name] for name in mine])
        assert np.linalg.norm(away) == pytest.approx(0.1, abs=1e-4)

    def test_limits_that_conflict_are_named(self, study_of):
        study = study_of(TOKENS + OBJECTIVE + "constraints: {lower: {web: .6, code: .6}}\n")
        with pytest.raises(InfeasibleError, match=r"lower\[web\] = 0.6.*lower\[code\] = 0.6"):
            study.optimize()


@pytest.mark.parametrize(("books", "appears"), [("5e8", False), ("1e8", True)])
def test_unimax_stands_beside_uniform_where_its_caps_bind(study_of, books, appears):
    """A third of 2e9 tokens is 1.3 passes over 5e8 tokens and 6.7 over 1e8."""
    text = TOKENS.replace("5e8", books) + OBJECTIVE
    shown = distinct(study_of(text).baselines())
    assert ("unimax" in shown) is appears
    assert "unimax" in study_of(text).baselines()  # a floor may name it either way


def test_a_robust_decision_says_over_what(study_of):
    found = study_of(TOKENS + OBJECTIVE + "optimize: {robust: 0.9, draws: 4}\n").optimize()
    assert found.robust is not None
    assert (found.robust.over, found.robust.num_draws) == (0.9, 4)
    plain = study_of(TOKENS + OBJECTIVE).optimize()
    assert plain.robust is None


class TestPareto:
    TEXT = TOKENS + "objective: {loss/web: 1}\ntradeoffs: {code: {loss/code: 1}}\n"

    def test_the_front_is_kept_until_what_it_is_made_from_changes(self, study_of):
        study = study_of(self.TEXT)
        front = study.pareto(4)
        assert front.objectives == ("objective", "code")
        file = study.folder / "pareto.json"
        before = file.read_bytes(), file.stat().st_mtime_ns
        assert study_of(self.TEXT).pareto(4).to_dict() == front.to_dict()
        assert (file.read_bytes(), file.stat().st_mtime_ns) == before
        values = np.array(front.values)
        order = np.argsort(values[:, 0])
        assert (np.diff(values[order, 1]) <= 1e-9).all()  # one pays for the other
        for text, count in (
            (self.TEXT, 3),
            (self.TEXT.replace("loss/code: 1}}", "loss/books: 1}}"), 3),
            (self.TEXT + "constraints: {upper: {web: 0.5}}\n", 3),
        ):
            old, new = file.read_bytes(), study_of(text).pareto(count)
            assert file.read_bytes() != old
            assert len(new.mixtures) <= count

    def test_a_front_makes_an_older_report_old(self, study_of):
        study = study_of(self.TEXT)
        study.optimize()
        (study.folder / "report.html").write_text("stands for a report")
        assert study.status()["steps"]["report"]
        study.pareto(2)
        assert study.status()["steps"]["report"] is None

    def test_without_trade_offs_it_is_said_how_to_name_one(self, study_of):
        with pytest.raises(StudyError, match=r"names no trade-off; add for instance tradeoffs:"):
            study_of(TOKENS + OBJECTIVE).pareto()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objective: {weigths: {loss/web: 1}}", r"'objective.weigths'; did you mean 'weights'"),
        (
            "objective: {weights: {loss/web: 1}, overr: worst}",
            r"'objective.overr'; did you mean 'over'",
        ),
        (
            "objective: {weights: {loss/web: 1}, floors: {loss/code: {tan: 1}}}",
            r"'objective.floors.loss/code.tan'; did you mean 'than'",
        ),
        (
            "objective: {weights: {loss/web: 1}, over: best}",
            r"objective.over.*'mean' or 'worst'.*best",
        ),
        (OBJECTIVE + "tradeoffs: {c: {weights: {loss/web: 1}, famlies: {}}}", "'families'"),
        (OBJECTIVE + "tradeoffs: {objective: {loss/web: 1}}", "'objective' is the name of"),
        (
            OBJECTIVE + "constraints: {groups: {prose: {domains: [web], uper: 1}}}",
            r"'constraints.groups.prose.uper'; did you mean 'upper'",
        ),
        (
            OBJECTIVE + "constraints: {near: {mixtur: mine, at_most: 1}}",
            r"'constraints.near.mixtur'; did you mean 'mixture'",
        ),
        (
            OBJECTIVE + "constraints: {groups: {none: {domains: []}}}",
            r"constraints.groups.none.domains",
        ),
        (OBJECTIVE + "constraints: {fixed: {web: 1.5}}", r"constraints.fixed.web.*1.5"),
        (
            OBJECTIVE + "plan: {scales: [{num_parms: 5, train_tokens: 3}]}",
            r"'plan.scales.0.num_parms'; did you mean 'num_params'",
        ),
        (
            OBJECTIVE + "baselines: {mine: {web: .2, code: .5}}",
            r"baselines.mine: the proportions sum to 0.7",
        ),
        (OBJECTIVE + "baselines: {recommended: {web: 1}}", "'recommended' is the name of"),
        (OBJECTIVE + "optimize: {robust: 1.5}", r"optimize.robust"),
        (OBJECTIVE + "optimize: {robust: mean, draws: 1}", r"optimize.draws.*1"),
    ],
)
def test_what_a_file_may_not_say_is_named(study_of, text, message):
    with pytest.raises(StudyError, match=message):
        study_of(text + "\n")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (OBJECTIVE + "baselines: {mine: {web: .2, cod: .8}}", MixtureError, r"\['cod'\]"),
        (
            OBJECTIVE + "constraints: {groups: {prose: {domains: [boks], upper: 0.6}}}",
            MixtureError,
            r"unknown domains \['boks'\]",
        ),
        (
            OBJECTIVE + "constraints: {near: {mixture: mne, at_most: 0.2}}",
            MixtureError,
            r"'mne', which is not among the baselines",
        ),
        (
            "objective: {weights: {loss/web: 1}, relative_to: mine}",
            StudyError,
            r"the baseline 'mine'; known are",
        ),
        (
            "objective: {loss/wbe: 1}",
            StudyError,
            r"names \['loss/wbe'\], not measured by the runs .*did you mean 'loss/web'",
        ),
    ],
)
def test_what_fits_no_run_is_named(study_of, text, error, message):
    study = study_of(text + "\n")
    with pytest.raises(error, match=message):
        study.optimize()


def test_a_forecast_elsewhere_needs_no_target(study_of):
    """Where the runs differ in scale, a forecast that names its scale needs no other."""
    study = study_of(OBJECTIVE)
    rows = [
        row | {"num_params": size, "loss/web": row["loss/web"] + size**-0.3}
        for row in study.runs().rows()
        for size in (1e4, 4e4)
    ]
    for number, row in enumerate(rows):
        row["run"] = f"r{number}"
    type(study.runs()).from_rows(rows).write(study.folder / "runs.csv")
    with pytest.raises(StudyError, match="differ in num_params"):
        study.optimize()
    mixtures = [Mixture.uniform(["web", "code", "books"])]
    (small,) = study.predict(mixtures, Scale(10_000, None))
    (large,) = study.predict(mixtures, Scale(40_000, None))
    assert large["loss/web"][0] < small["loss/web"][0]
    # Nor does the status, which tells what to do next.
    assert study.status()["next"] == "optimize"
