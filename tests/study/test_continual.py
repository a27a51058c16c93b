"""Continuing a model in a study: the section of the file, from a table, and trained from text."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from mixlaw.continual import FORMS
from mixlaw.errors import MixlawError, StudyError
from mixlaw.files import read_json
from mixlaw.mixture import Mixture
from mixlaw.runs import RunTable
from mixlaw.store import model_facts, start_from
from mixlaw.study import Study, load_config
from mixlaw.study.continual_answer import ContinualAnswer
from mixlaw.study.continuing import BASE, Continuing
from tests.study.continued import BASE as BASE_LOSSES
from tests.study.continued import CRITICAL, SHARES, continued_rows, continued_table

# The section of the study file

GOOD = """\
domains: {web: {paths: [a]}, books: {paths: [c]}, code: {paths: [b]}}
sizes: {s: {width: 32, layers: 2}, m: {width: 48, layers: 2}}
training: {sizes: [s, m], horizon_steps: [10, 20], warmup_steps: 4}
objective: {bpb/web: 1}
continual: {new: [code]}
"""


def load(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{new: [sea]}", r"continual.new names \['sea'\], which are no domains: \['web', 'books'"),
        ("{new: [code], old: [sea]}", r"continual.old names \['sea'\]"),
        ("{new: []}", r"continual.new: .*at least 1"),
        ("{new: [code], old: [web, code]}", r"\['code'\] stand in both new and old"),
        ("{new: [code, web, books]}", r"every domain; what is continued needs old domains"),
        ("{new: [code], shares: [0, 0.1, 0.2]}", r"at least 4 different ones"),
        ("{new: [code], shares: [0, 0.1, 0.2, 1.2]}", r"continual.shares.3: .*1.2"),
        ("{new: [code], shares: [-0.1, 0.1, 0.2, 1]}", r"continual.shares.0: .*-0.1"),
        ("{new: [code], shares: [0, 0.1, 0.1, 0.2]}", r"name each once"),
        ("{new: [code], horizon_steps: [3]}", r"measured after 3 steps, .* until step 4"),
        ("{new: [code], horizon_steps: [40, 20]}", r"must ascend"),
        ("{new: [code], rewarm: [0]}", r"continual.rewarm.0: .*greater than 0"),
        ("{new: [code], rewarm: []}", r"continual.rewarm: .*at least 1"),
        ("{new: [code], seeds: 0}", r"continual.seeds: .*greater than 0"),
        ("{new: [code], tolerance: -0.1}", r"continual.tolerance"),
        ("{new: [code], base: {mixture: {web: 1}, checkpoint: x}}", r"'mixture'\]; give one"),
        ("{new: [code], base: {losses: {loss/web: 2}}}", r"losses are for a table"),
        ("{new: [code], base: {losses: {web: 2}}}", r"'web' is no target"),
        ("{new: [code], base: {mixture: {web: 0.5}}}", r"base.mixture: .*sum to 0.5"),
        ("{new: [code], base: {mixture: {sea: 1}}}", r"base.mixture names \['sea'\]"),
        ("{new: [code], base: {mixture: {code: 1}}}", r"nothing of the old domains"),
        ("{new: [code], base: {checkpoint: x}}", r"a model of one size, and \['s', 'm'\]"),
        ("{new: [code], old_mixture: {code: 1}}", r"old_mixture names \['code'\], not among"),
        ("{new: [code], new_mixture: {web: 1}}", r"new_mixture names \['web'\], not among"),
        ("{new: [code], sizes: [xl]}", r"continual.sizes \['xl'\] are not among sizes"),
        ("{new: [code], share: [0]}", r"'continual.share'; did you mean 'shares'"),
        ("{new: [code], base: {mixtur: 1}}", r"'continual.base.mixtur'; did you mean 'mixture'"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, section, message):
    with pytest.raises(StudyError, match=message) as caught:
        load(tmp_path, GOOD.replace("{new: [code]}", section))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{new: [code], seeds: 2, shares: [0, 1]}", r"seeds', 'continual.shares'\] would do noth"),
        ("{new: [code], base: {mixture: {web: 1}}}", r"nothing is trained; give the losses"),
        ("{new: [code], base: {checkpoint: x}}", r"nothing is trained; give the losses"),
    ],
)
def test_a_table_says_itself_what_was_trained(tmp_path, section, message):
    text = f"table: runs.csv\nobjective: {{loss/web: 1}}\ncontinual: {section}\n"
    with pytest.raises(StudyError, match=message):
        load(tmp_path, text.replace("shares: [0, 1]", "shares: [0, 0.2, 0.4, 1]"))


@pytest.mark.parametrize("name", ["demo-continual.yaml", "demo-continual-short.yaml"])
def test_the_shipped_files_are_valid(tmp_path, name):
    text = (files("mixlaw.study") / "templates" / name).read_text(encoding="utf-8")
    assert load(tmp_path, text).continual is not None


# From a table

OBJECTIVE = "objective: {loss/web: 1, loss/code: 1}\n"


def table_study(
    folder: Path, more: str = "", *, objective: str = OBJECTIVE, rows: list[dict] | None = None
) -> Study:
    RunTable.from_rows(rows or continued_rows()).write(folder / "runs.csv")
    section = f"continual:\n  new: [code]\n{more}"
    (folder / "study.yaml").write_text(f"table: runs.csv\n{objective}{section}")
    return Study(folder)


def edit(folder, old, new):
    file = folder / "study.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_the_critical_share_is_found_and_its_interval_holds_it(tmp_path):
    found = table_study(tmp_path, rows=continued_rows(horizons=2)).continual()
    assert [move.setting.train_tokens for move in found.moves] == [1e6, 4e6]
    for move in found.moves:
        critical = move.critical
        assert critical.binding == "loss/web"
        assert critical.share == pytest.approx(CRITICAL, abs=0.02)
        assert critical.low <= CRITICAL <= critical.high
        assert critical.replay.value == 1 - critical.share
        assert critical.base == pytest.approx({t: BASE_LOSSES[t] for t in critical.base})
    assert found.main.setting.train_tokens == 4e6
    assert set(found.laws.forms) | set(found.laws.refused) == set(FORMS)
    assert set(found.laws.held_out_error[found.laws.form]) == set(BASE_LOSSES)


def test_the_answer_is_kept_until_what_it_is_made_from_changes(tmp_path):
    study = table_study(tmp_path)
    assert study.continual_answer() is None
    first = study.continual()
    written = (tmp_path / "continual.json").stat().st_mtime_ns
    again = Study(tmp_path).continual()
    assert (tmp_path / "continual.json").stat().st_mtime_ns == written
    assert again.to_dict() == first.to_dict()
    assert ContinualAnswer.from_dict(first.to_dict()).to_dict() == first.to_dict()
    stored = Study(tmp_path).continual_answer()
    assert stored is not None
    assert stored.main.critical == first.main.critical
    tolerant = table_study(tmp_path, "  tolerance: 0.05\n")
    assert tolerant.continual_answer() is None
    assert tolerant.continual().main.critical.share > first.main.critical.share + 0.05
    data = read_json(tmp_path / "continual.json")
    assert data["seed"] == 0
    assert len(data["inputs"]) == 16


def test_base_losses_may_stand_in_the_study_file(tmp_path):
    columns = table_study(tmp_path).continual()
    losses = ", ".join(f"{target}: {loss}" for target, loss in BASE_LOSSES.items())
    (tmp_path / "b").mkdir()
    section = f"  base: {{losses: {{{losses}}}}}\n"
    given = table_study(tmp_path / "b", section, rows=continued_rows(start=False))
    assert given.continual().main.critical.share == columns.main.critical.share
    (tmp_path / "c").mkdir()
    without = table_study(tmp_path / "c", rows=continued_rows(start=False))
    with pytest.raises(StudyError, match=r"c/study.yaml: .*start/<target>.*base: \{losses: "):
        without.continual()


def given_base(**change) -> str:
    losses = {target: loss for target, loss in (BASE_LOSSES | change).items() if loss}
    told = ", ".join(f"{target}: {loss}" for target, loss in losses.items())
    return f"  base: {{losses: {{{told}}}}}\n"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            given_base(**{"loss/books": 0}),
            r"losses lacks \['loss/books'\], which would not be kept",
        ),
        (given_base(**{"loss/boks": 2.5}), r"base.losses names \['loss/boks'\]"),
        (given_base(**{"loss/web": 2.5}), r"'loss/web' is given as 2.5, and column start/loss/web"),
        ("  tolerance: {loss/web: 0, loss/books: 0, loss/wbe: 3}\n", r"tolerance names .*wbe'\]"),
        ("  tolerance: {loss/web: 0, loss/books: 0, loss/code: 3}\n", r"which would do nothing"),
        ("  old_mixture: {web: 0.1, books: 0.9}\n", r"composed the old side alike"),
        ("  old_mixture: {web: 0.5, code: 0.5}\n", r"old_mixture names \['code'\]"),
        ("  new_mixture: {code: 0.5}\n", r"new_mixture: .*sum to 0.5"),
    ],
)
def test_what_would_silently_protect_less_is_refused(tmp_path, more, message):
    with pytest.raises(StudyError, match=rf"study.yaml: .*{message}") as caught:
        table_study(tmp_path, more).continual()
    assert "\n" not in str(caught.value)


def test_a_new_loss_without_a_base_is_left_out_and_said(tmp_path):
    study = table_study(
        tmp_path, given_base(**{"loss/code": 0}), objective="objective: {loss/web: 1}\n"
    )
    found = study.continual()
    assert found.laws.targets == ("loss/web", "loss/books")
    assert any("loss/code is left out" in note for note in found.notes)


def test_a_constant_new_loss_does_not_stop_the_study(tmp_path):
    rows = [row | {"loss/code": 2.0} for row in continued_rows()]
    found = table_study(tmp_path, objective="objective: {loss/web: 1}\n", rows=rows).continual()
    assert found.main.critical.share == pytest.approx(CRITICAL, abs=0.02)
    assert any("loss/code is left out: it is constant" in note for note in found.notes)
    with pytest.raises(StudyError, match="'loss/code' is constant"):
        table_study(tmp_path, rows=rows).continual()


def test_rows_that_continue_a_model_are_no_swarm(tmp_path):
    study = table_study(tmp_path, rows=continued_rows(horizons=2))
    for ask in (study.fit, study.optimize):
        with pytest.raises(StudyError, match=r"continue a model, .* mixlaw continual"):
            ask()


def test_a_composition_within_a_side_may_be_asked_for(tmp_path):
    rows = []
    for k, row in enumerate(continued_rows()):
        part, old = (0.2, 0.5, 0.8)[k % 3], 1 - row["weight/code"]
        row |= {"weight/web": old * part, "weight/books": old * (1 - part)}
        rows.append(row | {"loss/web": row["loss/web"] + 0.2 * old * (0.5 - part)})
    mean = table_study(tmp_path, rows=rows).continual()
    assert mean.laws.composition["old"]["web"] == pytest.approx(0.5, abs=0.01)
    more = table_study(tmp_path, "  old_mixture: {web: 0.8, books: 0.2}\n", rows=rows).continual()
    assert more.laws.composition["old"]["web"] == 0.8
    assert (
        more.main.critical.losses["loss/web"].value != mean.main.critical.losses["loss/web"].value
    )
    assert "composition" not in more.main.critical.extrapolates


def test_means_skip_what_is_missing_and_count_seeds(tmp_path):
    rows = continued_rows()
    rows[0]["loss/books"] = None
    rows = rows[:-1]
    for k, row in enumerate(rows):  # what sums of weights come to
        row["weight/code"] += 1e-12 * (k % 2)
    found = table_study(tmp_path, rows=rows).continual()
    shares, means, seeds = found.means(found.main.setting)
    assert shares == pytest.approx(SHARES)
    assert seeds == (1, 2)
    (other,) = [r for r in rows[1:] if r["weight/code"] < 1e-9]
    assert means["loss/books"][0] == other["loss/books"]
    web = [row["loss/web"] for row in rows if row["weight/code"] < 1e-9]
    assert means["loss/web"][0] == pytest.approx(np.mean(web))


def test_one_tolerance_for_each_target(tmp_path):
    section = "  tolerance: {loss/web: 1.0, loss/books: 0.0}\n"
    critical = table_study(tmp_path, section).continual().main.critical
    assert critical.binding == "loss/books"
    assert critical.share == pytest.approx(0.5, abs=0.03)


def test_domains_of_neither_side(tmp_path):
    rows = [row | {"weight/tables": 0.0} for row in continued_rows()]
    found = table_study(tmp_path, "  old: [web, books]\n", rows=rows).continual()
    assert found.laws.domains["old"] == ("web", "books")
    rows[-1] |= {"weight/tables": 0.1, "weight/code": rows[-1]["weight/code"] - 0.1}
    with pytest.raises(StudyError, match=r"\['tables'\], which stand in neither"):
        table_study(tmp_path, "  old: [web, books]\n", rows=rows).continual()


def test_a_new_domain_that_the_table_lacks(tmp_path):
    study = table_study(tmp_path)
    edit(tmp_path, "new: [code]", "new: [sea]")
    with pytest.raises(StudyError, match=r"study.yaml: continual.new names \['sea'\]"):
        Study(study.folder).continual()


def test_targets_that_are_not_named_after_a_domain(tmp_path):
    def renamed(row):
        return {k.replace("loss/web", "loss/crawl"): v for k, v in row.items()}

    rows = [renamed({k: v for k, v in r.items() if "books" not in k}) for r in continued_rows()]
    for row in rows:
        row["weight/web"] = 1 - row["weight/code"]
    objective = "objective: {loss/crawl: 1, loss/code: 1}\n"
    with pytest.raises(StudyError, match=r"say it: continual: \{targets"):
        table_study(tmp_path, objective=objective, rows=rows).continual()
    section = "  targets: {loss/crawl: old}\n"
    study = table_study(tmp_path, section, objective=objective, rows=rows)
    assert study.continual().main.critical.binding == "loss/crawl"
    assert study.continual().main.critical.share == pytest.approx(CRITICAL, abs=0.02)
    wrong = table_study(tmp_path, "  targets: {loss/sea: old}\n", objective=objective, rows=rows)
    with pytest.raises(StudyError, match=r"names \['loss/sea'\]"):
        wrong.continual()


@pytest.mark.parametrize(
    ("objective", "why"),
    [
        ("objective: {weights: {loss/web: 1, loss/code: 1}, over: worst}\n", "the worst of"),
        ("objective: {weights: {loss/web: 1}, relative_to: natural}\n", "relative to the mixture"),
    ],
)
def test_an_objective_that_is_no_weighted_sum_has_no_best_share(tmp_path, objective, why):
    found = table_study(tmp_path, objective=objective).continual()
    assert found.main.best is None
    assert why in found.notes[0]
    assert found.main.critical.share == pytest.approx(CRITICAL, abs=0.02)


def test_the_best_share_is_that_of_the_objective(tmp_path):
    only_old = "objective: {loss/web: 1}\n"
    best = table_study(tmp_path, objective=only_old).continual().main.best
    assert best is not None
    assert best.end == "replay"
    best = table_study(tmp_path, objective="objective: {loss/code: 1}\n").continual().main.best
    assert best is not None
    assert (best.share, best.end) == (SHARES[-1], "trained")


def test_a_study_without_the_section_says_how(tmp_path):
    continued_table().write(tmp_path / "runs.csv")
    (tmp_path / "study.yaml").write_text(f"table: runs.csv\n{OBJECTIVE}")
    with pytest.raises(StudyError, match=r"continual: \{new: \[code\]\}"):
        Study(tmp_path).continual()
    assert Study(tmp_path).continual_answer() is None
    assert "continual" not in Study(tmp_path).status()["steps"]


def test_status_of_a_table_of_continued_runs(tmp_path):
    study = table_study(tmp_path)
    assert study.status()["next"] == "continual"
    study.continual()
    found = study.status()
    assert found["next"] == "report"
    assert list(found["steps"]) == ["corpus", "continual", "report"]


# Trained from text

SECTION = """\
launch: {workers: 1}
continual:
  new: [digits]
  base: {mixture: {abc: 0.75, words: 0.25}}
  shares: [0, 0.2, 0.5, 1]
  horizon_steps: [10, 20]
  rewarm: [1, 0.5]
  sizes: [3k]
"""


@pytest.fixture(scope="module")
def continued_folder(tiny_folder, tmp_path_factory) -> Path:
    """The tiny study with a model continued, its swarm never designed. Copy before use."""
    pytest.importorskip("torch", reason="training needs torch")
    root = tmp_path_factory.mktemp("continued") / "study"
    shutil.copytree(tiny_folder, root)
    file = root / "study.yaml"
    file.write_text(file.read_text() + SECTION)
    Study(root).continual()
    return root


@pytest.fixture
def continued_study(continued_folder, tmp_path) -> Path:
    return Path(shutil.copytree(continued_folder, tmp_path / "study"))


def continuing(folder) -> Continuing:
    study = Study(folder)
    assert study.config.continual is not None
    return Continuing(study._own_runs, study.config.continual)


def test_the_base_and_what_continues_it_are_what_was_asked_for(continued_folder):
    made = continuing(continued_folder)
    (base,) = made.bases().values()
    assert base.keep
    assert dict(base.mixture) == {"abc": 0.75, "words": 0.25}
    assert base.horizon_tokens == (40 * 32,)
    specs = made.continued()
    assert len(specs) == 4 * 2
    assert {spec.seed for spec in specs}.isdisjoint({base.seed})
    assert {spec.start.rewarm for spec in specs if spec.start} == {1.0, 0.5}
    assert not any(spec.keep for spec in specs)
    # What is replayed is composed as the base was.
    half = next(spec for spec in specs if spec.label.startswith("0.5"))
    assert half.mixture == Mixture({"abc": 0.375, "words": 0.125, "digits": 0.5})
    runs = RunTable.read(continued_folder / "continual.csv")
    assert sorted(set(runs.train_tokens)) == [320, 640]
    assert set(runs.role) == {"continued"}


def test_step_0_of_a_continued_run_is_the_end_of_its_base(continued_folder):
    made = continuing(continued_folder)
    (base,) = made.bases().values()
    ended = made.own.store.load(base).targets[-1]
    runs = RunTable.read(continued_folder / "continual.csv")
    for target, loss in ended.items():
        started = runs.start[:, runs.targets.index(target)]
        np.testing.assert_array_equal(started, loss)


def test_new_data_helps_the_new_and_less_replay_harms_the_old(continued_folder):
    found = Study(continued_folder).continual()
    share, losses = found.seen(found.main.setting)
    first, last = share == 0, share == 1
    assert losses["bpb/digits"][last] < losses["bpb/digits"][first]
    assert losses["bpb/abc"][last] > losses["bpb/abc"][first]
    # One of neither side is fitted where the objective names it.
    assert set(found.laws.targets) == {"bpb/abc", "bpb/words", "bpb/digits", "bpb/mixed"}
    assert found.main.setting.rewarm == 1.0
    assert len(found.moves) == 2 * 2


def test_twice_is_once(continued_study):
    before = {p: p.stat().st_mtime_ns for p in continued_study.rglob("run.json")}
    answer = (continued_study / "continual.json").read_bytes()
    table = (continued_study / "continual.csv").read_bytes()
    Study(continued_study).continual()
    assert {p: p.stat().st_mtime_ns for p in continued_study.rglob("run.json")} == before
    assert (continued_study / "continual.json").read_bytes() == answer
    assert (continued_study / "continual.csv").read_bytes() == table


def test_the_model_of_the_base_may_be_deleted_once_it_was_continued(continued_study, tmp_path):
    (base,) = continuing(continued_study).bases().values()
    moved = Path(shutil.move(continued_study, tmp_path / "moved"))
    (moved / "runs" / base.run_id / "model.safetensors").unlink()
    answer, table = (moved / "continual.json").read_bytes(), (moved / "continual.csv").read_bytes()
    assert Study(moved).status()["steps"]["continual"] == "continual.json"
    assert continuing(moved).trained() is not None
    Study(moved).continual()
    assert not list(moved.rglob("model.safetensors"))
    assert (moved / "continual.json").read_bytes() == answer
    assert (moved / "continual.csv").read_bytes() == table


def test_another_model_in_its_place_is_another_base(continued_study):
    """What the study remembers never hides a file that is there."""
    made = continuing(continued_study)
    (base,) = made.bases().values()
    model = continued_study / "runs" / base.run_id / "model.safetensors"
    digest = model_facts(model).digest
    model.write_bytes(model.read_bytes().replace(digest.encode(), b"0" * len(digest), 1))
    assert made.trained() is None
    assert Study(continued_study).continual_answer() is None


def test_a_base_is_read_once_for_each_size(continued_study, monkeypatch):
    read = []

    def counted(place, **settings):
        read.append(place)
        return start_from(place, **settings)

    monkeypatch.setattr("mixlaw.study.continuing.start_from", counted)
    assert len(continuing(continued_study).continued()) == 4 * 2
    assert len(read) == 1


def test_what_was_lost_is_trained_again_to_the_same_table(continued_study):
    made, table = continuing(continued_study), (continued_study / "continual.csv").read_bytes()
    (base,) = made.bases().values()
    runs = continued_study / "runs"
    shutil.rmtree(runs / made.continued()[2].run_id)
    (runs / base.run_id / "model.safetensors").unlink()
    assert Study(continued_study).continual_answer() is None
    Study(continued_study).continual()
    assert (continued_study / "continual.csv").read_bytes() == table


def test_edited_settings_make_the_answer_stale_and_train_only_what_is_new(continued_study):
    assert Study(continued_study).status()["steps"]["continual"] == "continual.json"
    assert Study(continued_study).status()["next"] == "report"
    before = set(continued_study.glob("runs/*/run.json"))
    edit(continued_study, "[0, 0.2, 0.5, 1]", "[0, 0.2, 0.35, 0.5, 1]")
    assert Study(continued_study).status()["next"] == "continual"
    found = Study(continued_study).continual()
    assert found.laws.trained.num_shares == 5
    assert len(set(continued_study.glob("runs/*/run.json")) - before) == 2


def test_a_model_kept_elsewhere_gives_the_same_runs(continued_study):
    made = continuing(continued_study)
    (base,) = made.bases().values()
    own = [spec.run_id for spec in made.continued()]
    kept = continued_study / "kept.safetensors"
    shutil.copy(continued_study / "runs" / base.run_id / "model.safetensors", kept)
    edit(continued_study, "{mixture: {abc: 0.75, words: 0.25}}", "{checkpoint: kept.safetensors}")
    edit(continued_study, "  sizes: [3k]\n", "  sizes: [3k]\n  old_mixture: {abc: 3, words: 1}\n")
    with pytest.raises(StudyError, match=r"old_mixture\.abc"):
        Study(continued_study)
    edit(continued_study, "{abc: 3, words: 1}", "{abc: 0.75, words: 0.25}")
    again = continuing(continued_study)
    assert again.bases() == {}
    assert [spec.run_id for spec in again.continued()] == own
    Study(continued_study).continual()
    edit(continued_study, "  sizes: [3k]", "  sizes: [6k]")
    with pytest.raises(MixlawError, match=r"is of another size .*num_layers 1, not 2"):
        Study(continued_study).continual()
    kept.unlink()
    with pytest.raises(MixlawError, match=r"has no file kept.safetensors"):
        Study(continued_study).continual()


def test_a_base_that_diverges_is_named(tiny_study):
    pytest.importorskip("torch", reason="training needs torch")
    edit(
        tiny_study,
        "3k: {width: 16, layers: 1}",
        "3k: {width: 16, layers: 1, learning_rate: 1.0e+18}",
    )
    file = tiny_study / "study.yaml"
    file.write_text(file.read_text() + SECTION)
    with pytest.raises(StudyError, match=r"base of size 3k diverged .*sizes.3k.learning_rate"):
        Study(tiny_study).continual()


def test_a_study_that_also_designs_a_swarm_has_all_steps(continued_study):
    study = Study(continued_study)
    assert study.only_continual
    study.design()
    assert not study.only_continual
    steps = study.status()["steps"]
    assert list(steps)[-2:] == ["continual", "report"]
    assert steps["continual"] == "continual.json"
    assert study.status()["next"] == "train"


def test_the_base_is_of_natural_old_text_by_default(continued_study):
    edit(continued_study, "  base: {mixture: {abc: 0.75, words: 0.25}}\n", "")
    made = continuing(continued_study)
    (base,) = made.bases().values()
    natural = Mixture.natural([d for d in made.own.domains() if d.name != "digits"])
    assert {name: base.mixture[name] for name in natural} == pytest.approx(dict(natural))
    assert base.mixture["digits"] == 0
    assert base.role == BASE


def test_shares_of_the_table_are_those_of_the_study():
    assert sorted({round(row["weight/code"], 6) for row in continued_rows()}) == list(SHARES)
